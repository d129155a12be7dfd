"""The framework's own types, which are opaque here: the library hands them back to the backend that they came from."""

from __future__ import annotations

from typing import Any

Tensor = Any
Model = Any
