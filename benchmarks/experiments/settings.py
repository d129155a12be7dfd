"""Varies p, types, layouts, the number of threads, and the way to call a dropout, at a few sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..frameworks import Case, Framework
from ..measure import Effort, compare, quartiles, ratio
from ..workers import Job, cores
from . import Event, describe_case, timed

PROBABILITIES = (0.1, 0.2, 0.5, 0.9)
QUICK_PROBABILITIES = (0.2, 0.9)
IMAGES = (16, 64, 64, 64)  # (n, c, h, w), for the layouts
QUICK_IMAGES = (4, 16, 32, 32)
LARGE = (4096, 4096)  # for the threads: a small tensor is computed by one
SMALL = ((4, 4), (256, 256))  # for the ways to call: the overhead of a call dominates


@dataclass(frozen=True)
class Setting:
    """A case, and the setting that it varies."""

    question: str
    case: Case


def cases(framework: Framework, job: Job) -> list[Setting]:
    """All settings, in the job that uses every core; only that of the threads in the other jobs."""
    plain = Case((256, 1024) if job.quick else (2048, 2048))
    # In one mode only: `torch.compile` and XLA call the same kernels.
    plain = replace(plain, mode=framework.modes[0])
    settings = [Setting("threads", plain if job.quick else replace(plain, shape=LARGE))]
    if job.threads != cores():
        return settings
    probabilities = QUICK_PROBABILITIES if job.quick else PROBABILITIES
    settings += [Setting("p", replace(plain, p=p)) for p in probabilities]
    settings += [Setting("type", replace(plain, dtype=dtype)) for dtype in framework.dtypes]
    images = QUICK_IMAGES if job.quick else IMAGES
    settings += [Setting("layout", replace(plain, shape=images, layout=layout)) for layout in framework.layouts]
    return settings + [Setting("way", Case(shape)) for shape in SMALL]


def describe(setting: Setting) -> str:
    """Describes a setting."""
    return f"{setting.question}: {describe_case(setting.case)}"


def measure(framework: Framework, setting: Setting, job: Job) -> Iterator[Event]:
    """Measures one setting."""
    effort = Effort(0.3, 3, 5) if job.quick else Effort(2.0, 9, 41)
    answer = _ways if setting.question == "way" else timed
    for kind, value in answer(framework, setting.case, effort):
        if kind == "record":
            value |= {"question": setting.question, "threads": job.threads}
        yield kind, value


def _ways(framework: Framework, case: Case, effort: Effort) -> Iterator[Event]:
    """Times the ways to call a dropout against each other."""
    calls = framework.ways(case)
    seconds = compare(calls, framework.synchronise, effort)
    against = next((name for name in reversed(calls) if name.startswith("framework")), next(iter(calls)))
    yield (
        "record",
        {
            "framework": framework.name,
            "case": case.to_dict(),
            "rounds": len(seconds[against]),
            "against": against,
            "seconds": {name: quartiles(values) for name, values in seconds.items()},
            "ratios": {f"{name} / {against}": ratio(seconds, name, against) for name in calls},
        },
    )
