"""Records the activations of a model's layers, for one batch or over the epochs of a training run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import checks
from .auditing import python_generators
from .comparison.parts import first_tensor
from .comparison.probes import probe_of
from .comparison.trees import Trees
from .conversion import shown_path
from .dispatch import backend_of
from .protocol import Auditing, Backend, Model

__all__ = ["RecordActivations", "activations"]

Array: TypeAlias = npt.NDArray[Any]

OUTPUT, INPUT = "output", "input"


def activations(
    model: Model,
    X: Any,
    layers: str | Iterable[str] | None = None,
    *,
    training: bool = False,
    of: str = OUTPUT,
) -> dict[str, Array | list[Array]]:
    """Runs a model on a batch and returns what its layers compute, by the path of the layer.

    The model is left as it was: weights, modes, statistics, the positions of its masks and the state of the
    generators. (That of MXNet's and TensorFlow's generators cannot be read: in training mode they are seeded with a
    number that they drew before.)

    Args:
        model: a `torch.nn.Module`, a Keras model or layer, a Gluon block, a NumPy `Layer` or an `md.Net`.
        X: the batch, shape (n, …), a NumPy array or a tensor of any framework. A floating X is cast to the model's
            type.
        layers: paths of layers as `md.convert` names them, such as "dropout1" in `md.Net`; "" is the model itself. The
            default is all layers that run.
        training: whether the model runs in training mode. Its dropout layers then draw the masks of their next call,
            which the next call of the model draws again.
        of: "output" or "input", for the first argument of each layer.

    Returns:
        The layers' activations in the order in which they ran, in the layouts of the model's framework. A layer that
        ran several times has a list of arrays.

    Raises:
        ValueError: if a layer does not exist or did not run, or for a bad setting.
        TypeError: if `model` is not a model of a known framework, or X is not a batch of numbers.
        BackendError: if the model's backend cannot record a model.
    """
    training, of = checks.flag("training", training), checks.choice("of", of, (OUTPUT, INPUT))
    (backend, probe), X = probe_of(model, Auditing, "md.activations"), host_batch(X)
    with ExitStack() as stack:
        if training:
            rewind = probe.generators()
            stack.callback(rewind)
            stack.callback(python_generators())
        if not probe.built():
            probe.forward(X, False)  # creates its layers or weights
            _, probe = probe_of(model, Auditing, "md.activations")
        recorder = _Recorder(probe, backend, _chosen(layers, probe.layers), of)
        stack.callback(Trees(probe).attributes(probe.layers.values()))
        stack.enter_context(probe.watch(recorder))
        if training:
            rewind()
        Y, _ = probe.forward(X, training)
        # Not from the watcher: MXNet's `Net` is no block.
        recorder.found[""] = [np.array(Y if of == OUTPUT else backend.to_numpy(probe.batch(X)))]
    return recorder.result()


def host_batch(X: Any) -> Array:
    """A batch as a NumPy array.

    Raises:
        TypeError: if it is neither an array nor a tensor of numbers.
    """
    if not isinstance(X, np.ndarray):
        backend = backend_of(X)
        if not isinstance(X, tuple(backend.types)) or not hasattr(X, "shape"):
            raise TypeError(f"X: expected a NumPy array or a tensor; got {checks.shown(X)}")
        X = backend.to_numpy(X)
    if X.dtype.kind not in "iuf":
        raise TypeError(f"X: expected integers or floating numbers; got an array of type {X.dtype}")
    return np.ascontiguousarray(X).reshape(X.shape)


def _paths(layers: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """The paths that are asked for; None for all."""
    if layers is None or isinstance(layers, str):
        return None if layers is None else (layers,)
    if not isinstance(layers, Iterable):
        raise ValueError(f"layers: expected paths of layers; got {checks.shown(layers)}")
    return tuple(layers)


def _chosen(layers: str | Iterable[str] | None, existing: Mapping[str, Model]) -> tuple[str, ...] | None:
    chosen = _paths(layers)
    for path in chosen or ():
        if not isinstance(path, str) or path not in existing:
            known = ", ".join(map(repr, existing))
            raise ValueError(f"layers: expected paths among {known}; got {checks.shown(path)}")
    return chosen


class _Recorder:
    """Keeps copies of what goes through layers: a `Watcher`."""

    def __init__(self, probe: Auditing, backend: Backend, paths: tuple[str, ...] | None, of: str) -> None:
        self._probe, self._backend, self._paths, self._of = probe, backend, paths, of
        self.found: dict[str, list[Array]] = {}

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keeps the input of a layer: see `Watcher.enter`."""
        if self._of == INPUT:
            self._keep(path, args)
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Keeps the output of a layer: see `Watcher.leave`."""
        if self._of == OUTPUT:
            self._keep(path, output)
        return output

    def _keep(self, path: str, value: Any) -> None:
        if not path or (self._paths is not None and path not in self._paths):
            return
        try:
            tensor = first_tensor(value, self._probe.tensors)
        except TypeError:  # the layer takes or returns no tensor
            return
        if not self._probe.symbolic(tensor):
            self.found.setdefault(path, []).append(np.array(self._backend.to_numpy(tensor)))

    def result(self) -> dict[str, Array | list[Array]]:
        """The arrays by path."""
        for path in self._paths or ():
            if path not in self.found:
                raise ValueError(f"layers: expected layers that run, with a tensor as {self._of}; {path!r} did not")
        paths = self.found if self._paths is None else self._paths
        return {path: found[0] if len(found := self.found[path]) == 1 else found for path in paths}


class RecordActivations:
    """Records mean and variance of layers' activations over a training run: a callback of `md.train`.

    Each number is over all elements of the layer's output for X: examples, units and, for a layer that runs several
    times, calls. Recording changes neither the run nor its masks.

    Args:
        X: the batch to record with, as for `md.activations`.
        layers: the layers, as for `md.activations`. The default is all layers that run.
        training: whether the model runs in training mode, with the dropout masks of its next step.
        of: "output" or "input", as for `md.activations`.

    Attributes:
        epochs: the numbers of the recorded epochs.
        means: for each layer, its mean in each of these epochs; NaN for an epoch in which it did not run.
        variances: for each layer, its variance in each of these epochs, in the same way.

    Raises:
        ValueError: for an X without numbers, layers that are no paths, or a bad setting.
        TypeError: if X is not a batch of numbers.
    """

    def __init__(
        self, X: Any, layers: str | Iterable[str] | None = None, *, training: bool = True, of: str = OUTPUT
    ) -> None:
        self._X, self._layers = host_batch(X), _paths(layers)
        if not self._X.size:
            raise ValueError(f"X: expected at least one example; got the shape {self._X.shape}")
        self._training, self._of = checks.flag("training", training), checks.choice("of", of, (OUTPUT, INPUT))
        self.epochs: list[int] = []
        self.means: dict[str, list[float]] = {}
        self.variances: dict[str, list[float]] = {}

    def __call__(self, net: Model, history: Any, epoch: Any) -> None:
        """Records an epoch: a callback of `md.train`."""
        self.record(net, epoch.epoch)

    def record(self, net: Model, epoch: int = 0) -> None:
        """Records the net as it is now, under the number of an epoch: 0 before training."""
        found = activations(net, self._X, self._layers, training=self._training, of=self._of)
        statistics = {path: _mean_and_variance(values) for path, values in found.items()}
        for which, kept in enumerate((self.means, self.variances)):
            for path in dict.fromkeys([*kept, *statistics]):
                earlier = kept.setdefault(path, [math.nan] * len(self.epochs))
                earlier.append(statistics[path][which] if path in statistics else math.nan)
        self.epochs.append(epoch)

    def __str__(self) -> str:
        width = max((len(shown_path(path)) for path in self.variances), default=0)
        lines = [f"variance of the {self._of} of each layer, epochs {', '.join(map(str, self.epochs))}"]
        for path, values in self.variances.items():
            lines.append(f"  {shown_path(path):{width}}  " + "  ".join(f"{value:.4g}" for value in values))
        return "\n".join(lines)


def _mean_and_variance(values: Array | list[Array]) -> tuple[float, float]:
    """Over all elements of one call or several."""
    calls = values if isinstance(values, list) else [values]
    elements = np.concatenate([np.asarray(each, np.float64).reshape(-1) for each in calls])
    return float(elements.mean()), float(elements.var())
