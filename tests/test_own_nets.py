"""Checkpoints of a user's own nets, whose layers are partly those of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.testing import same_bits

X, Y = np.random.default_rng(0).normal(size=(64, 1, 6, 6)), np.arange(64) % 3


def own_net(backend: Any, dropout: Any) -> Any:
    """A net with two layers of noise in a row, and, where the framework has one, batch norm."""
    rng = np.random.default_rng(1)
    if backend.name == "torch":
        import torch
        from torch import nn

        torch.manual_seed(0)
        head = nn.Sequential(nn.Flatten(), nn.Linear(32, 3, bias=False))
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), dropout, md.DropPath(0.2, seed=8), head)
    if backend.name == "tensorflow":
        import keras

        keras.utils.set_random_seed(0)
        flat, dense = keras.layers.Reshape((36,)), keras.layers.Dense(3, use_bias=False)
        return keras.Sequential([flat, keras.layers.BatchNormalization(), dropout, md.DropPath(0.2, seed=8), dense])
    if backend.name == "mxnet":
        import mxnet as mx
        from multidrop_mxnet.net import Sequential
        from mxnet.gluon import nn

        mx.random.seed(0)
        net = Sequential()
        net.add(nn.Flatten(), nn.BatchNorm(), dropout, md.DropPath(0.2, seed=8), nn.Dense(3, use_bias=False))
        net.initialize()
        return net
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((36, 3), (3,))]
    return backend.Sequential(backend.Flatten(), dropout, md.DropPath(0.2, seed=8), backend.Linear(*weights))


def run(backend: Any, path: Path, epochs: int, resume: bool = False) -> dict[str, Any]:
    net = own_net(backend, md.Dropout(0.5, seed=7))
    train_iter = md.batches(X, Y, 16, seed=1)
    md.train(net, train_iter, md.batches(X, Y, 64), epochs, 0.1, checkpoint=path, resume=resume)
    return backend.get_state(net)


def test_an_own_net_is_resumed(backend: Any, tmp_path: Path) -> None:
    """With each of its parameters, running statistics and positions, bit for bit."""
    whole = run(backend, tmp_path / "whole", 2)
    run(backend, tmp_path / "broken", 1)
    resumed = run(backend, tmp_path / "broken", 2, resume=True)
    assert [*resumed] == [*whole]
    assert all(same_bits(resumed[name], array) for name, array in whole.items())
    assert len([name for name, array in whole.items() if array.dtype == np.uint64]) == 2
    assert len(whole) == {"numpy": 4, "torch": 10, "tensorflow": 7, "mxnet": 7}[backend.name]


def test_layers_that_no_key_decides_are_named(backend: Any, tmp_path: Path) -> None:
    """Own ones without a seed, and the framework's."""
    batches = md.batches(X, Y, 16, seed=1)
    theirs: Any = None
    if backend.name == "torch":
        import torch

        theirs = torch.nn.Dropout(0.5)
    elif backend.name == "tensorflow":
        import keras

        theirs = keras.layers.Dropout(0.5)
    for dropout in (md.Dropout(0.5), *([] if theirs is None else [theirs])):
        net = own_net(backend, dropout)
        message = r"expected a keyed net, .*\(Dropout\)\. Build .* by md\.convert\(net, seed=n\)"
        with pytest.raises(md.CheckpointError, match=message):
            md.train(net, batches, batches, 1, checkpoint=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
