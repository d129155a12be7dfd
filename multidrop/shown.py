"""How an error message shows a value."""

from __future__ import annotations

import reprlib
from typing import Any


class _Short(reprlib.Repr):
    """Shows the first items of a container, and the beginning of anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 60, 60, 60

    def repr1(self, x: Any, level: int) -> str:
        try:
            sizes = tuple(x.shape) if hasattr(x, "dtype") and not isinstance(x, type) else ()
            # The values of an array may lie on another device, and say less than its type.
            return f"{_type_name(x)} of shape {sizes}" if sizes else super().repr1(x, level)
        except Exception:  # a repr of the caller's may raise anything, and the one of a very long integer does
            return f"<{type(x).__name__}>"

    def repr_instance(self, x: Any, level: int) -> str:
        text = " ".join(repr(x).split())
        return text if len(text) <= self.maxother else text[: self.maxother - 3] + "..."


_short = _Short()


def _type_name(x: Any) -> str:
    """The name of an array's or a tensor's type, such as "float32"."""
    name = getattr(x.dtype, "name", None) or getattr(x.dtype, "__name__", None) or str(x.dtype)
    return str(name).removeprefix("torch.")


def shown(value: object) -> str:
    """`value` as an error message shows it: short, with its type. It never raises, and shows an array by type and
    shape."""
    text = _short.repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})"
