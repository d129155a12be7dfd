"""Host data as it comes: what has clear values works in any layout, and anything else is an error."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from named import named

import multidrop as md
from multidrop.spec import masks


def _unaligned(values: np.ndarray) -> np.ndarray:
    result = np.ndarray(values.shape, values.dtype, np.zeros(values.nbytes + 1, np.uint8)[1:])
    result[...] = values
    return result


def _read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


LAYOUTS = {
    "byte-swapped": lambda values: values.astype(">f4"),
    "reversed": lambda values: values[::-1].copy()[::-1],
    "unaligned": _unaligned,
    "read-only": _read_only,
    "matrix": lambda values: values.view(np.matrix),
    "fields": lambda values: np.rec.fromarrays([values, values], names="a,b")["a"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_host_arrays_of_any_layout(backend: Any, layout: str) -> None:
    values = np.arange(-32, 32, dtype=np.float32).reshape(4, 16)
    for function, x in ((md.dropout_layer, values), (md.relu_dropout, masks.relu(values))):
        Y = backend.to_numpy(function(LAYOUTS[layout](values.copy()), 0.5, 1))
        assert type(Y) is np.ndarray
        assert np.array_equal(Y, masks.dropout(x, 0.5, 1))


NOT_REAL = [np.ones(3, np.complex64), np.ones(3, object), np.zeros(3, [("a", "f4")]), np.array("x"), [None], [1j],
            ["x"], [[1.0], [1.0, 2.0]], np.zeros(3, "M8[s]"), Fraction(1, 2), np.ones(3, np.uint16),
            [10**400]]  # fmt: skip


@pytest.mark.parametrize("bad", NOT_REAL, ids=named)
def test_host_data_that_is_not_floating(backend: Any, bad: Any) -> None:
    with pytest.raises(TypeError, match=r"X: expected a tensor of type float16, .*; got .*: convert it with "):
        md.dropout_layer(bad, 0.5)


def test_masked_arrays(backend: Any) -> None:
    """Are not bared of their masks."""
    masked = np.ma.array(np.ones(3, np.float32), mask=[True, False, False])
    for bad in (masked, [masked, masked]):
        with pytest.raises(TypeError, match=r"X: expected an array without a mask; got .*: fill it with X\.filled"):
            md.dropout_layer(bad, 0.5)
    if backend.name == "numpy":
        for layer in (backend.Dropout(), backend.AlphaDropout(), backend.GaussianDropout(), backend.GaussianNoise(0.5)):
            with pytest.raises(TypeError, match="X: expected an array without a mask"):
                layer(masked)


def test_out_that_cannot_be_written_to(need: Any) -> None:
    """Takes no mask."""
    backend = need("numpy")
    X = np.ones(64, np.float32)
    md.manual_seed(0)
    for out in (
        _read_only(np.ones(64, np.float32)),
        np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (64,), (0,)),
    ):
        with pytest.raises(ValueError, match=r"out: expected .*; got "):
            backend.dropout_layer(X, 0.5, out=out)
    with pytest.raises(TypeError, match=r"out: expected a NumPy array; got .*MaskedArray"):
        backend.dropout_layer(X, 0.5, out=np.ma.array(X))
    assert np.array_equal(backend.dropout_layer(X, 0.5), masks.dropout(X, 0.5, md.Key(0).fold_in("calls")))


def test_sparse_arrays_of_mxnet(need: Any) -> None:
    need("mxnet")
    import mxnet as mx

    for kind in ("csr", "row_sparse"):
        with pytest.raises(TypeError, match=rf"X: expected an array of dense storage; got {kind}: convert it with "):
            md.dropout_layer(mx.nd.ones((3, 4)).tostype(kind), 0.5)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_tensors_that_are_not_floating(backend: Any, dtype: str) -> None:
    X = backend.tensor(np.ones(4, dtype), dtype)
    remedy = {"numpy": "astype", "torch": r"X\.float\(\)", "tensorflow": r"tf\.cast", "mxnet": "astype"}[backend.name]
    message = f"X: expected a tensor of type float16, bfloat16, float32, float64; got {dtype}: convert it .*{remedy}"
    with pytest.raises(TypeError, match=message):
        md.dropout_layer(X, 0.5)
