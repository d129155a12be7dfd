"""The masks that layers used and will use, without running them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import multidrop as md

SHAPE = (6, 7)


def forward(backend: Any, layer: Any, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """What a layer keeps of ones in training mode."""
    X = backend.tensor(np.ones(shape, np.float32))
    if backend.name == "mxnet":
        import mxnet as mx

        with mx.autograd.record():
            return backend.to_numpy(layer(X)) != 0
    return backend.to_numpy(layer(X, training=True) if backend.name == "tensorflow" else layer(X)) != 0


def evaluated(backend: Any, layer: Any) -> None:
    X = backend.tensor(np.ones((3, 3), np.float32))
    if backend.name in ("numpy", "torch"):
        layer.eval()(X)
        layer.train()
    else:
        layer(X)


@pytest.mark.parametrize("seed", [3, None])
def test_the_last_mask(backend: Any, seed: int | None) -> None:
    """Of keyed and unkeyed layers; an evaluation in between changes nothing."""
    layer = md.Dropout(0.5, seed=seed)
    with pytest.raises(ValueError, match="layer: expected a layer that has dropped something"):
        md.last_mask(layer)
    for _ in range(2):
        kept = forward(backend, layer)
        evaluated(backend, layer)
        mask = md.last_mask(layer)
        assert np.array_equal(mask.keep(), kept)
        again = backend.to_numpy(md.dropout_layer(backend.tensor(np.ones(SHAPE, np.float32)), mask.p, mask.key))
        assert np.array_equal(again != 0, kept)


@pytest.mark.parametrize("seed", [3, None])
def test_the_last_mask_after_the_rate_is_changed(backend: Any, seed: int | None) -> None:
    """Is the one that was used; those to come are of the new rate."""
    layer = md.Dropout(0.5, seed=seed)
    kept = forward(backend, layer)
    setattr(layer, "p" if backend.name in ("numpy", "torch") else "rate", 0.9)
    assert np.array_equal(md.last_mask(layer).keep(), kept)
    if seed is not None:
        assert np.array_equal(md.mask_at(layer, 1).keep(), forward(backend, layer))


def test_masks_to_come(backend: Any) -> None:
    layer = md.Dropout(0.5, seed=3)
    with pytest.raises(ValueError, match="shape: expected the input's shape"):
        md.mask_at(layer, 0)
    told = [md.mask_at(layer, call, SHAPE).keep() for call in range(3)]
    drawn = [forward(backend, layer) for _ in range(3)]
    assert np.array_equal(told, drawn)
    assert md.mask_at(layer, 3).key == md.Key(3, 3)
    assert np.array_equal(md.mask_at(layer, 3).keep(), forward(backend, layer))
    with pytest.raises(ValueError, match="layer: expected a keyed layer"):
        md.mask_at(md.Dropout(0.5), 0, SHAPE)
    with pytest.raises(ValueError, match="call: expected an integer"):
        md.mask_at(layer, -1)


def test_what_is_no_layer(backend: Any) -> None:
    for bad in (md.Net(8, 2, 4, 4), backend.tensor(np.ones(3, np.float32))):
        with pytest.raises(TypeError, match="expected a dropout layer"):
            md.last_mask(bad)


def test_channels(backend: Any) -> None:
    """Shared along axes, as the layer shares them."""
    shape = (4, 6, 5, 5)
    if backend.name == "torch":
        layer = backend.Dropout2d(0.5, seed=1)
    elif backend.name == "tensorflow":
        layer = backend.SpatialDropout2D(0.5, "channels_first", seed=1)
    else:
        layer = backend.Dropout(0.5, (2, 3), seed=1)
    told = md.mask_at(layer, 0, shape).keep()
    assert np.array_equal(told, forward(backend, layer, shape))
    assert np.array_equal(md.last_mask(layer).keep(), told)
    assert told.shape == shape
    assert md.last_mask(layer).axes == (2, 3)


def test_torch_warns_of_an_input_and_not_of_its_mask(need: Any) -> None:
    need("torch")
    import multidrop_torch
    import torch

    for kind, shape in ((multidrop_torch.Dropout2d, (4, 6, 5)), (multidrop_torch.Dropout3d, (4, 6, 5))):
        layer = kind(0.5, seed=1)
        with pytest.warns(UserWarning, match=f"dropout{kind.__name__[7:]}: Received a 3-D input"):
            kept = layer(torch.ones(shape)).numpy() != 0
        assert np.array_equal(md.last_mask(layer).keep(), kept)
        assert np.array_equal(md.mask_at(layer, 0, shape).keep(), kept)
    with pytest.raises(ValueError, match=r"shape: expected that of an input of Dropout1d.*; got \(2, 3, 4, 5\)"):
        md.mask_at(multidrop_torch.Dropout1d(0.5, seed=1), 0, (2, 3, 4, 5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")  # at its first compilation
@pytest.mark.parametrize("seed", [3, None])
def test_a_compiled_torch_layer(need: Any, seed: int | None) -> None:
    """Its last key is in its state, whoever ran it; its shape Python did not see. An unkeyed one has no state."""
    need("torch")
    import multidrop_torch
    import torch

    layer = multidrop_torch.Dropout(0.5, seed=seed)
    layer(torch.ones(2, 2))
    kept = torch.compile(layer, fullgraph=True)(torch.ones(SHAPE)).numpy() != 0
    if seed is None:
        with pytest.raises(ValueError, match="layer: expected one that has dropped something, or, in a program that"):
            md.last_mask(layer, SHAPE)
        return
    with pytest.raises(ValueError, match="shape: expected the input's shape"):
        md.last_mask(layer)
    assert np.array_equal(md.last_mask(layer, SHAPE).keep(), kept)


@pytest.mark.parametrize("seed", [3, None])
def test_a_torch_layer_within_transforms(need: Any, seed: int | None) -> None:
    """An example of a batch does not tell the shape of the mask; what fails takes none."""
    need("torch")
    import multidrop_torch
    import torch

    layer, X = multidrop_torch.Dropout1d(0.5, seed=seed), torch.ones(4, 6, 7)
    kept = layer(X[0]).numpy() != 0
    layer.inplace = True
    with pytest.raises(RuntimeError, match="a leaf Variable"):
        layer(torch.ones(3, 3, requires_grad=True))
    assert np.array_equal(md.last_mask(layer).keep(), kept)
    layer.inplace = False
    torch.func.grad(lambda X: layer(X).sum())(X[0])
    assert md.last_mask(layer).shape == (6, 7)
    kept = torch.vmap(layer, randomness="different")(X).numpy() != 0
    with pytest.raises(ValueError, match="shape: expected the input's shape"):
        md.last_mask(layer)
    assert np.array_equal(md.last_mask(layer, X.shape).keep(), kept)


@pytest.mark.parametrize("jit", [True, False])
def test_a_traced_keras_layer(need: Any, jit: bool) -> None:
    need("tensorflow")
    import multidrop_tensorflow
    import tensorflow as tf

    layer = multidrop_tensorflow.Dropout(0.5, seed=3)
    run = tf.function(lambda X: layer(X, training=True), jit_compile=jit)
    for _ in range(2):
        kept = run(tf.ones(SHAPE)).numpy() != 0
        assert np.array_equal(md.last_mask(layer).keep(), kept)
    layer(tf.ones((2, 2)), training=True)
    kept = run(tf.ones(SHAPE)).numpy() != 0
    with pytest.raises(ValueError, match="shape: expected the input's shape"):
        md.last_mask(layer)
    assert np.array_equal(md.last_mask(layer, SHAPE).keep(), kept)


def test_a_hybridized_gluon_net(need: Any) -> None:
    need("mxnet")
    import multidrop_mxnet
    import mxnet as mx

    net, layer = mx.gluon.nn.HybridSequential(), multidrop_mxnet.Dropout(0.5, seed=3)
    net.add(layer)
    net.initialize()
    net.hybridize()
    with mx.autograd.record():
        layer(mx.nd.ones((2, 2)))
        kept = net(mx.nd.ones(SHAPE)).asnumpy() != 0
    with pytest.raises(ValueError, match="shape: expected the input's shape"):
        md.last_mask(layer)
    assert np.array_equal(md.last_mask(layer, SHAPE).keep(), kept)
