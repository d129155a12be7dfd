"""Runs a small sweep of experiments and writes its report, for `test_experiments_sweeps`. To be run as
`python sweeping.py FOLDER ENGINE JOBS KEPT`: it ends itself by SIGKILL where it has kept KEPT runs and is about to keep
one more; with KEPT −1 it goes on to the end. After its first run, KEPT −2 interrupts it as by Ctrl-C, and KEPT −3 kills
its workers."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

import multidrop as md
from multidrop.section.experiments import report, runs

NAMES = ("probabilities", "bishop", "random-labels")


def main(folder: Path, engine: str, jobs: int, kept: int) -> None:
    put, count = runs.Shelf.put, 0

    def put_or_end(self: runs.Shelf, run: runs.Run, measurements: object) -> None:
        nonlocal count
        if count == kept:
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, run, measurements)  # type: ignore[arg-type]
        count += 1
        if kept == -2:
            os.kill(os.getpid(), signal.SIGINT)
        if kept == -3:
            for process in get_reusable_executor(reuse=True)._processes.values():
                os.kill(process.pid, signal.SIGKILL)

    runs.Shelf.put = put_or_end  # type: ignore[method-assign]
    results = md.experiments.run_all(
        NAMES, data="mini", seeds=2, scale="tiny", jobs=jobs, engine=engine, out=folder, backend="numpy"
    )
    report.write(results, folder, ("en", "tr"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
