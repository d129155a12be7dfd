"""Two models side by side: `compare` finds nothing where there is nothing, and what is wrong where something is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from convnets import NETS, flat_batches, gluon_net, image_batches, keras_net, net_of, torch_net

import multidrop as md

FRAMEWORKS = ("numpy", "torch", "tensorflow", "mxnet")


@pytest.fixture(params=list(itertools.combinations(FRAMEWORKS, 2)), ids="-".join)
def two(request: pytest.FixtureRequest, need: Any) -> Iterator[tuple[str, str]]:
    for name in request.param:
        need(name)
    return request.param


@pytest.mark.parametrize("build", ["Net", "concise_net"])
def test_the_sections_net(two: tuple[str, str], build: str) -> None:
    """Trains alike in any two frameworks, though they began with other weights."""
    result = md.compare(*(net_of(name, build) for name in two), flat_batches())
    assert result.equal
    assert result.first is None
    assert result.steps == 3
    assert str(result).endswith("No difference beyond 1e-09.")
    assert sorted(result.layers.values()) == ["dense"] * 3 + ["dropout"] * 2
    for paths, kind in result.layers.items():
        if kind == "dropout":
            assert result.largest("mask", paths) == 0
        else:
            assert result.largest("gradient", paths) < 1e-12
            assert result.largest("weight", paths) < 1e-12
    # The nets were not equal before, so that what is equal now was made so: and something was learned and dropped.
    assert not md.compare(*(net_of(name, build) for name in two), flat_batches(), same_weights=False).equal


def test_layers_of_one_name(need: Any) -> None:
    """Keras lets a subclassed model have them; each is compared."""
    need("tensorflow")
    import keras

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first = keras.layers.Dense(8, name="dense")
            self.second = keras.layers.Dense(4, name="dense")

        def call(self, X: Any) -> Any:
            return self.second(self.first(X))

    result = md.compare(
        Model(), Model(), [(X.reshape(16, -1).astype("float32"), y) for X, y in flat_batches()], rtol=1e-4
    )
    assert result.equal
    assert result.layers == {("dense", "dense"): "dense", ("dense_1", "dense_1"): "dense"}


@pytest.mark.parametrize("names", list(itertools.combinations(NETS, 2)), ids="-".join)
def test_a_convolutional_net(need: Any, names: tuple[str, str]) -> None:
    """Channels first and last: spatial dropout drops the same channels, and the flattened elements are reordered."""
    for name in names:
        need(name)
    result = md.compare(*(NETS[name]() for name in names), image_batches())
    assert result.equal, result
    assert list(result.layers.values()) == ["convolution", "dropout", "convolution", "dense", "dropout", "dense"]
    dropped = [d for d in result.differences if d.what == "mask"]
    assert [d.value for d in dropped] == [0.0] * 4


@pytest.mark.parametrize("names", list(itertools.combinations(NETS, 2)), ids="-".join)
def test_elements_of_images_are_counted_in_another_order(need: Any, names: tuple[str, str]) -> None:
    """A dropout of elements goes by their order: with the channels last it is another mask, and compare says so."""
    for name in names:
        need(name)
    first = md.compare(*(NETS[name](elementwise=0.3) for name in names), image_batches()).first
    if "tensorflow" not in names:
        assert first is None
        return
    shapes = [(16, 2, 2, 6) if name == "tensorflow" else (16, 6, 2, 2) for name in names]
    assert first.what == "mask"
    assert first.note == "the elements of {} and {} are counted in another order".format(*shapes)


class TestFaults:
    """Of a port from torch to Keras, each found where it is."""

    @pytest.fixture(autouse=True)
    def frameworks(self, need: Any) -> None:
        need("torch")
        need("tensorflow")

    def first(self, torch: dict[str, Any], keras: dict[str, Any], **settings: Any) -> md.Difference:
        first = md.compare(torch_net(**torch), keras_net(**keras), image_batches(), **settings).first
        assert first is not None
        assert first.step == 0
        return first

    def test_a_rate(self) -> None:
        first = self.first({}, {"p": 0.2})
        assert (first.what, first.layers[0], first.note) == ("mask", "2", "p is 0.25 and 0.2")
        assert 0 < first.value < 0.2

    def test_a_forgotten_activation(self) -> None:
        first = self.first({}, {"relu": False})
        assert (first.what, first.layers[0]) == ("input", "7")  # the first thing after it that is in both

    def test_a_batch_norm(self) -> None:
        """torch keeps a running variance without bias, Keras one with it."""
        first = self.first({"norm": True}, {"norm": True})
        assert (first.what, first.layers[0], first.name) == ("weight", "1", "running variance")
        assert md.compare(torch_net(norm=True), keras_net(norm=True), image_batches(), rtol=1e-2).equal

    def test_other_weights(self) -> None:
        first = self.first({}, {}, same_weights=False)
        assert (first.what, first.layers[0]) == ("output", "0")
        on = md.compare(torch_net(), keras_net(), image_batches(), same_weights=False, rtol=float("inf"))
        assert on.equal
        assert on.steps == len(image_batches())

    def test_other_masks(self) -> None:
        first = self.first({}, {}, seed=None)
        assert (first.what, first.layers[0]) == ("mask", "2")
        assert first.note.startswith("Key(seed=")

    def test_another_rate_of_learning_is_none(self) -> None:
        """Without masks and in evaluation mode all is equal, whatever drops."""
        result = md.compare(torch_net(p=0.1), keras_net(p=0.9), image_batches(), training=False)
        assert result.equal
        assert result.largest("mask", next(iter(result.layers))) is None


def test_inputs_alone(need: Any) -> None:
    """Without labels there is no loss, and no gradient."""
    need("torch")
    need("mxnet")
    result = md.compare(torch_net(), gluon_net(), [X for X, _ in image_batches()])
    assert result.equal
    assert {d.what for d in result.differences} == {"input", "mask", "output"}


def test_inputs_alone_in_a_tuple(two: tuple[str, str]) -> None:
    """As a loader of a set without labels gives them, in a list or a tuple of one."""
    for kind in (list, tuple):
        result = md.compare(*(net_of(name, "concise_net") for name in two), [kind([X]) for X, _ in flat_batches()])
        assert result.equal
        assert result.steps == 3
        assert result.largest("loss") is None


def test_channels_last_batches(need: Any) -> None:
    need("torch")
    need("tensorflow")
    batches = [(np.ascontiguousarray(X.transpose(0, 2, 3, 1)), y) for X, y in image_batches()]
    assert md.compare(torch_net(), keras_net(), batches, data_format="channels_last").equal


def test_a_loss_of_ones_own_and_regression(need: Any) -> None:
    need("torch")
    need("numpy")
    batches = [(X, np.eye(4)[y]) for X, y in flat_batches()]
    nets = net_of("torch", "Net"), net_of("numpy", "Net")
    assert md.compare(*nets, batches).equal

    def absolute(output: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        return float(np.abs(output - y).mean()), np.sign(output - y) / y.size

    result = md.compare(*nets, batches, loss=absolute)
    assert result.equal
    assert result.largest("loss") < 1e-12


def test_token_models(need: Any) -> None:
    """Embedding, layer norm, a dense layer of a sequence, and weights that are shared."""
    need("torch")
    need("tensorflow")
    import keras
    import torch
    from torch import nn

    class OfTorch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm = nn.Embedding(20, 8), nn.LayerNorm(8, eps=1e-3)
            self.shared, self.drop, self.out = nn.Linear(8, 8), nn.Dropout(0.3), nn.Linear(8, 5)

        def forward(self, X: Any) -> Any:
            H = self.norm(self.table(X))
            H = self.drop(self.shared(torch.relu(self.shared(H))))
            return {"logits": self.out(H), "hidden": H}

    inputs = keras.Input((6,), dtype="int64")
    H = keras.layers.LayerNormalization(dtype="float64")(keras.layers.Embedding(20, 8, dtype="float64")(inputs))
    shared = keras.layers.Dense(8, dtype="float64")
    H = keras.layers.Dropout(0.3, dtype="float64")(shared(keras.layers.ReLU(dtype="float64")(shared(H))))
    of_keras = keras.Model(inputs, keras.layers.Dense(5, dtype="float64")(H))
    generator = np.random.default_rng(0)
    batches = [(generator.integers(0, 20, (4, 6)), generator.integers(0, 5, (4, 6))) for _ in range(2)]
    result = md.compare(OfTorch().double(), of_keras, batches)
    assert result.equal, result
    assert list(result.layers.values()) == ["embedding", "norm", "dense", "dropout", "dense"]


def test_depthwise_and_transposed_convolutions(need: Any) -> None:
    need("torch")
    need("tensorflow")
    import keras
    from torch import nn

    of_torch = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.ConvTranspose2d(2, 3, 2, stride=2)).double()
    layers = [
        keras.Input((8, 8, 2), dtype="float64"),
        keras.layers.DepthwiseConv2D(3, dtype="float64"),
        keras.layers.Conv2DTranspose(3, 2, strides=2, dtype="float64"),
    ]
    batches = [(X, np.zeros((16, 3, 12, 12))) for X, _ in image_batches()]
    assert md.compare(of_torch, keras.Sequential(layers), batches).equal


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")  # torch's, of any lazy module
def test_lazy_modules(need: Any) -> None:
    """The first run makes their weights, and the statistics of their norms: which are then left at the start."""
    need("torch")
    import torch
    from torch import nn

    lazy = nn.Sequential(nn.LazyConv2d(5, 3), nn.LazyBatchNorm2d(), nn.Dropout2d(0.5), nn.Flatten(), nn.LazyLinear(10))
    eager = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(180, 10))
    batches = [(X.astype(np.float32), y) for X, y in image_batches()]
    result = md.compare(lazy, eager, batches)
    assert result.equal, result
    assert result.largest("gradient", ("4", "4")) is not None
    assert torch.equal(lazy[1].running_mean, torch.zeros(5))
    assert torch.equal(lazy[1].running_var, torch.ones(5))


class TestLayouts:
    """Whether images have their channels first is seen where functions of the model's own join, pool and flatten
    them, as many channels as places or not."""

    @pytest.fixture(autouse=True)
    def frameworks(self, need: Any) -> None:
        need("torch")
        need("tensorflow")

    @pytest.mark.parametrize("bias", [True, False], ids=["", "no bias"])
    @pytest.mark.parametrize("end", ["mean", "mean and max", "flat", "flat square", "tokens", "channels dropped"])
    def test_joined_branches(self, end: str, bias: bool) -> None:
        import keras
        import torch
        from keras import layers, ops
        from torch import nn

        channels, size = (4, 4) if end in ("tokens", "flat square") else (5, 6)

        class Original(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=bias)
                self.a, self.b = nn.Conv2d(channels, 2, 1, bias=bias), nn.Conv2d(channels, 2, 3, padding=1, bias=bias)
                self.drop = nn.Dropout2d(0.5) if end == "channels dropped" else nn.Dropout(0.5)
                inputs = {"mean": 4, "mean and max": 8, "tokens": 4, "channels dropped": 4}
                self.dense = nn.Linear(inputs.get(end, 4 * (size // 2) ** 2), 5, bias=bias)

            def forward(self, X: Any) -> Any:
                X = torch.relu(self.stem(X))
                X = torch.cat([torch.relu(self.a(X)), torch.relu(self.b(X))], 1)
                if end == "channels dropped":
                    return self.dense(self.drop(X).mean((2, 3)))
                if end == "mean":
                    X = X.mean((2, 3))
                elif end == "mean and max":
                    X = torch.cat([X.mean((2, 3)), X.amax((2, 3))], 1)
                elif end == "tokens":
                    return self.dense(self.drop(X.flatten(2).transpose(1, 2))).mean(1)
                else:
                    X = nn.functional.max_pool2d(X, 2).flatten(1)
                return self.dense(self.drop(X))

        settings = {"use_bias": bias, "dtype": "float64"}
        given = keras.Input((size, size, 3), dtype="float64")
        X = layers.Conv2D(channels, 3, padding="same", activation="relu", **settings)(given)
        a = layers.Conv2D(2, 1, activation="relu", **settings)(X)
        b = layers.Conv2D(2, 3, padding="same", activation="relu", **settings)(X)
        X = layers.Concatenate(dtype="float64")([a, b])
        kind = layers.SpatialDropout2D if end == "channels dropped" else layers.Dropout
        drop, dense = kind(0.5, dtype="float64"), layers.Dense(5, **settings)
        if end == "channels dropped":
            Y = dense(ops.mean(drop(X), (1, 2)))
        elif end == "mean":
            Y = dense(drop(ops.mean(X, (1, 2))))
        elif end == "mean and max":
            Y = dense(drop(ops.concatenate([ops.mean(X, (1, 2)), ops.amax(X, (1, 2))], 1)))
        elif end == "tokens":
            Y = ops.mean(dense(drop(ops.reshape(X, (-1, size * size, 4)))), 1)
        else:
            Y = dense(layers.Flatten(dtype="float64")(layers.MaxPooling2D(2, dtype="float64")(X)))
        original, port = Original().double(), keras.Model(given, Y)
        if end.startswith("flat"):  # elements of images, which are counted in another order, are not dropped
            original.drop.p = 0.0
            port = keras.Model(given, dense(kind(0.0, dtype="float64")(
                layers.Flatten(dtype="float64")(layers.MaxPooling2D(2, dtype="float64")(X)))))  # fmt: skip
        generator = np.random.default_rng(0)
        batches = [(generator.normal(size=(6, 3, size, size)), generator.integers(0, 5, 6)) for _ in range(2)]
        result = md.compare(original, port, batches)
        assert result.equal, result
        assert result.steps == 2

    def test_a_loss_of_images(self) -> None:
        """y lies as X does, and the loss compares it with the output."""
        from torch import nn

        nets = [nn.Conv2d(3, 3, 1, bias=False).double() for _ in range(2)]
        nets[0].weight.data.copy_(nets[0].weight.data.new_tensor(np.eye(3)[..., None, None]))
        X = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
        result = md.compare(*nets, [(X, X)])
        assert result.equal
        assert result.largest("gradient", ("", "")) == 0.0

    def test_an_activation_that_is_a_layer(self) -> None:
        import keras
        from torch import nn

        original = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3)).double()
        port = keras.Sequential(
            [
                keras.Input((6,), dtype="float64"),
                keras.layers.Dense(8, activation=keras.layers.LeakyReLU(0.1, dtype="float64"), dtype="float64"),
                keras.layers.Dense(3, dtype="float64"),
            ]
        )
        batches = [(np.random.default_rng(0).normal(size=(4, 6)), np.arange(4) % 3)]
        assert md.compare(original, port, batches, rtol=1e-6).equal  # Keras' slope is a float32

    def test_mixed_precision_has_its_tolerance(self) -> None:
        import keras
        from torch import nn

        policy = keras.DTypePolicy("mixed_float16")
        port = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, dtype=policy)])
        assert md.compare(nn.Linear(6, 8), port, [np.ones((4, 6), np.float32)]).rtol == 1e-2
