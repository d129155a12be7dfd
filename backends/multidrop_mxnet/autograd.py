"""Applies masks to arrays, and records the gradients."""

from __future__ import annotations

from functools import partial

import mxnet as mx

from multidrop.spec.masks import Mask

from . import draw
from .internals import Array, record


def masked(X: Array, mask: Mask, relu: bool = False) -> Array:
    """Applies a mask to X, or to max(X, 0): `dropout_layer` after its checks. Without drops it needs no key."""
    if mask.p == 0.0 or mask.key is None:
        return rectified(X) if relu else X
    return (_recorded if mx.autograd.is_recording() else draw.drop)(X, mask, relu)


def rectified(X: Array) -> Array:
    """max(X, 0), of X's kind: +0 for what is not above 0, and NaN for NaN."""
    return mx.npx.relu(X) if isinstance(X, mx.np.ndarray) else mx.nd.relu(X)


def _recorded(X: Array, mask: Mask, relu: bool) -> Array:
    """`draw.drop`, recorded for autograd. The backward pass applies the same mask to the gradient, so it keeps the key
    alone; with ReLU it keeps the output."""
    with mx.autograd.pause(train_mode=mx.autograd.is_training()):
        Y = draw.drop(X, mask, relu)
    if relu:  # detached: the output refers to what is recorded here
        return record(Y, [(X, partial(draw.assign_relu_gradient, Y=Y.detach().as_nd_ndarray(), p=mask.p))])
    return record(Y, [(X, partial(draw.assign, mask=mask))])
