"""Images with labels as arrays: smaller parts of them, random labels, and minibatches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ... import checks
from ...spec.keys import Key, as_key
from .minibatches import Batches, checked

if TYPE_CHECKING:
    from .fashion_mnist import Edition

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, repr=False, eq=False)  # `==` of arrays is no bool
class ImageSet:
    """Images of shape (n, 28, 28) and labels of shape (n,), both uint8, for training and for testing. Each method
    returns another set; what a method draws depends on its seed alone, and is the same in every framework.

    Attributes:
        edition: the version of the data set that the images are from.
        folder: where its files are.
        train: the training images and labels.
        test: those that are held out.
        held_out: what those are: "test", or "validation" after `split`.
        labels: what the training labels are, where they are not the images' own.
    """

    edition: Edition
    folder: Path
    train: tuple[Images, Labels]
    test: tuple[Images, Labels]
    held_out: str = "test"
    labels: str = ""

    def subset(self, train: int | None = None, test: int | None = None, *, seed: int | Key = 0) -> ImageSet:
        """A random part, with equally many images of each class, give or take one, as long as there are enough. With
        the same seed, a larger part contains a smaller one.

        Args:
            train: how many training images; None for all.
            test: how many test images; None for all.
            seed: an integer or a `Key`.

        Raises:
            ValueError: for a number below 1 or above that of the images, or a bad seed.
        """
        key = as_key(seed, "seed").fold_in("subset")
        return replace(
            self,
            train=self.train if train is None else _part(self.train, _chosen("train", train, self.train, key)),
            test=self.test if test is None else _part(self.test, _chosen("test", test, self.test, key)),
        )

    def split(self, n: int, *, seed: int | Key = 0) -> ImageSet:
        """Holds n random training images out, with equally many of each class as `subset` has them: they take the place
        of the test images, to choose settings by.

        Args:
            n: how many.
            seed: an integer or a `Key`.

        Raises:
            ValueError: for a number below 1 or not below that of the training images, or a bad seed.
        """
        key = as_key(seed, "seed").fold_in("split")
        if checks.positive("n", n) == len(self.train[1]):
            raise ValueError(f"n: expected fewer than the {n} training images; got {n}")
        chosen = _chosen("n", n, self.train, key)
        rest = np.setdiff1d(np.arange(len(self.train[1])), chosen)
        return replace(self, train=_part(self.train, rest), test=_part(self.train, chosen), held_out="validation")

    def with_random_labels(self, seed: int | Key = 0) -> ImageSet:
        """The same images with training labels drawn uniformly from the ten classes, independently of the images. The
        test labels stay.

        Source: C. Zhang et al., "Understanding deep learning requires rethinking generalization", ICLR 2017.

        Args:
            seed: an integer or a `Key`.

        Raises:
            ValueError: for a bad seed.
        """
        key = as_key(seed, "seed")
        images, own = self.train
        labels = _generator(key, "labels").integers(0, len(self.edition.classes), len(own), dtype=np.uint8)
        return replace(self, train=(images, labels), labels=f"random training labels ({key})")

    def batches(
        self, batch_size: int, *, seed: int | Key | None = None, dtype: str = "float32"
    ) -> tuple[Batches, Batches]:
        """Minibatches of the current backend's tensors, as `load_data_fashion_mnist` returns them, with the same
        arguments.

        Raises:
            ValueError: for a batch size below 1, an unknown dtype, or a bad seed.
        """
        batch_size, dtype, backend, take_key = checked(batch_size, dtype, seed)
        key = take_key()
        options: dict[str, Any] = {"dtype": dtype, "source": str(self)}
        return (
            Batches(*self.train, batch_size, backend, key=key, **options),
            Batches(*self.test, batch_size, backend, key=None, **options),
        )

    def __str__(self) -> str:
        sizes = f"{len(self.train[1]):,} training and {len(self.test[1]):,} {self.held_out} images"
        return ", ".join(filter(None, (self.edition.name, sizes, self.labels)))

    def __repr__(self) -> str:
        return f"ImageSet({self})"


def _generator(key: Key, *purpose: str) -> np.random.Generator:
    for word in purpose:
        key = key.fold_in(word)
    return np.random.Generator(np.random.Philox(key=key.seed))


def _part(examples: tuple[Images, Labels], chosen: npt.NDArray[np.int64]) -> tuple[Images, Labels]:
    images, labels = examples
    return images[chosen], labels[chosen]


def _chosen(name: str, count: int, examples: tuple[Images, Labels], key: Key) -> npt.NDArray[np.int64]:
    """The indices of `count` random examples, in increasing order: the first of each class in a random order, then the
    second of each, and so on."""
    labels = examples[1]
    count = checks.positive(name, count)
    if count > len(labels):
        raise ValueError(f"{name}: expected at most the {len(labels):,} images that there are; got {count}")
    shuffled = _generator(key, name).permutation(len(labels))
    number = np.empty(len(labels), np.int64)  # of each example among those of its class
    for label in np.unique(labels):
        own = labels[shuffled] == label
        number[own] = np.arange(own.sum())
    return np.sort(shuffled[np.argsort(number, kind="stable")[:count]])
