"""A process for each framework: one that is missing or dies takes no other with it, and the number of threads, which
most frameworks read once, can differ from one to the next."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

THREAD_VARIABLES = (
    "MULTIDROP_NUM_THREADS",
    "OMP_NUM_THREADS",  # torch and MXNet
    "TF_NUM_INTRAOP_THREADS",
)


@dataclass(frozen=True)
class Job:
    """An experiment in one framework.

    Args:
        experiment: a module of `experiments`, which has `cases(framework, job)` and `measure(framework, case, job)`.
        framework: one of `frameworks.NAMES`.
        device: "cpu" or "gpu".
        threads: how many to compute with; None: as many as the framework, and multidrop, take by themselves.
        quick: small sizes and few rounds, to see that all of it runs.
        part: which of its cases, where an experiment has parts.
    """

    experiment: str
    framework: str
    device: str
    threads: int | None
    quick: bool
    part: str = ""


@dataclass
class Outcome:
    """What came of a job: its records, and what failed, as text."""

    records: list[dict[str, Any]]
    failures: list[str]
    left_out: str = ""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int | None:
    """The number of threads of the job that this process does; None: it is left to the framework."""
    text = os.environ.get(THREAD_VARIABLES[0])
    return int(text) if text else None


def perform(job: Job, total: Callable[[int], None], advance: Callable[[str], None]) -> Outcome:
    """Does a job in a process of its own.

    Args:
        job: what to do.
        total: called with the number of cases.
        advance: called with what is measured next.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    outcome = Outcome([], [])
    log = tempfile.NamedTemporaryFile("r", suffix=".log")  # noqa: SIM115  # closed below
    variables = dict.fromkeys(THREAD_VARIABLES, str(job.threads) if job.threads else None)
    if job.experiment == "memory":
        variables["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # so that glibc gives back at once what is freed
    with _environment(variables):
        process = context.Process(target=_work, args=(job, theirs, log.name))
        process.start()
    theirs.close()
    label = "before its first case"
    try:
        while True:
            kind, value = ours.recv()
            if kind == "total":
                total(value)
            elif kind == "case":
                label = value
                advance(value)
            elif kind == "record":
                outcome.records.append(value)
            elif kind == "left out":
                outcome.left_out = value
            else:
                outcome.failures.append(value)
    except EOFError:
        process.join()
    finally:
        if process.is_alive():  # this one was interrupted
            process.terminate()
    if process.exitcode:
        said = "".join(log.readlines()[-5:])
        outcome.failures.append(f"{job.framework}: the process ended with {process.exitcode} at {label}: {said}")
    log.close()
    return outcome


@contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """With these variables; without those that are None."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _work(job: Job, pipe: Connection, log: str) -> None:
    """The job, in its process."""
    from . import frameworks

    # The frameworks' greetings and warnings would break the progress bar.
    with open(log, "w") as file:
        os.dup2(file.fileno(), 2)
    try:
        framework = frameworks.load(job.framework, job.device)
    except Exception as error:  # a missing framework is an ImportError; a broken one fails in any way it likes
        pipe.send(("left out", f"{type(error).__name__}: {error}".splitlines()[0]))
        return
    experiment = importlib.import_module(f"benchmarks.experiments.{job.experiment}")
    cases = experiment.cases(framework, job)
    pipe.send(("total", len(cases)))
    for case in cases:
        label = f"{job.framework}, {experiment.describe(case)}"
        pipe.send(("case", label))
        try:
            for kind, value in experiment.measure(framework, case, job):
                pipe.send((kind, f"{label}: {value}" if kind == "failure" else value))
        except Exception:  # the other cases are still worth their time
            pipe.send(("failure", f"{label}: {traceback.format_exc(limit=-3)}"))
