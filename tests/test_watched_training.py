"""What a training run measures, its callbacks, and how it ends early: stopped, interrupted or diverged."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.section import checkpoint as checkpoints
from multidrop.section import training
from multidrop.section.data import Batches
from multidrop.section.history import header
from multidrop.section.progress import Display

SIZES = {"num_inputs": 4, "num_outputs": 3, "num_hiddens1": 8, "num_hiddens2": 8}


def arrays(count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of 8 examples, of which a net of these sizes learns nothing but their labels."""
    generator = np.random.default_rng(1)
    return [(generator.normal(size=(8, 4)), generator.integers(0, 3, 8)) for _ in range(count)]


def net(**options: Any) -> Any:
    return md.Net(**SIZES, seed=1, dtype="float64", **options)


def images(backend: Any) -> Batches:
    generator = np.random.default_rng(2)
    pixels, labels = generator.integers(0, 256, (40, 2, 2), np.uint8), generator.integers(0, 3, 40, np.uint8)
    return Batches(pixels, labels, 16, backend, key=md.Key(3), dtype="float64", source="noise")


def forward(backend: Any, model: Any, X: Any) -> Any:
    with (probe := backend.Probe(model)):
        return probe.forward(X, False)[0]


def loss_of(backend: Any, model: Any, batches: Any) -> tuple[float, float]:
    """The mean loss and accuracy of a net in evaluation mode, computed apart from its backend's trainer."""
    from multidrop.loss import softmax_cross_entropy

    outputs = [(forward(backend, model, X), y) for X, y in batches]
    losses = np.concatenate([softmax_cross_entropy(Y, y)[0] for Y, y in outputs])
    right = np.concatenate([Y.argmax(axis=1) == y for Y, y in outputs])
    return float(losses.mean()), float(right.mean())


def test_the_test_loss_is_the_mean_in_evaluation_mode(backend: Any) -> None:
    """Of batches of unequal sizes, in every framework the same."""
    test = [*arrays(2), (np.ones((3, 4)), np.array([0, 1, 2]))]
    history = md.train(model := net(), arrays(), test, 2, train_accuracy=True)
    expected = loss_of(backend, model, test), loss_of(backend, model, arrays())
    last = history.epochs[-1]
    assert (last.test_loss, last.test_accuracy) == pytest.approx(expected[0], rel=1e-12)
    assert (last.eval_train_loss, last.eval_train_accuracy) == pytest.approx(expected[1], rel=1e-12)
    assert last.eval_train_loss != pytest.approx(last.train_loss, rel=1e-3)
    assert str(history).splitlines()[0] == header(train_accuracy=True)


def test_only_every_kth_epoch_is_tested(backend: Any, tmp_path: Path) -> None:
    passes = []

    class Test(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            passes.append(1)
            return super().__iter__()

    history = md.train(net(), arrays(), Test(arrays(1)), 5, test_every=2)
    assert [epoch.tested for epoch in history.epochs] == [False, True, False, True, True]
    assert [math.isnan(epoch.test_loss) for epoch in history.epochs] == [True, False, True, False, False]
    assert len(passes) == 3
    assert history.to_dict()["epochs"][0]["test_loss"] is None
    assert str(history).splitlines()[1].split()[3:5] == ["–", "–"]
    assert "every 2 epochs" in " ".join(history.notes)
    history.to_json(tmp_path / "history.json")
    assert str(md.History.from_json(tmp_path / "history.json")) == str(history)


def test_measuring_changes_no_run(backend: Any) -> None:
    """Neither the batches, nor the masks, nor the weights."""
    states = []
    for options in ({}, {"train_accuracy": True}, {"test_every": 3}):
        batches = images(backend)
        md.train(model := net(), batches, arrays(1), 2, **options)  # type: ignore[arg-type]
        assert batches.epoch == 2
        states.append(backend.get_state(model))
    for state in states[1:]:
        assert all(np.array_equal(state[name], values) for name, values in states[0].items())


def test_no_step_waits_for_its_loss(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each framework's trainer hands its own scalars out; the loop converts them at the end of an epoch."""
    events: list[str] = []

    class Late(float):
        def __float__(self) -> float:
            events.append("read")
            return 1.0

        def __int__(self) -> int:
            return 1

    step = backend.Trainer.step

    def stepped(self: Any, X: Any, y: Any) -> Any:
        found = step(self, X, y)
        if backend.name != "numpy":
            assert all(isinstance(scalar, tuple(backend.types)) for scalar in found)
        events.append("step")
        return Late(), Late()

    monkeypatch.setattr(backend.Trainer, "step", stepped)
    md.train(net(), arrays(3), arrays(1), 2)
    assert events == (["step"] * 3 + ["read"] * 3) * 2
    events.clear()
    monkeypatch.setattr(training, "AHEAD", 2)  # so that a long epoch holds few scalars
    md.train(net(), arrays(3), arrays(1), 1)
    assert events == ["step", "step", "read", "read", "step", "read"]


def test_callbacks_see_each_epoch(backend: Any) -> None:
    seen, batches = [], []

    class Watching:
        def __call__(self, model: Any, history: md.History, epoch: Any) -> None:
            seen.append((model, len(history.epochs), epoch))
            assert history.epochs[-1] is epoch

        def batch(self, model: Any, epoch: int, batch: int) -> None:
            batches.append((epoch, batch))

    history = md.train(model := net(), arrays(2), arrays(1), 3, callbacks=[Watching()])
    assert seen == [(model, number, history.epochs[number - 1]) for number in (1, 2, 3)]
    assert batches == [(epoch, batch) for epoch in (1, 2, 3) for batch in (1, 2)]


def test_a_callback_stops_the_run(tmp_path: Path) -> None:
    """The last epoch is tested all the same, and the checkpoint has it."""
    late: list[int] = []
    history = md.train(
        net(),
        images(md.dispatch.load("numpy")),
        arrays(1),
        9,
        test_every=100,
        checkpoint=tmp_path / "run",
        callbacks=[lambda *_: np.True_, lambda *_: late.append(1)],
    )
    assert len(history.epochs) == 1
    assert history.epochs[0].tested
    assert late == [1]
    _, facts = checkpoints.load(tmp_path / "run")
    assert facts["history"] == history.to_dict()


@pytest.mark.parametrize("bad", [3, "early", [1]])
def test_an_answer_of_a_callback_that_means_nothing(bad: object) -> None:
    with pytest.raises(TypeError, match=r"callbacks: expected functions that return True, to stop, or None; got "):
        md.train(net(), arrays(), arrays(1), 2, callbacks=[lambda *_: bad])


@pytest.mark.parametrize("bad", [print, [print, 3], None, "x"])
def test_callbacks_that_cannot_be_called(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"callbacks: expected a list of functions of \(net, history, epoch\); got "):
        md.train(net(), arrays(), arrays(1), 2, callbacks=bad)


def raising(error: BaseException, at: int) -> Callable[..., None]:
    def callback(model: Any, history: md.History, epoch: Any) -> None:
        if epoch.epoch == at:
            raise error

    return callback


@pytest.mark.parametrize("place", ["callback", "batch", "test"])
def test_an_error_keeps_the_epochs(place: str) -> None:
    def failing(at: int) -> Iterator[Any]:
        for number, batch in enumerate(arrays()):
            if number == at:
                raise OSError("lost")
            yield batch

    class Second(list[Any]):
        passes = 0

        def __iter__(self) -> Iterator[Any]:
            self.passes += 1
            return failing(1 if self.passes == 2 else 99)

    train_iter = Second() if place == "batch" else arrays()
    test_iter = Second() if place == "test" else arrays(1)
    callbacks = [raising(OSError("lost"), 1)] if place == "callback" else []
    with pytest.raises(OSError, match="lost") as caught:
        md.train(net(), train_iter, test_iter, 3, callbacks=callbacks)
    assert len(caught.value.history.epochs) == 1  # type: ignore[attr-defined]


class Interrupting(Display):
    """Interrupts a run in a batch, as Ctrl-C does."""

    batches = 0

    def batch(self) -> None:
        self.batches += 1
        if self.batches == 8:
            raise KeyboardInterrupt


def test_an_interrupted_run_keeps_its_epochs(backend: Any, tmp_path: Path) -> None:
    with pytest.raises(md.Interrupted, match=r"interrupted in epoch 3 of 9; epochs done: 2; .*`history`") as caught:
        md.train(net(), arrays(3), arrays(1), 9, display=Interrupting())
    assert [epoch.epoch for epoch in caught.value.history.epochs] == [1, 2]
    assert isinstance(caught.value, KeyboardInterrupt)

    options: Any = {"checkpoint": tmp_path / "run"}
    with pytest.raises(md.Interrupted, match=rf"epochs done: 2; resume from {tmp_path / 'run'}"):
        md.train(net(), images(backend), arrays(1), 4, display=Interrupting(), **options)
    resumed = md.train(one := net(), images(backend), arrays(1), 4, resume=True, **options)
    whole = md.train(other := net(), images(backend), arrays(1), 4)
    assert [e.test_loss for e in resumed.epochs] == [e.test_loss for e in whole.epochs]
    state = backend.get_state(other)
    assert all(np.array_equal(state[name], values) for name, values in backend.get_state(one).items())


@pytest.mark.parametrize("which", ["training", "test"])
def test_a_run_that_diverges(backend: Any, tmp_path: Path, which: str) -> None:
    """The error has the epochs before, and the checkpoint keeps the last good one."""
    batches, model = images(backend), net()
    if which == "test":
        batches.batch_size = 40  # one step, whose loss is of the weights before it
    with pytest.raises(md.Diverged, match=rf"in epoch 1: the {which} loss is (nan|inf); .* below 1e\+200") as caught:
        md.train(model, batches, arrays(1), 3, 1e200, checkpoint=tmp_path / "run")
    assert caught.value.history.epochs == []
    state, facts = checkpoints.load(tmp_path / "run")
    assert facts["history"]["epochs"] == []
    assert all(np.isfinite(values).all() for values in state.values())


def test_the_time_of_compiling_is_noted(backend: Any) -> None:
    history = md.train(net(), arrays(), arrays(1), 2)
    compiling = [note for note in history.notes if "includes compiling" in note]
    assert compiling == (["The speed of epoch 1 includes compiling the net."] if backend.name == "tensorflow" else [])
    assert history.label == backend.name
    assert md.train(net(), arrays(), arrays(1), 1, label="wide").label == "wide"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, in the import of torch's compiler
def test_what_compiles(need: Any) -> None:
    """A compiled module, or a hybridized block, wherever it is in the net; nothing runs here."""
    torch_backend, mxnet_backend = need("torch"), need("mxnet")
    import torch
    from mxnet.gluon import nn

    plain, inner, whole = (torch.nn.Sequential(torch.nn.Linear(2, 2)) for _ in range(3))
    inner[0].compile()
    nets = [plain, inner, torch.compile(whole)]
    assert [torch_backend.Trainer(each, 0.1).compiles for each in nets] == [False, True, True]

    block = nn.Sequential()
    block.add(nn.Dense(2, in_units=2))
    assert not mxnet_backend.Trainer(block, 0.1).compiles
    block[0].hybridize()
    assert mxnet_backend.Trainer(block, 0.1).compiles


def test_a_run_whose_rate_has_another_name_in_the_settings() -> None:
    with pytest.raises(md.Diverged, match=r"try a learning rate below 1e\+30"):
        md.train(net(), arrays(), arrays(), 2, lr=1e30, settings={"lr": "a schedule"})


@pytest.mark.parametrize("kind", [md.Interrupted, md.Diverged])
def test_an_end_crosses_processes(kind: Any) -> None:
    """As exceptions of workers do, with its history."""
    again = pickle.loads(pickle.dumps(kind("why", md.History({"backend": "numpy"}))))
    assert (type(again), str(again), again.history.label) == (kind, "why", "numpy")


def test_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains unseen, unless a display is asked for."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert len(md.train(net(), arrays(), arrays(), 1).epochs) == 1
    with pytest.raises(ImportError, match=r"output on a terminal needs rich"):
        md.train(net(), arrays(), arrays(), 1, display=True)
