"""Times ReLU and dropout in one pass against ReLU followed by dropout."""

from __future__ import annotations

from collections.abc import Iterator

from ..frameworks import FUSED, Case, Framework
from ..measure import Effort
from ..workers import Job
from . import Event, compared, describe_case

SHAPES = ((256, 256), (1024, 1024), (4096, 4096))
QUICK_SHAPES = ((256, 256),)

describe = describe_case


def cases(framework: Framework, job: Job) -> list[Case]:
    """Several sizes in each mode, with p = 0.5, the section's larger p."""
    shapes = QUICK_SHAPES if job.quick else SHAPES
    return [Case(shape, p=0.5, mode=mode) for mode in framework.modes for shape in shapes]


def measure(framework: Framework, case: Case, job: Job) -> Iterator[Event]:
    """Measures one size."""
    effort = Effort(0.3, 3, 5) if job.quick else Effort(1.0, 9, 41)
    return compared(framework, case, framework.rectified(case), FUSED, effort)
