"""What a run works with: the data, nets and training of one seed, the same in every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

import multidrop as md

from ...dispatch import current, part
from ...protocol import Backend, Section
from ..data import Batches, fashion_mnist
from ..data.image_set import ImageSet
from ..history import History
from ..progress import Display
from .experiment import Scale

BATCH, TEST_BATCH = 64, 1000
CLASSES = len(fashion_mnist.CLASSES)
SETTLED = 10.0  # what the rate is divided by at the end
images_of = cache(fashion_mnist.load)  # a worker process reads the data once


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

    @cached_property
    def validation_set(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Images and labels to choose settings on, uint8: as many as `scale["validation"]` says, drawn from the images
        of the training set that are not in `train_set`."""
        return self.sample(*self.images.train, self.scale["validation"], "train set", skip=self.scale["images"])

    def sample(
        self, X: npt.NDArray, y: npt.NDArray, n: int, name: str, *, skip: int = 0
    ) -> tuple[npt.NDArray, npt.NDArray]:
        """n examples, drawn without replacement; at most all. Those drawn with `skip` of the same name are the ones
        after the first `skip`."""
        chosen = self.generator(name).permutation(len(y))[skip : skip + n]
        return X[chosen], y[chosen]

    def batches(self, X: npt.NDArray, y: npt.NDArray, *, shuffle: bool = True) -> Batches:
        """uint8 images and labels as minibatches: of `scale["batch"]`, by default 64, in the order of this seed;
        unshuffled of 1000."""
        key = self.key("batches") if shuffle else None
        size = self.scale.get("batch", BATCH) if shuffle else TEST_BATCH
        return Batches(X, y, size, self.backend, key=key, dtype=self.dtype, source=str(self.images))

    def net(self, noise: Sequence[Any] | None = None, hidden: int | None = None) -> Any:
        """A net of two hidden layers with the weights and masks of this seed.

        Args:
            noise: for each of the three linear layers a member of `md.family`, p for dropout of its input, or None.
            hidden: units of each hidden layer; None takes `scale["hidden"]`.
        """
        units = hidden or self.scale["hidden"]
        return md.perceptron((fashion_mnist.SIDE**2, units, units, CLASSES), noise, seed=self.seed, dtype=self.dtype)

    def weights(self, net: Any) -> dict[str, npt.NDArray[np.float64]]:
        """A net's weights and biases by name: W1, shape (inputs, outputs), b1, shape (outputs,), and so on."""
        state = part(self.backend, Section, "get_state").get_state(net)
        return {name: np.asarray(array, np.float64) for name, array in state.items() if name[0] in "Wb"}

    def train(
        self,
        net: Any,
        X: npt.NDArray | None = None,
        y: npt.NDArray | None = None,
        *,
        test: tuple[npt.NDArray, npt.NDArray] | None = None,
        test_every: int | None = None,
        lr: float | None = None,
        weight_decay: float = 0.0,
        callbacks: Sequence[Any] = (),
    ) -> History:
        """Trains as `md.train`, for `scale["epochs"]` at the rate `scale["lr"]`, then for `scale["settle"]` epochs, by
        default none, at a tenth of that rate: at a constant rate the accuracy jumps from step to step, which hides
        small differences. The last epoch is tested, on the training data in evaluation mode too.

        Args:
            net: the net.
            X: uint8 images; None takes `train_set`.
            y: their labels.
            test: images and labels to test on; None takes `test_set`.
            test_every: how many epochs lie between two tests; None tests at the end only.
            lr: another rate.
            weight_decay: λ of the penalty λ/2·‖w‖².
            callbacks: as for `md.train`, for the epochs before those that settle.

        Raises:
            Diverged: if the training loss is not finite.
        """
        train_iter = self.batches(*(self.train_set if X is None or y is None else (X, y)))
        test_iter = self.batches(*(test or self.test_set), shuffle=False)
        lr = self.scale["lr"] if lr is None else lr
        history = None
        for epochs, rate, watchers in (
            (self.scale["epochs"], lr, callbacks),
            (self.scale.get("settle", 0), lr / SETTLED, ()),
        ):
            if epochs:
                trained = md.train(
                    net, train_iter, test_iter, epochs, rate, weight_decay, callbacks=watchers,
                    test_every=test_every or epochs, train_accuracy=True, display=Display(),
                )  # fmt: skip
                history = trained if history is None else _joined(history, trained)
        assert history is not None  # there is at least one epoch
        return history

    def inputs(self, X: npt.NDArray) -> npt.NDArray:
        """uint8 images as a net's inputs: shape (n, 1, 28, 28), of the run's dtype, grey values divided by 255."""
        return X[:, None].astype(self.dtype) / np.asarray(255, self.dtype)

    def score(self, net: Any, X: npt.NDArray, y: npt.NDArray) -> tuple[float, float]:
        """A net's accuracy and mean negative log-likelihood (nats) in evaluation mode.

        Args:
            net: the net.
            X: images as uint8, or inputs as `inputs` gives them.
            y: their labels.
        """
        return score(md.predict(net, self.inputs(X) if X.dtype == np.uint8 else X), y)


def _joined(first: History, second: History) -> History:
    """The epochs of two parts of a run, numbered on."""
    count = len(first.epochs)
    epochs = [*first.epochs, *(replace(epoch, epoch=epoch.epoch + count) for epoch in second.epochs)]
    return History(first.settings, epochs)


def score(probabilities: npt.NDArray, y: npt.NDArray) -> tuple[float, float]:
    """The accuracy and the mean negative log-likelihood (nats) of probabilities of shape (n, classes). A label of
    probability 0 gives a finite number, unlike in `md.negative_log_likelihood`: one such image must not end a run."""
    right = probabilities[np.arange(len(y)), y]
    accuracy = float((probabilities.argmax(axis=1) == y).mean())
    return accuracy, float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())
