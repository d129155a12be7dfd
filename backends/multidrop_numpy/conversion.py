"""Converts nothing: NumPy has no dropout layer but this library's."""

from __future__ import annotations

from collections.abc import Callable, Collection

from multidrop.conversion import Replaced, Unreached
from multidrop.spec.keys import Key

from .layers import Layer


def convert(model: Layer, key_of: Callable[[str], Key | None]) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`."""
    return (), ()


def restore(model: Layer, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    return 0
