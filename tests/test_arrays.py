"""Data as arrays: parts of Fashion-MNIST, random labels, and a user's own arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import multidrop as md


def test_parts_of_the_data() -> None:
    """Are the same for the same seed, have equally many images of each class, and grow with their number."""
    images = md.load_fashion_mnist("mini")
    small, large = (images.subset(n, 50, seed=1) for n in (73, 500))
    assert str(small) == "mini Fashion-MNIST, 73 training and 50 test images"
    assert repr(small) == f"ImageSet({small})"
    for (X, y), most in ((small.train, 8), (large.train, 50), (small.test, 5)):
        assert X.shape == (len(y), 28, 28)
        assert np.bincount(y).max() == most
        assert np.ptp(np.bincount(y)) <= 1
    rows = {image.tobytes() for image in large.train[0]}
    assert {image.tobytes() for image in small.train[0]} < rows
    assert np.array_equal(images.subset(73, seed=1).train[0], small.train[0])
    assert not np.array_equal(images.subset(73, seed=2).train[0], small.train[0])
    assert images.subset().train is images.train
    for bad, message in ((0, "above 0"), (6001, "at most the 6,000 images"), (2.5, "an integer")):
        with pytest.raises(ValueError, match=f"^train: expected .*{message}"):
            images.subset(bad)


def test_a_validation_set() -> None:
    """Is taken from the training images, which lose it."""
    images = md.load_fashion_mnist("mini")
    parts = images.split(1000, seed=3)
    assert str(parts) == "mini Fashion-MNIST, 5,000 training and 1,000 validation images"
    both = [image.tobytes() for X in (parts.train[0], parts.test[0]) for image in X]
    assert sorted(both) == sorted(image.tobytes() for image in images.train[0])
    for bad in (6000, 6001, 0):
        with pytest.raises(ValueError, match=r"^n: expected"):
            images.split(bad)


def test_random_labels() -> None:
    """Are independent of the images, and are named wherever the data are."""
    images = md.load_fashion_mnist("mini")
    random = images.with_random_labels(3)
    assert random.train[0] is images.train[0]
    assert random.test is images.test
    counts = np.bincount(random.train[1], minlength=10)
    assert ((counts - 600) ** 2 / 600).sum() < 27.9  # chi-squared with 9 degrees of freedom: 1 in 1,000
    assert abs((random.train[1] == images.train[1]).mean() - 0.1) < 4 * 0.3 / 6000**0.5
    train_iter, _ = random.subset(100).batches(32, seed=0)
    assert train_iter.source.endswith(
        "100 training and 1,000 test images, random training labels (Key(seed=3, call=0))"
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_own_arrays(backend: Any, dtype: str) -> None:
    """Keep their shape; bytes are divided by 255, and labels are int64."""
    y = np.arange(10, dtype=np.int8) % 3
    for X in (np.random.default_rng(0).normal(size=(10, 2, 3)), np.arange(60, dtype=np.uint8).reshape(10, 2, 3)):
        batches = md.batches(X, y, 4, dtype=dtype)
        assert batches.source == "own data, 10 examples"
        found = [(backend.to_numpy(a), backend.to_numpy(b)) for a, b in batches]
        assert [len(b) for _, b in found] == [4, 4, 2]
        expected = X.astype(dtype) / (np.asarray(255, dtype) if X.dtype == np.uint8 else 1)
        assert np.array_equal(np.concatenate([a for a, _ in found]), expected)
        assert np.array_equal(np.concatenate([b for _, b in found]), y)
    batches = md.batches(backend.tensor(X.astype(dtype)), backend.tensor(y.astype("int32")), 10, seed=1, source="mine")
    ((_, labels),) = batches
    assert backend.to_numpy(labels).tolist() == y[batches.order(0)].tolist()
    assert batches.order(0).tolist() != batches.order(1).tolist()
    assert batches.key == md.Key(1).fold_in("batches").fold_in(0)


def test_bad_own_arrays(backend: Any) -> None:
    X, y = np.zeros((4, 2), np.float32), np.zeros(4, np.int64)
    for arguments, message in (
        ({"X": X[:3]}, "y: expected a label for each example"),
        ({"X": X[:0], "y": y[:0]}, "X: expected examples"),
        ({"y": y[:, None]}, "y: expected a label for each example"),
        ({"y": y - 1}, "y: expected integers of at least 0; got -1"),
        ({"batch_size": 0}, "batch_size: expected an integer above 0"),
        ({"dtype": "float16"}, "dtype: expected one of"),
        ({"seed": -1}, "seed: expected"),
        ({"seed": 1, "shuffle": False}, "seed: expected None with shuffle=False"),
        ({"shuffle": 2}, "shuffle: expected True or False"),
        ({"source": 3}, "source: expected a string"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            md.batches(**{"X": X, "y": y, "batch_size": 2} | arguments)
    for name, bad, message in (
        ("X", X.astype(np.int64), "X: expected a tensor of type"),
        ("y", y.astype(np.float32), "y: expected a tensor of integers"),
        ("y", y.astype(bool), "y: expected a tensor of integers"),
        ("X", ["a"] * 4, "X: expected a tensor of type"),
    ):
        with pytest.raises(TypeError, match=f"^{message}"):
            md.batches(**{"X": X, "y": y, "batch_size": 2} | {name: bad})
