"""The dropout section's own code, framework by framework, as a reader of the book runs it: `dropout_layer` by the
formula, the net, and the training loop.

Source: A. Zhang, Z. C. Lipton, M. Li, A. J. Smola, *Dive into Deep Learning*, sections "Dropout" and "Implementation of
softmax regression from scratch" (where the loop is). Only the animation is left out, and what a comparison must hold
equal: batches and initial weights are those of `multidrop`.
"""

from __future__ import annotations


class Accumulator:
    """The book's: sums over n variables."""

    def __init__(self, n: int) -> None:
        self.data = [0.0] * n

    def add(self, *args: float) -> None:
        """Adds one number to each sum."""
        self.data = [a + float(b) for a, b in zip(self.data, args, strict=True)]

    def __getitem__(self, idx: int) -> float:
        return self.data[idx]
