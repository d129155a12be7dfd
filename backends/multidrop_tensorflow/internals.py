"""The private names of TensorFlow and Keras that this backend needs. No other module of the backend uses one.

Each function says why the name is needed, and what happens in a version that lacks it: an error, or a slower way. What
would change results without an error is logged as a warning of the logger "multidrop".
"""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from types import CodeType
from typing import Any

import keras
import tensorflow as tf

try:
    # The private function under `tf.custom_gradient`: calling it saves 70 µs and one retained tensor. Without it,
    # `functional.with_gradient` calls `tf.custom_gradient`.
    from tensorflow.python.eager.record import record_operation, stop_recording
except ImportError:
    record_operation, stop_recording = None, nullcontext

try:
    from tensorflow.python.eager import context as _context
except ImportError:
    _context = None

try:
    from keras.src.backend.common.stateless_scope import in_stateless_scope as _in_stateless_scope
except ImportError:
    _in_stateless_scope = None


@cache
def warn(missing: str, consequence: str) -> None:
    """Logs once that a name is missing, and what follows."""
    logging.getLogger("multidrop").warning(
        f"multidrop_tensorflow: expected {missing} in TensorFlow {tf.__version__} with Keras {keras.__version__}; got "
        f"none: {consequence}"
    )


class _AnyGenerator:
    """Stands for the generator of a TensorFlow that does not show it."""


_any_generator = _AnyGenerator()


def global_generator() -> Any:
    """The Python generator from which TensorFlow draws the seeds of operators. `tf.random.set_seed` replaces it, so its
    identity shows whether a program was traced before or after the seed was set.

    Without the name: the same object always. Programs still draw masks of their own; tracing them again after a second
    `set_seed` does not repeat them.
    """
    try:
        return _context.context()._rng
    except AttributeError:
        warn("the generator of its context", "tf.random.set_seed does not repeat the masks of traced calls")
        return _any_generator


def in_stateless_scope() -> bool:
    """Whether variables are read from and written to a `keras.StatelessScope`. A stream then has to be advanced by
    Keras' `assign`, and not by TensorFlow's operator, which would change the variable itself.

    Without the name: True, since the way for a scope works everywhere. It takes longer, and two runs of a program at
    the same time may take the same call.
    """
    if _in_stateless_scope is None:
        warn("keras.src's in_stateless_scope", "simultaneous runs of one program may draw the same mask")
        return True
    return bool(_in_stateless_scope())


@cache
def _shows_jit_compile() -> bool:
    return getattr(tf.function(lambda: None, jit_compile=True), "_jit_compile", None) is True


def in_trace_for_xla() -> bool | None:
    """Whether this is a trace for XLA, which knows TensorFlow's own operators alone. A trace is not told what it is
    for; the `tf.function` that traces is, and holds it as `_jit_compile`.

    Without the name: None, for not known. Masks are then drawn by TensorFlow's operators, which run everywhere.
    """
    if not _shows_jit_compile():
        warn("tf.function(...)._jit_compile", "traced programs draw their masks by TensorFlow's operators, slowly")
        return None
    frame: Any = sys._getframe()
    while frame := frame.f_back:
        if getattr(frame.f_locals.get("self"), "_jit_compile", None) is True:
            return True
    return False


def _code_of(function: Any) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None)


def in_vectorized_map() -> bool:
    """Whether this is a trace for `tf.vectorized_map`, which makes a loop of an operator that it does not know, and XLA
    does not differentiate that loop. Its frames are known by the file that defines `tf.vectorized_map`.

    Without that file: True. Masks under XLA are then drawn by TensorFlow's operators, slowly.
    """
    code = _code_of(tf.vectorized_map)
    if code is None:
        warn("a Python function tf.vectorized_map", "programs for XLA draw their masks by TensorFlow's operators")
        return True
    frame: Any = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_filename == code.co_filename:
            return True
    return False


def _nested(code: CodeType) -> Iterator[CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, CodeType))


def recomputing_code(recompute_grad: Callable[..., Any]) -> tuple[frozenset[int], frozenset[int]]:
    """The code, by `id`, that runs a function f for `tf.recompute_grad`: first, and again for the gradient. The first
    is the only function that `recompute_grad` defines directly, the second is defined within it, and both refer to f.
    Both are empty if it is not built so."""
    code = _code_of(recompute_grad)
    first = list(_nested(code)) if code else []
    again = [inner for outer in first for inner in _nested(outer)]
    for each in again:  # which grows
        again += _nested(each)
    f = code.co_varnames[0] if code and code.co_argcount else None
    if len(first) != 1 or not all(any(f in each.co_freevars for each in codes) for codes in (first, again)):
        return frozenset(), frozenset()
    return frozenset(map(id, first)), frozenset(map(id, again))


_FIRST, _AGAIN = recomputing_code(tf.recompute_grad)
_EITHER = _FIRST | _AGAIN


def would_be_recomputed() -> bool:
    """Whether a draw at this point is, or will be, repeated by TensorFlow's own `tf.recompute_grad` with another mask:
    in its backward pass, and, where a `tf.function` is traced within, in its forward pass, since that is not traced
    again. TensorFlow tells nobody, but its code stands among the calling frames.

    Raises:
        RuntimeError: where TensorFlow's function is not built as expected, so that this cannot be known: a gradient
            could otherwise be wrong without an error.
    """
    either = _EITHER
    if not either:
        raise RuntimeError(
            "tf.recompute_grad: expected a Python function that defines the one which it runs; got another, of "
            f"TensorFlow {tf.__version__}, under which a dropout cannot tell whether it is recomputed: call "
            "dropout_layer with a key, or multidrop_tensorflow.recompute_grad"
        )
    frame: Any = sys._getframe()
    while frame := frame.f_back:
        if id(frame.f_code) in either and (id(frame.f_code) in _AGAIN or _traced_within(frame)):
            return True
    return False


def _traced_within(outer: Any) -> bool:
    """Whether a `tf.function` is being traced by what a frame has called."""
    frame: Any = sys._getframe(1)
    while (frame := frame.f_back) is not outer:
        if isinstance(frame.f_locals.get("self"), tf.types.experimental.PolymorphicFunction):
            return not tf.executing_eagerly()
    return False


@contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[None]:
    """A layer that is built accepts another weight, or loses one, within this context: one that becomes keyed, or is
    keyed no longer.

    Without the names: an AttributeError where a built layer is keyed anew, as `convert` and `compare` do.
    """
    layer._tracker.unlock()
    try:
        yield
    finally:
        if layer.built:
            layer._tracker.lock()


def untrack(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Makes a variable no weight of a layer any more. Without the name: an AttributeError, as for `unlocked`."""
    layer._untrack_variable(variable)


def untrack_generator(layer: keras.layers.Layer, generator: keras.random.SeedGenerator) -> None:
    """Takes a generator's state from a layer's variables. Without the name: an AttributeError, as for `unlocked`."""
    layer._tracker.untrack(generator)


def build_at_once(layer: keras.layers.Layer) -> None:
    """Builds a layer when it is constructed, as Keras builds its own dropout layers. Without the name: it is built at
    its first call, as in the versions of Keras that lack it."""
    getattr(layer, "_build_at_init", lambda: None)()


def children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer holds itself. Without the name: an AttributeError from `convert` and `compare`."""
    return layer._layers


def keep_out_of_legacy_files(left_out: Callable[[keras.Variable], bool]) -> None:
    """Keeps weights out of Keras' legacy `.h5` files, which hold the weights of each layer by their number: those of a
    model with Keras' own layers then load into one that has a stream in addition, and the reverse.

    Without the function: such files load only between models with the same streams; between others Keras raises a
    ValueError that counts layers or weights.
    """
    with suppress(ImportError, AttributeError):
        from keras.src.legacy.saving import legacy_h5_format as legacy

        plain = legacy._legacy_weights
        legacy._legacy_weights = lambda layer: [weight for weight in plain(layer) if not left_out(weight)]


def automatic_name(kind: type[keras.layers.Layer]) -> str:
    """The name that Keras gives a layer of that class, without its number. Without the function: an ImportError from
    `convert` and `compare`."""
    from keras.src.utils.naming import to_snake_case

    return to_snake_case(kind.__name__)


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's own weights, without those of the layers that it holds. Without the names: an AttributeError from
    `compare`."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def xla_interface(structure: Any) -> Any:
    """XLA's interface for calls from its programs, `xla::ffi::GetXlaFfiApi()`, as a structure at that address; None
    where the library or the function is not there, so that programs for XLA draw their masks by TensorFlow's operators.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2"))
        function = library["_ZN3xla3ffi12GetXlaFfiApiEv"]
        function.restype, function.argtypes = ctypes.POINTER(structure), ()
        return function().contents
    warn("xla::ffi::GetXlaFfiApi", "programs for XLA draw their masks by TensorFlow's operators, slowly")
    return None
