"""Selection by mask for values of each type: max(x·scale, floor) where an element is kept, else +0.

float16 and bfloat16 are converted by integer arithmetic, since Numba has neither on a CPU. Rounding is to nearest, ties
to even.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .instructions import inlined


def select(x, y, scale, floor, lanes, limit):
    """y = max(x·scale, floor), or NaN, where the lane is below the limit, else +0, by the type of x."""
    raise NotImplementedError("runs compiled only")  # a stand-in: `_select_by_type` gives the code


@overload(select)
def _select_by_type(x, y, scale, floor, lanes, limit):
    return {
        types.float32: _select_floats,
        types.float64: _select_floats,
        types.uint16: _select_halves,
        types.int16: _select_bfloats,
        types.uint8: _select_mask,
    }[x.dtype]


def _select_floats(x, y, scale, floor, lanes, limit):
    zero = x.dtype.type(0)
    if floor < zero:  # apart, for the floor takes a tenth of the time
        for i in range(x.size):
            value = x[i] * scale  # in any case: to load but what is kept would take longer
            y[i] = value if lanes[i] < limit else zero
    else:
        for i in range(x.size):
            value = x[i] * scale
            y[i] = (floor if value <= floor else value) if lanes[i] < limit else zero


def _select_halves(x, y, scale, floor, lanes, limit):
    for i in range(x.size):
        value = _float_of_half(x[i]) * scale
        y[i] = _half_of_float(floor if value <= floor else value) if lanes[i] < limit else np.uint16(0)


def _select_bfloats(x, y, scale, floor, lanes, limit):
    for i in range(x.size):
        value = _float_of_bfloat(x[i]) * scale
        y[i] = _bfloat_of_float(floor if value <= floor else value) if lanes[i] < limit else np.int16(0)


def _select_mask(x, y, scale, floor, lanes, limit):
    for i in range(x.size):
        y[i] = lanes[i] < limit


@inlined
def _float_of_half(h):
    bits = np.uint32(h & np.uint16(0x7FFF))
    magnitude = np.uint32(
        np.uint32(bits << np.uint32(13)) + np.uint32(112 << 23)
    )  # the exponents' biases differ by 112
    if bits < np.uint32(0x400):  # subnormal; from an integer, for a caller may have set the processor to flush those
        magnitude = np.uint32(np.float32(np.float32(np.int32(bits)) * np.float32(2.0**-24)).view(np.uint32))
    if bits >= np.uint32(0x7C00):  # infinity or NaN
        magnitude = np.uint32(np.uint32(bits << np.uint32(13)) | np.uint32(0x7F800000))
    sign = np.uint32(np.uint32(h & np.uint16(0x8000)) << np.uint32(16))
    return np.uint32(magnitude | sign).view(np.float32)


@inlined
def _half_of_float(f):
    bits = np.float32(f).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    # The bias moved by 112 (as 2^32 − 112·2^23), and half of the last place kept added, less one where that is even.
    result = np.uint32(np.uint32(magnitude + np.uint32(2**32 - (112 << 23) + 0xFFF) + odd) >> np.uint32(13))
    if magnitude < np.uint32(113 << 23):  # below 2^-14: added to 1/2, whose last place is a subnormal's
        added = np.float32(np.uint32(magnitude).view(np.float32) + np.float32(0.5))
        result = np.uint32(np.float32(added).view(np.uint32) - np.uint32(126 << 23))
    if magnitude >= np.uint32(143 << 23):  # 2^16 and above, infinity, NaN
        result = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else np.uint32(0x7C00)
    return np.uint16(result | np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000)))


@inlined
def _float_of_bfloat(b):
    return np.uint32(np.uint32(np.uint16(b)) << np.uint32(16)).view(np.float32)


@inlined
def _bfloat_of_float(f):
    bits = np.float32(f).view(np.uint32)
    odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    result = np.uint32(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    if np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):  # NaN, which rounding could make infinite
        result = np.uint32(np.uint32(bits >> np.uint32(16)) | np.uint32(0x40))
    return np.int16(np.uint16(result))
