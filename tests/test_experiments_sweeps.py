"""Sweeps of experiments: a killed one goes on where it was, and the report is the same however it was computed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from multidrop.section.experiments.progress import Progress
from multidrop.section.experiments.runs import Run

SCRIPT = Path(__file__).parent / "sweeping.py"
RUNS = 14  # of the sweep in `sweeping`


def sweep(folder: Path, engine: str = "joblib", jobs: int = 2, kept: int = -1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder), engine, str(jobs), str(kept)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def report(folder: Path) -> dict[str, bytes]:
    """The files of a report by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def kept(folder: Path) -> dict[str, tuple[int, int]]:
    """The kept runs, with what tells whether a file was written again."""
    files = {path.name: path.stat() for path in (folder / "runs").iterdir()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in files.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The report of an uninterrupted sweep, one run at a time."""
    folder = tmp_path_factory.mktemp("expected")
    done = sweep(folder, jobs=1)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert (lines[0], lines[-1]) == (
        f"multidrop: 0 of {RUNS} runs done",
        f"multidrop: {RUNS} of {RUNS} runs done, 0:00:00 left",
    )
    assert len(lines) == RUNS + 1  # there are fewer runs than lines at most, and no warning
    assert len(kept(folder)) == RUNS
    files = report(folder)
    assert {"index.md", "index.tr.md", "report.html", "bishop.md", "bishop.tr.png", "bishop.json"} <= set(files)
    return files


def test_a_killed_sweep_goes_on(tmp_path: Path, expected: dict[str, bytes], pytestconfig: pytest.Config) -> None:
    """No finished run is computed twice, and the report is the same, byte for byte."""
    kills = pytestconfig.getoption("--sweep-kills")
    before: dict[str, tuple[int, int]] = {}
    for kill in range(kills):
        done = sweep(tmp_path, kept=min(kill % 3, RUNS - 1 - len(before)))
        assert done.returncode == -signal.SIGKILL, done.stderr
        now = kept(tmp_path) if (tmp_path / "runs").exists() else {}
        assert before.items() <= now.items()
        assert set(report(tmp_path)) == set()
        before = now
    assert len(before) < RUNS
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    assert before.items() <= kept(tmp_path).items()
    assert report(tmp_path) == expected


def test_few_lines_of_progress_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run("bishop", 1, "a", {}, 0, {}, "mini", "", "numpy", "", "float64")
    with Progress(1000, kept=500) as progress:
        for _ in range(500):
            progress.done(run)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "multidrop: 500 of 1,000 runs done"
    assert [line.partition(" runs")[0] for line in rest] == [
        f"multidrop: {done:,} of 1,000" for done in range(550, 1001, 50)
    ]
    assert rest[-1].endswith("done, 0:00:00 left")


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    done = sweep(tmp_path, kept=-2)
    assert done.returncode != 0
    assert f"interrupted: 1 of {RUNS} runs are done; they are kept in {tmp_path / 'runs'}" in done.stderr
    assert len(kept(tmp_path)) == 1


def test_a_worker_leaves_an_interruption_to_its_parent() -> None:
    """A terminal sends Ctrl-C to all processes; a worker that waits for a run would print a traceback."""
    code = f"""
import os, signal
from multidrop.section.experiments.runs import follow
follow({os.getpid()})
os.kill(os.getpid(), signal.SIGINT)
print("on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")


def test_a_killed_worker_ends_the_sweep_with_an_error_of_its_own(tmp_path: Path) -> None:
    """One that the command line shows in a line. The finished runs are kept."""
    done = sweep(tmp_path, kept=-3)
    assert done.returncode == 1
    *_, last = done.stderr.strip().splitlines()
    assert "RunError: the engine joblib failed: TerminatedWorkerError: A worker process" in done.stderr, last
    assert kept(tmp_path)


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_clusters_give_the_same_report(engine: str, tmp_path: Path, expected: dict[str, bytes]) -> None:
    pytest.importorskip(engine, reason="its extra is not installed")
    done = sweep(tmp_path, engine)
    assert done.returncode == 0, done.stderr
    assert report(tmp_path) == expected
