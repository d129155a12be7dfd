"""A framework of one class, as far from NumPy's as a test needs: tensors that are tuples inside."""

from __future__ import annotations

__version__ = "1.0"


class ToyTensor:
    """Numbers in row-major order, with a shape and the name of a type."""

    def __init__(self, values: list[float], shape: tuple[int, ...], dtype: str) -> None:
        self.values, self.shape, self.dtype = tuple(values), shape, dtype
