"""Nets and batches for comparisons: a small convolutional net in three frameworks, each as its users write it (torch
and Gluon with the channels of images first, Keras with them last), and the section's net."""

from __future__ import annotations

from typing import Any

import numpy as np

import multidrop as md


def torch_net(*, p: float = 0.25, elementwise: float | None = None, norm: bool = False, relu: bool = True) -> Any:
    """`p` drops channels, `elementwise` elements of images; with or without a batch norm, and a ReLU that is easily
    forgotten."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(2, 8, 3),
        *([nn.BatchNorm2d(8)] if norm else []),
        nn.ReLU(),
        nn.Dropout2d(p),
        nn.Conv2d(8, 6, 3),
        *([nn.ReLU()] if relu else []),
        nn.MaxPool2d(2),
        *([nn.Dropout(elementwise)] if elementwise else []),
        nn.Flatten(),
        nn.Linear(24, 16),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, 10),
    ).double()


def keras_net(*, p: float = 0.25, elementwise: float | None = None, norm: bool = False, relu: bool = True) -> Any:
    """The same."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((8, 8, 2), dtype="float64"),
            layers.Conv2D(8, 3, dtype="float64"),
            *([layers.BatchNormalization(epsilon=1e-5, momentum=0.9, dtype="float64")] if norm else []),
            layers.ReLU(dtype="float64"),
            layers.SpatialDropout2D(p, dtype="float64"),
            layers.Conv2D(6, 3, activation="relu" if relu else None, dtype="float64"),
            layers.MaxPooling2D(2, dtype="float64"),
            *([layers.Dropout(elementwise, dtype="float64")] if elementwise else []),
            layers.Flatten(dtype="float64"),
            layers.Dense(16, activation="relu", dtype="float64"),
            layers.Dropout(0.5, dtype="float64"),
            layers.Dense(10, dtype="float64"),
        ]
    )


def gluon_net(*, p: float = 0.25, elementwise: float | None = None, norm: bool = False, relu: bool = True) -> Any:
    """The same."""
    from mxnet.gluon import nn

    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(8, 3),
        *([nn.BatchNorm()] if norm else []),
        nn.Activation("relu"),
        nn.Dropout(p, axes=(2, 3)),
        nn.Conv2D(6, 3, activation="relu" if relu else None),
        nn.MaxPool2D(2),
        *([nn.Dropout(elementwise)] if elementwise else []),
        nn.Dense(16, activation="relu"),
        nn.Dropout(0.5),
        nn.Dense(10),
    )
    net.cast("float64")
    net.initialize()
    net.hybridize()
    return net


NETS = {"torch": torch_net, "tensorflow": keras_net, "mxnet": gluon_net}


def flat_batches(count: int = 3, n: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(n, 1, 6, 6)), generator.integers(0, 4, n)) for _ in range(count)]


def image_batches(count: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [(generator.normal(size=(16, 2, 8, 8)), generator.integers(0, 10, 16)) for _ in range(count)]


def net_of(framework: str, build: str, **settings: Any) -> Any:
    with md.use_backend(framework):
        return getattr(md, build)(36, 4, 16, 8, dtype="float64", **settings)
