"""The kernel as a call of XLA's: shapes, gradients, retracing, and the versions that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tensorflow_programs import traced

import multidrop as md
from multidrop import host


@pytest.fixture(autouse=True)
def tensorflow(need: Any) -> None:
    need("tensorflow")


@pytest.mark.parametrize("signature", [(None,), (None, 3), (2, None, 3, None), (0, None), (5, 1), (), None])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_shapes_that_xla_learns_when_it_compiles(dtype: str, signature: tuple[int | None, ...] | None) -> None:
    import tensorflow as tf

    spec = [tf.TensorSpec(signature, dtype)]
    dropout = traced(lambda X: md.dropout_layer(X, 0.5, 1, start=2**63 + 5), jit_compile=True, input_signature=spec)
    for number in (1, 2, 300):
        shape = tuple(number if size is None else size for size in signature or ())
        expected = 2.0 * md.keep_mask(shape, 0.5, 1, start=2**63 + 5)
        assert np.array_equal(tf.cast(dropout(tf.ones(shape, dtype)), tf.float64).numpy(), expected)


def test_a_call_of_xlas_without_the_sizes() -> None:
    """XLA hands over what it has not looked at before, and where it knew the result's shape, not the sizes."""
    from ctypes import POINTER, c_int64, pointer, sizeof

    from multidrop_tensorflow import position, xla

    key, X, Y = md.Key(7, 2**63), np.ones(20, np.float32), np.zeros(20, np.float32)
    settings = np.array([np.float64(0.5).view(np.int64), 3])
    parts = [(X, 11), (position.words_of(key), 5), (settings, 5), (Y, 11)]
    buffers = [
        xla._BUFFER(sizeof(xla._BUFFER), None, code, part.ctypes.data, 1, (c_int64 * 1)(part.size))
        for part, code in parts
    ]
    given, result = (POINTER(xla._BUFFER) * 4)(*map(pointer, buffers[:3])), pointer(pointer(buffers[3]))
    api = xla._sized(xla._API)
    api.create_error = type(api.create_error)(lambda error: pytest.fail(error.contents.message.decode()) or 0)
    call = xla._sized(xla._CALL, api=pointer(api))
    call.arguments.count, call.arguments.items = 3, given  # behind which lies what is no buffer
    call.results.count, call.results.items = 1, result
    assert xla._handler(pointer(call)) is None
    assert np.array_equal(Y, 2.0 * md.keep_mask(20, 0.5, key, start=3))


def test_a_gradient_under_xla() -> None:
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    layer = Dropout(0.5, seed=3)

    @tf.function(jit_compile=True)
    def gradient(X: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = layer(X, training=True)
        return Y, tape.gradient(Y, X)

    for call in range(3):
        Y, dX = gradient(tf.ones(100))
        assert np.array_equal(Y.numpy(), dX.numpy())
        assert np.array_equal(Y.numpy(), 2.0 * md.keep_mask(100, 0.5, md.Key(3, call)))


def test_a_function_that_was_traced_for_xla_runs_without() -> None:
    import tensorflow as tf

    inner = tf.function(lambda X: md.dropout_layer(X, 0.5, 1))
    outer = tf.function(lambda X: inner(X), jit_compile=True)
    for size in (7, 2**20):
        expected = 2.0 * md.keep_mask(size, 0.5, 1)
        for function in (outer, inner):
            assert np.array_equal(function(tf.ones(size)).numpy(), expected)


def test_a_function_that_was_traced_without_xla_is_traced_anew_for_it() -> None:
    import tensorflow as tf

    X, expected = tf.ones(7), 2.0 * md.keep_mask(7, 0.5, 1)
    inner = traced(lambda X: md.dropout_layer(X, 0.5, 1))
    inner(X)
    with pytest.raises(tf.errors.InvalidArgumentError, match="MultidropDropout"):
        traced(lambda X: inner(X), jit_compile=True)(X)
    for function in (inner.python_function, traced(inner.python_function)):
        assert np.array_equal(traced(lambda X, f=function: f(X), jit_compile=True)(X).numpy(), expected)


def test_versions_of_xla(need: Any) -> None:
    """A version whose structures are not known is refused, and not read wrongly."""
    need("tensorflow")
    from multidrop_tensorflow import xla

    assert xla._registered, "XLA refused the handler: see what changed in xla/ffi/api/c_api.h, then KNOWN_VERSIONS"
    assert xla.answered((0, 1)) == (0, 1)
    for other in ((0, 3), (1, 0)):
        assert xla.answered(other) != other


def test_xla_refuses_a_handler_of_another_version(need: Any) -> None:
    need("tensorflow")
    code = """
import multidrop_tensorflow
from multidrop_tensorflow import xla
xla.KNOWN_VERSIONS, xla.TARGET = ((9, 9),), "multidrop_of_another_version"
xla._register()
assert not xla._registered
"""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "XLA's calls are of version" in done.stderr


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
def test_an_interrupted_operator_fails(xla: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its output, which is written in part or not at all, is not given away."""
    import tensorflow as tf

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    program = traced(lambda X: md.dropout_layer(X, 0.5, 1), jit_compile=xla)
    X = tf.ones(2**20)
    program(X)
    monkeypatch.setattr(host, "drop", interrupted)
    with pytest.raises(tf.errors.OpError, match="KeyboardInterrupt"):
        program(X)


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
def test_a_fault_in_the_operator_is_raised_where_it_is_run(xla: bool) -> None:
    code = f"""
import tensorflow as tf, multidrop as md
f = tf.function(lambda X: md.dropout_layer(X, 0.5, 1), autograph=False, jit_compile={xla})
f(tf.ones(16))
try:
    f(tf.ones(2**20))
except tf.errors.OpError as error:
    print(error.message)
print(int(tf.math.count_nonzero(f(tf.ones(16)))) > 0)
"""
    environment = {"MULTIDROP_NUM_THREADS": "many", "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "MULTIDROP_NUM_THREADS: expected" in done.stdout
    assert done.stdout.splitlines()[-1] == "True"
