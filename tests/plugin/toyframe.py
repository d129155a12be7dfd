"""A framework of one class, as far from NumPy's as a test needs: tensors that are tuples inside."""

from __future__ import annotations

__version__ = "1.0"


class ToyTensor:
    """A flat row of floats."""

    def __init__(self, values: list[float]) -> None:
        self.values = tuple(values)
