"""Trains a net with several strengths of its noise or decay, and chooses one on validation images.

The choice is a part of the run: each seed chooses for itself, on images that it neither trains nor tests on. What is
then measured on the test images is what someone gets who tunes in this way, and no best of several luckier numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .lab import Lab
from .words import Text, Words

Candidate = TypeVar("Candidate")


class Trial(NamedTuple):
    """What a trained net reaches: accuracy and loss (nats) on test and on validation images, and by how much the
    training accuracy exceeds the test accuracy. All are measured in evaluation mode."""

    accuracy: float
    loss: float
    gap: float
    validation_accuracy: float
    validation_loss: float


def trial(lab: Lab, noise: Sequence[Any] | None, weight_decay: float = 0.0) -> Trial:
    """Trains a net of this seed, and tests it on test and validation images.

    Args:
        lab: the laboratory; its scale says the number of `validation` images.
        noise: as for `Lab.net`.
        weight_decay: λ of the penalty λ/2·‖w‖².
    """
    net = lab.net(noise)
    last = lab.train(net, weight_decay=weight_decay).epochs[-1]
    accuracy, loss = lab.score(net, *lab.validation_set)
    gap = last.eval_train_accuracy - last.test_accuracy
    return Trial(last.test_accuracy, last.test_loss, gap, accuracy, loss)


class Tuned(NamedTuple):
    """The candidates' trials, and which of them validation chose: by accuracy and by loss, as indices."""

    trials: Sequence[Trial]
    by_accuracy: int
    by_loss: int

    @property
    def accuracy(self) -> float:
        """The test accuracy of the candidate with the highest validation accuracy; of equals, the first."""
        return self.trials[self.by_accuracy].accuracy

    @property
    def loss(self) -> float:
        """The test loss of the candidate with the lowest validation loss."""
        return self.trials[self.by_loss].loss


def tuned(candidates: Sequence[Candidate], attempt: Callable[[Candidate], Trial]) -> Tuned:
    """Tries each candidate, and chooses on the validation images.

    Args:
        candidates: one or more of anything.
        attempt: trains and tests one, as `trial` does.
    """
    trials = [attempt(each) for each in candidates]
    by_accuracy = int(np.argmax([each.validation_accuracy for each in trials]))
    by_loss = int(np.argmin([each.validation_loss for each in trials]))
    return Tuned(trials, by_accuracy, by_loss)


def at_the_edge(chosen: Mapping[str, tuple[npt.NDArray[np.float64], Sequence[float]]], words: Words) -> str:
    """A sentence on choices that a grid may have bounded: those that every seed made at its edge; empty if none.

    Args:
        chosen: what each seed chose, shape (seeds,), and the grid, which leaves out no strength at all; by the name of
            what was chosen.
        words: the language.
    """
    edges = ((max, Text("strongest", "en güçlü")), (min, Text("weakest", "en zayıf")))
    found = [
        f"{name} ({words(label)}, {words.small(edge(grid))})"
        for name, (values, grid) in chosen.items()
        for edge, label in edges
        if len(grid) > 1 and (values == edge(grid)).all()
    ]
    if not found:
        return ""
    return words(
        f" Every seed chose at the edge of the grid for {words.items(found)}: what is best may lie beyond.",
        f" Her tohum ızgaranın ucunu seçti: {words.items(found)}; en iyisi daha ötede olabilir.",
    )
