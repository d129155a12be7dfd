"""Training: agreement across frameworks, history, and going on after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.section import checkpoint as checkpoints
from multidrop.section.history import Epoch


def run(build: Callable[..., Any] = md.Net, epochs: int = 2, dtype: str = "float64", **options: Any) -> Any:
    """A run on the mini set in the backend in force: history and net."""
    md.manual_seed(1)
    train_iter, test_iter = md.load_data_fashion_mnist(256, "mini", dtype=dtype)
    net = build(dtype=dtype)
    return md.train(net, train_iter, test_iter, epochs, 0.1, **options), net


@pytest.fixture(scope="module")
def reference() -> Any:
    with md.use_backend("numpy"):
        return run(weight_decay=1e-3)[0]


@pytest.mark.parametrize("build", [md.Net, md.concise_net], ids=["from-scratch", "concise"])
def test_runs_agree_across_frameworks(backend: Any, build: Callable[..., Any], reference: md.History) -> None:
    """In float64, with equal weights, batches and masks, and a learning rate that float32 cannot hold."""
    history, _ = run(build, weight_decay=1e-3)
    for ours, theirs in zip(history.epochs, reference.epochs, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-11)
        assert ours.train_accuracy == theirs.train_accuracy
        assert ours.test_accuracy == theirs.test_accuracy


def test_full_set(backend: Any, full_data: None) -> None:
    """One epoch of the section's run on the real set, as the command line makes it."""
    md.manual_seed(0)
    train_iter, test_iter = md.load_data_fashion_mnist(256, "full")
    history = md.train(md.Net(), train_iter, test_iter, num_epochs=1)
    assert "60,000" in history.settings["data"]
    assert history.epochs[0].test_accuracy > 0.6
    assert history.epochs[0].train_loss == pytest.approx(1.1377, abs=0.02)


def test_weight_decay_spares_biases(backend: Any) -> None:
    md.manual_seed(0)
    net = md.Net(num_inputs=4, num_hiddens1=4, num_hiddens2=4, num_outputs=2, dtype="float64")
    state = backend.get_state(net)
    state["b1"] += 1.0
    backend.set_state(net, state)
    X, y = backend.tensor(np.zeros((2, 4))), backend.tensor(np.array([0, 1]))
    backend.Trainer(net, lr=0.5, weight_decay=0.1).step(X, y)
    after = backend.get_state(net)
    np.testing.assert_allclose(after["W1"], state["W1"] * (1 - 0.5 * 0.1), rtol=1e-14)  # its gradient is 0, as X is
    assert not np.array_equal(after["b3"], state["b3"] * (1 - 0.5 * 0.1))
    backend.Trainer(net, lr=0.0, weight_decay=0.1).step(X, y)
    assert all(np.array_equal(after[k], v) for k, v in backend.get_state(net).items() if not k.startswith("dropout"))


def test_batches_may_be_numpy_arrays(backend: Any) -> None:
    md.manual_seed(0)
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(8, 4)).astype(np.float32), np.arange(8) % 2) for _ in range(3)]
    history = md.train(md.Net(num_inputs=4, num_outputs=2), batches, batches, num_epochs=1)
    assert math.isfinite(history.epochs[0].train_loss)


def test_batches_of_another_framework_are_named(backend: Any, need: Any) -> None:
    other = "torch" if backend.name != "torch" else "tensorflow"
    need(other)
    with md.use_backend(other):
        batches, _ = md.load_data_fashion_mnist(256, "mini")
    with pytest.raises(TypeError, match=f"expected tensors of {backend.name}, .* got tensors of {other}"):
        md.train(md.Net(), batches, batches, num_epochs=1)


def test_batches_that_are_used_up_are_named(backend: Any) -> None:
    with pytest.raises(ValueError, match="train_iter: expected at least one batch; got none"):
        md.train(md.Net(), iter([]), [], num_epochs=1)


def weights(path: Path) -> dict[str, bytes]:
    state, _ = checkpoints.load(path)
    return {name: array.tobytes() for name, array in state.items()}


def test_resuming_changes_nothing(backend: Any, tmp_path: Path) -> None:
    """A run in three sittings ends as one in a single sitting, bit for bit."""
    whole, _ = run(epochs=3, dtype="float32", checkpoint=tmp_path / "whole")
    for epochs in (1, 2, 3):
        md.manual_seed(None)
        parts, _ = run(epochs=epochs, dtype="float32", checkpoint=tmp_path / "parts", resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert [e.train_loss for e in parts.epochs] == [e.train_loss for e in whole.epochs]


def test_another_backend_goes_on(backend: Any, tmp_path: Path, reference: md.History) -> None:
    with md.use_backend("numpy"):
        run(epochs=1, checkpoint=tmp_path / "run", weight_decay=1e-3)
    history, _ = run(epochs=2, checkpoint=tmp_path / "run", resume=True, weight_decay=1e-3)
    assert history.epochs[1].train_loss == pytest.approx(reference.epochs[1].train_loss, rel=1e-11)


def command(name: str, folder: Path, *options: str) -> list[str]:
    data = ["--data", "mini", "--epochs", "6", "--backend", name, "--out", str(folder)]
    return [sys.executable, "-m", "multidrop", "train", *data, "--checkpoint", str(folder / "run"), *options]


def test_killed_and_resumed(backend: Any, tmp_path: Path) -> None:
    """SIGKILL, some epochs into the run and at whatever instruction it happens to be."""
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    subprocess.run(command(backend.name, tmp_path / "whole"), check=True, capture_output=True)
    victim = subprocess.Popen(command(backend.name, tmp_path / "killed"), stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    for line in victim.stdout:  # a line for each epoch, as it ends
        if line.split()[:1] == ["2"]:
            break
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    victim.stdout.close()
    _, facts = checkpoints.load(tmp_path / "killed" / "run")
    assert 1 <= len(facts["history"]["epochs"]) < 6
    subprocess.run(command(backend.name, tmp_path / "killed", "--resume"), check=True, capture_output=True)
    assert weights(tmp_path / "killed" / "run") == weights(tmp_path / "whole" / "run")


def test_a_checkpoint_is_not_overwritten_unasked(tmp_path: Path) -> None:
    run(epochs=1, checkpoint=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(md.CheckpointError, match="exists already; resume its run, or delete it"):
        run(epochs=1, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == before


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    run(epochs=1, checkpoint=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(md.CheckpointError, match=r"weight_decay was 0\.0, now it is 0\.5"):
        run(epochs=2, checkpoint=tmp_path / "run", resume=True, weight_decay=0.5)
    with pytest.raises(md.CheckpointError, match=r"belongs to a different net: state: expected W1 of shape"):
        run(lambda **o: md.Net(num_hiddens1=9, **o), epochs=2, checkpoint=tmp_path / "run", resume=True)
    assert (tmp_path / "run").read_bytes() == before


def test_what_cannot_be_resumed_exactly_is_refused(backend: Any, tmp_path: Path) -> None:
    train_iter, test_iter = md.load_data_fashion_mnist(256, "mini")
    with pytest.raises(md.CheckpointError, match="expected a keyed net"):
        md.train(md.Net(), train_iter, test_iter, 1, checkpoint=tmp_path / "run")
    with pytest.raises(md.CheckpointError, match="expected a train_iter from load_data_fashion_mnist"):
        md.train(md.Net(seed=0), list(test_iter)[:1], test_iter, 1, checkpoint=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied", "foreign"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run"
    checkpoints.save(path, {"W1": np.arange(1000.0)}, {})
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "altered":
        content[-100] ^= 1
        path.write_bytes(content)
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        from safetensors.numpy import save_file

        save_file({"W1": np.zeros(3)}, path)
    with pytest.raises(md.CheckpointError, match=str(path)):
        checkpoints.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by a system call of POSIX")
def test_a_full_disk(tmp_path: Path) -> None:
    """The write fails in its middle, as on a full disk: the checkpoint before it is kept, and nothing else is left."""
    path = tmp_path / "run"
    checkpoints.save(path, {"W1": np.zeros(1000)}, {"n": 1})
    code = f"""
import resource, numpy as np
from multidrop.section import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save({str(path)!r}, {{"W1": np.ones(1_000_000)}}, {{"n": 2}})
except checkpoint.CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert "the one before it is kept" in done.stdout
    assert checkpoints.load(path)[1] == {"n": 1}
    assert os.listdir(tmp_path) == ["run"]


def test_a_clock_that_stands_still(backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives no rate, and everything else."""
    monkeypatch.setattr(time, "perf_counter", lambda: 7.0)
    history, _ = run(epochs=1, checkpoint=tmp_path / "run")
    assert history.epochs[0].seconds == 0.0
    assert math.isnan(history.epochs[0].examples_per_second)
    history.to_json(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text())["epochs"][0]["examples_per_second"] is None
    history.to_csv(tmp_path / "history.csv")
    assert str(history).splitlines()[1].split()[-1] == "–"
    again, _ = run(epochs=2, checkpoint=tmp_path / "run", resume=True)
    assert len(again.epochs) == 2


def test_losses_of_zero_do_not_differ() -> None:
    from multidrop.section.results import comparison

    epoch = Epoch(1, 0.0, 1.0, 1.0, 1.0, 1.0)
    (_, line) = comparison([md.History({"backend": name}, [epoch]) for name in ("numpy", "torch")])
    assert line[3] == 0.0


def test_lists_are_no_batches(backend: Any) -> None:
    X, y = np.zeros((2, 4), np.float32), np.array([0, 1])
    for batch in ((X.tolist(), y), (X, y.tolist())):
        with pytest.raises(TypeError, match=rf"batches: expected tensors of {backend.name}, .* got \[.* \(list\)"):
            md.train(md.Net(num_inputs=4, num_outputs=2), [batch], [(X, y)], num_epochs=1)


class Described(list[Any]):
    """Batches that describe themselves, but not as `Batches` do."""

    source, batch_size, dtype = Path("somewhere"), np.int64(2), np.dtype("float32")


def test_what_is_told_of_any_batches_can_be_saved(tmp_path: Path) -> None:
    batches = Described([(np.zeros((2, 4), np.float32), np.array([0, 1]))])
    md.train(md.Net(num_inputs=4, num_outputs=2), batches, batches, 1).to_json(tmp_path / "history.json")
    settings = md.History.from_json(tmp_path / "history.json").settings
    assert [settings[name] for name in ("data", "batch_size", "dtype")] == ["somewhere", 2, "float32"]


def test_resuming_needs_a_checkpoint() -> None:
    """A run that began again would look like one that was resumed."""
    batches = [(np.zeros((2, 4), np.float32), np.array([0, 1]))]
    for resume, message in ((True, "expected a checkpoint to resume from too"), ("no", "expected True or False")):
        with pytest.raises(ValueError, match=f"resume: {message}; got "):
            md.train(md.Net(num_inputs=4, num_outputs=2), batches, batches, 1, resume=resume)  # type: ignore[arg-type]


def test_a_label_is_a_string() -> None:
    """Any other could be saved, and not be read again."""
    batches = [(np.zeros((2, 4), np.float32), np.array([0, 1]))]
    with pytest.raises(ValueError, match=r"label: expected a string; got 3 \(int\)"):
        md.train(md.Net(num_inputs=4, num_outputs=2), batches, batches, 1, label=3)  # type: ignore[arg-type]
