"""The code of the book's section "Dropout" in each framework: `dropout_layer` by the formula, the net, and the training
loop.

Source: A. Zhang, Z. C. Lipton, M. Li, A. J. Smola, *Dive into Deep Learning*, sections "Dropout" and "Implementation of
softmax regression from scratch" (for the loop). The animation is left out. For a fair comparison, the batches are those
of `multidrop`.
"""

from __future__ import annotations


class Accumulator:
    """The book's class: n running sums."""

    def __init__(self, n: int) -> None:
        self.data = [0.0] * n

    def add(self, *args: float) -> None:
        """Adds one number to each sum."""
        self.data = [a + float(b) for a, b in zip(self.data, args, strict=True)]

    def __getitem__(self, idx: int) -> float:
        return self.data[idx]
