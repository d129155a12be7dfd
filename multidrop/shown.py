"""Formats values for error messages."""

from __future__ import annotations

import reprlib
from typing import Any


class _Short(reprlib.Repr):
    """Shows the first items of a container, and the first characters of anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 60, 60, 60

    def repr1(self, x: Any, level: int) -> str:
        try:
            sizes = tuple(x.shape) if hasattr(x, "dtype") and not isinstance(x, type) else ()
            # Not an array's values: they may be on another device, and the type says more.
            return f"{_type_name(x)} of shape {sizes}" if sizes else super().repr1(x, level)
        except Exception:  # a user's `__repr__` may raise anything, and that of a very long integer does
            return f"<{type(x).__name__}>"

    def repr_instance(self, x: Any, level: int) -> str:
        text = " ".join(repr(x).split())
        return text if len(text) <= self.maxother else text[: self.maxother - 3] + "..."


_short = _Short()


def _type_name(x: Any) -> str:
    """The name of the element type of an array or a tensor, such as "float32"."""
    name = getattr(x.dtype, "name", None) or getattr(x.dtype, "__name__", None) or str(x.dtype)
    return str(name).removeprefix("torch.")


def shown(value: object) -> str:
    """Formats `value` for an error message, in about 60 characters, followed by its type. Arrays are shown by element
    type and shape. Never raises."""
    text = _short.repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})"
