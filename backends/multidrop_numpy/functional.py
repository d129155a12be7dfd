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
    """Makes an array of host data, the argument `name`. Its type is `dtype`, or else what NumPy gives."""
    if dtype is None:
        return data if type(data) is np.ndarray else checks.host_array(data, name, portable=False)
    return checks.host_tensor(np.asarray, data, dtype, name)


def to_numpy(tensor: Array) -> Array:
    """The array itself; bfloat16 (of the ml_dtypes package) is converted to float32."""
    return tensor.astype(np.float32) if host.name_of(tensor.dtype) == "bfloat16" else tensor


def draw_key() -> Key:
    """Draws a key from NumPy's global generator, which `numpy.random.seed` seeds."""
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
        key: names the mask; without one, the next key after `manual_seed`, or one from NumPy's global generator.
        start: the index of X's first element.
        axes: the axes along which all elements share one decision.
        out: the array to write the result to, of X's shape and type; may be X.

    Returns:
        `out`, or an array of X's shape and type; X itself at p = 0 without `out`.

    Raises:
        ValueError: for a bad probability, key, start, axes or `out`.
        TypeError: for an array that is not floating, or an `out` that is no array.
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
    """Checks the arguments, and returns those of `host.dropout` after X. The key is drawn last: a call that fails takes
    no mask."""
    if out is not None and (not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray)):
        raise TypeError(f"out: expected a NumPy array; got {checks.shown(out)}")
    p = checks.probability("dropout", dropout)
    if key is not None:
        return p, as_key(key), checks.word64("start", start), out
    start = host.check(X, start, out, axes)
    return p, next_key(p == 0.0 or X.size == 0), start, out


def next_key(idle: bool) -> Key:
    """The key of a call that was given none: the next after `multidrop.manual_seed`, else one that NumPy's global
    generator draws. For an `idle` call, which drops nothing, nothing is drawn: any key."""
    return call_key(NAME) or (_ANY if idle else draw_key())


_ANY = Key(0)


def floating(X: Array, name: str = "X") -> Array:
    """Returns X, the argument `name`, as a plain array; raises TypeError with NumPy's remedy unless it is floating."""
    if type(X) is not np.ndarray:
        if not isinstance(X, np.ndarray):
            raise checks.not_floating(checks.shown(X), f"np.asarray({name})", name)
        X = checks.host_array(X, name, portable=False)
    checks.floating(host.name_of(X.dtype), f'{name}.astype("float32")', name)
    return X
