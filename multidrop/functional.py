"""The library's functions, for any framework's tensors: each goes to the backend that its tensor belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import composed
from .dispatch import backend_of, learning
from .family import Member
from .host import keep_mask
from .spec.keys import Key

__all__ = ["apply", "dropout_layer", "keep_mask", "relu_dropout"]


def dropout_layer(
    X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> Any:
    """`X` through dropout: each element becomes 0 with probability `dropout`, else x/(1 − dropout), so that the
    expectation is unchanged. Differentiable where the framework differentiates; the gradient goes through the same
    mask and scale, drawn again from the key rather than stored.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014),
    section 4, in the inverted form (section 10); the mask is that of `multidrop.spec.masks`.

    Args:
        X: a floating tensor of any framework, shape and layout: float16, bfloat16, float32 or float64. It is computed
            by its own framework. A NumPy array, list or number goes to the backend that is set, and becomes its
            tensor.
        dropout: p, the probability that an element is dropped, in [0, 1]. At 0 the input comes back as it is, at 1
            all is zero, the gradient too.
        key: what names the mask, a `Key` or an int for `Key(int)`. Without one, each call takes the next mask after
            `manual_seed`, or draws one from the framework's own generator where `manual_seed` was not called.
        start: the index of X's first element, where X is a part of a larger tensor whose mask it is to share.
        axes: along which one decision holds for all elements, as for all pixels of a channel: the mask is drawn for the
            shape that has 1 there, and broadcast.

    Returns:
        A tensor of X's framework, shape and type.

    Raises:
        ValueError: for a probability that is no number in [0, 1], or a bad key, start or axes.
        TypeError: for an integer, boolean or complex tensor, or an object of no known framework.
    """
    backend: Any = backend_of(X)
    if not hasattr(backend, "dropout_layer"):
        return composed.dropout_layer(backend, X, dropout, key, start, axes)
    return backend.dropout_layer(X, dropout, key, start=start, axes=axes)


def relu_dropout(X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Any:
    """`dropout_layer` of max(X, 0), in one pass over the tensor, and its gradient in another, which draws no mask: the
    output tells what went through.

    Args and errors are those of `dropout_layer`; so is the mask.

    Returns:
        A tensor of X's framework, shape and type. A NaN that is kept stays one.
    """
    backend: Any = backend_of(X)
    if not hasattr(backend, "relu_dropout"):
        return composed.relu_dropout(backend, X, dropout, key, start)
    return backend.relu_dropout(X, dropout, key, start=start)


def apply(member: Member, X: Any, key: int | Key | None = None, *, start: int = 0, learned: Any = None) -> Any:
    """`X` through a member of the dropout family, as in training. Differentiable where the framework differentiates;
    the backward pass draws the numbers again from the key rather than store them.

    Source: that of the member; its numbers are those of `multidrop.spec.masks`.

    Args:
        member: such as `multidrop.family.DropBlock(p=0.1, block_size=7)`.
        X: a floating tensor of any framework and layout, of a shape that the member takes: float16, bfloat16, float32
            or float64. A NumPy array, list or number goes to the backend that is set, and becomes its tensor.
        key: what names the numbers, a `Key` or an int for `Key(int)`. Without one, as in `dropout_layer`.
        start: the index of X's first element, where X is a part of a larger tensor along its first axis, whose numbers
            it is to share. Where elements share decisions, a part begins with a whole X[i].
        learned: the tensor that a member learns, such as the logit of `ConcreteDropout`, which takes part in the
            gradient; None for what the member itself holds.

    Returns:
        A tensor of X's framework, shape and type; X itself where the member does nothing, as at p = 0.

    Raises:
        ValueError: for what is no member, a shape that it does not take, a bad key or start, or a `learned` that it has
            no use for.
        TypeError: for an integer, boolean or complex tensor, or an object of no known framework.
        BackendError: for `learned`, where the backend does not have that part.
    """
    backend = backend_of(X)
    if learned is None:
        return backend.apply(member, X, key, start=start)
    return learning(backend).apply(member, X, key, start=start, learned=learned)
