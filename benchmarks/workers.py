"""Runs each framework in its own process, so that a missing or crashing framework does not affect the others, and so
that the number of threads, which most frameworks read only once, can vary."""

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
        threads: the number of threads; None for the defaults of the framework and of multidrop.
        quick: whether to use small sizes and few rounds, to check that everything runs.
        part: the part of the experiment, if it has parts.
    """

    experiment: str
    framework: str
    device: str
    threads: int | None
    quick: bool
    part: str = ""


@dataclass
class Outcome:
    """The result of a job: its records, its failures as text, and the reason if the framework was left out."""

    records: list[dict[str, Any]]
    failures: list[str]
    left_out: str = ""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int | None:
    """The number of threads of this process's job; None for the framework's default."""
    text = os.environ.get(THREAD_VARIABLES[0])
    return int(text) if text else None


def perform(job: Job, total: Callable[[int], None], advance: Callable[[str], None]) -> Outcome:
    """Runs a job in a new process.

    Args:
        job: the job.
        total: called with the number of cases.
        advance: called with the description of each case when it begins.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    outcome = Outcome([], [])
    log = tempfile.NamedTemporaryFile("r", suffix=".log")  # noqa: SIM115  # closed below
    variables = dict.fromkeys(THREAD_VARIABLES, str(job.threads) if job.threads else None)
    if job.experiment == "memory":
        variables["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # makes glibc return freed memory to the system at once
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
        if process.is_alive():  # the parent process was interrupted
            process.terminate()
    if process.exitcode:
        said = "".join(log.readlines()[-5:])
        outcome.failures.append(f"{job.framework}: the process ended with {process.exitcode} at {label}: {said}")
    log.close()
    return outcome


@contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """Sets environment variables for a while; None unsets a variable."""
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
    """Runs the job; called in its process."""
    from . import frameworks

    # The frameworks' start-up messages and warnings would break the progress bar.
    with open(log, "w") as file:
        os.dup2(file.fileno(), 2)
    try:
        framework = frameworks.load(job.framework, job.device)
    except Exception as error:  # a missing framework raises an ImportError, a broken one may raise anything
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
        except Exception:  # reported; the other cases go on
            pipe.send(("failure", f"{label}: {traceback.format_exc(limit=-3)}"))
