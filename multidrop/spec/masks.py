"""The mask specification, version 1, in plain NumPy: written to be read, and the oracle for every backend.

A mask is a pure function of a key and an element's index. Element i of a tensor, counted in row-major order whatever
its memory layout, has lane i mod 8 of block i div 8. One Philox call gives the eight 16-bit lanes of a block; a second
call, in plane 1, extends each lane to 32 bits. The element is kept if its 32-bit uniform is below a threshold.

    counter   (block mod 2^32, block div 2^32 + plane·2^31, call mod 2^32, call div 2^32)
    lane j    word j div 2: its low half for even j, its high half for odd j
    U(i)      lane of plane 0 · 2^16 + lane of plane 1
    kept      U(i) < round_half_even((1 − p)·2^32)
    value     kept: x·s with s = 1/(1 − p);  dropped: +0

Normal noise is computed from the same uniforms: z(i) = Φ⁻¹((U(i) + 1/2)/2^32).
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

VERSION = 1  # of the specification; the file of test vectors records it


def _lanes(first_block: int, blocks: int, key: Key, plane: int) -> npt.NDArray[np.uint32]:
    """Draws the 16-bit lanes of consecutive blocks in one plane, shape (8·blocks,)."""
    block = np.arange(blocks, dtype=np.uint64) + np.uint64(first_block)
    low = block & np.uint64(0xFFFFFFFF)
    high = (block >> np.uint64(32)) + np.uint64(plane << 31)
    words = np.stack(philox4x32((low, high, *split64(key.call)), key.seed), axis=1)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=2)
    return halves.reshape(-1)


def uniforms(count: int, key: int | Key, start: int = 0) -> npt.NDArray[np.uint32]:
    """Draws U(i) for the elements start … start + count − 1.

    Args:
        count: the number of elements.
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first element.

    Returns:
        A uint32 array of shape (count,).

    Raises:
        ValueError: for a bad key, or if an index leaves [0, 2^64).
    """
    key, start = as_key(key), checks.span(start, count)
    first, skipped = divmod(start, 8)
    blocks = -(-(skipped + count) // 8)
    coarse, fine = (_lanes(first, blocks, key, plane) for plane in (0, 1))
    return ((coarse << np.uint32(16)) | fine)[skipped : skipped + count]


# Coefficients of the numerator, then of the denominator, each in two lines with the highest power first.
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
    """Computes Φ⁻¹(u), the inverse of the standard normal distribution function, to about 16 digits.

    Source: M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37
    (1988), PPND16, without its last case u < e^-25, which (U + 1/2)/2^32 never reaches.

    Args:
        u: float64 in [e^-25, 1 − e^-25], an array of any framework.
        xp: the framework's namespace, with `log`, `sqrt`, `minimum` and `where`.

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
    """Draws standard normal numbers: z(i) = Φ⁻¹((U(i) + 1/2)/2^32).

    Args:
        shape: the tensor's shape.
        key: the key; an int means `Key(int)`.
        start: the index of the first element.

    Returns:
        A float64 array of that shape, with every |z| < 6.34.

    Raises:
        ValueError: for a bad key, a negative dimension, or if an index leaves [0, 2^64).
    """
    return normal_quantile(open_uniforms(shape, key, start))


def open_uniforms(shape: int | Sequence[int], key: int | Key, start: int = 0) -> npt.NDArray[np.float64]:
    """Draws uniform numbers in the open interval (0, 1): (U(i) + 1/2)/2^32, without rounding. Args and errors are those
    of `normals`."""
    sizes = checks.shape(shape)
    return ((uniforms(math.prod(sizes), key, start) + 0.5) * 2.0**-32).reshape(sizes)


def threshold(p: float) -> int:
    """The threshold that a kept element's uniform is below: round_half_even((1 − p)·2^32)."""
    return round((1.0 - p) * 2.0**32)


def scale(p: float, dtype: str = "float64") -> float:
    """The factor of kept elements, 1/(1 − p), rounded once to the compute type of `dtype`: float64 for float64, float32
    for the others. At p = 1, where nothing is kept, it is 0."""
    exact = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return exact if dtype == "float64" else float(np.float32(exact))


def keep_mask(shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0) -> npt.NDArray[np.bool_]:
    """`multidrop.keep_mask`: a bool array of `shape`, True where an element is kept."""
    p, key, sizes = checks.probability("dropout", dropout), as_key(key), checks.shape(shape)
    # Compared in 64 bits, because the threshold is 2^32 at p = 0.
    kept = uniforms(math.prod(sizes), key, start).astype(np.uint64) < np.uint64(threshold(p))
    return kept.reshape(sizes)


def drawn_shape(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    """The shape of the drawn mask if elements share decisions along `axes`: 1 along these axes. For an empty tensor it
    is the tensor's own shape, so that nothing is drawn."""
    shared = {axis % len(shape) for axis in axes} if axes and 0 not in shape else set()
    return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def dropout(x: npt.NDArray, p: float, key: int | Key, start: int = 0, axes: Sequence[int] = ()) -> npt.NDArray:
    """Applies dropout to `x` with the mask of `key`: kept elements are scaled by 1/(1 − p), the others become +0.

    The gradient is the same function, applied to the output's gradient with the same p, key and start.

    Args:
        x: a floating array of any shape and layout.
        p: the probability that an element is dropped, in [0, 1].
        key: the mask's key; an int means `Key(int)`.
        start: the index of the first element.
        axes: axes along which elements share one decision, such as all pixels of a channel. The mask is drawn for the
            shape that has 1 along these axes, and broadcast.

    Returns:
        A new array of x's shape and type, or `x` itself if p is 0.
    """
    if p == 0.0:
        return x
    scaled = _in_compute_type(np.multiply, x, scale(p, x.dtype.name))
    y = np.zeros(x.shape, x.dtype)
    np.copyto(y, scaled, where=keep_mask(drawn_shape(x.shape, axes), p, key, start))
    return y


ALPHA = 1.7580993408473766  # SELU's λ·α; −ALPHA is SELU's lower limit


def alpha_affine(p: float) -> tuple[float, float]:
    """The scale and shift that turn dropout into alpha dropout: dropout(x + α)·scale + shift is a·x + a·α·p for a kept
    element and a·α·(p − 1) for a dropped one, with a = 1/sqrt((1 − p)·(1 + p·α²)). At p = 1 both are 0. At p = 0 the
    caller returns the input unchanged.

    Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 30 (2017), section 2.
    """
    if p == 1.0:
        return 0.0, 0.0
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * ALPHA**2))
    return a * (1.0 - p), a * ALPHA * (p - 1.0)


def gaussian_stddev(name: str, p: float) -> float:
    """The standard deviation of Gaussian dropout's noise, sqrt(p/(1 − p)).

    Raises:
        ValueError: if p is not in [0, 1); at p = 1 the deviation is infinite.
    """
    p = checks.probability_below_one(name, p)
    return math.sqrt(p / (1.0 - p))


def noise_stddev(name: str, value: object) -> float:
    """Returns the standard deviation of Gaussian noise as a float.

    Raises:
        ValueError: if it is not a number in [0, 1], the range that Keras accepts.
    """
    number = checks.at_least_zero(name, value)
    if number > 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1]; got {checks.shown(value)}")
    return number


def _in_compute_type(operation: Callable[..., Any], x: npt.NDArray, y: npt.NDArray | float) -> npt.NDArray:
    """Computes operation(x, y) in float64 for float64 and in float32 for other types. y is rounded to that type first,
    and the result is rounded to x's type. Overflow gives infinity without a warning, as in the frameworks."""
    compute = np.dtype("float64" if x.dtype.name == "float64" else "float32")
    with np.errstate(over="ignore", invalid="ignore"):
        return operation(x.astype(compute), np.asarray(y, compute)).astype(x.dtype)


class Mask(NamedTuple):
    """The arguments that define a mask, as backends pass them along. In a traced program the key is a tensor."""

    p: float
    key: Any
    start: int = 0
    axes: tuple[int, ...] = ()


def relu(x: npt.NDArray) -> npt.NDArray:
    """Computes max(x, 0): +0 for values not above 0, and NaN for NaN."""
    with np.errstate(invalid="ignore"):  # NumPy warns about comparing a NaN in some types
        return np.where(x <= 0, np.zeros((), x.dtype), x)


def relu_gradient(dy: npt.NDArray, y: npt.NDArray, p: float) -> npt.NDArray:
    """Computes the gradient with respect to x of y = dropout(relu(x), p, …), given the gradient dy with respect to y:
    dy/(1 − p) where y is not 0, else +0."""
    scaled = _in_compute_type(np.multiply, dy, scale(p, dy.dtype.name))
    return np.where(y == 0, np.zeros((), dy.dtype), scaled)
