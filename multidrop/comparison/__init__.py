"""Runs two models side by side, with equal weights and equal masks, and reports where they first differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from .. import checks
from ..dispatch import backend_of, backend_of_model
from ..loss import softmax_cross_entropy
from ..protocol import Model
from ..spec.keys import Key, as_key
from ..view import LayerMask
from .pairs import Pair, pair
from .parts import Array
from .result import GRADIENT, LOSS, MASK, OUTPUT, WEIGHT, Comparison, Difference
from .side import Side, Weights

__all__ = ["Comparison", "Difference", "compare"]

Loss: TypeAlias = Callable[[Array, Array], tuple[float, Array]]

TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}

FLOOR = 1e-3
"""The smallest divisor of a difference, relative to the largest value of its kind in a step. Without it a gradient that
is zero up to rounding, such as that of a bias before a batch norm, would count as different."""


def compare(
    model_a: Model,
    model_b: Model,
    batches: Iterable[Any],
    *,
    steps: int | None = None,
    lr: float = 0.1,
    training: bool = True,
    loss: Loss | None = None,
    seed: int | Key | None = 0,
    same_weights: bool = True,
    pairs: Mapping[str, str] | None = None,
    data_format: str = "channels_first",
    rtol: float | None = None,
) -> Comparison:
    """Runs or trains two models side by side, usually of different frameworks, and reports the first difference: an
    input, mask or output of a layer, a loss, a gradient or a weight.

    The second model gets the weights of the first, and both get the same masks. Kernels are transposed, and images laid
    out, as each framework expects. Each batch is one step of w ← w − lr·gradient. Both models run eagerly. Their
    weights, modes, dropout layers and positions are restored afterwards.

    Layers are paired in the order in which the models run them: the k-th layer with weights of one model with the k-th
    of the other, and the k-th dropout with the k-th dropout.

    Args:
        model_a: a `torch.nn.Module`, a Keras model, an initialized Gluon block, a NumPy `Layer` or an `md.Net`.
        model_b: a second, different model.
        batches: gives (X, y), or X or (X,) for a run without a loss, as NumPy arrays or tensors of any framework. X has
            shape (n, …); a floating X is cast to the models' type.
        steps: the largest number of batches to run.
        lr: the learning rate; 0 leaves the weights unchanged.
        training: whether the models run in training mode. In evaluation mode nothing is dropped or learned.
        loss: a function of (output, y) that returns the loss and its gradient with respect to the output, all in NumPy,
            with images in channels-last layout. The default is the mean softmax cross-entropy for integer y, and the
            mean squared error for floating y.
        seed: gives the k-th dropout of both models the same key; None leaves the masks to the models.
        same_weights: whether the second model gets the weights of the first.
        pairs: maps paths of layers in the first model to paths in the second, for layers that the order would pair
            wrongly.
        data_format: the layout of the batches' images: "channels_first" (n, c, h, w) or "channels_last" (n, h, w, c).
        rtol: the tolerance; by default it allows for the rounding of a few steps in the models' coarser type. With
            infinity the run stops only if masks differ.

    Returns:
        All measured differences. The run ends with the first step that has one beyond the tolerance.

    Raises:
        ValueError: if the models have different layers or shapes, or for a bad setting.
        TypeError: for a model of an unknown framework, or batches that are not tensors.
    """
    lr = checks.at_least_zero("lr", lr)
    if not (rtol is None or (isinstance(rtol, float) and rtol == math.inf)):
        rtol = checks.at_least_zero("rtol", rtol)
    for name, model in (("model_a", model_a), ("model_b", model_b)):
        backend_of_model(model, name)
    if model_a is model_b:
        raise ValueError("model_b: expected a different model; got model_a")
    data_format = checks.choice("data_format", data_format, ("channels_first", "channels_last"))
    training = checks.flag("training", training)
    if not (loss is None or callable(loss)):
        raise TypeError(f"loss: expected a function of (output, y); got {checks.shown(loss)}")
    if not isinstance(pairs, Mapping | None):
        raise TypeError(f"pairs: expected a mapping of paths; got {checks.shown(pairs)}")
    # A tuple of two arrays is a single batch (X, y); iterating over it would run two batches without y.
    if (isinstance(batches, tuple) and len(batches) == 2) or not isinstance(batches, Iterable):
        raise TypeError(f"batches: expected an iterable of (X, y), (X,) or X, as a list; got {checks.shown(batches)}")
    taken = islice(batches, None if steps is None else checks.positive("steps", steps))
    found: list[Difference] = []
    result = None
    with ExitStack() as stack:
        a, b = sides = [Side(model, stack) for model in (model_a, model_b)]
        for number, batch in enumerate(taken):
            X, y = _parts(batch)
            if y is not None and y.dtype.kind == "f" and y.ndim == X.ndim > 2 and data_format == "channels_first":
                # y is images like X: the loss compares them with the output in the common layout, channels last.
                y = y if all(side.probe.channels_last is None for side in sides) else np.moveaxis(y, 1, -1)
            inputs = [side.oriented(X, data_format) for side in sides]
            if result is None:
                for side, given in zip(sides, inputs, strict=True):
                    side.begin(given, stack)
                layers = pair(a, b, pairs or {})
                kinds = {both.paths: both.kind for both in layers}
                if training and seed is not None:
                    for side in sides:
                        side.key(as_key(seed, "seed"), stack)
                if same_weights:
                    weights = a.weights()
                    both = [(p.paths, name) for p in layers for name in p.weights]
                    b.take_weights({(to, name): weights[of, name] for (of, to), name in both})
                tolerance = max(TOLERANCES[side.probe.dtype] for side in sides) if rtol is None else rtol
            found += _step(number, layers, sides, inputs, y, loss or default_loss, lr, training)
            result = Comparison((a.name, b.name), number + 1, tolerance, kinds, tuple(found), a.unreached + b.unreached)
            if not result.equal:
                if training and seed is not None:
                    result = replace(result, unreached=(*result.unreached, *a.random(), *b.random()))
                break
    if result is None:
        raise ValueError("batches: expected at least one batch; got none (an exhausted iterator?)")
    return result


def _parts(batch: Any) -> tuple[Array, Array | None]:
    """A batch's X and y as NumPy arrays; y is None if the batch has none."""
    found = tuple(map(_host, batch)) if isinstance(batch, (tuple, list)) else (_host(batch),)
    if len(found) not in (1, 2):
        raise ValueError(f"batches: expected (X, y), (X,) or X; got a {type(batch).__name__} of {len(found)}")
    return found[0], found[1] if len(found) == 2 else None


def _host(values: Any) -> Array:
    """A batch's X or y as a NumPy array."""
    if not isinstance(values, np.ndarray):
        backend = backend_of(values, "batches")
        if not isinstance(values, tuple(backend.types)):
            raise TypeError(f"batches: expected arrays or tensors; got {checks.shown(values)}")
        values = backend.to_numpy(values)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"batches: expected integers or floating numbers; got an array of type {values.dtype}")
    return np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(values.shape)


def _step(
    number: int,
    layers: Sequence[Pair],
    sides: Sequence[Side],
    inputs: Sequence[Array],
    y: Array | None,
    loss: Loss,
    lr: float,
    training: bool,
) -> Iterator[Difference]:
    """Runs one step of both models, and gives their differences in the order in which they are computed."""
    (found_a, Y_a), (found_b, Y_b) = (side.run(X, training) for side, X in zip(sides, inputs, strict=True))
    others = dict(found_b)
    for name, value in found_a:
        both = layers[name.layer]
        if name not in others or (name.what == OUTPUT and not both.same_output):
            continue
        measure = masks_apart if name.what == MASK else apart
        yield Difference(number, name.what, both.paths, *measure(value, others[name]))
    yield Difference(number, OUTPUT, None, *apart(Y_a, Y_b))
    if y is None:
        return
    (loss_a, dY_a), (loss_b, dY_b) = (_loss(loss, Y, y) for Y in (Y_a, Y_b))
    yield Difference(number, LOSS, None, *apart(np.array(loss_a), np.array(loss_b)))
    a, b = sides
    yield from _weights_apart(number, GRADIENT, layers[::-1], a.gradients(dY_a), b.gradients(dY_b))
    if training and lr:
        for side in sides:
            side.update(lr)
    if training:
        yield from _weights_apart(number, WEIGHT, layers, a.weights(), b.weights())


def _loss(loss: Loss, Y: Array, y: Array) -> tuple[float, Array]:
    found = loss(Y, y)
    if not (
        isinstance(found, tuple) and len(found) == 2 and np.shape(found[0]) == () and np.shape(found[1]) == Y.shape
    ):
        raise ValueError(
            "loss: expected a function that returns a number and its gradient, which has the output's shape "
            f"{Y.shape}; got {checks.shown(found)}"
        )
    return float(found[0]), np.asarray(found[1])


def _weights_apart(
    number: int, what: str, layers: Sequence[Pair], of_a: Weights, of_b: Weights
) -> Iterator[Difference]:
    floor = FLOOR * max((float(np.abs(value).max(initial=0.0)) for value in of_a.values()), default=0.0)
    for both in layers:
        path_a, path_b = both.paths
        for name in both.weights:
            if (path_a, name) in of_a and (path_b, name) in of_b:
                measured = apart(of_a[path_a, name], of_b[path_b, name], floor)
                yield Difference(number, what, both.paths, *measured, name)


def apart(a: Array, b: Array, floor: float = 0.0) -> tuple[float, str]:
    """The largest absolute difference of two arrays, divided by their largest absolute value or by `floor`, whichever
    is larger; and a note on the cause, "" if unknown."""
    if a.squeeze().shape != b.squeeze().shape:
        return math.inf, f"shapes {a.shape} and {b.shape}"
    a, b = a.squeeze(), b.squeeze()
    if np.array_equal(a, b, equal_nan=True):
        return 0.0, ""
    with np.errstate(invalid="ignore", over="ignore"):
        scale = max(float(np.abs(a).max()), float(np.abs(b).max()), floor)
        value = float(np.abs(a - b).max()) / scale
    return (value, "") if math.isfinite(value) else (math.inf, "not finite")


def masks_apart(a: tuple[LayerMask, Array], b: tuple[LayerMask, Array]) -> tuple[float, str]:
    """The share of elements that one mask keeps and the other drops; and a note on the cause, "" if unknown."""
    (mask_a, kept_a), (mask_b, kept_b) = a, b
    notes = []
    if mask_a.p != mask_b.p:
        notes.append(f"p is {mask_a.p} and {mask_b.p}")
    if mask_a.key != mask_b.key:
        notes.append(f"{mask_a.key} and {mask_b.key}")
    if kept_a.shape != kept_b.shape:
        return 1.0, ", ".join([*notes, f"shapes {kept_a.shape} and {kept_b.shape}"])
    value = float(np.mean(kept_a != kept_b)) if kept_a.size else 0.0
    if value and not notes:
        notes.append(_order_note(mask_a, mask_b))
    return value, ", ".join(notes)


def _order_note(a: LayerMask, b: LayerMask) -> str:
    if len(a.axes) != len(b.axes):
        return f"shared along axes {a.axes} of {a.shape} and {b.axes} of {b.shape}"
    return f"the elements of {a.shape} and {b.shape} are counted in another order"


def default_loss(output: Array, y: Array) -> tuple[float, Array]:
    """The loss and its gradient with respect to the output: the mean softmax cross-entropy of logits (…, classes) for
    integer y of shape (…,), or the mean squared error for floating y."""
    if y.dtype.kind == "f":
        if y.size != output.size or (y.ndim > 2 and y.shape != output.shape):
            raise ValueError(
                f"batches: expected integer labels, or a floating y of the output's shape {output.shape}; got y of "
                f"type {y.dtype} and shape {y.shape}"
            )
        error = output - y.reshape(output.shape).astype(output.dtype)
        return float(np.mean(error**2)), error * output.dtype.type(2 / error.size)
    logits, labels = output.reshape(-1, output.shape[-1]), y.reshape(-1)
    if len(logits) != len(labels):
        raise ValueError(f"batches: expected a label for each of {output.shape[:-1]} outputs; got y of shape {y.shape}")
    losses, gradients = softmax_cross_entropy(logits, labels)
    return float(losses.mean()), (gradients / len(labels)).astype(output.dtype).reshape(output.shape)
