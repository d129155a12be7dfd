"""Timing several calls against each other: interleaved rounds, medians with quartiles, and ratios taken round by
round, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]
Quartiles = dict[str, float]  # "median", "low" and "high"

SHORTEST, LONGEST = 3e-3, 20e-3  # seconds that a sample of a short call lasts, whatever the slowest call takes


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Args:
        seconds: what one comparison may take; the rounds are as many as fit in.
        fewest: rounds that are made whatever they take.
        most: rounds that are enough.
    """

    seconds: float
    fewest: int
    most: int


def compare(calls: Mapping[str, Call], synchronise: Call, effort: Effort) -> dict[str, list[float]]:
    """The seconds that each call takes, once for each round.

    Args:
        calls: what to time, by name. A call's result is given up at once.
        synchronise: waits for all work that calls have only begun.
        effort: how many rounds.
    """
    with _undisturbed():
        repeats = _calibrate(calls, synchronise)
        names, seconds = list(calls), {name: list[float]() for name in calls}
        begin = time.perf_counter()
        for number in range(effort.most):
            for name in _order(names, number):
                seconds[name].append(_sample(calls[name], synchronise, repeats[name]))
            gc.collect()  # what a framework's graphs left in cycles would otherwise fill the memory
            if number + 1 >= effort.fewest and time.perf_counter() - begin > effort.seconds:
                break
    return seconds


def _order(names: list[str], number: int) -> list[str]:
    """A rotation, every other one backwards: so that no call is always first, or always after the same one."""
    first = number % len(names)
    rotated = names[first:] + names[:first]
    return rotated[::-1] if number % 2 else rotated


def _calibrate(calls: Mapping[str, Call], synchronise: Call) -> dict[str, int]:
    """How often to repeat each call for a sample. A quick call's sample lasts as long as the slowest call, within
    limits: it costs a round little and says more."""
    for call in calls.values():  # compiling, and the first touch of everything
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
    """Seconds for one call, from `repeats` of them."""
    times = range(repeats)
    synchronise()
    begin = time.perf_counter()
    for _ in times:
        call()
    synchronise()
    return (time.perf_counter() - begin) / repeats


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without Python's garbage collector, but for the cycles that come from here on."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def quartiles(values: list[float]) -> Quartiles:
    """The median, with the quartiles below and above."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "low": float(low), "high": float(high)}


def ratio(seconds: Mapping[str, list[float]], above: str, below: str) -> Quartiles:
    """How many times as long `above` takes as `below`, from the ratios of all rounds."""
    return quartiles([a / b for a, b in zip(seconds[above], seconds[below], strict=True)])
