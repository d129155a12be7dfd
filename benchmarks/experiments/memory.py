"""Measures the bytes that a dropout keeps for its backward pass: by the framework's own accounting, if it has one, and
by the memory in use after a chain of dropouts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..frameworks import OURS, OWN, SECTION, Case, Framework
from ..workers import Job
from . import Event, describe_case

DEPTHS = (1, 5)
STEADY, MOST = 3, 12  # chains

PARTS = (OURS, OWN, SECTION)
"""The candidates. Each runs in its own process, whose allocator no other candidate has used."""


def cases(framework: Framework, job: Job) -> list[tuple[str, Case]]:
    """The candidate of the job, with the case."""
    if framework.name == "numpy":  # NumPy keeps nothing by itself
        return []
    case = Case((1024, 1024) if job.quick else (2048, 2048))
    return [(job.part, case)]


def describe(case: tuple[str, Case]) -> str:
    """Describes a case."""
    return f"{case[0]}, {describe_case(case[1])}"


def measure(framework: Framework, case: tuple[str, Case], job: Job) -> Iterator[Event]:
    """Measures one candidate."""
    who, dropped = case
    accounted = framework.accounted(who, dropped)
    size = dropped.size * 4
    record: dict[str, Any] = {
        "framework": framework.name,
        "who": who,
        "case": dropped.to_dict(),
        "tensor": size,
        "accounted": accounted,
        "held": _held(framework, who, dropped),
    }
    yield "record", record


def _held(framework: Framework, who: str, case: Case) -> float | None:
    """Bytes per dropout of a chain, not counting the chain's own output, which every candidate keeps. None if the
    memory of one more chain does not become constant."""
    waiting: list[tuple[Any, Callable[[Any], Any]]] = []  # keeps all chains: an allocator may not return freed memory
    growth = [_growth(framework, *framework.chain(who, depth, case), waiting) for depth in DEPTHS]
    while waiting:
        kept, backward = waiting.pop()
        backward(kept)
    framework.synchronise()
    short, long = growth
    return None if short is None or long is None else (long - short) / (DEPTHS[1] - DEPTHS[0])


def _growth(
    framework: Framework, forward: Callable[[], Any], backward: Callable[[Any], Any], waiting: list[Any]
) -> float | None:
    """Bytes that one more chain holds until its backward pass. Measured after enough chains for the number to be
    constant, because the first chains start threads, compile, and use memory that the allocator had already."""
    in_use: list[int] = []
    for _ in range(MOST):
        waiting.append((forward(), backward))
        in_use.append(_in_use(framework))
        growth = np.diff(in_use[-STEADY - 1 :])
        if len(growth) == STEADY and growth.min() > 0 and growth.max() < 1.05 * growth.min():
            return float(np.median(growth))
    return None


def _in_use(framework: Framework) -> int:
    framework.synchronise()
    gc.collect()
    return framework.in_use()
