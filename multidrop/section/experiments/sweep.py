"""Runs experiments: the runs that are not there yet, and the results of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ... import checks, dispatch
from ..architecture import DTYPES
from ..data.fashion_mnist import FULL, load
from . import engine as engines
from .experiment import SCALES, Experiment, Measurements, Setting, named
from .progress import Progress
from .result import Facts, Result
from .runs import Run, Shelf


def run(
    name: str,
    *,
    data: str | Path = "auto",
    seeds: int = 5,
    backend: str | None = None,
    dtype: str = "float32",
    jobs: int | None = None,
    engine: str = "joblib",
    address: str | None = None,
    out: str | Path | None = None,
    scale: str | None = None,
) -> Result:
    """Runs one of the section's experiments.

    Args:
        name: the experiment, one of `names()`.
        data: "auto", "full", "mini" or a folder: see `multidrop.section.data.fashion_mnist.load`.
        seeds: the number of seeds, at least 2.
        backend: the backend's name; None takes the one that is set.
        dtype: "float32" or "float64".
        jobs: how many runs to compute at a time; None: as many as there are cores, or as the cluster has. It changes no
            result.
        engine: "joblib" (this machine), "dask" or "ray".
        address: the address of a Dask scheduler or a Ray cluster; None starts a local one.
        out: a folder that keeps each run when it is done, so that no run is computed twice; None keeps none.
        scale: "full", "mini" or "tiny", a glance that answers nothing; None: as the data is.

    Returns:
        The result, with means, comparisons, plot and answer.

    Raises:
        ValueError: for a bad argument.
        DataError: if the data is missing, truncated or altered.
        BackendError: if the backend's framework is not installed.
        ImportError: if the engine's package is not installed.
        RunError: if a run fails; the message names its setting and seed. Or if a worker process is killed.
        OSError: if `out` cannot be written.
    """
    return run_all([name], data=data, seeds=seeds, backend=backend, dtype=dtype, jobs=jobs, engine=engine,
                   address=address, out=out, scale=scale)[0]  # fmt: skip


def run_all(
    names: Sequence[str],
    *,
    data: str | Path = "auto",
    seeds: int = 5,
    backend: str | None = None,
    dtype: str = "float32",
    jobs: int | None = None,
    engine: str = "joblib",
    address: str | None = None,
    out: str | Path | None = None,
    scale: str | None = None,
) -> list[Result]:
    """Runs several experiments, sharing the workers. Args and errors are those of `run`."""
    experiments = [named(name) for name in names]
    seeds = checks.positive("seeds", seeds)
    if seeds < 2:
        raise ValueError(f"seeds: expected at least 2, because one run has no interval; got {seeds}")
    dtype = checks.choice("dtype", dtype, DTYPES)
    backend = dispatch.load(dispatch.get_backend() if backend is None else backend).name
    images = load(data)
    edition = "full" if images.edition is FULL else "mini"
    place = edition if data in ("auto", "full", "mini") else str(checks.path("data", data).absolute())
    scale = edition if scale is None else checks.choice("scale", scale, SCALES)
    shelf = None if out is None else Shelf(out)
    plans = []
    for experiment in experiments:
        facts = Facts(seeds, images.edition.name, backend, dispatch.load(backend).version, dtype,
                      experiment.scales[scale], images.edition.examples)  # fmt: skip
        digest = hashlib.blake2b(json.dumps(images.edition.digests, sort_keys=True).encode(), digest_size=8).hexdigest()
        plans.append((experiment, facts, runs_of(experiment, facts, place, digest)))
    found = _computed([each for _, _, runs in plans for each in runs], shelf, jobs, engine, address)
    return [
        Result(experiment, facts, {(each.setting, each.seed): found[each.digest] for each in runs})
        for experiment, facts, runs in plans
    ]


def runs_of(experiment: Experiment, facts: Facts, data: str, digest_of_data: str) -> list[Run]:
    """All runs of an experiment: each setting with each seed."""

    def run_of(setting: Setting, seed: int) -> Run:
        return Run(experiment.name, experiment.version, setting.name, dict(setting.values), seed, dict(facts.scale),
                   data, digest_of_data, facts.backend, facts.framework, facts.dtype)  # fmt: skip

    return [run_of(setting, seed) for setting in experiment.settings(facts.scale) for seed in range(facts.seeds)]


def _computed(
    runs: Sequence[Run], shelf: Shelf | None, jobs: int | None, engine: str, address: str | None
) -> dict[str, Measurements]:
    """The measurements of runs by digest: those that are kept, and the others as they get done."""
    runs = list({each.digest: each for each in runs}.values())  # an experiment may be named twice
    kept = {} if shelf is None else {each.digest: shelf.get(each) for each in runs}
    found: dict[str, Any] = {digest: measurements for digest, measurements in kept.items() if measurements is not None}
    results = engines.results([each for each in runs if each.digest not in found], jobs, engine, address)
    with closing(results), Progress(len(runs), len(found)) as progress:
        try:
            for each, measurements in results:
                if shelf is not None:
                    shelf.put(each, measurements)
                found[each.digest] = measurements
                progress.done(each)
        except KeyboardInterrupt:
            if shelf is None:
                done, where = len(found), "none is kept"
            else:
                done = sum(shelf.path(each).exists() for each in runs)
                where = f"they are kept in {shelf.folder}; the same command goes on"
            raise KeyboardInterrupt(f"interrupted: {done} of {len(runs)} runs are done; {where}") from None
    return found
