"""Two models of different frameworks, run side by side with equal weights and equal masks: where do they part?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from .. import checks
from ..dispatch import backend_of
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
"""Of the largest value of its kind in a step: what is smaller is compared with this share of it. A gradient that is
zero but for rounding, such as that of a bias before a batch norm, is no difference."""


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
    """Runs or trains two models, mostly of different frameworks, side by side and says where they part: the first
    input, mask or output of a layer, loss, gradient or weight that is not the same.

    The second model gets the weights of the first, and both the same masks; kernels are transposed and images laid out
    as each framework has them. Each batch is a step of w ← w − lr·gradient. Both models run eagerly, and are afterwards
    what they were: their weights, modes, dropout layers and positions.

    Layers are paired in the order in which the models run them: the k-th with weights in one and in the other, and
    likewise the k-th dropout.

    Args:
        model_a: a `torch.nn.Module`, a Keras model, an initialized Gluon block, a NumPy `Layer` or an `md.Net`.
        model_b: another one.
        batches: gives (X, y), or X or (X,) for a run without loss; NumPy arrays or any framework's tensors. X has
            shape (n, …), and is cast to the models' type where it is floating.
        steps: how many batches to run at most.
        lr: the learning rate; 0 leaves the weights as they are.
        training: whether the models run in training mode. Otherwise nothing drops, and nothing is learned.
        loss: a function of (output, y) that gives the loss and its gradient with respect to the output, all in NumPy;
            images come to it with the channels last. Without one it is the mean softmax cross-entropy for integer y,
            and the mean squared error for floating y.
        seed: keys the k-th dropout of both models alike; None leaves the masks to the models.
        same_weights: whether the second model gets the weights of the first.
        pairs: layers of the first model with that of the second, by path, where the order does not tell.
        data_format: of the batches' images, "channels_first" (n, c, h, w) or "channels_last" (n, h, w, c).
        rtol: the tolerance; by default one for the rounding of few steps in the coarser type of both. With infinity
            the run goes on whatever it finds, but for other masks.

    Returns:
        All differences, and the first beyond the tolerance, with which the run ends.

    Raises:
        ValueError: where the models have other layers or shapes, or a setting is bad.
        TypeError: for what is no model of a known framework, or batches of no tensors.
    """
    lr = checks.at_least_zero("lr", lr)
    if not (rtol is None or (isinstance(rtol, float) and rtol == math.inf)):
        rtol = checks.at_least_zero("rtol", rtol)
    if model_a is model_b:
        raise ValueError("model_b: expected another model; got model_a")
    data_format = checks.choice("data_format", data_format, ("channels_first", "channels_last"))
    if not isinstance(training, bool):
        raise ValueError(f"training: expected True or False; got {checks.shown(training)}")
    if not (loss is None or callable(loss)):
        raise TypeError(f"loss: expected a function of (output, y); got {checks.shown(loss)}")
    if not isinstance(pairs, Mapping | None):
        raise TypeError(f"pairs: expected a mapping of paths; got {checks.shown(pairs)}")
    # A tuple of two arrays is one batch, which would be run as two without y.
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
                # Images like X, to be compared with what the models give in the common layout.
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
        raise ValueError("batches: expected at least one; it gave none (an iterator that is used up?)")
    return result


def _parts(batch: Any) -> tuple[Array, Array | None]:
    """A batch's X, and y where it has one, on the host."""
    found = tuple(map(_host, batch)) if isinstance(batch, (tuple, list)) else (_host(batch),)
    if len(found) not in (1, 2):
        raise ValueError(f"batches: expected (X, y), (X,) or X; got a {type(batch).__name__} of {len(found)}")
    return found[0], found[1] if len(found) == 2 else None


def _host(values: Any) -> Array:
    """A batch's X or y on the host."""
    if not isinstance(values, np.ndarray):
        backend = backend_of(values, "batches")
        if not isinstance(values, tuple(backend.types)):
            raise TypeError(f"batches: expected arrays, or a framework's tensors; got {checks.shown(values)}")
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
    """What one step of both models shows, in the order in which it is computed."""
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
            f"loss: expected one that gives a number and its gradient, of the output's shape {Y.shape}; "
            f"got {checks.shown(found)}"
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
    """The largest absolute difference of two arrays divided by their largest value, which counts as `floor` at least;
    and what is known of the reason."""
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
    """The share of elements that one of two masks keeps and the other drops; and what is known of the reason."""
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
    """The mean softmax cross-entropy of logits (…, classes) for integer y of shape (…,), or the mean squared error for
    floating y; and its gradient with respect to the output."""
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
