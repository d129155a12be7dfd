"""The R-Drop loss of MXNet arrays, and its operator in a hybridized net. Both run on the host, in NumPy."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np

from multidrop import checks, loss

from . import draw, internals
from .functional import Array, check_floating, tensor
from .operators import register


def r_drop(logits1: Array, logits2: Array, labels: Array, alpha: float = 1.0) -> Array:
    """`multidrop.r_drop` of arrays, differentiable once. Labels may be floating where they are whole numbers, which
    `mx.nd.array` makes of integers. Of symbols, in `hybrid_forward`, it gives a symbol. Args and errors are those.

    Returns:
        An array without dimensions, of the kind and the context of the first logits; of the classic kind, and for
        symbols, of shape (1,).
    """
    if isinstance(logits1, mx.sym.Symbol):
        return _symbol(logits1, logits2, labels, checks.at_least_zero("alpha", alpha))
    first, second, y = tensor(logits1), tensor(logits2), tensor(labels)
    check_floating(first, "logits1")
    check_floating(second, "logits2")
    values = _checked(first.asnumpy(), second.asnumpy(), y.asnumpy(), alpha)
    with mx.util.np_shape(True):
        Y = mx.nd.from_numpy(loss.r_drop_on_host(*values).reshape(1), zero_copy=False).as_in_context(first.ctx)
        if isinstance(first, mx.np.ndarray):
            Y = Y.as_np_ndarray().reshape(())
    if not mx.autograd.is_recording():
        return Y
    computed: list[Any] = []

    def gradient(number: int) -> internals.Gradient:
        def assign(target: Array, request: str, dY: Array) -> None:
            if not computed:
                computed.extend(loss.r_drop_gradients(*values))
            draw.assign_values(target, request, (dY.asnumpy() * computed[number]).astype(computed[number].dtype))

        return assign

    return internals.record(Y, [(first, gradient(0)), (second, gradient(1))])


def _checked(first: Any, second: Any, y: Any, alpha: float) -> tuple[Any, Any, Any, float]:
    checks.same_type(first.dtype.name, second.dtype.name, "logits2", f'logits2.astype("{first.dtype.name}")')
    whole = y.astype(np.int64)
    if y.dtype.kind != "f" or not np.array_equal(whole, y):
        checks.integers(y.dtype.name, 'labels.astype("int64")', "labels")
    alpha = loss.check(first.shape, second.shape, y.shape, alpha)
    checks.labels(whole, first.shape[-1])
    return first, second, whole, alpha


def _symbol(logits1: mx.sym.Symbol, logits2: mx.sym.Symbol, labels: mx.sym.Symbol, alpha: float) -> mx.sym.Symbol:
    plain = [X.as_nd_ndarray() for X in (logits1, logits2, labels)]
    Y = mx.sym.Custom(*plain, alpha=repr(alpha), op_type="multidrop_r_drop")
    return Y if plain[0] is logits1 else Y.as_np_ndarray()


@register("multidrop_r_drop")
class RDropProp(mx.operator.CustomOpProp):
    """Two logits and labels to a loss of shape (1,)."""

    def __init__(self, alpha: str) -> None:
        super().__init__(need_top_grad=True)
        self.alpha = float(alpha)

    def list_arguments(self) -> list[str]:
        return ["logits1", "logits2", "labels"]

    def infer_shape(self, in_shape: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        return [in_shape[0], in_shape[0], in_shape[0][:-1]], [(1,)], []

    def infer_type(self, in_type: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        double = in_type[0] is not None and np.dtype(in_type[0]) == np.float64
        return in_type, [np.float64 if double else np.float32], []

    def create_operator(self, ctx: Any, in_shapes: Any, in_dtypes: Any) -> _RDrop:
        return _RDrop(self.alpha)


class _RDrop(mx.operator.CustomOp):
    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, is_train: bool, req: list[str], in_data: list[Array], out_data: list[Array], aux: Any) -> None:
        Y = loss.r_drop_on_host(*self._values(in_data)).reshape(1)
        draw.assign_values(out_data[0], req[0], Y)

    def backward(
        self,
        req: list[str],
        out_grad: list[Array],
        in_data: list[Array],
        out_data: list[Array],
        in_grad: list[Array],
        aux: Any,
    ) -> None:
        gradients = loss.r_drop_gradients(*self._values(in_data))
        for target, request, each in zip(in_grad, req, gradients, strict=False):
            draw.assign_values(target, request, (out_grad[0].asnumpy() * each).astype(each.dtype))
        self.assign(in_grad[2], req[2], 0)

    def _values(self, in_data: list[Array]) -> tuple[Any, Any, Any, float]:
        first, second, y = (X.asnumpy() for X in in_data)
        return _checked(first, second, y, self.alpha)
