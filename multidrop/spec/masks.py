"""The mask specification, version 1, in plain NumPy: written to be read, and the oracle for every backend.

A mask is a pure function of a key and an element's index. Element i of a tensor, counted in row-major order whatever
its memory layout, belongs to block i div 8 and has lane i mod 8 in it. One Philox call gives a block its eight 16-bit
lanes; a second one, in a plane of its own, refines each lane to 32 bits. The element is kept where its 32-bit uniform
lies below a threshold.

    counter   (block mod 2^32, block div 2^32 + plane·2^31, call mod 2^32, call div 2^32)
    lane j    word j div 2: its low half for even j, its high half for odd j
    U(i)      lane of plane 0 · 2^16 + lane of plane 1
    kept      U(i) < round_half_even((1 − p)·2^32)
    value     kept: x·s with s = 1/(1 − p);  dropped: +0

Normal noise is of the same uniforms: z(i) = Φ⁻¹((U(i) + 1/2)/2^32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import checks
from .keys import Key, as_key
from .philox import philox4x32, split64

VERSION = 1  # of the specification


def _lanes(first_block: int, blocks: int, key: Key, plane: int) -> npt.NDArray[np.uint32]:
    """The 16-bit lanes of consecutive blocks in one plane, shape (8·blocks,)."""
    block = np.arange(blocks, dtype=np.uint64) + np.uint64(first_block)
    low = block & np.uint64(0xFFFFFFFF)
    high = (block >> np.uint64(32)) + np.uint64(plane << 31)
    words = np.stack(philox4x32((low, high, *split64(key.call)), key.seed), axis=1)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=2)
    return halves.reshape(-1)


def uniforms(count: int, key: int | Key, start: int = 0) -> npt.NDArray[np.uint32]:
    """U(i) for the elements start … start + count − 1.

    Args:
        count: how many.
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first one.

    Returns:
        A uint32 array of shape (count,).

    Raises:
        ValueError: for a bad key, or where an index would leave [0, 2^64).
    """
    key, start = as_key(key), checks.span(start, count)
    first, skipped = divmod(start, 8)
    blocks = -(-(skipped + count) // 8)
    coarse, fine = (_lanes(first, blocks, key, plane) for plane in (0, 1))
    return ((coarse << np.uint32(16)) | fine)[skipped : skipped + count]


# A polynomial a pair of lines, the highest power first: numerator, then denominator.
# fmt: off
NEAR = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)
FAR = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)
# fmt: on


def normal_quantile(u: Any, xp: Any = np) -> Any:
    """Φ⁻¹(u), the inverse of the standard normal distribution function, to about 16 digits.

    Source: M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37
    (1988), PPND16; without its last case, for u below e^-25, where (U + 1/2)/2^32 never lies.

    Args:
        u: float64 in [e^-25, 1 − e^-25], an array of any framework.
        xp: what has its `log`, `sqrt`, `minimum` and `where`.

    Returns:
        An array like u.
    """

    def ratio(coefficients: tuple[Sequence[float], Sequence[float]], x: Any) -> Any:
        above, below = (reduce(lambda total, coefficient: total * x + coefficient, row) for row in coefficients)
        return above / below

    q = u - 0.5
    near = q * ratio(NEAR, xp.where(abs(q) <= 0.425, 0.180625 - q * q, 0.0))
    far = ratio(FAR, xp.sqrt(-xp.log(xp.minimum(u, 1.0 - u))) - 1.6)
    return xp.where(abs(q) <= 0.425, near, xp.where(q < 0.0, -far, far))


def normals(shape: int | Sequence[int], key: int | Key, start: int = 0) -> npt.NDArray[np.float64]:
    """Standard normal numbers: z(i) = Φ⁻¹((U(i) + 1/2)/2^32).

    Args:
        shape: the tensor's shape.
        key: the key; an int means `Key(int)`.
        start: the index of the first element.

    Returns:
        A float64 array of that shape, each |z| < 6.34.

    Raises:
        ValueError: for a bad key, a negative dimension, or where an index would leave [0, 2^64).
    """
    return normal_quantile(open_uniforms(shape, key, start))


def open_uniforms(shape: int | Sequence[int], key: int | Key, start: int = 0) -> npt.NDArray[np.float64]:
    """Uniform numbers in (0, 1), without its ends: (U(i) + 1/2)/2^32, exactly. Args and errors are those of
    `normals`."""
    sizes = checks.shape(shape)
    return ((uniforms(math.prod(sizes), key, start) + 0.5) * 2.0**-32).reshape(sizes)


def threshold(p: float) -> int:
    """The number of 32-bit uniforms, of all 2^32, that keep their element: round_half_even((1 − p)·2^32)."""
    return round((1.0 - p) * 2.0**32)


def scale(p: float, dtype: str = "float64") -> float:
    """What kept elements are multiplied by, 1/(1 − p), rounded once to the type that a tensor of `dtype` is computed
    in: float64 for float64, float32 for the others. Nothing is kept at p = 1, where it is 0."""
    exact = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return exact if dtype == "float64" else float(np.float32(exact))


def keep_mask(shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0) -> npt.NDArray[np.bool_]:
    """`multidrop.keep_mask`: a bool array of `shape`, True where an element is kept."""
    p, key, sizes = checks.probability("dropout", dropout), as_key(key), checks.shape(shape)
    # Compared in 64 bits, for at p = 0 the threshold is 2^32.
    kept = uniforms(math.prod(sizes), key, start).astype(np.uint64) < np.uint64(threshold(p))
    return kept.reshape(sizes)


def drawn_shape(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    """The shape that a mask is drawn for when it is shared along `axes`: 1 there. Nothing is drawn for an empty
    tensor, whose own shape it is."""
    shared = {axis % len(shape) for axis in axes} if axes and 0 not in shape else set()
    return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def dropout(x: npt.NDArray, p: float, key: int | Key, start: int = 0, axes: Sequence[int] = ()) -> npt.NDArray:
    """`x` through dropout with the mask of `key`: its kept elements scaled by 1/(1 − p), +0 for the others.

    The gradient is the same function: with the output's gradient for `x` and the same p, key and start, it gives the
    input's.

    Args:
        x: a floating array of any shape and layout.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first element.
        axes: along which one decision holds for all, as for all pixels of a channel. The mask is drawn for the shape
            that has 1 there, and broadcast.

    Returns:
        A new array of x's shape and type, or `x` itself where p is 0.
    """
    if p == 0.0:
        return x
    scaled = _in_compute_type(np.multiply, x, scale(p, x.dtype.name))
    y = np.zeros(x.shape, x.dtype)
    np.copyto(y, scaled, where=keep_mask(drawn_shape(x.shape, axes), p, key, start))
    return y


ALPHA = 1.7580993408473766  # minus SELU's lower limit: its λ·α


def alpha_affine(p: float) -> tuple[float, float]:
    """The scale and the shift that make alpha dropout of dropout: dropout(x + α)·scale + shift is a·x + a·α·p where
    kept and a·α·(p − 1) where dropped, with a = 1/sqrt((1 − p)·(1 + p·α²)). At p = 1 both are 0; at p = 0 the input is
    to be left as it is.

    Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 30 (2017), section 2.
    """
    if p == 1.0:
        return 0.0, 0.0
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * ALPHA**2))
    return a * (1.0 - p), a * ALPHA * (p - 1.0)


def gaussian_stddev(name: str, p: float) -> float:
    """The standard deviation of Gaussian dropout's noise, sqrt(p/(1 − p)).

    Raises:
        ValueError: where it is no probability, and at p = 1, where it is infinite.
    """
    p = checks.probability_below_one(name, p)
    return math.sqrt(p / (1.0 - p))


def noise_stddev(name: str, value: object) -> float:
    """The standard deviation of Gaussian noise as a float.

    Raises:
        ValueError: where it is no number in [0, 1], which are those that Keras takes.
    """
    number = checks.at_least_zero(name, value)
    if number > 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1]; got {checks.shown(value)}")
    return number


def _in_compute_type(operation: Callable[..., Any], x: npt.NDArray, y: npt.NDArray | float) -> npt.NDArray:
    """operation(x, y) in float64 for float64 and in float32 for other types, y rounded to it; the result in x's type.
    A value may become infinite, in silence as in a framework."""
    compute = np.dtype("float64" if x.dtype.name == "float64" else "float32")
    with np.errstate(over="ignore", invalid="ignore"):
        return operation(x.astype(compute), np.asarray(y, compute)).astype(x.dtype)


class Mask(NamedTuple):
    """A mask by its name, as the backends hand it on: what `keep_mask` and `dropout` take one by one. In a traced
    program the key is a tensor that holds one."""

    p: float
    key: Any
    start: int = 0
    axes: tuple[int, ...] = ()


def relu(x: npt.NDArray) -> npt.NDArray:
    """max(x, 0): +0 for what is not above 0, and NaN for NaN."""
    with np.errstate(invalid="ignore"):  # of which NumPy warns where a NaN is compared, in some types
        return np.where(x <= 0, np.zeros((), x.dtype), x)


def relu_gradient(dy: npt.NDArray, y: npt.NDArray, p: float) -> npt.NDArray:
    """The gradient with respect to x of y = dropout(relu(x), p, …), from dy, the one with respect to y: dy/(1 − p)
    where y is not 0, and +0 elsewhere."""
    scaled = _in_compute_type(np.multiply, dy, scale(p, dy.dtype.name))
    return np.where(y == 0, np.zeros((), dy.dtype), scaled)
