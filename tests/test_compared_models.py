"""`compare` leaves models as they were, pairs their layers, and names what it cannot compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from convnets import NETS, flat_batches, image_batches, net_of, torch_net

import multidrop as md


def test_a_block_without_inputs(need: Any) -> None:
    """As one that holds a table of positions: it is run, and has no input to tell of."""
    need("mxnet")
    import mxnet as mx
    from mxnet import gluon

    class Table(gluon.nn.Block):
        def forward(self) -> Any:
            return mx.nd.ones((1, 4))

    class Positions(gluon.nn.Block):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.dense = Table(), gluon.nn.Dense(3, in_units=4)

        def forward(self, X: Any) -> Any:
            return self.dense(X + self.table())

    blocks = Positions(), Positions()
    for block in blocks:
        block.initialize()
    result = md.compare(*blocks, [np.ones((2, 4), np.float32)])
    assert result.equal
    assert list(result.layers) == [("dense", "dense")]


@pytest.mark.parametrize("build", ["Net", "concise_net"])
@pytest.mark.parametrize("seed", [7, None])
def test_models_are_left_as_they_were(backend: Any, build: str, seed: int | None) -> None:
    net = net_of(backend.name, build, seed=seed)
    before = backend.get_state(net)
    X, y = flat_batches(1)[0]
    md.compare(net, net_of(backend.name, build), flat_batches())
    after = backend.get_state(net)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    trainer = backend.Trainer(net, 0.1)
    trainer.step(backend.tensor(X), backend.tensor(y))
    assert not np.array_equal(backend.get_state(net)["W1"], before["W1"])


def test_what_is_built_afterwards_has_its_keys(backend: Any) -> None:
    """`compare` takes none of those that `manual_seed` hands out."""
    keys = []
    for compared in (False, True):
        md.manual_seed(5)
        nets = net_of(backend.name, "Net"), net_of(backend.name, "concise_net")
        if compared:
            md.compare(*nets, flat_batches(1))
        keys.append(md.mask_at(md.Dropout(0.5), 0, (1,)).key)
    assert keys[0] == keys[1]


def test_layers_of_the_framework_are_left_its_own(need: Any) -> None:
    for name in NETS:
        need(name)
    import keras
    import mxnet as mx
    from torch import nn

    of_torch, of_keras, of_gluon = (build(norm=True) for build in NETS.values())
    of_torch.train()
    of_torch[9].eval()
    statistics = of_torch[1].num_batches_tracked.clone()
    md.compare(of_torch, of_keras, image_batches())
    md.compare(of_gluon, of_torch, image_batches())
    assert type(of_torch[3]) is nn.Dropout2d
    assert of_torch.training
    assert not of_torch[9].training
    assert all(parameter.grad is None for parameter in of_torch.parameters())
    assert of_torch[1].num_batches_tracked == statistics
    assert type(of_keras.layers[3]) is keras.layers.SpatialDropout2D
    assert "call" not in vars(of_keras.layers[0])
    assert type(of_gluon[3]) is mx.gluon.nn.Dropout
    assert of_gluon._active


def test_layers_that_were_converted_before_stay_so(need: Any) -> None:
    """And so do their keys."""
    need("torch")
    import multidrop_torch

    nets = torch_net(), torch_net()
    md.convert(nets[0], seed=3)
    before = md.mask_at(nets[0][2], 0, (1, 1, 1, 1)).key
    md.compare(*nets, image_batches())
    assert type(nets[0][2]) is multidrop_torch.Dropout2d
    assert md.mask_at(nets[0][2], 0, (1, 1, 1, 1)).key == before
    assert nets[0][2].stream.tolist()[1] == 0
    assert md.restore(nets[0]) == 2


def test_what_cannot_be_keyed_is_said(need: Any) -> None:
    need("torch")
    from torch import nn

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, X: Any) -> Any:
            return nn.functional.dropout(self.linear(X), 0.5, self.training)

    result = md.compare(Functional(), Functional(), [(np.ones((4, 4)), np.arange(4))])
    assert result.first.layers is None
    assert "not keyed: torch Functional, (itself): Functional is random: its output" in str(result)


def test_pairs(need: Any) -> None:
    """Layers that run in another order are told by their paths."""
    need("torch")
    import torch
    from torch import nn

    class Branches(nn.Module):
        def __init__(self, order: str) -> None:
            super().__init__()
            self.a, self.b, self.order = nn.Linear(4, 4), nn.Linear(4, 4), order

        def forward(self, X: Any) -> Any:
            branches = {name: getattr(self, name)(X) for name in self.order}
            return branches["a"] - torch.relu(branches["b"])

    batches = [(np.random.default_rng(0).normal(size=(4, 4)), np.arange(4))]
    assert not md.compare(Branches("ab"), Branches("ba"), batches).equal
    assert md.compare(Branches("ab"), Branches("ba"), batches, pairs={"a": "a", "b": "b"}).equal
    with pytest.raises(ValueError, match="pairs: expected paths of layers with weights or of dropouts in both models"):
        md.compare(Branches("ab"), Branches("ba"), batches, pairs={"a": "c"})
    with pytest.raises(ValueError, match="pairs: expected each layer of the second model once"):
        md.compare(Branches("ab"), Branches("ba"), batches, pairs={"a": "a", "b": "a"})
    models = [nn.Sequential(nn.Linear(4, 4), nn.Dropout()) for _ in range(2)]
    with pytest.raises(
        ValueError, match=r"pairs: expected paths of layers with weights or of dropouts .* got '0': '1'"
    ):
        md.compare(*models, batches, pairs={"0": "1"})


@pytest.mark.parametrize("name", ["torch", "tensorflow", "mxnet"])
def test_models_without_trained_weights(need: Any, name: str) -> None:
    """Have an output and a loss, and no gradients."""
    backend = need(name)
    batches = [(np.ones((4, 3), np.float32), np.arange(4) % 3)]
    result = md.compare(backend.Dropout(0.5), backend.Dropout(0.5), batches)
    assert result.equal
    assert [difference.what for difference in result.differences[-2:]] == ["output", "loss"]


@pytest.mark.parametrize("training", [True, False])
def test_weights_that_mkldnn_lays_out(need: Any, training: bool) -> None:
    """A forward in evaluation mode leaves a float32 convolution's weights in a layout of MKL-DNN's own."""
    need("mxnet")
    import mxnet as mx
    from mxnet.gluon import nn

    nets, batches = (
        [nn.HybridSequential(), nn.HybridSequential()],
        [(X.astype(np.float32), y) for X, y in image_batches()],
    )
    for net in nets:
        net.add(nn.Conv2D(8, 3), nn.Dropout(0.3, axes=(2, 3)), nn.Dense(10))
        net.initialize()
        net(mx.nd.array(batches[0][0]))
    before = [[param.data().asnumpy() for param in net.collect_params().values()] for net in nets]
    assert md.compare(*nets, batches, training=training).equal
    for net, values in zip(nets, before, strict=True):
        for param, value in zip(net.collect_params().values(), values, strict=True):
            assert np.array_equal(param.data().asnumpy(), value)


def test_a_weight_that_cannot_be_written(need: Any) -> None:
    """Leaves none of the others as the run left it."""
    need("numpy")
    nets = net_of("numpy", "Net"), net_of("numpy", "Net")
    before = {name: w.copy() for name, w in nets[1].parameters.items()}

    def loss(output: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        nets[1].parameters["W1"].flags.writeable = False
        return 0.0, np.zeros_like(output)

    with pytest.raises(ValueError, match="read-only"):
        md.compare(*nets, flat_batches(), loss=loss)
    assert [name for name, w in nets[1].parameters.items() if not np.array_equal(w, before[name])] == ["W1"]


def test_a_gluon_net_without_initialized_weights(need: Any) -> None:
    """Has the type that they are to have, which is not that of a stream."""
    backend = need("mxnet")
    from mxnet.gluon import nn

    def net() -> Any:
        net = nn.HybridSequential()
        net.add(backend.Dropout(0.2, seed=1), nn.Dense(5, use_bias=False))
        net.initialize()
        return net

    def block() -> Any:
        net = nn.HybridSequential()
        net.add(nn.Dropout(0.2))
        return net

    batches = [(np.ones((4, 5), np.float32), np.arange(4))]
    for build in (net, block):
        assert md.compare(build(), build(), batches).equal


@pytest.mark.parametrize("name", ["numpy", "mxnet"])
def test_a_net_in_evaluation_mode(need: Any, name: str) -> None:
    """Is run in the mode that is asked for, and has its own again."""
    need(name)
    result = md.compare(net_of(name, "Net"), net := net_of(name, "Net"), flat_batches(1))
    assert result.equal
    if name == "mxnet":
        net.is_training = False
    else:
        net.eval()
    result = md.compare(net_of(name, "Net"), net, flat_batches(1))
    assert result.equal
    assert [d.value for d in result.differences if d.what == "mask"] == [0.0, 0.0]
    assert not (net.is_training if name == "mxnet" else net.training)


class TestErrors:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> None:
        need("torch")

    def test_other_layers(self) -> None:
        from torch import nn

        with pytest.raises(ValueError, match=r"as many layers with weights in both; torch Linear has 1: \(itself\); "):
            md.compare(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), [np.ones((2, 4))])
        with pytest.raises(ValueError, match="as many dropout layers in both"):
            md.compare(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), nn.Sequential(nn.Linear(4, 4)), [np.ones((2, 4))])

    def test_other_shapes(self) -> None:
        from torch import nn

        with pytest.raises(ValueError, match=r"weights of the same shapes in the same order; got .*'kernel': \(4, 5\)"):
            md.compare(nn.Linear(4, 5), nn.Linear(4, 6), [np.ones((2, 4))])

    def test_bad_arguments(self) -> None:
        from torch import nn

        nets, batches = (nn.Linear(4, 4), nn.Linear(4, 4)), [(np.ones((2, 4)), np.arange(2))]
        for settings, message in (
            ({"lr": -1}, "lr: expected a finite number of at least 0"),
            ({"steps": 0}, "steps: expected an integer above 0"),
            ({"data_format": "NCHW"}, "data_format: expected one of 'channels_first', 'channels_last'"),
            ({"seed": -1}, "seed: expected an integer in"),
            ({"rtol": -1}, "rtol: expected a finite number of at least 0"),
            ({"rtol": float("nan")}, "rtol: expected a finite number of at least 0"),
        ):
            with pytest.raises(ValueError, match=message):
                md.compare(*nets, batches, **settings)
        with pytest.raises(ValueError, match="batches: expected at least one batch; got none"):
            md.compare(*nets, [])
        with pytest.raises(ValueError, match=r"batches: expected \(X, y\), \(X,\) or X; got a tuple of 3"):
            md.compare(*nets, [(*batches[0], batches[0][1])])
        with pytest.raises(ValueError, match="expected a label for each of"):
            md.compare(*nets, [(np.ones((2, 4)), np.arange(3))])
        with pytest.raises(ValueError, match=r"labels, or a floating y of the output's shape \(2, 4\)"):
            md.compare(*nets, [(np.ones((2, 4)), np.zeros(2))])
        with pytest.raises(ValueError, match="model_b: expected a different model; got model_a"):
            md.compare(nets[0], nets[0], batches)
        with pytest.raises(TypeError, match="model_b: expected a model of one of"):
            md.compare(nets[0], np.ones(3), batches)
        for X in (nets[0].weight.new_ones(2, 4).numpy()[::-1], np.ones((2, 4), ">f4")):  # any strides, any byte order
            assert md.compare(*nets, [X]).equal
        for bad, message in (
            ([((batches[0][0], batches[0][0]), batches[0][1])], "batches: expected arrays or tensors"),
            ([([[1.0]], [0])], "batches: expected arrays or tensors; got"),
            ([None], "batches: expected a tensor .* got builtins.NoneType"),
            ([(batches[0][0], np.array([True, False]))], "batches: expected integers or floating .* of type bool"),
            ([(batches[0][0], np.array(["a", "b"]))], "batches: expected integers or floating numbers"),
            (batches[0], r"batches: expected an iterable of \(X, y\), \(X,\) or X, as a list"),
            (3, r"batches: expected an iterable of \(X, y\), \(X,\) or X, as a list; got 3"),
        ):
            with pytest.raises(TypeError, match=message):
                md.compare(*nets, bad)
        for settings, message in (
            ({"loss": 3}, r"loss: expected a function of \(output, y\); got 3"),
            ({"pairs": 3}, "pairs: expected a mapping of paths; got 3"),
            ({"pairs": [("0", "0")]}, "pairs: expected a mapping of paths"),
        ):
            with pytest.raises(TypeError, match=message):
                md.compare(*nets, batches, **settings)
        for loss in (lambda Y, y: 0.0, lambda Y, y: (0.0, Y[:1]), lambda Y, y: [Y]):
            with pytest.raises(ValueError, match=r"loss: expected a function that returns a number .*4\)"):
                md.compare(*nets, batches, loss=loss)
        with pytest.raises(ValueError, match="training: expected True or False; got 'no'"):
            md.compare(*nets, batches, training="no")

    def test_what_both_have(self) -> None:
        from torch import nn

        shared = nn.Dropout()
        nets = [nn.Sequential(nn.Linear(4, 4), shared) for _ in range(2)]
        with pytest.raises(ValueError, match="models: expected separate dropout layers; got 1 in"):
            md.compare(*nets, [np.ones((2, 4))])

    def test_functions_that_drop_are_named_where_layers_are_missing(self) -> None:
        from torch import nn

        class Functional(nn.Linear):
            def forward(self, X: Any) -> Any:
                return nn.functional.dropout(super().forward(X), 0.5)

        with pytest.raises(
            ValueError, match=r"as many dropout layers in both; .*; not keyed: torch Functional, .*random"
        ):
            md.compare(Functional(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Dropout()), [np.ones((2, 4))])
