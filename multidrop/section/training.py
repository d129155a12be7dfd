"""The training loop of all backends. A backend provides one training step and one evaluation."""

from __future__ import annotations

import copy
import math
import numbers
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, SupportsFloat, SupportsInt, TypeAlias

import numpy as np

from .. import checks
from ..dispatch import backend_of, backend_of_model, part
from ..protocol import Backend, Model, Pass, Section, Tensor, Trainer
from .data import Batches
from .history import Epoch, History
from .progress import Display
from .run_file import RunFile

BatchIterable = Iterable[tuple[Tensor, Tensor]]

Callback: TypeAlias = Callable[[Model, History, Epoch], bool | None]
"""Called after each epoch with the net, the history up to this epoch, and the epoch; True stops the run. If it also has
a method `batch`, that is called after each training step as `batch(net, epoch, batch)`, with both numbers from 1."""

AHEAD = 1000
"""The most batches for which a device may compute ahead of the host: each holds two scalars on the device."""


class _Ended(BaseException):
    """Ends a run, and has the epochs that were done before as `history`."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.history)  # by default pickle calls the class with the message alone


class Interrupted(_Ended, KeyboardInterrupt):
    """Raised by `train` for a KeyboardInterrupt (Ctrl-C). The weights are those of the last step.

    Attributes:
        history: the epochs that were done before, as a `History`.
    """


class Diverged(_Ended, RuntimeError):
    """Raised by `train` after an epoch whose training or test loss is infinite or NaN. A checkpoint keeps the epoch
    before it.

    Attributes:
        history: the epochs before the one that diverged, as a `History`.
    """


def train(
    net: Model,
    train_iter: BatchIterable,
    test_iter: BatchIterable,
    num_epochs: int = 10,
    lr: float = 0.5,
    weight_decay: float = 0.0,
    *,
    callbacks: Iterable[Callback] = (),
    test_every: int = 1,
    train_accuracy: bool = False,
    label: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    display: Display | bool | None = None,
) -> History:
    """Trains a net by minibatch stochastic gradient descent on softmax cross-entropy, and tests it after each epoch.

    Each step is w ← w − lr·(mean gradient of the batch + weight_decay·w), without decay for biases.

    An exception that ends the run, of a callback or of the batches too, has the epochs that were done as its attribute
    `history`.

    Args:
        net: a net of any backend, such as `Net` or `concise_net`, that maps (n, …) to logits (n, classes).
        train_iter: gives the training batches (X, y), starting over at each `iter()`, as `load_data_fashion_mnist`
            does. X has shape (n, …); y holds integer labels of shape (n,). Both are tensors of the net's framework or
            NumPy arrays.
        test_iter: gives the test batches in the same way.
        num_epochs: the total number of passes over the training data. A resumed run makes the remaining ones.
        lr: the learning rate.
        weight_decay: λ of the penalty λ/2·‖w‖².
        callbacks: functions that are called after each epoch as `callback(net, history, epoch)`, after the checkpoint
            is saved. If one returns True, the run stops: this epoch is its last, and is tested. One that also has a
            method `batch` gets `batch(net, epoch, batch)` after each step, within the time of the epoch.
        test_every: tests after every k-th epoch only, and after the last. `test_loss` and `test_accuracy` of the other
            epochs are NaN.
        train_accuracy: whether to measure loss and accuracy also on the training data in evaluation mode, after each
            epoch that is tested. This makes one more pass over `train_iter`; `Batches` keep their order for it.
        label: names the run in plots. The default is the backend's name.
        checkpoint: a file to save the run to after each epoch. It requires a keyed net (by `manual_seed` or its own
            seed) and a train_iter of the class `Batches`. A run that is killed and resumed on the same backend and
            machine then ends with the same weights, bit for bit, as an uninterrupted run.
        resume: whether to continue from that file if it exists. Without `resume` the file must not exist.
        settings: further settings of the run, by name, that JSON can represent. They are recorded in the history, and
            must be equal when the run is resumed.
        display: shows the progress. By default a notebook shows the table and the curves while the net trains, and a
            terminal the table, on standard error. False shows nothing.

    Returns:
        The history of all epochs, including those before the run was resumed.

    Raises:
        ValueError: for a number of epochs below 1, a negative or infinite rate, a label that is not a string, a
            checkpoint that is not a path, `resume` without a checkpoint, settings that JSON cannot represent, or
            another display.
        TypeError: if the batches are tensors of a different framework than the net's, or for a callback that cannot be
            called or that returns neither None nor a bool.
        CheckpointError: if the checkpoint cannot be written or read, exists without `resume`, or belongs to a run with
            different settings. An existing checkpoint is never lost.
        BackendError: if the net's backend does not support training.
        Diverged: after an epoch whose loss is infinite or NaN.
        Interrupted: for a KeyboardInterrupt.
    """
    num_epochs, test_every = checks.positive("num_epochs", num_epochs), checks.positive("test_every", test_every)
    settings = checks.json_object("settings", settings or {})
    label = "" if label is None else checks.string("label", label)
    if checks.flag("resume", resume) and checkpoint is None:
        raise ValueError("resume: expected a checkpoint to resume from too; got None")
    if checkpoint is not None:
        checkpoint = checks.file_path("checkpoint", checkpoint)
    lr, weight_decay = checks.at_least_zero("lr", lr), checks.at_least_zero("weight_decay", weight_decay)
    train_accuracy = checks.flag("train_accuracy", train_accuracy)
    callbacks, chosen = _callbacks(callbacks), Display.chosen(display)
    backend = backend_of_model(net, "net")
    section = part(backend, Section, "Trainer", "md.train")
    trainer = section.Trainer(net, lr, weight_decay)
    history = History(
        {
            "backend": backend.name,
            "version": backend.version,
            "data": _fact(train_iter, "source"),
            "batch_size": _fact(train_iter, "batch_size"),
            "dtype": _fact(train_iter, "dtype"),
            "lr": lr,
            "weight_decay": weight_decay,
            **settings,
        },
        label=label,
    )
    file = None
    if checkpoint is not None:
        file = RunFile(checkpoint, section, net, train_iter)
        file.open(history, resume)
    if getattr(trainer, "compiles", False) and len(history.epochs) < num_epochs:
        history.notes.append(f"The speed of epoch {len(history.epochs) + 1} includes compiling the net.")
    if test_every > 1:
        history.note(f"Tested after every {test_every} epochs, and after the last.")
    run = _Run(net, backend, trainer, train_iter, test_iter, train_accuracy)
    number = len(history.epochs)
    try:
        with chosen as shown:
            shown.run(history, num_epochs, train_accuracy)
            for number in range(len(history.epochs) + 1, num_epochs + 1):
                shown.epoch(number, train_iter)
                epoch = run.epoch(number, callbacks, shown)
                if number % test_every == 0 or number == num_epochs:
                    epoch = run.tested(epoch)
                _check_finite(epoch, lr, history)
                history.epochs.append(epoch)
                if file is not None:
                    file.save(history)
                stops = [_stops(callback, net, history, epoch) for callback in callbacks]  # all are called
                stop = any(stops)
                if stop and not epoch.tested:
                    history.epochs[-1] = epoch = run.tested(epoch)
                    if file is not None:
                        file.save(history)
                shown.done(history)
                if stop:
                    break
    except KeyboardInterrupt as error:
        where = f"interrupted in epoch {number} of {num_epochs}; epochs done: {len(history.epochs)}"
        how = f"; resume from {file.path}" if file else "; the exception has them as `history`"
        raise Interrupted(where + how, history) from error
    except BaseException as error:
        with suppress(AttributeError):  # of a class with slots
            error.history = history  # type: ignore[attr-defined]
        raise
    return history


class _Run:
    """Runs and tests the epochs of a net."""

    def __init__(
        self,
        net: Model,
        backend: Backend,
        trainer: Trainer,
        train_iter: BatchIterable,
        test_iter: BatchIterable,
        train_accuracy: bool,
    ) -> None:
        self.net, self.backend, self.trainer = net, backend, trainer
        self.train_iter, self.test_iter, self.train_accuracy = train_iter, test_iter, train_accuracy
        self._kept: dict[tuple[Any, ...], tuple[Pass | None, Any, Any]] = {}

    def epoch(self, number: int, callbacks: Iterable[Callback], shown: Display) -> Epoch:
        """Makes one pass over the training data."""
        watching = [callback.batch for callback in callbacks if hasattr(callback, "batch")]
        sums, start = _Sums(), time.perf_counter()
        for batch, (X, y) in enumerate(self._near(self.train_iter), start=1):
            sums.add(self.trainer.step(*_tensors(self.backend, X, y)), len(y))
            for watch in watching:
                watch(self.net, number, batch)
            shown.batch()
        loss, accuracy = sums.means("train_iter")
        seconds = time.perf_counter() - start
        rate = sums.seen / seconds if seconds > 0 else math.nan  # a coarse clock may measure 0 seconds
        return Epoch(number, loss, accuracy, math.nan, seconds, rate)

    def tested(self, epoch: Epoch) -> Epoch:
        """The epoch with what is measured in evaluation mode after it."""
        loss, accuracy = self._evaluate(self.test_iter, "test_iter")
        epoch = replace(epoch, test_loss=loss, test_accuracy=accuracy)
        if not self.train_accuracy:
            return epoch
        loss, accuracy = self._evaluate(_in_order(self.train_iter), "train_iter")
        return replace(epoch, eval_train_loss=loss, eval_train_accuracy=accuracy)

    def _evaluate(self, batches: BatchIterable, name: str) -> tuple[float, float]:
        sums = _Sums()
        for X, y in self._near(batches):
            sums.add(self.trainer.evaluate(*_tensors(self.backend, X, y)), len(y))
        return sums.means(name)

    def _near(self, batches: BatchIterable) -> BatchIterable:
        """The same batches, which the net's device makes where it keeps their data."""
        trainer: Any = self.trainer
        if type(batches) is not Batches or batches.backend is not self.backend or not hasattr(trainer, "resident"):
            return batches
        data = (id(batches.images), id(batches.labels), batches.dtype, batches.grey)
        if data not in self._kept:
            # With the arrays, so that no others get their ids.
            self._kept[data] = batches.kept(trainer), batches.images, batches.labels
        made, *_ = self._kept[data]
        return batches if made is None else batches.by(made)


class _Sums:
    """Adds up losses and correct predictions. Reads them from the device in bulk, because each reading waits for it."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.right = self.seen = 0
        self._unread: list[tuple[SupportsFloat, SupportsInt]] = []

    def add(self, found: tuple[SupportsFloat, SupportsInt], count: int) -> None:
        """Adds the loss and the correct predictions of a batch of `count` examples."""
        self._unread.append(found)
        self.seen += count
        if len(self._unread) == AHEAD:
            self._read()

    def means(self, name: str) -> tuple[float, float]:
        """The mean loss and the accuracy; `name` is the argument that gave the batches, for the error without any."""
        if self.seen == 0:
            raise ValueError(f"{name}: expected at least one batch; got none (an exhausted iterator?)")
        self._read()
        return self.loss / self.seen, self.right / self.seen

    def _read(self) -> None:
        for loss, right in self._unread:
            self.loss += float(loss)
            self.right += int(right)
        self._unread.clear()


def _in_order(batches: BatchIterable) -> BatchIterable:
    """`Batches` in the order of their data, so that the pass takes the order of no epoch; anything else unchanged."""
    if isinstance(batches, Batches):
        ordered = copy.copy(batches)
        ordered.key = None
        return ordered
    return batches


def _fact(batches: BatchIterable, name: str) -> Any:
    """What a history says of the batches. Other classes than `Batches` may have anything by that name."""
    value = getattr(batches, name, None)
    return value if value is None or isinstance(value, str | numbers.Integral) else str(value)


def _check_finite(epoch: Epoch, lr: float, history: History) -> None:
    losses = {"training": epoch.train_loss} | ({"test": epoch.test_loss} if epoch.tested else {})
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise Diverged(
                f"diverged in epoch {epoch.epoch}: the {name} loss is {loss}; try a learning rate below {lr:g}",
                history,
            )


def _callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    if isinstance(callbacks, Iterable):
        callbacks = tuple(callbacks)
        if all(map(callable, callbacks)):
            return callbacks
    raise TypeError(f"callbacks: expected a list of functions of (net, history, epoch); got {checks.shown(callbacks)}")


def _stops(callback: Callback, net: Model, history: History, epoch: Epoch) -> bool:
    """Calls a callback. Returns whether it stops the run."""
    answer = callback(net, history, epoch)
    if answer is None or isinstance(answer, bool | np.bool_):
        return bool(answer)
    raise TypeError(f"callbacks: expected functions that return True, to stop, or None; got {checks.shown(answer)}")


def _tensors(backend: Backend, *values: Any) -> tuple[Tensor, ...]:
    """Converts NumPy arrays in a batch to tensors of the net's backend."""
    tensors = []
    for value in values:
        if isinstance(value, np.ndarray):
            value = backend.tensor(value)
        elif not isinstance(value, tuple(backend.types)):
            other = backend_of(value, "batches")
            came = checks.shown(value)
            if isinstance(value, tuple(other.types)):
                came = f"tensors of {other.name}: load the data after set_backend({backend.name!r})"
            raise TypeError(f"batches: expected tensors of {backend.name}, as the net is, or NumPy arrays; got {came}")
        tensors.append(value)
    return tuple(tensors)
