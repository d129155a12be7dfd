"""The layers of each framework, in the place of its own: shapes, modes, masks, what is saved and built again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drop_in import IMAGES, images, takes_the_calls_of
from placed import PLACE, array, tensor

import multidrop as md
from multidrop.spec import masks


@pytest.mark.parametrize(
    ("ours", "taken"),
    [
        (lambda x, p=0.5, *, seed=None: None, True),
        (lambda x, p=0.5, seed=None: None, True),
        (lambda y, p=0.5: None, False),
        (lambda x, p=0.4: None, False),
        (lambda x, seed=None, p=0.5: None, False),
        (lambda x, *, p=0.5: None, False),
        (lambda x: None, False),
        (lambda x, p=0.5, *, seed: None, False),
    ],
)
def test_what_takes_the_calls_of_another(ours: Callable[..., Any], taken: bool) -> None:
    def theirs(x: Any, p: float = 0.5) -> None: ...

    assert takes_the_calls_of(ours, theirs) == taken


# torch's own, at its first compilation: it announces what it is about to change.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")
class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> None:
        need("torch")

    LAYERS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")

    @pytest.mark.parametrize("name", LAYERS)
    def test_arguments_and_class_of_layers(self, name: str) -> None:
        import multidrop_torch
        import torch

        ours, theirs = getattr(multidrop_torch, name), getattr(torch.nn, name)
        assert takes_the_calls_of(ours, theirs)
        assert takes_the_calls_of(ours.forward, theirs.forward)
        layer = ours(0.5, seed=1)
        assert isinstance(layer, theirs)
        layer.p = 0.0
        X = torch.ones(2, 3, 4) if name == "Dropout1d" else torch.ones(2, 3, 4, 5)
        assert torch.equal(layer(input=X), X)

    def test_arguments_of_functions(self) -> None:
        import torch
        from multidrop_torch import functional

        theirs = [name for name in dir(torch.nn.functional) if "dropout" in name]
        assert len(theirs) >= len(self.LAYERS)
        for name in theirs:
            assert takes_the_calls_of(getattr(functional, name), getattr(torch.nn.functional, name))

    @pytest.mark.parametrize(
        ("name", "shape", "axes"),
        [
            ("Dropout", (4, 6), ()),
            ("Dropout1d", (4, 6, 5), (2,)),
            ("Dropout1d", (6, 5), (1,)),
            ("Dropout2d", (4, 6, 5, 5), (2, 3)),
            ("Dropout3d", (4, 6, 2, 3, 5), (2, 3, 4)),
            ("Dropout3d", (6, 2, 3, 5), (1, 2, 3)),
        ],
    )
    @pytest.mark.parametrize("inplace", [False, True])
    def test_masks(self, name: str, shape: tuple[int, ...], axes: tuple[int, ...], inplace: bool) -> None:
        """The mask of the specification, drawn for the batch and the channels; the next one in the next call."""
        import multidrop_torch
        import torch

        layer, own = getattr(multidrop_torch, name)(0.3, inplace, seed=7), getattr(torch.nn, name)(0.3, inplace)
        x = images(shape)
        for call in range(2):
            X = tensor(x.copy())
            Y = layer(X)
            assert np.array_equal(array(Y), masks.dropout(x, 0.3, md.Key(7, call), axes=axes))
            assert (Y is X) == (own(X) is X)
        assert layer.eval()(X) is X
        assert repr(layer) == repr(own)[:-1] + ", seed=7)"

    def test_dropout2d_of_three_dimensions_is_of_one(self) -> None:
        """As torch has it, with a warning as torch's."""
        import multidrop_torch
        import torch

        X = torch.ones(4, 6, 5)
        with pytest.warns(UserWarning, match="dropout2d: Received a 3-D input"):
            Y = multidrop_torch.Dropout2d(0.5, seed=1)(X)
        assert torch.equal(Y, multidrop_torch.Dropout1d(0.5, seed=1)(X))

    @pytest.mark.parametrize(
        ("name", "shape"), [("dropout2d", (4, 6)), ("dropout2d", (1, 2, 3, 4, 5)), ("dropout3d", (4, 6))]
    )
    def test_warnings_of_other_shapes(self, name: str, shape: tuple[int, ...]) -> None:
        import torch
        from multidrop_torch import functional

        for function in (getattr(torch.nn.functional, name), getattr(functional, name)):
            with pytest.warns(UserWarning, match=f"{name}: Received a {len(shape)}-D input"):
                function(torch.ones(shape), 0.5)
        with pytest.raises(RuntimeError, match="dropout1d: Expected 2D or 3D input"):
            functional.dropout1d(torch.ones(4), 0.5)

    def test_functions_that_drop_are_not_asked_for_their_truth(self) -> None:
        """Dynamo of torch 2.11 knows none of a method, which then is in no compiled program."""
        import torch
        from multidrop_torch import functional

        class Drop:
            def __bool__(self) -> bool:
                raise AssertionError("the function was asked for its truth")

            def __call__(self, X: Any, axes: tuple[int, ...], inplace: bool) -> Any:
                return X + 1.0

        X = torch.zeros(2, 3, 4, 4)
        for function in (functional.dropout, functional.dropout2d):
            assert torch.equal(function(X, 0.5, True, drop=Drop()), X + 1.0)
        assert not torch.equal(functional.alpha_dropout(X, 0.5, True, drop=Drop()), X)

    @pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
    def test_alpha_dropout_keeps_mean_and_variance(self, name: str) -> None:
        import multidrop_torch
        import torch

        X = tensor(np.random.default_rng(0).normal(size=(2000, 500, 1)))
        Y = getattr(multidrop_torch, name)(0.2, seed=1)(X)
        assert abs(float(Y.mean())) < 0.01
        assert abs(float(Y.var()) - 1) < 0.01
        own = getattr(torch.nn, name)(0.2)(X)
        # What is dropped has one value, and no other value comes twice.
        assert float(torch.mode(Y.flatten()).values) == pytest.approx(float(torch.mode(own.flatten()).values))
        for p, expected in ((0.0, X), (1.0, torch.zeros_like(X))):
            assert torch.equal(getattr(multidrop_torch, name)(p, seed=1)(X), expected)

    def test_functions_follow_torch_or_manual_seed(self) -> None:
        import torch
        from multidrop_torch import functional

        X = torch.ones(4, 6, 5, 5)
        for seed in (torch.manual_seed, md.manual_seed):
            drawn = []
            for _ in range(2):
                seed(3)
                drawn.append([functional.dropout2d(X, 0.5), functional.dropout(X, 0.5)])
            assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
        assert functional.dropout2d(X, 0.5, training=False) is X

    @pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"])
    def test_copies_states_and_programs(self, name: str) -> None:
        """A copy, a pickle, a loaded state and a compiled layer go on with the same masks."""
        import multidrop_torch
        import torch

        X = torch.ones({"Dropout1d": (4, 6, 5), "Dropout3d": (4, 6, 2, 3, 5)}.get(name, IMAGES))
        layer = getattr(multidrop_torch, name)(0.5, seed=1)
        layer(X)
        pickled = pickle.loads(pickle.dumps(layer)).to(PLACE)  # which is on the host
        others = [copy.deepcopy(layer), pickled, getattr(multidrop_torch, name)(0.5, seed=2)]
        others[2].load_state_dict(layer.state_dict())
        others[2].load_state_dict(getattr(torch.nn, name)(0.5).state_dict(), strict=True)  # which has none
        others.append(torch.compile(copy.deepcopy(layer), fullgraph=True))
        expected = [layer(X), layer(X)]
        assert not torch.equal(*expected)
        for other in others:
            assert all(torch.equal(other(X), Y) for Y in expected)

    @pytest.mark.parametrize("name", LAYERS)
    def test_a_rate_of_0_or_1(self, name: str) -> None:
        """Takes a call as any other does; at 0 all is as it was, and at 1 all is 0, with its gradient."""
        import multidrop_torch
        import torch

        X = torch.full((2, 3, 4) if name == "Dropout1d" else (2, 3, 4, 5), torch.nan).requires_grad_()
        for p in (0.0, 1.0):
            layer = getattr(multidrop_torch, name)(p, seed=1)
            Y = layer(X)
            assert layer.stream.tolist() == [1, 1]
            assert Y is X if p == 0.0 else torch.equal(Y, torch.zeros_like(X))
            (gradient,) = torch.autograd.grad(Y.sum(), X)
            assert torch.equal(gradient, torch.full_like(X, 1.0 - p))

    def test_autograd_knows_what_was_written_over(self) -> None:
        """As after any operation in place, a gradient that needs what was there is an error."""
        import multidrop_torch
        import torch

        X, w = torch.ones(8), torch.ones(8, requires_grad=True)
        Y = w * X
        multidrop_torch.Dropout(0.5, inplace=True, seed=1)(X)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            Y.sum().backward()
        with torch.inference_mode():
            multidrop_torch.Dropout(0.5, inplace=True, seed=1)(torch.ones(8))

    def test_printed_without_memory(self) -> None:
        import multidrop_torch
        import torch

        with torch.device("meta"):
            assert repr(multidrop_torch.Dropout(0.5, seed=1)) == "Dropout(p=0.5, inplace=False, seed=1)"

    def test_channels_last(self) -> None:
        import multidrop_torch
        import torch

        X = tensor(images()).contiguous(memory_format=torch.channels_last).requires_grad_()
        Y = multidrop_torch.Dropout2d(0.5, seed=1)(X)
        assert Y.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(array(Y), masks.dropout(images(), 0.5, 1, axes=(2, 3)))

    def test_vmap(self) -> None:
        """Different masks for the examples are those of the batch; same ones, one mask."""
        import multidrop_torch
        import torch

        X = torch.ones(3, 4, 6, 5, 5)
        layer = multidrop_torch.Dropout2d(0.5, seed=1)
        different = torch.vmap(layer, randomness="different")(X)
        assert np.array_equal(array(different), masks.dropout(array(X), 0.5, md.Key(1, 0), axes=(3, 4)))
        same = torch.vmap(layer, randomness="same")(X)
        assert torch.equal(same[0], same[2])


class TestGluon:
    @pytest.fixture(autouse=True)
    def mxnet(self, need: Any) -> None:
        need("mxnet")

    def test_arguments(self) -> None:
        import multidrop_mxnet
        import mxnet as mx

        assert takes_the_calls_of(multidrop_mxnet.Dropout, mx.gluon.nn.Dropout)

    @pytest.mark.parametrize("seed", [None, 7])
    @pytest.mark.parametrize("hybridized", [False, True])
    def test_the_gradient_of_evaluation_mode(self, seed: int | None, hybridized: bool) -> None:
        """Is that of the identity, also after a call in training mode."""
        import multidrop_mxnet
        import mxnet as mx

        net = mx.gluon.nn.HybridSequential()
        net.add(multidrop_mxnet.Dropout(0.5, seed=seed))
        net.initialize()
        if hybridized:
            net.hybridize()
        X = mx.nd.ones((8, 8))
        X.attach_grad()
        for training in (True, False):
            with mx.autograd.record(train_mode=training):
                Y = net(X)
            Y.backward(train_mode=training)
            assert np.array_equal(X.grad.asnumpy(), Y.asnumpy())
        assert np.array_equal(Y.asnumpy(), X.asnumpy())

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_axes(self, hybridized: bool) -> None:
        import multidrop_mxnet
        import mxnet as mx

        net = mx.gluon.nn.HybridSequential()
        net.add(multidrop_mxnet.Dropout(0.3, axes=(2, 3), seed=7))
        net.initialize()
        if hybridized:
            net.hybridize()
        x = images()
        for call in range(2):
            with mx.autograd.record():
                Y = net(mx.nd.array(x))
            assert np.array_equal(Y.asnumpy(), masks.dropout(x, 0.3, md.Key(7, call), axes=(2, 3)))
        assert np.array_equal(net(mx.nd.array(x)).asnumpy(), x)

    @pytest.mark.parametrize("how", ["added", "loaded"])
    @pytest.mark.parametrize("count", [1, 2])
    def test_a_stream_that_nothing_initialized(self, how: str, count: int, tmp_path: Path) -> None:
        """Is where the other parameters of its trainer are."""
        import multidrop_mxnet
        import mxnet as mx
        from mxnet import gluon

        contexts = [mx.cpu(1), mx.cpu(0)][:count]
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(8, in_units=8), gluon.nn.Dropout(0.5))
        net.initialize(ctx=contexts)
        if how == "added":
            net.add(multidrop_mxnet.Dropout(0.5, seed=1))
        else:
            net.save_parameters(str(tmp_path / "net"))
            net = gluon.nn.HybridSequential()
            net.add(gluon.nn.Dense(8, in_units=8), multidrop_mxnet.Dropout(0.5, seed=1))
            net.load_parameters(str(tmp_path / "net"), ctx=contexts, allow_missing=True)
        gluon.Trainer(net.collect_params(), "sgd")
        stream = net[-1].stream
        assert stream.list_ctx() == contexts
        keys = [md.Key(1), md.Key(1).fold_in(1)][:count]
        positions = [[key.seed, key.call] for key in keys]
        assert [array.asnumpy().view(np.uint64).tolist() for array in stream.list_data()] == positions

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_a_stream_that_is_moved(self, hybridized: bool) -> None:
        """To other contexts, whether or not it was anywhere: the first goes on where it was."""
        import multidrop_mxnet
        import mxnet as mx

        net = mx.gluon.nn.HybridSequential()
        net.add(multidrop_mxnet.Dropout(0.5, seed=1))
        if hybridized:
            net.hybridize()
        for call in range(2):
            net.collect_params().reset_ctx([mx.cpu(1), mx.cpu(0)])
            assert set(net.collect_params().list_ctx()) == {mx.cpu(0), mx.cpu(1)}
            with mx.autograd.record():
                Y = net(mx.nd.ones((8, 8), ctx=mx.cpu(1)))
            assert np.array_equal(Y.asnumpy() != 0, md.keep_mask((8, 8), 0.5, md.Key(1, call)))

    @pytest.mark.parametrize("seed", [None, 7])
    @pytest.mark.parametrize("training", [True, False])
    def test_integers_in_a_program(self, seed: int | None, training: bool, capfd: pytest.CaptureFixture[str]) -> None:
        """Are an error of MXNet's, which prints the reason, and take no call."""
        import multidrop_mxnet
        import mxnet as mx

        net = mx.gluon.nn.HybridSequential()
        net.add(multidrop_mxnet.Dropout(0.5, seed=seed))
        net.initialize()
        net.hybridize()
        with mx.autograd.record(train_mode=training), pytest.raises(mx.MXNetError):
            net(mx.nd.ones((8, 8), dtype="int32"))
        reason = "TypeError: X: expected a tensor of type float16, bfloat16, float32, float64; got int32: convert it"
        assert reason in capfd.readouterr().out
        if seed is not None:
            assert net[0].stream.key == md.Key(seed)


class TestNumPy:
    def test_axes(self, need: Any) -> None:
        need("numpy")
        import multidrop_numpy

        layer, x = multidrop_numpy.Dropout(0.3, (2, 3), seed=7), images()
        for call in range(2):
            expected = masks.dropout(x, 0.3, md.Key(7, call), axes=(2, 3))
            assert np.array_equal(layer(x), expected)
            assert np.array_equal(layer.backward(x), expected)
        assert repr(layer) == "Dropout(p=0.3, axes=(2, 3))"


def test_spatial_masks_drop_the_same_channels_in_every_framework(need: Any) -> None:
    """Of the same examples, channels first and channels last."""
    for name in ("torch", "tensorflow", "mxnet"):
        need(name)
    import multidrop_mxnet
    import multidrop_tensorflow
    import multidrop_torch
    import mxnet as mx
    import torch

    x = images()
    with mx.autograd.record():
        of_mxnet = multidrop_mxnet.Dropout(0.5, (2, 3), seed=1)(mx.nd.array(x)).asnumpy()
    of_torch = multidrop_torch.Dropout2d(0.5, seed=1)(torch.from_numpy(x)).numpy()
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    of_keras = multidrop_tensorflow.SpatialDropout2D(0.5, seed=1)(last, training=True).numpy().transpose(0, 3, 1, 2)
    assert np.array_equal(of_torch, of_mxnet)
    assert np.array_equal(of_torch, of_keras)
    assert 0 < (of_torch != 0).mean() < 1
