"""Times the section's training run, end to end: data, steps and tests. The nets differ in the implementation of
dropout; the loop is multidrop's, or the section's own."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import multidrop as md

from ..frameworks import APART, NONE, OURS, OWN, SECTION, Framework
from ..measure import quartiles, ratio
from ..workers import Job
from . import Event

BATCH_SIZE, LEARNING_RATE = 256, 0.5  # the section's
EPOCHS, ROUNDS = 10, 3
QUICK_EPOCHS, QUICK_ROUNDS = 5, 1
IN_LOOP = " in the section's loop"
PLAUSIBLE = 0.3  # the least test accuracy, for ten classes, of a net that learns at all


def cases(framework: Framework, job: Job) -> list[str]:
    """A single case, because all runs are interleaved."""
    return ["training"]


def describe(case: str) -> str:
    """Describes the case."""
    return case


def measure(framework: Framework, case: str, job: Job) -> Iterator[Event]:
    """Times each run once per round, from its first batch to its last test."""
    epochs, rounds = (QUICK_EPOCHS, QUICK_ROUNDS) if job.quick else (EPOCHS, ROUNDS)
    md.set_backend(framework.name)
    with framework.scope():
        train_iter, test_iter = md.load_data_fashion_mnist(BATCH_SIZE, "mini" if job.quick else "auto", seed=0)
        runs = dict(_runs(framework))
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        accuracies: dict[str, list[float]] = {name: [] for name in runs}
        yield "total", 1 + rounds * len(runs)
        small = md.load_data_fashion_mnist(BATCH_SIZE, "mini", seed=0)
        for run in runs.values():  # compiles and warms up
            run(*small, 1)
        for number in range(rounds):
            names = list(runs)[number % len(runs) :] + list(runs)[: number % len(runs)]
            for name in names:
                yield "case", f"{framework.name}, training, {name}"
                train_iter.epoch = 0
                gc.collect()
                begin = time.perf_counter()
                accuracies[name].append(runs[name](train_iter, test_iter, epochs))
                framework.synchronise()
                seconds[name].append(time.perf_counter() - begin)
    for name, values in accuracies.items():
        if min(values) < PLAUSIBLE:
            yield "failure", f"{name}: expected a test accuracy of at least {PLAUSIBLE}; got {min(values):.3f}"
    yield (
        "record",
        {
            "framework": framework.name,
            "data": train_iter.source,
            "epochs": epochs,
            "rounds": rounds,
            "accuracy": {name: quartiles(values) for name, values in accuracies.items()},
            "seconds": {name: quartiles(values) for name, values in seconds.items()},
            "ratios": {f"{OURS} / {name}": ratio(seconds, OURS, name) for name in runs if name != OURS},
        },
    )


def _runs(framework: Framework) -> Iterator[tuple[str, Callable[[Any, Any, int], float]]]:
    """The training runs: each net with `md.train`, and the section's own nets also in its loop."""
    nets = framework.nets()

    def by_us(build: Callable[[], Any]) -> Callable[[Any, Any, int], float]:
        return lambda train_iter, test_iter, epochs: (
            md.train(build(), train_iter, test_iter, epochs, LEARNING_RATE).epochs[-1].test_accuracy
        )

    def by_section(build: Callable[[], Any]) -> Callable[[Any, Any, int], float]:
        return lambda train_iter, test_iter, epochs: framework.train_as_in_section(
            build(), train_iter, test_iter, epochs, LEARNING_RATE
        )

    for who in (OURS, APART, OWN, NONE):
        if who in nets:
            yield who, by_us(nets[who])
    for who in (SECTION, OWN):
        if who in nets:
            yield who + IN_LOOP, by_section(nets[who])
