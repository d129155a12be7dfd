"""Masks on arrays, and their gradients."""

from __future__ import annotations

from functools import partial

import mxnet as mx

from multidrop.spec.masks import Mask

from . import draw
from .internals import Array, record


def masked(X: Array, mask: Mask, relu: bool = False) -> Array:
    """X, or max(X, 0), through a mask: `dropout_layer` after its checks. A mask that drops nothing has no key."""
    if mask.p == 0.0 or mask.key is None:
        return rectified(X) if relu else X
    return (_recorded if mx.autograd.is_recording() else draw.drop)(X, mask, relu)


def rectified(X: Array) -> Array:
    """max(X, 0), of X's kind: +0 for what is not above 0, and NaN for NaN."""
    return mx.npx.relu(X) if isinstance(X, mx.np.ndarray) else mx.nd.relu(X)


def _recorded(X: Array, mask: Mask, relu: bool) -> Array:
    """`draw.drop`, recorded for autograd. The gradient of a dropout is the same dropout of the gradient: the backward
    pass keeps the mask's key, or after a ReLU the output."""
    with mx.autograd.pause(train_mode=mx.autograd.is_training()):
        Y = draw.drop(X, mask, relu)
    if relu:  # detached, since the output holds what is recorded here
        return record(Y, [(X, partial(draw.assign_relu_gradient, Y=Y.detach().as_nd_ndarray(), p=mask.p))])
    return record(Y, [(X, partial(draw.assign, mask=mask))])
