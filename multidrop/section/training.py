"""The training loop of all backends. A backend provides one training step and one evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..dispatch import backend_of, part
from ..protocol import Backend, Model, Section, Tensor
from ..spec.keys import Key
from . import checkpoint as checkpoints
from .checkpoint import CheckpointError
from .data import Batches
from .history import Epoch, History
from .progress import Display
from .state import check_types

BatchIterable = Iterable[tuple[Tensor, Tensor]]


def train(
    net: Model,
    train_iter: BatchIterable,
    test_iter: BatchIterable,
    num_epochs: int = 10,
    lr: float = 0.5,
    weight_decay: float = 0.0,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    display: Display | None = None,
) -> History:
    """Trains a net by minibatch stochastic gradient descent on softmax cross-entropy, and tests it after each epoch.

    Each step is w ← w − lr·(mean gradient of the batch + weight_decay·w), without decay for biases.

    Args:
        net: a net of any backend, such as `Net` or `concise_net`, that maps (n, …) to logits (n, classes).
        train_iter: gives the training batches (X, y), starting over at each `iter()`, as `load_data_fashion_mnist`
            does. X has shape (n, …); y holds integer labels of shape (n,). Both are tensors of the net's framework or
            NumPy arrays.
        test_iter: gives the test batches in the same way.
        num_epochs: the total number of passes over the training data. A resumed run makes the remaining ones.
        lr: the learning rate.
        weight_decay: λ of the penalty λ/2·‖w‖².
        checkpoint: a file to save the run to after each epoch. It requires a keyed net (by `manual_seed` or its own
            seed) and a train_iter of the class `Batches`. A run that is killed and resumed on the same backend and
            machine then ends with the same weights, bit for bit, as an uninterrupted run.
        resume: whether to continue from that file if it exists. Without `resume` the file must not exist.
        settings: further settings of the run, by name, that JSON can represent. They are recorded in the history, and
            must be equal when the run is resumed.
        display: shows the progress. The default prints to standard error if that is a terminal.

    Returns:
        The history of all epochs, including those before the run was resumed.

    Raises:
        ValueError: for a number of epochs below 1, a negative or infinite rate, a checkpoint that is not a path, or
            settings that JSON cannot represent.
        TypeError: if the batches are tensors of a different framework than the net's.
        CheckpointError: if the checkpoint cannot be written or read, exists without `resume`, or belongs to a run with
            different settings. An existing checkpoint is never lost.
        BackendError: if the net's backend does not support training.
    """
    num_epochs = checks.positive("num_epochs", num_epochs)
    settings = checks.json_object("settings", settings or {})
    if checkpoint is not None:
        checkpoint = checks.path("checkpoint", checkpoint)
    lr, weight_decay = checks.at_least_zero("lr", lr), checks.at_least_zero("weight_decay", weight_decay)
    backend = backend_of(net, "net")
    section = part(backend, Section, "Trainer", "md.train")
    trainer = section.Trainer(net, lr, weight_decay)
    history = History(
        {
            "backend": backend.name,
            "version": backend.version,
            "data": getattr(train_iter, "source", None),
            "batch_size": getattr(train_iter, "batch_size", None),
            "dtype": getattr(train_iter, "dtype", None),
            "lr": lr,
            "weight_decay": weight_decay,
            **settings,
        }
    )
    file = None
    if checkpoint is not None:
        file = _RunFile(checkpoint, section, net, train_iter)
        file.open(history, resume)
    with display or Display.on_terminal() as shown:
        shown.run(history, num_epochs)
        for number in range(len(history.epochs) + 1, num_epochs + 1):
            shown.epoch(number, train_iter)
            loss, right, seen, start = 0.0, 0, 0, time.perf_counter()
            for X, y in train_iter:
                batch_loss, batch_right = trainer.step(*_tensors(backend, X, y))
                loss, right, seen = loss + batch_loss, right + batch_right, seen + len(y)
                shown.batch()
            seconds = time.perf_counter() - start
            if seen == 0:
                raise ValueError("train_iter: expected at least one batch; got none (an exhausted iterator?)")
            accuracy = _accuracy(backend, trainer, test_iter)
            rate = seen / seconds if seconds > 0 else math.nan  # a coarse clock may measure 0 seconds
            history.epochs.append(Epoch(number, loss / seen, right / seen, accuracy, seconds, rate))
            shown.done(history.epochs[-1])
            if file is not None:
                file.save(history)
    return history


def _accuracy(backend: Backend, trainer: Any, batches: BatchIterable) -> float:
    right = seen = 0
    for X, y in batches:
        right, seen = right + trainer.evaluate(*_tensors(backend, X, y)), seen + len(y)
    if seen == 0:
        raise ValueError("test_iter: expected at least one batch; got none")
    return right / seen


def _tensors(backend: Backend, *values: Any) -> tuple[Tensor, ...]:
    """Converts NumPy arrays in a batch to tensors of the net's backend."""
    tensors = []
    for value in values:
        if isinstance(value, np.ndarray):
            value = backend.tensor(value)
        elif backend_of(value, "batches") is not backend:
            raise TypeError(
                f"batches: expected tensors of {backend.name}, as the net is, or NumPy arrays; got tensors of "
                f"{backend_of(value).name}: load the data after set_backend({backend.name!r})"
            )
        tensors.append(value)
    return tuple(tensors)


class _RunFile:
    """The checkpoint file of one run."""

    def __init__(self, path: Path, section: Section, net: Model, train_iter: BatchIterable) -> None:
        if not isinstance(train_iter, Batches) or train_iter.key is None:
            raise CheckpointError(
                "checkpoint: expected a train_iter from load_data_fashion_mnist, because a key determines its order; "
                f"got {type(train_iter).__name__}"
            )
        self.path, self.section, self.net, self.batches = path, section, net, train_iter

    def open(self, history: History, resume: bool) -> None:
        """Creates the file, or restores net, batches and history from it."""
        if not any(name.startswith("dropout") for name in self.section.get_state(self.net)):
            raise CheckpointError(
                "checkpoint: expected a keyed net, so that a resumed run draws the same masks; "
                "build it after manual_seed(n) or with seed=n"
            )
        if not self.path.exists():
            self.save(history)
            return
        if not resume:
            raise CheckpointError(f"{self.path}: exists already; resume its run, or delete it to start a new one")
        state, facts = checkpoints.load(self.path)
        try:
            before, key = History.from_dict(facts.get("history")), _key(facts.get("batches"))  # type: ignore[arg-type]
        except ValueError as error:
            raise CheckpointError(f"{self.path}: not a checkpoint of a run: {error}") from error
        for name, value in history.to_dict()["settings"].items():
            # A run may continue on a different backend; only the last bits of its sums may then differ.
            if name not in ("backend", "version") and before.settings.get(name) != value:
                raise CheckpointError(
                    f"{self.path}: cannot resume with different settings: {name} was {before.settings.get(name)!r}, "
                    f"now it is {value!r}"
                )
        try:
            check_types(state, self.section.get_state(self.net))
            self.section.set_state(self.net, state)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: belongs to a different net: {error}") from error
        self.batches.key, self.batches.epoch = key, len(before.epochs)
        history.epochs[:] = before.epochs

    def save(self, history: History) -> None:
        """Saves the run after an epoch."""
        key = self.batches.key
        facts = {"history": history.to_dict(), "batches": key and [key.seed, key.call]}
        checkpoints.save(self.path, self.section.get_state(self.net), facts)


def _key(words: Any) -> Key:
    """Reads the key of the batches from a checkpoint: [seed, call], or in format 1 the seed alone."""
    if isinstance(words, list) and len(words) == 2:
        return Key(*words)
    return Key(checks.word64("batches", words))
