"""Functions on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from multidrop import checks, host
from multidrop.host import keep_mask as keep_mask
from multidrop.spec.keys import Key, as_key
from multidrop.streams import call_key, in_this_process

NAME = "numpy"

Array = npt.NDArray


def tensor(data: npt.ArrayLike, dtype: str | None = None, name: str = "X") -> Array:
    """An array of host data, the argument of that name: of `dtype`, or else of the type that NumPy gives it."""
    if dtype is None:
        return data if type(data) is np.ndarray else checks.host_array(data, name, portable=False)
    return checks.host_tensor(np.asarray, data, dtype, name)


def to_numpy(tensor: Array) -> Array:
    """The array itself; bfloat16 (of the ml_dtypes package) comes as float32."""
    return tensor.astype(np.float32) if host.name_of(tensor.dtype) == "bfloat16" else tensor


def draw_key() -> Key:
    """A key from NumPy's global generator, the one that `numpy.random.seed` seeds."""
    return in_this_process(Key(int.from_bytes(np.random.bytes(8), "little")))


def dropout_layer(
    X: npt.ArrayLike,
    dropout: float,
    key: int | Key | None = None,
    *,
    start: int = 0,
    axes: int | Sequence[int] = (),
    out: Array | None = None,
) -> Array:
    """`multidrop.dropout_layer` for arrays. Its gradient is the same function: `dropout_layer(dY, dropout, key)` is
    the gradient with respect to X, where dY is the one with respect to the output.

    Args:
        X: array of any shape; float16, bfloat16, float32 or float64.
        dropout: p, in [0, 1].
        key: what names the mask; without one, the next after `manual_seed`, or one from NumPy's global generator.
        start: the index of X's first element.
        axes: along which one decision holds for all elements.
        out: where to write the result, an array of X's shape and type; may be X.

    Returns:
        `out`, or an array of X's shape and type; X itself at p = 0 without `out`.

    Raises:
        ValueError: for a bad probability, key, start, axes or `out`.
        TypeError: for an array that is not floating, or an `out` that is none.
    """
    X = floating(tensor(X))
    axes = checks.axes(axes, X.ndim)
    return host.dropout(X, *_checked(X, dropout, key, start, out, axes), axes=axes)


def relu_dropout(
    X: npt.ArrayLike, dropout: float, key: int | Key | None = None, *, start: int = 0, out: Array | None = None
) -> Array:
    """`multidrop.relu_dropout` for arrays; args, result and errors are those of `dropout_layer`. Its gradient is
    `multidrop.host.relu_gradient(dY, Y, dropout)`, where Y is the output and dY the gradient with respect to it."""
    X = floating(tensor(X))
    return host.dropout(X, *_checked(X, dropout, key, start, out), relu=True)


def _checked(
    X: Array, dropout: float, key: int | Key | None, start: int, out: Array | None, axes: Sequence[int] = ()
) -> tuple[float, Key, int, Array | None]:
    """What `host.dropout` takes after X. A key is drawn last, so that a call that fails takes no mask."""
    if out is not None and (not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray)):
        raise TypeError(f"out: expected a NumPy array; got {checks.shown(out)}")
    p = checks.probability("dropout", dropout)
    if key is not None:
        return p, as_key(key), checks.word64("start", start), out
    start = host.check(X, start, out, axes)
    return p, next_key(p == 0.0 or X.size == 0), start, out


def next_key(idle: bool) -> Key:
    """The key of a call that was given none: the next after `multidrop.manual_seed`, or one from NumPy's global
    generator, which does not move for an `idle` call, one that drops nothing."""
    return call_key(NAME) or (_ANY if idle else draw_key())


_ANY = Key(0)  # of a mask that keeps everything, whatever the key


def floating(X: Array, name: str = "X") -> Array:
    """X as a plain array of a floating type; TypeError where it is none, with NumPy's remedy."""
    if type(X) is not np.ndarray:
        if not isinstance(X, np.ndarray):
            raise checks.not_floating(checks.shown(X), f"np.asarray({name})", name)
        X = checks.host_array(X, name, portable=False)
    checks.floating(host.name_of(X.dtype), f'{name}.astype("float32")', name)
    return X
