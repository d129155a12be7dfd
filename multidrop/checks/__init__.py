"""Checks arguments. Every backend uses these checks, so errors read the same everywhere: `name: expected X; got Y`.

A check also converts: it returns a plain Python or NumPy value, which the caller uses instead of its argument.
"""

from __future__ import annotations

from ..shown import shown as shown
from .host_data import FLOATING as FLOATING
from .host_data import TENSOR_TYPES as TENSOR_TYPES
from .host_data import floating as floating
from .host_data import host_array as host_array
from .host_data import host_tensor as host_tensor
from .host_data import integers as integers
from .host_data import labels as labels
from .host_data import not_floating as not_floating
from .host_data import same_type as same_type
from .numeric import at_least_zero as at_least_zero
from .numeric import axes as axes
from .numeric import axis_numbers as axis_numbers
from .numeric import dimensions as dimensions
from .numeric import positive as positive
from .numeric import probability as probability
from .numeric import probability_below_one as probability_below_one
from .numeric import shape as shape
from .numeric import span as span
from .numeric import word64 as word64
from .strings import choice as choice
from .strings import flag as flag
from .strings import json_object as json_object
from .strings import path as path
from .strings import text as text
