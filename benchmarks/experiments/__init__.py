"""The experiments. Each module but `startup` has `cases`, `describe` and `measure`, which `workers` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..frameworks import COPY, EAGER, OURS, Candidate, Case, Framework, check
from ..measure import Effort, compare, quartiles, ratio

Event = tuple[str, Any]  # ("record", a dictionary for the results) or ("failure", why)

BACKWARD = " with backward"


def timed(framework: Framework, case: Case, effort: Effort) -> Iterator[Event]:
    """Times all candidates of a case against each other, forward and forward with backward. Gives one record."""
    return compared(framework, case, framework.candidates(case), OURS, effort)


def compared(
    framework: Framework, case: Case, builders: Mapping[str, Callable[[], Candidate]], ours: str, effort: Effort
) -> Iterator[Event]:
    """Times the candidate `ours` against the others, forward and forward with backward. Gives one record."""
    calls = {}
    for who, build in builders.items():
        try:
            candidate = build()
            check(framework, who, candidate, case)
        except Exception as error:  # such as a type that the candidate does not support: reported, not fatal
            yield "failure", f"{who}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"
            continue
        calls[who] = candidate.forward
        calls[who + BACKWARD] = candidate.both
    if not calls:
        return
    seconds = compare(calls, framework.synchronise, effort)
    pairs = [(ours + way, who) for way in ("", BACKWARD) for who in calls if who.endswith(BACKWARD) == bool(way)]
    pairs += [(who + BACKWARD, who) for who in calls if who + BACKWARD in calls and who != COPY]
    yield (
        "record",
        {
            "framework": framework.name,
            "case": case.to_dict(),
            "rounds": len(next(iter(seconds.values()))),
            "seconds": {name: quartiles(values) for name, values in seconds.items()},
            "ratios": {
                f"{above} / {below}": ratio(seconds, above, below)
                for above, below in pairs
                if above in seconds and above != below
            },
        },
    )


def describe_case(case: Case) -> str:
    """Describes a case for the progress bar and the list of failures."""
    words = [f"{case.size:,} elements", f"p = {case.p}", case.dtype]
    words += [word for word in (case.mode, case.layout) if word not in (EAGER, "contiguous")]
    return ", ".join(words)
