"""Minibatches in an order that a key determines, the same in every framework."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ... import checks
from ...dispatch import current
from ...protocol import Backend, Tensor
from ...spec.keys import Key
from ...streams import seeds_for
from ..architecture import DTYPES
from .fashion_mnist import ImageSet, load


class Batches:
    """Minibatches of images, as tensors of one backend. Each `iter()` makes one pass over the examples.

    Yields (X, y): X of shape (n, 1, 28, 28), floating, grey values divided by 255; y of shape (n,), integer labels.
    The last batch may be smaller. The order of a pass depends only on the key and on `epoch`, the number of the pass,
    so a resumed run sees the same batches as an uninterrupted one.

    Args:
        images: uint8, shape (n, 28, 28).
        labels: uint8, shape (n,).
        batch_size: the number of examples in a batch.
        backend: the backend whose tensors the batches are.
        key: the key of the shuffling; None keeps the order of the data.
        dtype: "float32" or "float64".
        source: describes where the examples come from.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        backend: Backend,
        *,
        key: Key | None,
        dtype: str,
        source: str,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, checks.positive("batch_size", batch_size)
        self.backend, self.key, self.dtype, self.source = backend, key, dtype, source
        self.epoch = 0  # the number of the next pass

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the examples in the order of a pass, shape (n,)."""
        if self.key is None:
            return np.arange(len(self.labels))
        generator = np.random.Generator(np.random.Philox(key=self.key.fold_in(epoch).seed))
        return generator.permutation(len(self.labels))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order(self.epoch)
        self.epoch += 1
        return (self._batch(order[i : i + self.batch_size]) for i in range(0, len(order), self.batch_size))

    def _batch(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        # Scaled batch by batch, so that the data set stays in memory as bytes: an eighth of its size as float64.
        X = self.images[chosen, None].astype(self.dtype) / np.asarray(255, self.dtype)
        return self.backend.tensor(X), self.backend.tensor(self.labels[chosen].astype(np.int64))

    def __repr__(self) -> str:
        return f"Batches({len(self)} of {self.batch_size}, {self.source}, {self.backend.name})"


def load_data_fashion_mnist(
    batch_size: int, data: str | Path = "auto", *, seed: int | Key | None = None, dtype: str = "float32"
) -> tuple[Batches, Batches]:
    """Loads Fashion-MNIST in minibatches of the current backend's tensors.

    Args:
        batch_size: the number of examples in a batch.
        data: "auto", "full", "mini" or a folder: see `multidrop.section.data.fashion_mnist.load`.
        seed: the seed of the shuffling, an integer or a `Key`. Without it `manual_seed` gives the key, or the
            framework's own generator if `manual_seed` was not called.
        dtype: "float32" or "float64".

    Returns:
        train_iter, which passes over the training images in a new order each time, and test_iter, which keeps the
        order of the data; both are `Batches`.

    Raises:
        ValueError: for a batch size below 1, an unknown dtype, a bad seed, or an unknown `data`.
        DataError: if the data is missing, truncated or altered.
    """
    batch_size = checks.positive("batch_size", batch_size)
    dtype = checks.choice("dtype", dtype, DTYPES)
    backend = current()
    seeds = seeds_for(backend.name, seed)
    images: ImageSet = load(data)
    key = seeds.next("batches") or backend.draw_key()  # last, so that a failing call takes no key
    options: dict[str, Any] = {"dtype": dtype, "source": str(images)}
    return (
        Batches(*images.train, batch_size, backend, key=key, **options),
        Batches(*images.test, batch_size, backend, key=None, **options),
    )
