"""The benchmark of the kernels for GPUs runs, also where there is no GPU to measure."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="it compares with torch's own dropout")
ROOT = Path(__file__).parents[1]
# torch's own, when its compiler is imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
FOLDERS = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))


@pytest.mark.parametrize("command", [["benchmarks/gpu.py"], ["-m", "benchmarks", "gpu", "--out"]], ids=str)
def test_without_a_gpu(command: list[str], tmp_path: Path) -> None:
    out, environment = tmp_path / "new" / "gpu.json", os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": FOLDERS}
    done = subprocess.run(
        [sys.executable, *command, out], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *rows = done.stdout.splitlines()
    assert first == "no GPU: not measured"
    assert len(rows) == 22
    assert all(row.endswith("not measured") for row in rows)
    result = json.loads(out.read_text())
    assert result["left_out"] == first
    assert not [record for record in result["records"] if "seconds" in record or "bytes" in record]
    page = out.with_suffix(".md").read_text()
    assert first in page
    assert page.count("| – |") == len(rows)


def test_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tree that runs: a copy says that it does not know, also within another repository."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import machine

    assert machine.facts("cpu", "v1")["commit"] == "v1"
    copy = tmp_path / "copy" / "benchmarks"
    copy.mkdir(parents=True)
    monkeypatch.setattr(machine, "__file__", str(copy / "machine.py"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C"]
    for repository, known in ((None, False), (tmp_path, False), (tmp_path / "copy", True)):
        if repository:
            subprocess.run([*git, repository, "init", "-q"], check=True)
            subprocess.run([*git, repository, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
        assert (machine.facts("cpu")["commit"] != "unknown") == known


class Event:
    """An event that the host's clock times."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


@pytest.fixture
def frozen() -> Iterator[None]:
    """Keeps the objects of other tests from the garbage collector, which each measurement runs: looking through them
    takes a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
def test_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, small and on the host."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import gpu, measure

    cuda: dict[str, Any] = {"is_available": lambda: True, "current_device": lambda: 0, "synchronize": lambda: None}
    for name, stand_in in (cuda | {"Event": Event, "_sleep": lambda cycles: None}).items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr("multidrop_torch.gpu.ready", lambda index: True)
    small = {"PLACE": "cpu", "SIZES": (2**9, 2**10), "LARGE": 2**10, "IMAGES": (2, 3, 4, 5), "SMALL": ((16,), (4, 4))}
    for name, value in (small | {"EFFORT": measure.Effort(0.0, 2, 200), "SAMPLE": 1e-5, "CALLS": 1}).items():
        monkeypatch.setattr(gpu, name, value)
    models = {"BLOCKS": 1, "WIDTH": 24, "HEADS": 2, "BATCH": 2, "TOKENS": 8, "WORDS": 16, "EXAMPLES": 4, "KEPT": 2**10}
    for name, value in (models | {"compiled": lambda run: run}).items():
        monkeypatch.setattr(gpu.gpu_models, name, value)
    assert gpu.run(tmp_path / "gpu.json") == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert len(result["records"]) == 2 * (2 * 2 + 2 + 2) + 2 * 5 + 2 + 2
    timed = [record for record in result["records"] if "seconds" in record]
    assert all(record["rounds"] >= 2 for record in timed)
    assert all({record["base"], "multidrop", "torch"} <= set(record["seconds"]) for record in timed)
    (eager,) = (record for record in result["records"] if record["what"] == "eager")
    assert eager["bytes"]["multidrop"] == 0.0
    assert eager["bytes"]["torch"] > 0.0
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png"}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(gpu.judged(result))
    page = (tmp_path / "gpu.md").read_text()
    assert all(what in page for what, *_ in gpu.judged(result))


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged says whether it holds."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import gpu

    def record(dtype: str, size: str, what: str, base: str = "copy", **medians: float) -> dict[str, Any]:
        seconds = {name: {"median": each} for name, each in medians.items()}
        return {"dtype": dtype, "size": size, "what": what, "base": base, "seconds": seconds}

    result = {
        "machine": {"gpu": "a GPU"},
        "kernels": True,
        "records": [
            record("float32", "2^26", "forward", copy=0.96, multidrop=1.0, torch=2.0),
            record("bfloat16", "2^26", "forward", copy=0.96, multidrop=1.0, torch=2.0),
            record("float32", "2^26", "forward + backward", copy=1.0, multidrop=1.0, torch=1.3),
            record("bfloat16", "2^26", "compiled chain", "none", none=1.0, multidrop=1.0, torch=1.6),
            record("float32", "16", "layer, host", copy=1.0, multidrop=1.2, torch=1.0),
            record("bfloat16", "transformer", "training step", "none", none=0.9, multidrop=1.01, torch=1.0),
            {"dtype": "float32", "size": "9", "what": "eager", "bytes": {"multidrop": 0.0, "torch": 1.0}},
            {"dtype": "float32", "size": "9", "what": "compiled", "bytes": {"multidrop": 0.2, "torch": 1.0}},
        ],
    }
    held = [line.split()[-1] for line in gpu.table(result).splitlines()[1:]]
    assert held == ["NO", "yes", "yes", "NO", "yes", "NO", "yes", "NO"]


def test_wrong_masks_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "PLACE", "cpu")
    gpu.check()
    monkeypatch.setattr(gpu.functional, "dropout_layer", lambda X, *_, **__: X)
    with pytest.raises(RuntimeError, match="mask: expected the specification's"):
        gpu.check()


def test_every_chain_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile gives up a function that it has compiled eight times, and the benchmark has more chains."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import gpu_models

    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(gpu_models, "compiled", lambda run: torch.compile(run, backend=backend))
    for count in range(1, 5):
        for call in gpu_models.chain(64, torch.float32, 0.2, "cpu").values():
            call()
        assert len(graphs) == count * len(gpu_models.KINDS)
