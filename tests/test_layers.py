"""The layers of each framework, in the place of its own: shapes, modes, masks, what is saved and built again."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from named import named

import multidrop as md
from multidrop.spec import masks

IMAGES = (4, 6, 5, 5)  # (n, c, h, w)

ROOT = Path(__file__).parent.parent


def images(shape: tuple[int, ...] = IMAGES) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def takes_the_calls_of(ours: Callable[..., Any], theirs: Callable[..., Any]) -> bool:
    """Whether ours has the arguments of theirs, at the same places, with the same names and defaults; what it has
    besides comes after those, or by keyword alone, and has a default."""
    own, others = ([*inspect.signature(function).parameters.values()] for function in (ours, theirs))
    others = [other for other in others if other.kind not in (other.VAR_POSITIONAL, other.VAR_KEYWORD)]
    taken = all(
        (mine.name, mine.kind) == (other.name, other.kind) and other.default in (other.empty, mine.default)
        for mine, other in zip(own, others, strict=False)
    )
    rest = [mine for mine in own[len(others) :] if mine.kind is not mine.VAR_KEYWORD]
    return taken and len(own) >= len(others) and all(mine.default is not mine.empty for mine in rest)


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
            X = torch.from_numpy(x.copy())
            Y = layer(X)
            assert np.array_equal(Y.numpy(), masks.dropout(x, 0.3, md.Key(7, call), axes=axes))
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

    @pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
    def test_alpha_dropout_keeps_mean_and_variance(self, name: str) -> None:
        import multidrop_torch
        import torch

        X = torch.randn(2000, 500, generator=torch.Generator().manual_seed(0))[:, :, None]
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
        others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), getattr(multidrop_torch, name)(0.5, seed=2)]
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

        X = torch.from_numpy(images()).contiguous(memory_format=torch.channels_last).requires_grad_()
        Y = multidrop_torch.Dropout2d(0.5, seed=1)(X)
        assert Y.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(Y.detach().numpy(), masks.dropout(images(), 0.5, 1, axes=(2, 3)))

    def test_vmap(self) -> None:
        """Different masks for the examples are those of the batch; same ones, one mask."""
        import multidrop_torch
        import torch

        X = torch.ones(3, 4, 6, 5, 5)
        layer = multidrop_torch.Dropout2d(0.5, seed=1)
        different = torch.vmap(layer, randomness="different")(X)
        assert np.array_equal(different.numpy(), masks.dropout(X.numpy(), 0.5, md.Key(1, 0), axes=(3, 4)))
        same = torch.vmap(layer, randomness="same")(X)
        assert torch.equal(same[0], same[2])


class TestKeras:
    @pytest.fixture(autouse=True)
    def tensorflow(self, need: Any) -> None:
        need("tensorflow")

    def test_arguments(self) -> None:
        """Each that Keras' layers have, in their order, and no other one."""
        import keras
        import multidrop_tensorflow

        names = [name for name in dir(keras.layers) if "Dropout" in name or name == "GaussianNoise"]
        assert len(names) >= 5
        for name in names:
            ours, theirs = (inspect.signature(getattr(of, name)) for of in (multidrop_tensorflow, keras.layers))
            ours.bind(**dict.fromkeys(theirs.parameters))
            shared = [parameter for parameter in ours.parameters if parameter != "kwargs"]
            assert shared == [parameter for parameter in theirs.parameters if parameter in shared]
        with pytest.raises(TypeError, match="data_format"):
            multidrop_tensorflow.SpatialDropout1D(0.5, data_format="channels_first")

    CASES = (
        ("Dropout", {"noise_shape": (None, 1, 1, 6)}, (4, 5, 5, 6), (1, 2)),
        ("Dropout", {"noise_shape": [4, 1, 5, 6]}, (4, 5, 5, 6), (1,)),
        ("SpatialDropout1D", {}, (4, 5, 6), (1,)),
        ("SpatialDropout2D", {}, (4, 5, 5, 6), (1, 2)),
        ("SpatialDropout2D", {"data_format": "channels_first"}, (4, 6, 5, 5), (2, 3)),
        ("SpatialDropout3D", {"data_format": "channels_last"}, (2, 2, 3, 5, 6), (1, 2, 3)),
    )

    @pytest.mark.parametrize(("name", "settings", "shape", "axes"), CASES)
    def test_masks(self, name: str, settings: dict[str, Any], shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
        """The mask of the specification, drawn for the smaller shape; eager, traced and under XLA."""
        import multidrop_tensorflow
        import tensorflow as tf

        layer = getattr(multidrop_tensorflow, name)(0.3, seed=7, **settings)
        x = images(shape)
        traced = [tf.function(lambda X: layer(X, training=True), jit_compile=xla) for xla in (False, True)]
        for call, run in enumerate((lambda X: layer(X, training=True), *traced)):
            assert np.array_equal(run(tf.constant(x)).numpy(), masks.dropout(x, 0.3, md.Key(7, call), axes=axes))
        assert np.array_equal(layer(x, training=False), x)
        again = type(layer).from_config(layer.get_config())
        assert np.array_equal(again(x, training=True), masks.dropout(x, 0.3, md.Key(7), axes=axes))

    @pytest.mark.parametrize("name", ["Dropout", "GaussianNoise"])
    def test_a_variable(self, name: str) -> None:
        """Is as its value, and has a gradient."""
        import keras
        import multidrop_tensorflow
        import tensorflow as tf

        kind, x = getattr(multidrop_tensorflow, name), images((4, 6))
        expected = kind(0.5, seed=1)(x, training=True)
        for X in (tf.Variable(x), keras.Variable(x)):
            layer = kind(0.5, seed=1)
            with tf.GradientTape() as tape:
                Y = layer(X, training=True)
            assert np.array_equal(Y, expected)
            assert tape.gradient(Y, X.value if isinstance(X, keras.Variable) else X) is not None
            assert np.array_equal(layer(X, training=False), x)

    @pytest.mark.parametrize("training", [True, False])
    def test_what_is_no_tensor(self, training: bool) -> None:
        """Is an error in both modes, and takes no call."""
        import multidrop_tensorflow
        import tensorflow as tf

        tensors = [tf.ragged.constant([[1.0, 2.0], [3.0]]), tf.sparse.from_dense(tf.ones((2, 2)))]
        for kind in (multidrop_tensorflow.Dropout, multidrop_tensorflow.GaussianNoise):
            layer = kind(0.5, seed=1)
            for bad in (*tensors, [tf.ones(2)], {"a": tf.ones(2)}, None):
                with pytest.raises(TypeError, match=r"(?s)X: expected a tensor of type .*; got .*: convert it with"):
                    layer(bad, training=training)
            assert np.array_equal(layer(images(), training=True), kind(0.5, seed=1)(images(), training=True))

    def test_a_shape_that_is_not_known(self) -> None:
        import multidrop_tensorflow
        import tensorflow as tf

        layer = multidrop_tensorflow.SpatialDropout2D(0.3, seed=7)
        run = tf.function(lambda X: layer(X, training=True))
        x = images((4, 5, 5, 6))
        Y = run.get_concrete_function(tf.TensorSpec((None, None, None, 6)))(tf.constant(x))
        assert np.array_equal(Y.numpy(), masks.dropout(x, 0.3, 7, axes=(1, 2)))

    @pytest.mark.parametrize("bad", ["112", 3, (0, 1), (1.0, 1), ()], ids=named)
    def test_bad_noise_shapes(self, bad: Any) -> None:
        import multidrop_tensorflow

        with pytest.raises(ValueError, match="noise_shape: expected an integer above 0 or None for each dimension"):
            multidrop_tensorflow.Dropout(0.5, noise_shape=bad)

    def test_a_noise_shape_that_does_not_fit(self) -> None:
        import multidrop_tensorflow

        layer = multidrop_tensorflow.Dropout(0.5, noise_shape=(1, 7), seed=1)
        with pytest.raises(ValueError, match=r"noise_shape: expected 1, None or the size of each dimension"):
            layer(images((4, 6)), training=True)

    def test_alpha_dropout_keeps_mean_and_variance(self) -> None:
        import multidrop_tensorflow

        x = images((1000, 1000))
        y = multidrop_tensorflow.AlphaDropout(0.2, seed=1)(x, training=True).numpy()
        assert abs(y.mean()) < 0.01
        assert abs(y.var() - 1) < 0.01

    def test_alpha_dropout_is_that_of_torch(self, need: Any) -> None:
        need("torch")
        import multidrop_tensorflow
        import multidrop_torch
        import torch

        x = images((64, 64))
        y = multidrop_tensorflow.AlphaDropout(0.2, seed=1)(x, training=True).numpy()
        assert np.allclose(y, multidrop_torch.AlphaDropout(0.2, seed=1)(torch.from_numpy(x)).numpy(), atol=1e-6)

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_saved_model_goes_on(self, jit: bool, tmp_path: Path) -> None:
        """From a file, with the masks and the weights of a run without a break."""
        import keras
        import multidrop_tensorflow

        def fit(model: Any) -> None:
            model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)

        keras.utils.set_random_seed(0)
        x, y = images((32, 6, 6, 3)), np.arange(32) % 4
        model = keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                keras.layers.Conv2D(8, 3),
                multidrop_tensorflow.SpatialDropout2D(0.2, seed=1),
                keras.layers.Flatten(),
                multidrop_tensorflow.Dropout(0.5, seed=2),
                keras.layers.Dense(4),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=jit)
        fit(model)
        model.save(tmp_path / "model.keras")
        fit(model)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        loaded.compile("sgd", loss, jit_compile=jit)
        fit(loaded)
        for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
            assert np.array_equal(a, b)

    @pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
    def test_weights_of_other_layers(self, file: str, tmp_path: Path) -> None:
        """Load, whether either has a position; a layer that has one keeps it where there is none."""
        import keras
        import multidrop_tensorflow

        def model(drop: Any) -> Any:
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), drop])

        x, kind = images((8, 4)), multidrop_tensorflow.Dropout
        for saved in (kind(0.5, seed=1), kind(0.5), keras.layers.Dropout(0.5)):
            of = model(saved)
            of(x, training=True)
            of.save(tmp_path / file) if file == "model.keras" else of.save_weights(tmp_path / file)
            for loaded in (kind(0.5, seed=2), kind(0.5)):
                to = model(loaded)
                to.load_weights(tmp_path / file)
                assert np.array_equal(to(x), of(x))
                to(x, training=True)
                if loaded.seed is not None:
                    key = md.Key(1, 1) if saved.seed is not None else md.Key(2)
                    assert md.last_mask(loaded).key == key

    def test_the_net_is_saved_whole(self, tmp_path: Path) -> None:
        import keras

        with md.use_backend("tensorflow"):
            net = md.Net(16, 3, 8, 8, seed=4)
        x = images((5, 16))
        net(x, training=True)
        net.save(tmp_path / "net.keras")
        loaded = keras.models.load_model(tmp_path / "net.keras")
        assert np.array_equal(loaded(x, training=True), net(x, training=True))

    def test_clones(self) -> None:
        import keras
        import multidrop_tensorflow

        model = keras.Sequential([keras.Input((4,)), multidrop_tensorflow.Dropout(0.5, seed=1)])
        clone = keras.models.clone_model(model)
        x = images((8, 4))
        assert np.array_equal(clone(x, training=True), model(x, training=True))

    def test_a_rate_that_is_changed(self) -> None:
        import multidrop_tensorflow

        layer, x = multidrop_tensorflow.Dropout(0.0, seed=1), images((8, 8))
        assert np.array_equal(layer(x, training=True), x)
        layer.rate = 0.5
        assert np.array_equal(layer(x, training=True), masks.dropout(x, 0.5, md.Key(1, 1)))

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_rate_that_is_changed_between_fits(self, jit: bool) -> None:
        """A traced program keeps the rate that it was traced with, as with Keras' own layers, until it is compiled
        again; the count goes on."""
        import keras
        import multidrop_tensorflow

        layer, dense = multidrop_tensorflow.Dropout(0.0, seed=1), keras.layers.Dense(1)
        model = keras.Sequential([keras.Input((8,)), layer, dense])
        x = images((8, 8))
        for call, rate in enumerate((0.0, 1.0)):
            layer.rate = rate
            before = dense.kernel.numpy()
            model.compile("sgd", "mse", jit_compile=jit)
            model.fit(x, np.ones(8), batch_size=8, verbose=0)
            assert np.array_equal(dense.kernel.numpy(), before) == (rate == 1.0)  # where nothing comes through
            assert md.last_mask(layer, (8, 8)).key == md.Key(1, call)


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
    def test_axes(self) -> None:
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


class TestOwnTests:
    """`tools/own_tests.py`, which runs the frameworks' own tests with these layers in the place of theirs."""

    def test_the_page_lists_each_difference(self) -> None:
        module = _own_tests()
        page = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")
        listed = [line for line in page.splitlines() if line.startswith("| `")]
        assert listed == [
            f"| `{framework}` | {len(difference.tests)} | {difference.reason} |"
            for framework, differences in module.DIFFERENCES.items()
            for difference in differences
        ]

    def test_verdicts(self) -> None:
        module = _own_tests()
        failed = module.Outcome("failed", "a.py:1: b", "a.py:1: b")
        expected = module.Difference("a reason", "b", ())
        passed = module.Outcome("passed", reached=True)
        cases = [
            ((passed, None, None), "passed"),
            ((passed._replace(reached=False), None, None), "unexpected"),
            ((passed, expected, None), "unexpected"),
            ((failed, expected, None), "differs as listed"),
            ((failed, expected._replace(failure="c"), None), "unexpected"),
            ((failed, None, None), "unexpected"),
            ((failed, None, passed), "unexpected"),
            ((failed, None, failed._replace(why="a.py:2: c")), "unexpected"),
            ((failed, None, failed), "fails with the framework's own too"),
            ((None, expected, None), "unexpected"),
            ((module.Outcome("skipped", "no device"), None, None), "skipped"),
        ]
        assert [module.verdict(*arguments)[0] for arguments, _ in cases] == [kind for _, kind in cases]

    def test_a_checkout(self, need: Any, tmp_path: Path) -> None:
        """With tests that pass, fail with multidrop's layers alone, and with torch's too."""
        need("torch")
        (tmp_path / "test" / "nn").mkdir(parents=True)
        (tmp_path / "test" / "nn" / "test_dropout.py").write_text(
            """
import torch

def test_passes():
    assert torch.nn.functional.dropout(torch.ones(3), 1.0).sum() == 0

def test_fails():
    assert type(torch.nn.Dropout()).__module__.startswith("torch")

def test_fails_anyway():
    torch.nn.Dropout(0.5, None, None, None)
""",
            encoding="utf-8",
        )
        command = [sys.executable, str(ROOT / "tools" / "own_tests.py"), "torch", str(tmp_path), "--own"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "test_dropout.py::test_passes: passed\n" in done.stdout
        assert "test_dropout.py::test_fails: unexpected: " in done.stdout
        assert "test_dropout.py::test_fails_anyway: fails with the framework's own too: " in done.stdout
        assert done.stdout.endswith("3 tests: 1 passed, 1 unexpected, 1 fails with the framework's own too\n")


def _own_tests() -> Any:
    spec = importlib.util.spec_from_file_location("own_tests", ROOT / "tools" / "own_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
