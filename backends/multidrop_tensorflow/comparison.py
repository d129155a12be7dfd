"""Runs a Keras model for a comparison: see `multidrop.comparison`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop import checks
from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point, first_tensor
from multidrop.comparison.watch import Watcher, watched
from multidrop.spec.keys import Key

from . import internals
from .conversion import layers_of
from .functional import to_numpy
from .layers import _Random
from .position import calls, key_at
from .weights import _WeightDropout


class Probe:
    """Runs a model eagerly and records the inputs and outputs of its layers. At the end of the context the model is as
    before, except for its weights."""

    def __init__(self, model: keras.layers.Layer) -> None:
        self.model = model
        self.layers = dict(layers_of(model))
        formats = [layer.data_format for layer in self.layers.values() if hasattr(layer, "data_format")]
        self.channels_last = formats[0] == "channels_last" if formats else None
        self._points: list[Point] = []

    @property
    def dtype(self) -> str:
        """The name of the type that the model computes in: the coarsest among its layers with weights."""
        found = {layer.compute_dtype for layer in self.layers.values() if _weights(layer)} & set(checks.FLOATING)
        return min(found, key=checks.FLOATING.index, default=self.model.compute_dtype)

    def parts(self) -> list[Part]:
        """The layers with weights, in the order of their definition. The model must have run."""
        found = []
        for path, layer in self.layers.items():
            if variables := _weights(layer):
                axes = {name: tuple(range(variable.ndim)) for name, variable in variables.items()}
                found.append(Part(path, _kind(layer), axes, _activation(layer)))
        return found

    def dropouts(self) -> dict[str, keras.layers.Layer]:
        """The dropout layers by path, in the order of their definition."""
        return {path: layer for path, layer in self.layers.items() if isinstance(layer, _Random)}

    def key(self, path: str, key: Key | None) -> Key | None:
        """Moves a dropout layer to a key, or to Keras' generator; returns the key of its next call before."""
        layer = self.layers[path]
        before = None if layer.stream is None else key_at(layer.stream)
        layer._key_by(key)
        return before

    def __enter__(self) -> Probe:
        self._stack = ExitStack()
        self._stack.enter_context(self.watch(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def watch(self, watcher: Watcher) -> Iterator[None]:
        """Reports each call of a layer to a watcher. Functions run eagerly, because a traced one calls no layers."""
        eagerly = tf.config.functions_run_eagerly()
        wrappers = [layer for layer in self.layers.values() if isinstance(layer, _WeightDropout)]
        tf.config.run_functions_eagerly(True)
        for wrapper in wrappers:
            wrapper.watched = True
        try:
            with watched(self.layers, ("call",), watcher):
                yield
        finally:
            tf.config.run_functions_eagerly(eagerly)
            for wrapper in wrappers:
                wrapper.watched = False

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Changes nothing: see `Watcher.enter`."""
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Records the input and output of a layer: see `Watcher.leave`."""
        if args and tf.is_tensor(args[0]) and tf.is_tensor(output):
            layer = self.layers[path]
            kind = parts.DROPOUT if isinstance(layer, _Random) else _kind(layer)
            self._points.append(Point(path, kind, to_numpy(args[0]), to_numpy(output), _channels_last(layer)))
        return output

    def batch(self, X: npt.NDArray[Any]) -> tf.Tensor:
        """A NumPy array as the model takes it."""
        return tf.constant(X)

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Point]]:
        """The output for a batch, and the inputs and outputs of the layers in the order in which they ran."""
        self._points.clear()
        with tf.GradientTape() as self._tape:
            self._Y = first_tensor(self.model(self.batch(X), training=training), (tf.Tensor,))
        return to_numpy(self._Y), list(self._points)

    def backward(self, dY: npt.NDArray[Any]) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """The gradients of the weights, by path and name, from the gradient of the last output."""
        weights = {name: variable.value for name, variable in self._variables().items() if variable.trainable}
        gradients = self._tape.gradient(self._Y, weights, output_gradients=tf.cast(dY, self._Y.dtype))
        return {name: to_numpy(gradient) for name, gradient in gradients.items() if gradient is not None}

    def read(self) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """Copies of the weights, by path and name, in the model's own layout."""
        return {name: np.array(to_numpy(variable.value)) for name, variable in self._variables().items()}

    def write(self, values: Mapping[tuple[str, str], npt.NDArray[Any]]) -> None:
        """Gives weights new values."""
        variables = self._variables()
        for name, value in values.items():
            variables[name].assign(value)

    def _variables(self) -> dict[tuple[str, str], keras.Variable]:
        return {(path, name): v for path, layer in self.layers.items() for name, v in _weights(layer).items()}

    # The methods below serve `multidrop.audit`; see `multidrop.protocol.Auditing`.

    tensors: ClassVar = (tf.Tensor, tf.RaggedTensor, tf.SparseTensor, keras.KerasTensor)
    weights: ClassVar[tuple[type, ...]] = ()

    def built(self) -> bool:
        """Whether all layers have made what they are made of."""
        return all(layer.built for layer in self.layers.values())

    def run(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a layer in training mode."""
        layer = self.layers[path] if path else self.model
        return layer(*args, **({"training": True} | kwargs))

    def seed(self, number: int) -> None:
        """Seeds TensorFlow's generator. Those that are objects go on, which makes each run another."""
        tf.random.set_seed(number)
        self._expected = float(tf.random.uniform(()))
        tf.random.set_seed(number)
        self._positions = [np.array(variable) for variable in self._generators()]

    def drew(self) -> bool:
        """Whether a number was drawn from them since `seed`."""
        moved = any(
            not np.array_equal(before, variable)
            for before, variable in zip(self._positions, self._generators(), strict=False)
        )
        return moved or float(tf.random.uniform(())) != self._expected

    def generators(self) -> Callable[[], None]:
        """A function that restores the current state of all generators. That of TensorFlow's own cannot be read: it is
        seeded with a number that it drew before."""
        number = int(tf.random.uniform((), maxval=2**31 - 1, dtype=tf.int32))
        own = [(variable, np.array(variable)) for variable in self._generators()]

        def back() -> None:
            tf.random.set_seed(number)
            for variable, value in own:
                variable.assign(value)

        return back

    def _generators(self) -> list[Any]:
        """The states of the generators that are objects: the default ones, and the attributes of layers."""
        held = [value for layer in self.layers.values() for value in vars(layer).values()]
        keras_own = [value for value in held if isinstance(value, keras.random.SeedGenerator)]
        default = internals.default_generator()
        generators = [value for value in held if isinstance(value, tf.random.Generator)]
        return [
            *(generator.state.value for generator in (*keras_own, *([default] if default else ()))),
            *(generator.state for generator in (*generators, tf.random.get_global_generator())),
        ]

    def state(self) -> Callable[[], None]:
        """A function that restores the current values of all variables except trained weights and generators."""
        skipped = {id(variable) for variable in self._generators()}
        held = [
            value for layer in self.layers.values() for value in vars(layer).values() if isinstance(value, tf.Variable)
        ]
        variables = [v.value for v in self.model.non_trainable_variables] + held
        before = [(variable, np.array(to_numpy(variable))) for variable in variables if id(variable) not in skipped]
        keyless = calls.position()

        def back() -> None:
            for variable, value in before:
                variable.assign(tf.cast(value, variable.dtype))
            calls.go_on_from(keyless)

        return back

    def symbolic(self, tensor: Any) -> bool:
        """Whether a tensor has no values."""
        return isinstance(tensor, keras.KerasTensor) or any(map(tf.is_symbolic_tensor, _flat(tensor)))

    def copy(self, tensor: Any) -> Any:
        """A tensor that nobody writes over."""
        return tensor

    def same(self, a: Any, b: Any) -> bool:
        """Whether two tensors have equal values; NaN is equal to NaN."""
        pairs = list(zip(_flat(a), _flat(b), strict=False))
        return len(_flat(a)) == len(_flat(b)) and all(parts.equal(x.numpy(), y.numpy()) for x, y in pairs)

    def assign(self, tensor: Any, values: Any) -> None:
        """Nothing: no tensor is written over."""

    # The methods below serve `multidrop.mc_dropout`; see `multidrop.protocol.Sampling`.

    def evaluating(self) -> AbstractContextManager[None]:
        """Changes nothing: the call sets the mode."""
        return nullcontext()

    def evaluate(self, *inputs: Any, **named: Any) -> tf.Tensor:
        """The output in evaluation mode. Keras takes several inputs as one argument."""
        given = named or (inputs[0] if len(inputs) == 1 else list(inputs))
        return first_tensor(self.model(given, training=False), (tf.Tensor,))

    def trains(self, path: str, kwargs: Mapping[str, Any]) -> bool:
        """Whether a call of a layer is in training mode."""
        return bool(kwargs.get("training"))


def _flat(tensor: Any) -> list[tf.Tensor]:
    """The plain tensors that a tensor is made of."""
    return tf.nest.flatten(tensor, expand_composites=True)


_NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_KINDS: tuple[tuple[Any, str], ...] = (
    (keras.layers.Dense, parts.DENSE),
    (_CONVOLUTIONS, parts.CONVOLUTION),
    (_NORMS, parts.NORM),
    (keras.layers.Embedding, parts.EMBEDDING),
)


def _kind(layer: keras.layers.Layer) -> str:
    return next((kind for types, kind in _KINDS if isinstance(layer, types)), type(layer).__name__)


def _activation(layer: keras.layers.Layer) -> str | None:
    """The name of the activation that a layer applies to its output; None for the identity."""
    activation = getattr(layer, "activation", None) or keras.activations.linear
    name = getattr(activation, "__name__", type(activation).__name__)
    return None if name == "linear" else name


def _weights(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """A layer's own weights by their common names."""
    names = {"embeddings": parts.KERNEL, "kernel": parts.KERNEL, "bias": parts.BIAS}
    if isinstance(layer, _NORMS):
        names = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"), parts.NORM_WEIGHTS, strict=True))
    stream = layer.stream if isinstance(layer, _Random) else None
    variables = [v for v in internals.own_variables(layer) if v is not stream]
    return {names.get(variable.name, variable.name): variable for variable in variables}


def _channels_last(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis != 1
    return getattr(layer, "data_format", "channels_last") == "channels_last"
