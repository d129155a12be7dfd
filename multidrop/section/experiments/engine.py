"""Computes runs in worker processes: on this machine by joblib, or on a cluster of Dask or Ray.

Each run has a worker process with one thread to itself, even where there is one job, so that neither the number of jobs
nor the engine changes a bit of its result.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ... import checks
from ..needs import section_extra
from .experiment import Measurements
from .runs import Run, RunError, compute_alone, follow

ENGINES = ("joblib", "dask", "ray")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(
    runs: Sequence[Run], jobs: int | None = None, engine: str = "joblib", address: str | None = None
) -> Generator[tuple[Run, Measurements], None, None]:
    """Computes runs, and yields each with its measurements as soon as it is done.

    Args:
        runs: the runs.
        jobs: how many run at a time; None: as many as there are cores, or as the cluster has.
        engine: "joblib", "dask" or "ray".
        address: the address of a Dask scheduler or a Ray cluster; None starts a local one.

    Raises:
        ValueError: for a bad number of jobs or an unknown engine, or an address without a cluster.
        ImportError: if the engine's package is not installed.
        RunError: if a run fails; or the engine, as when a worker process is killed.
    """
    jobs = None if jobs is None else checks.positive("jobs", jobs)
    engine = checks.choice("engine", engine, ENGINES)
    if address is not None and engine == "joblib":
        raise ValueError(f"address: expected the engine dask or ray with it; got the engine joblib and {address!r}")
    return _results(runs, jobs, engine, address)


def _results(
    runs: Sequence[Run], jobs: int | None, engine: str, address: str | None
) -> Generator[tuple[Run, Measurements], None, None]:
    if not runs:
        return
    with _CLUSTERS[engine](jobs, address) as (workers, in_flight):
        try:
            yield from (_in_turns if engine == "ray" else _as_done)(runs, workers, in_flight)
        except RunError:
            raise
        except Exception as error:  # such as a worker that was killed; each engine has its own
            raise RunError(f"the engine {engine} failed: {type(error).__name__}: {error}") from error


def _as_done(runs: Sequence[Run], workers: int, in_flight: Any) -> Generator[tuple[Run, Measurements], None, None]:
    with section_extra("an experiment"):
        from joblib import Parallel, delayed

    parallel = Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch=in_flight)
    results = parallel(delayed(compute_alone)(run) for run in runs)
    try:
        for found in results:  # noqa: UP028  # `yield from` would close it before warnings are off
            yield found
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of the runs that an interruption cancels
            results.close()


def _in_turns(runs: Sequence[Run], workers: int, in_flight: int) -> Generator[tuple[Run, Measurements], None, None]:
    """For Ray, from which joblib returns results only when all are there."""
    with section_extra("an experiment"):
        from joblib import Parallel, delayed

    for i in range(0, len(runs), in_flight):
        yield from Parallel(workers)(delayed(compute_alone)(run) for run in runs[i : i + in_flight])


@contextmanager
def _on_this_machine(jobs: int | None, address: None) -> Iterator[tuple[int, int]]:
    from joblib import parallel_config

    jobs = jobs or cores()
    with parallel_config("loky", inner_max_num_threads=1, initializer=follow, initargs=(os.getpid(),)):
        # For one worker joblib would compute in this process, whose libraries have their threads already.
        yield max(2, jobs), jobs


@contextmanager
def _on_dask(jobs: int | None, address: str | None) -> Iterator[tuple[int, Any]]:
    with section_extra("the engine dask", "dask"):
        from distributed import Client, LocalCluster
    from joblib import parallel_config

    with ExitStack() as stack:
        if address is None:
            cluster = LocalCluster(n_workers=jobs or cores(), threads_per_worker=1, dashboard_address=None)
            stack.enter_context(cluster)
            client = Client(cluster)
        else:
            client = Client(address)
        stack.enter_context(client)
        stack.enter_context(parallel_config("dask", client=client, wait_for_workers_timeout=60))
        yield jobs or -1, "2*n_jobs"


@contextmanager
def _on_ray(jobs: int | None, address: str | None) -> Iterator[tuple[int, int]]:
    with section_extra("the engine ray", "ray"):
        import ray
        from ray.util.joblib import register_ray
    from joblib import parallel_config

    options: dict[str, Any] = {"num_cpus": jobs or cores()} if address is None else {"address": address}
    ray.init(**options, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        register_ray()
        workers = jobs or int(ray.cluster_resources()["CPU"])
        with parallel_config("ray"):
            yield workers, 4 * workers
    finally:
        ray.shutdown()


_CLUSTERS: dict[str, Any] = {"joblib": _on_this_machine, "dask": _on_dask, "ray": _on_ray}
