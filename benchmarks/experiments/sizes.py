"""Times sizes from 16 elements to 2^26, forward and forward with backward, in every framework and mode."""

from __future__ import annotations

from collections.abc import Iterator

from ..frameworks import Case, Framework
from ..measure import Effort
from ..workers import Job
from . import Event, describe_case, timed

EXPONENTS = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)
QUICK_EXPONENTS = (4, 16, 20)

describe = describe_case


def cases(framework: Framework, job: Job) -> list[Case]:
    """Matrices with powers of two as sides, square or twice as high as wide."""
    exponents = QUICK_EXPONENTS if job.quick else EXPONENTS
    return [Case((2 ** -(-e // 2), 2 ** (e // 2)), mode=mode) for mode in framework.modes for e in exponents]


def measure(framework: Framework, case: Case, job: Job) -> Iterator[Event]:
    """Measures one size."""
    # Large tensors need many rounds, because their times depend on what else uses the machine's memory. But one round
    # of the largest takes seconds.
    fewest = 5 if case.size > 2**24 else 21
    effort = Effort(0.3, 3, 5) if job.quick else Effort(0.7, fewest, 41)
    return timed(framework, case, effort)
