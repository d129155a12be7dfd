"""Models of all frameworks are converted alike: same paths, same masks, same errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from members import values

import multidrop as md


def test_the_same_architecture_draws_the_same_masks(need: Any) -> None:
    for name in ("torch", "mxnet"):
        need(name)
    import mxnet as mx
    import torch

    of_torch = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.5))
    of_mxnet = mx.gluon.nn.Sequential()
    of_mxnet.add(mx.gluon.nn.Activation("relu"), mx.gluon.nn.Dropout(0.5))
    for model in (of_torch, of_mxnet):
        md.convert(model, seed=0)
    x = values((16, 16))
    with mx.autograd.record():
        Y = of_mxnet(mx.nd.array(x)).asnumpy()
    assert np.array_equal(of_torch(torch.from_numpy(x)).numpy(), Y)


def test_attributes_are_paths_in_every_framework(need: Any) -> None:
    for name in ("torch", "tensorflow", "mxnet"):
        need(name)
    import keras
    import torch
    from mxnet import gluon

    keys = []
    for base, dropout in (
        (torch.nn.Module, torch.nn.Dropout),
        (keras.Model, keras.layers.Dropout),
        (gluon.Block, gluon.nn.Dropout),
    ):

        class Model(base):  # type: ignore[misc, valid-type]
            def __init__(self, dropout: Any) -> None:
                super().__init__()
                self.drop = dropout(0.5)

        md.convert(model := Model(dropout), seed=0)
        keys.append(md.mask_at(model.drop, 0, (4, 4)).key)
    assert keys == [md.Key(0).fold_in("drop")] * 3


def test_what_is_no_model(backend: Any) -> None:
    for bad in ("model", [1.0], np.ones(3), None, backend.tensor(np.ones(3))):
        for function in (md.convert, md.restore):
            with pytest.raises(TypeError, match="expected a"):
                function(bad)
