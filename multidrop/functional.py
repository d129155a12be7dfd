"""The library's functions on tensors of any framework. Each calls the backend of its tensor."""

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
    """Applies dropout to `X`: each element becomes 0 with probability `dropout`, else x/(1 − dropout), so that the
    expectation is unchanged. Differentiable in frameworks with autograd; the backward pass draws the same mask again
    from the key instead of storing it.

    Source: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014),
    section 4, in the inverted form (section 10); the mask is that of `multidrop.spec.masks`.

    Args:
        X: a floating tensor of any framework, shape and layout: float16, bfloat16, float32 or float64. A NumPy array,
            list or number is converted to a tensor of the current backend.
        dropout: p, the probability that an element is dropped, in [0, 1]. At 0 the input is returned unchanged; at 1
            the output and the gradient are zero.
        key: the mask's key, a `Key` or an int for `Key(int)`. Without a key, each call takes the next key after
            `manual_seed`, or draws one from the framework's own generator if `manual_seed` was not called.
        start: the index of X's first element in a larger tensor, if X is a part of one and is to have its part of the
            mask.
        axes: axes along which elements share one decision, such as all pixels of a channel. The mask is drawn for the
            shape that has 1 along these axes, and broadcast.

    Returns:
        A tensor of X's framework, shape and type.

    Raises:
        ValueError: for a probability outside [0, 1], or a bad key, start or axes.
        TypeError: for an integer, boolean or complex tensor, or an object of an unknown framework.
    """
    backend: Any = backend_of(X)
    if not hasattr(backend, "dropout_layer"):
        return composed.dropout_layer(backend, X, dropout, key, start, axes)
    return backend.dropout_layer(X, dropout, key, start=start, axes=axes)


def relu_dropout(X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Any:
    """Applies ReLU, then dropout, in one pass over the tensor. The backward pass is one pass too and draws no mask,
    because the output shows which elements passed.

    Args, errors and mask are those of `dropout_layer`.

    Returns:
        A tensor of X's framework, shape and type. A kept NaN stays NaN.
    """
    backend: Any = backend_of(X)
    if not hasattr(backend, "relu_dropout"):
        return composed.relu_dropout(backend, X, dropout, key, start)
    return backend.relu_dropout(X, dropout, key, start=start)


def apply(member: Member, X: Any, key: int | Key | None = None, *, start: int = 0, learned: Any = None) -> Any:
    """Applies a member of the dropout family to `X`, as in training. Differentiable in frameworks with autograd; the
    backward pass draws the random numbers again from the key instead of storing them.

    Source: the member's docstring names its paper; the random numbers are those of `multidrop.spec.masks`.

    Args:
        member: a member, such as `multidrop.family.DropBlock(p=0.1, block_size=7)`.
        X: a floating tensor of any framework and layout, with a shape that the member supports: float16, bfloat16,
            float32 or float64. A NumPy array, list or number is converted to a tensor of the current backend.
        key: the key of the random numbers, a `Key` or an int for `Key(int)`. Without a key, as in `dropout_layer`.
        start: the index of X's first element in a larger tensor, if X is a part of one along the first axis and is to
            have its part of the random numbers. For members whose elements share decisions, a part begins with a whole
            X[i].
        learned: a tensor for the parameter that the member learns, such as the logit of `ConcreteDropout`; the
            gradient reaches it. None uses the member's own value.

    Returns:
        A tensor of X's framework, shape and type; X itself if the member does nothing, as at p = 0.

    Raises:
        ValueError: if `member` is not a member, does not support X's shape or does not learn, or for a bad key or
            start.
        TypeError: for an integer, boolean or complex tensor, or an object of an unknown framework.
        BackendError: for `learned`, if the backend does not support learned parameters.
    """
    backend = backend_of(X)
    if learned is None:
        return backend.apply(member, X, key, start=start)
    return learning(backend).apply(member, X, key, start=start, learned=learned)
