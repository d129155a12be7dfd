"""What runs below automatic differentiation: a dropout on an eager tensor's own memory, or by TensorFlow's operators,
and the positions of streams.

A tensor holds a mask's name as a *position*: what the state of a `tf.random.Generator` is, int64 of shape (3,) in two's
complement, the low and the high word of a counter and the seed. The counter is 256 times the call, for by that
TensorFlow moves it on: in one step with reading it, so that no two threads get the same. In a traced program a Python
key is a constant of the trace, where a position can be read from a variable that each run advances.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop import host
from multidrop.host import memory
from multidrop.host.memory import address_of
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from .compiled.layout import SHIFT
from .recomputation import taken

try:
    from tensorflow.python.eager import context
except ImportError:  # it is not TensorFlow's public interface
    context = None
try:
    from keras.src.backend.common.stateless_scope import in_stateless_scope
except ImportError:  # nor Keras'
    in_stateless_scope = bool  # False

PHILOX = 1  # the code for Philox4x32-10 of TensorFlow's own operators
PLANE1 = 2**63  # plane 1 is bit 31 of the counter's second word: of the 64-bit block, the highest


def drop(X: tf.Tensor, mask: Mask, relu: bool = False) -> tf.Tensor:
    """X, or max(X, 0), through a mask, without a gradient."""
    if tf.executing_eagerly() and on_host(X):
        return _drop_on_host(X, mask, relu)
    X, (p, position, start, axes) = rectified(X) if relu else X, mask
    if isinstance(position, Key):
        position = position_of(position)
    compute = tf.float64 if X.dtype == tf.float64 else tf.float32
    scaled = tf.cast(tf.cast(X, compute) * tf.constant(masks.scale(p, compute.name), compute), X.dtype)
    if X.shape.is_fully_defined():
        shape: tuple[int, ...] | tf.Tensor = masks.drawn_shape(tuple(X.shape), axes)
    else:
        shape = tf.shape(X, tf.int64)
        if axes:  # put together anew, as XLA can follow; of an empty tensor nothing is drawn
            drawn = tf.stack([tf.constant(1, tf.int64) if n in axes else shape[n] for n in range(X.shape.rank)])
            shape = tf.where(tf.reduce_prod(shape) == 0, shape, drawn)
    return tf.where(keep_mask(shape, p, position, start), scaled, tf.zeros((), X.dtype))


def rectified(X: tf.Tensor) -> tf.Tensor:
    """max(X, 0): +0 for what is not above 0, where `tf.nn.relu` keeps -0, and NaN for NaN."""
    zero = tf.zeros((), X.dtype)
    return tf.where(zero >= X, zero, X)


def on_host(X: tf.Tensor) -> bool:
    """Whether an eager tensor has memory that the kernel can read."""
    return "CPU" in X.device and X.shape.num_elements() > 0


def _drop_on_host(X: tf.Tensor, mask: Mask, relu: bool) -> tf.Tensor:
    """By the fused kernel, from address to address."""
    (p, position, start, axes), name = mask, X.dtype.name
    key = key_at(position)
    Y = _empty_like(X)
    if axes:
        host.dropout(_view(X), p, key, start, Y, axes=axes, dtype=name, relu=relu)
    else:
        host.drop(_address(X), address_of(Y), Y.size, name, p, key, start, relu=relu)
    return _tensor(Y, X.dtype)


def relu_gradient(dY: tf.Tensor, Y: tf.Tensor, p: float) -> tf.Tensor:
    """The gradient of an eager `drop` with ReLU whose output is Y, from dY, the one with respect to Y."""
    dX = _empty_like(dY)
    host.gate(_address(dY), address_of(dX), dX.size, dY.dtype.name, p, _address(Y))
    return _tensor(dX, dY.dtype)


def _empty_like(X: tf.Tensor) -> npt.NDArray[Any]:
    """Room for a tensor. NumPy has no bfloat16 for memory to pass as: its bits pass as integers."""
    return memory.empty(X.shape.as_list(), np.int16 if X.dtype == tf.bfloat16 else X.dtype.name)


def _tensor(room: npt.NDArray[Any], dtype: tf.DType) -> tf.Tensor:
    """The tensor for which there was room."""
    tensor = tf.experimental.dlpack.from_dlpack(room.__dlpack__())
    return tf.bitcast(tensor, tf.bfloat16) if dtype == tf.bfloat16 else tensor


def _address(X: tf.Tensor) -> int:
    return address_of(_view(X))


def _view(X: tf.Tensor) -> npt.NDArray[Any]:
    return np.from_dlpack(tf.bitcast(X, tf.int16) if X.dtype == tf.bfloat16 else X)


def keep_mask(shape: tuple[int, ...] | tf.Tensor, p: float, position: tf.Tensor, start: int) -> tf.Tensor:
    """The mask of a static shape, which XLA needs, or of an int64 tensor that holds a shape known at the run."""
    count = math.prod(shape) if isinstance(shape, tuple) else tf.reduce_prod(shape)
    high, low = divmod(masks.threshold(p), 2**16)
    if high == 2**16:  # no uint16, and above every lane
        return tf.ones(shape, tf.bool)
    first, skipped = divmod(start, 8)
    blocks = (skipped + count + 7) // 8
    lanes = _lanes(first, blocks, position)
    kept = lanes < tf.constant(np.uint16(high))
    if low:  # else plane 1 decides nothing
        ties = lanes == tf.constant(np.uint16(high))
        kept |= ties & (_lanes(first + PLANE1, blocks, position) < tf.constant(np.uint16(low)))
    return tf.reshape(kept[skipped : skipped + count], shape)


def normals(shape: tf.TensorShape | tf.Tensor, position: Key | tf.Tensor, start: int = 0) -> tf.Tensor:
    """`multidrop.spec.masks.normals` for a shape that is known, or an int64 tensor that holds one; float64."""
    return tf.reshape(
        (_normals_at_once if tf.executing_eagerly() else _normals)(*_places(shape, position, start)), shape
    )


def uniforms(shape: tf.TensorShape | tf.Tensor, position: Key | tf.Tensor, start: int = 0) -> tf.Tensor:
    """`multidrop.spec.masks.open_uniforms` for such a shape."""
    return tf.reshape(_uniforms(*_places(shape, position, start)), shape)


def _places(shape: tf.TensorShape | tf.Tensor, position: Key | tf.Tensor, start: int) -> tuple[Any, ...]:
    """How many elements there are, the first one's block, how many of that block come before it, and the position."""
    position = position_of(position) if isinstance(position, Key) else position
    count = tf.reduce_prod(shape) if tf.is_tensor(shape) else shape.num_elements()
    first, skipped = divmod(start, 8)
    if tf.executing_eagerly():
        count, skipped = tf.constant(count, tf.int64), tf.constant(skipped, tf.int64)
    return count, tf.constant(np.uint64(first)), skipped, position


def _uniforms(count: Any, first: tf.Tensor, skipped: Any, position: tf.Tensor) -> tf.Tensor:
    blocks = (skipped + count + 7) // 8
    planes = first, tf.bitwise.bitwise_or(first, tf.constant(np.uint64(PLANE1)))
    coarse, fine = (tf.cast(_lanes(block, blocks, position), tf.float64) for block in planes)
    return ((coarse * 2.0**16 + fine + 0.5) * 2.0**-32)[skipped : skipped + count]


def _normals(*places: Any) -> tf.Tensor:
    """By the quantile's arithmetic and not `tf.math.ndtri`, of which XLA's has ten digits."""
    return masks.normal_quantile(_uniforms(*places), _ARITHMETIC)


_ARITHMETIC = SimpleNamespace(log=tf.math.log, sqrt=tf.sqrt, minimum=tf.minimum, where=tf.where)
_PLACES = [tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.uint64), tf.TensorSpec((), tf.int64)]
# For eager calls: a program of some fifty operators runs in half the time that they take one by one.
_normals_at_once = tf.function(_normals, [*_PLACES, tf.TensorSpec((3,), tf.int64)], autograph=False)


def _lanes(first: int | tf.Tensor, blocks: int | tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The lanes of consecutive blocks, in order; uint16 of shape (8·blocks,).

    The operator takes the four counter words as two of 64 bits, block and call, and counts in the first. A Python
    number of 64 bits would lose its low ones in a trace; a NumPy one does not. A word's low half comes first in the
    bitcast: by definition under XLA, and elsewhere on little-endian machines, which all of TensorFlow's are.
    """
    low, high, seed = tf.unstack(tf.bitcast(position, tf.uint64))
    call = tf.bitwise.left_shift(high, tf.constant(64 - SHIFT, tf.uint64)) | tf.bitwise.right_shift(
        low, tf.constant(SHIFT, tf.uint64)
    )
    drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.convert_to_tensor([4 * blocks], tf.int64),
        key=seed[tf.newaxis],
        counter=tf.stack([first if tf.is_tensor(first) else tf.constant(np.uint64(first)), call]),
        alg=PHILOX,
        dtype=tf.uint32,
    )
    return tf.reshape(tf.bitcast(drawn, tf.uint16), [-1])


def under_xla() -> bool:
    """Whether this is a trace for XLA, which knows TensorFlow's operators alone. TensorFlow does not tell a trace what
    it is for, but its callers do."""
    frame: Any = sys._getframe()
    while frame := frame.f_back:
        if getattr(frame.f_locals.get("self"), "_jit_compile", None) is True:
            return True
    return False


def words_of(key: Key) -> npt.NDArray[np.int64]:
    """A key as the values of a position."""
    high, low = divmod(key.call << SHIFT, 2**64)
    return np.array([low, high, key.seed], np.uint64).view(np.int64)


def position_of(key: Key) -> tf.Tensor:
    """A key as a position."""
    return tf.constant(words_of(key))


def key_at(position: Key | tf.Tensor | tf.Variable | keras.Variable) -> Key:
    """The key that an eager position or a stream variable holds; of a key, itself."""
    return position if isinstance(position, Key) else key_of(position.numpy())


def key_of(words: npt.NDArray[np.int64]) -> Key:
    """The key that the values of a position name."""
    low, high, seed = words.view(np.uint64).tolist()
    return Key(seed, (high << 64 - SHIFT | low >> SHIFT) % 2**64)


def next_position(stream: tf.Variable | keras.Variable) -> tf.Tensor:
    """The position that a stream variable holds, and moves it on by one call, from 2^64 − 1 to 0; see `taken`."""
    if isinstance(stream, keras.Variable) and in_stateless_scope():
        return taken(lambda: _next_in_scope(stream))
    variable = stream.value if isinstance(stream, keras.Variable) else stream
    # A variable of `tf.distribute` has a value in each replica. A replica's run moves its own on; any other run, all.
    own = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
    variables = [variable] if own else getattr(variable, "values", [variable])
    return taken(lambda: _next_of(variables))


def _next_of(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """The position that equal variables hold, and moves each on."""
    first, *_ = [tf.raw_ops.RngReadAndSkip(resource=variable.handle, alg=PHILOX, delta=1) for variable in variables]
    return first


def _next_in_scope(stream: keras.Variable) -> tf.Tensor:
    """`next_position` in a `keras.StatelessScope`, which holds the values of variables, and takes what is assigned."""
    position = tf.convert_to_tensor(stream.value)
    low, high, seed = tf.unstack(position)
    low += 2**SHIFT
    carry = tf.cast(tf.bitcast(low, tf.uint64) < 2**SHIFT, tf.int64)
    stream.assign(tf.stack([low, high + carry, seed]))
    return position


def draw_position() -> Key | tf.Tensor:
    """A key whose seed `tf.random` draws; in a trace a position, all of which it draws, anew in each run; see
    `taken`."""
    return taken(_draw_position)


def _draw_position() -> Key | tf.Tensor:
    if tf.executing_eagerly():
        return Key(int(tf.random.uniform((), tf.int64.min, tf.int64.max, tf.int64)) % 2**64)
    return tf.random.uniform((3,), tf.int64.min, tf.int64.max, tf.int64, seed=_operator_seed())


# How many draws were traced since each `tf.random.set_seed`, which makes a generator anew.
_traced: WeakKeyDictionary[Any, Iterator[int]] = WeakKeyDictionary()


def _operator_seed() -> int | None:
    """Of the next draw that is traced; None where no seed is set. TensorFlow's own choice is the operator's number in
    its graph, by which functions and branches that are alike would draw alike. Those count up from 0, and these down.
    """
    generator = getattr(context and context.context(), "_rng", None)
    if generator is None or tf.compat.v1.get_default_graph().seed is None:
        return None
    return next(_traced.setdefault(generator, itertools.count(-1, -1)))
