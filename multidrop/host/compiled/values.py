"""Selects values by a mask, for each type: max(x·scale, floor) for a kept element, else +0.

float16 and bfloat16 are converted by integer arithmetic, because Numba supports neither on a CPU. Rounding is to
nearest, ties to even.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .instructions import inlined


def select(x, y, scale, floor, lanes, limit):
    """Writes y = max(x·scale, floor), or NaN for NaN, where the lane is below the limit, else +0."""
    raise NotImplementedError("runs compiled only")  # Numba replaces the call by the code from `_select_by_type`


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
    if floor < zero:  # without the comparison with the floor, which takes a tenth of the time
        for i in range(x.size):
            value = x[i] * scale  # for every element, because loading only the kept ones would take longer
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
    # The exponents' biases differ by 112.
    magnitude = np.uint32(np.uint32(bits << np.uint32(13)) + np.uint32(112 << 23))
    if bits < np.uint32(0x400):  # subnormal; from an integer, because the processor may be set to flush subnormals
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
    # Changes the bias by 112 (adds 2^32 − 112·2^23), and rounds: adds half a unit of the last kept place, minus 1 if
    # that place is even.
    result = np.uint32(np.uint32(magnitude + np.uint32(2**32 - (112 << 23) + 0xFFF) + odd) >> np.uint32(13))
    if magnitude < np.uint32(113 << 23):  # below 2^-14: adding 1/2 rounds to a multiple of 2^-24, a subnormal's unit
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
