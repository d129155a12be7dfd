"""Times several calls against each other, in interleaved rounds, so that other load on the machine affects all of them
alike. Gives medians with quartiles, and ratios taken round by round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]
Quartiles = dict[str, float]  # "median", "low" and "high"

SHORTEST, LONGEST = 3e-3, 20e-3  # the limits, in seconds, for the duration of a sample of a short call


@dataclass(frozen=True)
class Effort:
    """How many rounds to measure.

    Args:
        seconds: the time for one comparison; it makes as many rounds as fit.
        fewest: the least number of rounds, however long they take.
        most: the largest number of rounds.
    """

    seconds: float
    fewest: int
    most: int


def compare(calls: Mapping[str, Call], synchronise: Call, effort: Effort) -> dict[str, list[float]]:
    """Times each call once per round.

    Args:
        calls: the calls, by name. Their results are discarded at once.
        synchronise: waits for work that the calls have started.
        effort: how many rounds to make.

    Returns:
        The seconds of each call, by name, one number per round.
    """
    with _undisturbed():
        repeats = _calibrate(calls, synchronise)
        return interleaved(calls, lambda name: _sample(calls[name], synchronise, repeats[name]), effort)


def interleaved(names: Iterable[str], sample: Callable[[str], float], effort: Effort) -> dict[str, list[float]]:
    """Takes one sample of each name per round. Returns the samples by name."""
    seconds = {name: list[float]() for name in names}
    begin = time.perf_counter()
    for number in range(effort.most):
        for name in _order(list(seconds), number):
            seconds[name].append(sample(name))
        gc.collect()  # frees the reference cycles that graphs of frameworks leave
        if number + 1 >= effort.fewest and time.perf_counter() - begin > effort.seconds:
            break
    return seconds


def _order(names: list[str], number: int) -> list[str]:
    """The order of a round: rotated, and reversed in every other round, so that no call is always first, or always
    after the same one."""
    first = number % len(names)
    rotated = names[first:] + names[:first]
    return rotated[::-1] if number % 2 else rotated


def _calibrate(calls: Mapping[str, Call], synchronise: Call) -> dict[str, int]:
    """How often to repeat each call in a sample: until it lasts as long as the slowest call, within limits. Longer
    samples are more precise, and up to this length hardly prolong a round."""
    for call in calls.values():  # compiles and warms up
        _sample(call, synchronise, 2)
    once = {name: _sample(call, synchronise, 1) for name, call in calls.items()}
    target = min(max(SHORTEST, *once.values()), LONGEST)
    repeats = {}
    for name, call in calls.items():
        count, seconds = 1, once[name]
        while seconds * count < 0.8 * target:
            count = min(10 * count, max(count + 1, round(target / seconds)))
            seconds = _sample(call, synchronise, count)
        repeats[name] = count
    return repeats


def _sample(call: Call, synchronise: Call, repeats: int) -> float:
    """The seconds per call, averaged over `repeats` calls."""
    times = range(repeats)
    synchronise()
    begin = time.perf_counter()
    for _ in times:
        call()
    synchronise()
    return (time.perf_counter() - begin) / repeats


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Disables automatic garbage collection, and exempts existing objects from the explicit collections."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def quartiles(values: list[float]) -> Quartiles:
    """The median, and the lower and upper quartile."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "low": float(low), "high": float(high)}


def ratio(seconds: Mapping[str, list[float]], above: str, below: str) -> Quartiles:
    """The time of `above` divided by that of `below`, from the ratios of all rounds."""
    return quartiles([a / b for a, b in zip(seconds[above], seconds[below], strict=True)])
