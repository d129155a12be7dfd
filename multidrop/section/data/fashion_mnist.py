"""Finds, checks and reads Fashion-MNIST.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", arXiv:1708.07747 (2017). 60,000 training and 10,000 test images of 28 × 28 grey values in ten classes,
published under the MIT licence.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ... import checks
from ...spec.keys import Key
from . import download
from .image_set import ImageSet
from .minibatches import Batches, checked

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

SIDE = 28  # pixels of an image's side
MINI_FOLDER = Path(__file__).parent / "mini"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


@dataclass(frozen=True)
class Edition:
    """One version of the data set: its name, the SHA-256 digest of each file's contents, the numbers of training and
    test images, and the names of the classes. Digests are of the contents, not of the archives, because Debian
    recompressed the archives."""

    name: str
    digests: dict[str, str]
    examples: tuple[int, int]
    classes: tuple[str, ...] = CLASSES

    def size(self, name: str) -> int:
        """The size of a file's contents in bytes, as `encode_idx` writes them."""
        count = self.examples[0 if name.startswith("train") else 1]
        shape = (count, SIDE, SIDE) if "images" in name else (count,)
        return len(_header(shape)) + math.prod(shape)


FULL = Edition(
    "Fashion-MNIST",
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    (60_000, 10_000),
)
MINI = Edition(  # made by tools/make_mini_fashion_mnist.py
    "mini Fashion-MNIST",
    {
        "train-images-idx3-ubyte": "cf313073c7eb485392848071d5c433571d7166043e971e3345b095cc30518084",
        "train-labels-idx1-ubyte": "097b93fbcf9bd5bc648b1a457ddc55c9e4ab49afb33f9ecae8ce068399a75e3a",
        "t10k-images-idx3-ubyte": "7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef",
        "t10k-labels-idx1-ubyte": "3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909",
    },
    (6000, 1000),
)
FILES = tuple(FULL.digests)


class DataError(RuntimeError):
    """Raised if data is missing, truncated or altered. Such data is never used for training."""


def load_fashion_mnist(data: str | Path = "auto") -> ImageSet:
    """Loads and checks Fashion-MNIST, as arrays.

    Args:
        data: "full" for the whole set, from the cache, Debian's folder or the publisher, in this order; "mini" for the
            tenth of it that comes with the package; "auto" for the whole set if it can be found or downloaded, else the
            mini set, with a warning; or a folder with the four idx files, gzipped or not.

    Returns:
        The data set in memory: 55 MB for the whole set.

    Raises:
        ValueError: if `data` is none of these.
        DataError: if a file is missing, truncated or altered (the message names it), or if "full" cannot be downloaded.
    """
    return _load(data)


load = load_fashion_mnist  # its former name


def load_data_fashion_mnist(
    batch_size: int, data: str | Path = "auto", *, seed: int | Key | None = None, dtype: str = "float32"
) -> tuple[Batches, Batches]:
    """Loads Fashion-MNIST in minibatches of the current backend's tensors: `load_fashion_mnist(data).batches(…)`.

    Args:
        batch_size: the number of examples in a batch.
        data: "auto", "full", "mini" or a folder: see `load_fashion_mnist`.
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
    checked(batch_size, dtype, seed)  # before the data are downloaded
    return _load(data).batches(batch_size, seed=seed, dtype=dtype)


def _load(data: str | Path) -> ImageSet:
    expected = '"auto", "full", "mini" or a folder'
    folder = checks.path("data", data, expected)
    if data == "mini":
        return read_set(MINI_FOLDER, MINI)
    if data not in ("auto", "full"):
        if not os.path.isdir(folder):
            raise DataError(f"data: expected {expected}; there is no folder {folder}")
        return read_set(folder, FULL)
    places = [DEBIAN_FOLDER]
    with suppress(OSError):  # no cache folder; `fetch` reports that
        places.insert(0, download.cache_folder())
    for folder in places:
        if all(_path(folder, name) for name in FILES):
            return read_set(folder, FULL)
    try:
        return read_set(download.fetch([f"{name}.gz" for name in FILES]), FULL)
    except download.DownloadError as error:
        if data == "full":
            raise DataError(
                f"{error}. Fetch the four files by other means and name their folder, "
                'or use data="mini", the part of the set that comes with the package'
            ) from error
        mini = read_set(MINI_FOLDER, MINI)
        warnings.warn(f"Fashion-MNIST could not be downloaded; using its mini edition ({mini})", stacklevel=3)
        return mini


def read_set(folder: Path, edition: Edition) -> ImageSet:
    """Reads the four files in a folder, and checks them against the edition's digests.

    Raises:
        DataError: if a file is missing, truncated or altered.
    """
    train_images, train_labels, test_images, test_labels = (_read(folder, name, edition) for name in FILES)
    return ImageSet(edition, folder, (train_images, train_labels), (test_images, test_labels))


def _path(folder: Path, name: str) -> Path | None:
    # `Path.is_file` raises an error where the folder may not be looked into.
    return next((path for path in (folder / f"{name}.gz", folder / name) if os.path.isfile(path)), None)


def _read(folder: Path, name: str, edition: Edition) -> npt.NDArray[np.uint8]:
    path = _path(folder, name)
    if path is None:
        raise DataError(f"{folder}: expected the file {name}.gz or {name}; there is neither")
    size = edition.size(name)
    try:
        # At most one byte beyond the expected size, because a small archive can decompress to more than fits memory.
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            contents = file.read(size + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: cannot be read: {error}; delete it and fetch it again") from error
    digest = hashlib.sha256(contents).hexdigest()
    if digest != edition.digests[name]:
        came = f"{len(contents):,} bytes with {digest}" if len(contents) <= size else "more"
        raise DataError(
            f"{path}: truncated or altered: expected contents of {size:,} bytes with the SHA-256 "
            f"{edition.digests[name]}; got {came}; delete it and fetch it again"
        )
    return decode_idx(contents)


# The idx format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a big-endian
# 32-bit integer, then the values in row-major order.
_IDX_UBYTE = 8


def decode_idx(contents: bytes) -> npt.NDArray[np.uint8]:
    """Decodes an idx file of unsigned bytes. The caller has checked its digest."""
    dimensions = contents[3]
    shape = struct.unpack_from(f">{dimensions}I", contents, 4)
    return np.frombuffer(contents, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def encode_idx(array: npt.NDArray[np.uint8]) -> bytes:
    """Encodes an array of unsigned bytes as an idx file."""
    return _header(array.shape) + array.tobytes()


def _header(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, _IDX_UBYTE, len(shape), *shape)
