"""What a run works with: the data, nets and training of one seed, the same in every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

import multidrop as md

from ...dispatch import current, part
from ...protocol import Backend, Section
from ..data import Batches
from ..data.fashion_mnist import ImageSet, load
from ..history import History
from ..progress import Display
from .experiment import Scale

BATCH, EVALUATED = 64, 1000
images_of = cache(load)  # a worker process reads the data once


@dataclass(frozen=True)
class Lab:
    """The laboratory of one run. All that is random in it follows from the seed: which training images are taken, the
    weights, the order of the batches and the masks. So two settings with the same seed differ in nothing else.

    Args:
        seed: the run's seed.
        scale: the sizes of the experiment's scale.
        data: what `multidrop.section.data.fashion_mnist.load` takes.
        dtype: "float32" or "float64".
    """

    seed: int
    scale: Scale
    data: str
    dtype: str

    @property
    def backend(self) -> Backend:
        """The backend of the run."""
        return current()

    def key(self, name: str) -> md.Key:
        """A key of this seed for the use of that name."""
        return md.Key(self.seed).fold_in(name)

    def generator(self, name: str) -> np.random.Generator:
        """A generator of this seed for the use of that name, for numbers that are drawn on the host."""
        return np.random.Generator(np.random.Philox(key=self.key(name).seed))

    @property
    def images(self) -> ImageSet:
        """The whole data set."""
        return images_of(self.data)

    @cached_property
    def train_set(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Images (n, 28, 28) and labels (n,) to train on, uint8: as many as `scale["images"]` says, drawn from the
        training set without replacement."""
        return self.sample(*self.images.train, self.scale["images"], "train set")

    @cached_property
    def test_set(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The test images and labels: all, or as many of the first as `scale["tests"]` says. Equal for all seeds."""
        images, labels = self.images.test
        return images[: self.scale.get("tests")], labels[: self.scale.get("tests")]

    def sample(self, X: npt.NDArray, y: npt.NDArray, n: int, name: str) -> tuple[npt.NDArray, npt.NDArray]:
        """n examples, drawn without replacement; at most all."""
        chosen = self.generator(name).permutation(len(y))[:n]
        return X[chosen], y[chosen]

    def batches(self, X: npt.NDArray, y: npt.NDArray, *, shuffle: bool = True, size: int = BATCH) -> Batches:
        """Own uint8 images and labels as minibatches, in the order of this seed or unshuffled."""
        key = self.key("batches") if shuffle else None
        return Batches(X, y, size, self.backend, key=key, dtype=self.dtype, source="")

    def net(self, dropout: Sequence[float] = (0.0, 0.0), hidden: int | None = None) -> Any:
        """The section's net with the weights and masks of this seed.

        Args:
            dropout: p after each of the two hidden layers.
            hidden: units of each hidden layer; None takes `scale["hidden"]`.
        """
        units = hidden or self.scale["hidden"]
        return md.Net(784, 10, units, units, dropout1=dropout[0], dropout2=dropout[1], seed=self.seed, dtype=self.dtype)

    def train(
        self, net: Any, train_iter: Any, test_iter: Any, epochs: int | None = None, lr: float | None = None,
        weight_decay: float = 0.0,
    ) -> History:  # fmt: skip
        """Trains as `md.train`, for `scale["epochs"]` at the rate `scale["lr"]` unless told otherwise, without a
        display.

        Raises:
            FloatingPointError: if the training loss is not finite.
        """
        lr = self.scale.get("lr", 0.5) if lr is None else lr
        history = md.train(
            net, train_iter, test_iter, epochs or self.scale["epochs"], lr, weight_decay, display=Display()
        )
        if not math.isfinite(history.epochs[-1].train_loss):
            raise FloatingPointError(f"the training diverged: its loss is {history.epochs[-1].train_loss}")
        return history

    def accuracy(self, net: Any, X: npt.NDArray, y: npt.NDArray) -> float:
        """The part of uint8 images that a net classifies correctly in evaluation mode."""
        trainer = part(self.backend, Section, "Trainer").Trainer(net, 0.0)
        right = sum(trainer.evaluate(*batch) for batch in self.batches(X, y, shuffle=False, size=EVALUATED))
        return right / len(y)
