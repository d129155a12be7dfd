"""Checks arguments. Every backend uses these checks, so errors read the same everywhere: `name: expected X; got Y`.

A check also converts: it returns a plain Python or NumPy value, which the caller uses instead of its argument.
"""

from __future__ import annotations

from ..shown import shown
from .host_data import (
    FLOATING,
    TENSOR_TYPES,
    floating,
    host_array,
    host_tensor,
    integers,
    labels,
    not_floating,
    same_type,
)
from .numeric import (
    at_least_zero,
    axes,
    axis_numbers,
    dimensions,
    positive,
    probability,
    probability_below_one,
    shape,
    span,
    word64,
)
from .strings import (
    choice,
    file_path,
    flag,
    json_object,
    path,
    string,
    suggestion,
    text,
)

__all__ = [
    "FLOATING",
    "TENSOR_TYPES",
    "at_least_zero",
    "axes",
    "axis_numbers",
    "choice",
    "dimensions",
    "file_path",
    "flag",
    "floating",
    "host_array",
    "host_tensor",
    "integers",
    "json_object",
    "labels",
    "not_floating",
    "path",
    "positive",
    "probability",
    "probability_below_one",
    "same_type",
    "shape",
    "shown",
    "span",
    "string",
    "suggestion",
    "text",
    "word64",
]
