"""Minibatches in an order that a key determines, the same in every framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import checks
from ...dispatch import backend_of, current
from ...protocol import Backend, Pass, Resident, Tensor
from ...spec.keys import Key
from ...streams import seeds_for
from ..architecture import DTYPES

LARGEST = 2**30
"""The most bytes of a data set that is kept on a device."""


class Batches:
    """Minibatches of images, as tensors of one backend. Each `iter()` makes one pass over the examples.

    Yields (X, y): X of shape (n, 1, 28, 28), floating, bytes divided by 255; y of shape (n,), integer labels.
    The last batch may be smaller. The order of a pass depends only on the key and on `epoch`, the number of the pass,
    so a resumed run sees the same batches as an uninterrupted one.

    Args:
        images: uint8 or floating, shape (n, 28, 28), or any other.
        labels: integers, shape (n,).
        batch_size: the number of examples in a batch.
        backend: the backend whose tensors the batches are.
        key: the key of the shuffling; None keeps the order of the data.
        dtype: "float32" or "float64".
        source: describes where the examples come from.
        grey: whether the images lack the axis of their single channel. Batches have it: (n, 1, …).
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
        grey: bool = True,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, checks.positive("batch_size", batch_size)
        self.backend, self.key, self.dtype, self.source = backend, key, dtype, source
        self.grey = grey
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
        return self.by(self._on_host)

    def by(self, batches: Pass) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the examples, whose batches a function makes, such as one that `kept` returns."""
        order = self.order(self.epoch)
        self.epoch += 1
        return batches(order, self.batch_size)

    def kept(self, keeper: Resident) -> Pass | None:
        """Has a trainer keep the data set on its net's device. Returns what makes the same batches there, bit for bit;
        None if the trainer does not keep it, or if it is larger than `LARGEST`."""
        if self.images.nbytes > LARGEST:
            return None
        X = self.images[:, None] if self.grey else self.images
        values = None
        if X.dtype == np.uint8:
            values = np.arange(256).astype(self.dtype) / np.asarray(255, self.dtype)
        else:
            X = X.astype(self.dtype, copy=False)
        return keeper.resident(X, self.labels.astype(np.int64), values)

    def _on_host(self, order: np.ndarray, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.examples(order[i : i + size]) for i in range(0, len(order), size))

    def examples(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """The examples with these indices, as one batch."""
        images = self.images[chosen, None] if self.grey else self.images[chosen]
        X = images.astype(self.dtype)
        if images.dtype == np.uint8:  # batch by batch, so that bytes stay in memory, an eighth of their size as float64
            X /= np.asarray(255, self.dtype)
        return self.backend.tensor(X), self.backend.tensor(self.labels[chosen].astype(np.int64))

    def __repr__(self) -> str:
        return f"Batches({len(self)} of {self.batch_size}, {self.source}, {self.backend.name})"


def batches(
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    batch_size: int,
    *,
    seed: int | Key | None = None,
    shuffle: bool | None = None,
    dtype: str = "float32",
    source: str | None = None,
) -> Batches:
    """Minibatches of your own arrays, as the current backend's tensors, for `train` and its checkpoints.

    Args:
        X: examples, shape (n, …), which the batches keep: floating, or uint8 as the bytes of images have, which are
            divided by 255.
        y: labels, integers of at least 0, shape (n,).
        batch_size: the number of examples in a batch; the last batch may be smaller.
        seed: the seed of the shuffling, an integer or a `Key`.
        shuffle: whether each pass has a new order; by default if there is a seed. Without a seed `manual_seed` gives
            the key, or the framework's own generator if `manual_seed` was not called.
        dtype: "float32" or "float64", of the batches.
        source: says where the examples come from, in the history of a run; by default "own data", with their number.

    Raises:
        ValueError: for X and y of different lengths or without examples, a y that is not of shape (n,) or holds a
            negative number, a batch size below 1, a bad seed, flag, source or dtype, or a seed with `shuffle=False`.
        TypeError: for arrays of other types.
    """
    X, y = (checks.host_array(_on_host(data, name), name, portable=False) for data, name in ((X, "X"), (y, "y")))
    if X.dtype != np.uint8:
        checks.floating(X.dtype.name, 'X.astype("float32")')
    checks.integers(y.dtype.name, 'y.astype("int64")', "y")
    if X.ndim < 1 or not len(X):
        raise ValueError(f"X: expected examples, of shape (n, …); got {checks.shown(X)}")
    if y.shape != X.shape[:1]:
        raise ValueError(f"y: expected a label for each example, of shape ({len(X)},); got {checks.shown(y)}")
    if y.min() < 0:
        raise ValueError(f"y: expected integers of at least 0; got {y.min()}")
    batch_size, dtype, backend, take_key = checked(batch_size, dtype, seed)
    source = f"own data, {len(X):,} examples" if source is None else checks.string("source", source)
    shuffle = seed is not None if shuffle is None else checks.flag("shuffle", shuffle)
    if seed is not None and not shuffle:
        raise ValueError(f"seed: expected None with shuffle=False; got {checks.shown(seed)}")
    key = take_key() if shuffle else None  # last: a failing call takes no key
    return Batches(X, y, batch_size, backend, key=key, dtype=dtype, source=source, grey=False)


def checked(batch_size: int, dtype: str, seed: int | Key | None) -> tuple[int, str, Backend, Callable[[], Key]]:
    """Checks the arguments that functions of minibatches share. Returns the first two, the current backend, and a
    function that takes the key of the shuffling."""
    batch_size = checks.positive("batch_size", batch_size)
    dtype = checks.choice("dtype", dtype, DTYPES)
    backend = current()
    seeds = seeds_for(backend.name, seed)
    return batch_size, dtype, backend, lambda: seeds.next("batches") or backend.draw_key()


def _on_host(data: Any, name: str) -> Any:
    """A tensor of any framework as an array; other data as they are."""
    backend = backend_of(data, name)
    return backend.to_numpy(data) if isinstance(data, tuple(backend.types)) else data
