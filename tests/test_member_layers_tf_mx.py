"""Layers of the dropout family in Keras and Gluon: for every member that is listed, so that a new one needs no test
here, and in every way of running a layer, against the oracle."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import loaded, parameters
from modes import same_bits
from test_family import MEMBERS, REPRESENTATIVES, agrees, values

import multidrop as md
from multidrop import Key, family
from multidrop.dispatch import load
from multidrop.family import MaskMember, Member, host

SEED = 7
WAYS = {
    "numpy": (),
    "torch": (),
    "tensorflow": ("keras-eager", "keras-function", "keras-xla"),
    "mxnet": ("gluon", "gluon-hybrid"),
}
Array = np.ndarray


@dataclass(frozen=True)
class LayerWay:
    """One way of running a framework's layers: host arrays in, host arrays out."""

    name: str
    backend: Any
    host_numbers: bool
    fuses: bool
    program: Callable[[Any], Callable[[Array, Array | None], tuple[Array, Array]]]
    """Of a layer: a function of x and dy, which gives the output and the gradient in training mode, or where dy is
    None, of evaluation mode."""
    save: Callable[[Any, Path], None]
    resume: Callable[[Any, Path], None]
    seed: Callable[[int], None]
    seeded: bool = True
    """Whether the framework's seed governs it."""

    def layer(self, member: Member, seed: int | Key | None = SEED) -> Any:
        return self.backend.layer(member, seed=seed)


def _keras(backend: Any, name: str) -> LayerWay:
    import tensorflow as tf

    settings = {"keras-eager": None, "keras-function": False, "keras-xla": True}[name]

    def program(layer: Any) -> Callable[[Array, Array | None], tuple[Array, Array]]:
        def both(X: Any, dY: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = layer(X, training=True)
            return Y, tape.gradient(Y, X, output_gradients=dY)

        def evaluated(X: Any) -> Any:
            return layer(X)

        if settings is not None:
            both, evaluated = (tf.function(f, autograph=False, jit_compile=settings) for f in (both, evaluated))

        def run(x: Array, dy: Array | None) -> tuple[Array, Array]:
            if dy is None:
                return evaluated(tf.constant(x)).numpy(), x
            Y, dX = both(tf.constant(x), tf.constant(dy))
            return Y.numpy(), dX.numpy()

        return run

    def save(layer: Any, path: Path) -> None:
        import keras

        model = keras.Sequential([layer])
        model.build(layer.member.example_shape)
        model.save_weights(path / "layer.weights.h5")

    def resume(layer: Any, path: Path) -> None:
        import keras

        model = keras.Sequential([layer])
        model.build(layer.member.example_shape)
        model.load_weights(path / "layer.weights.h5")

    xla = name == "keras-xla"
    return LayerWay(name, backend, False, xla, program, save, resume, tf.random.set_seed, seeded=not xla)


def _gluon(backend: Any, name: str) -> LayerWay:
    import mxnet as mx

    def program(layer: Any) -> Callable[[Array, Array | None], tuple[Array, Array]]:
        net = mx.gluon.nn.HybridSequential()
        net.add(layer)
        if any(param._data is None and param.name.endswith("logit") for param in net.collect_params().values()):
            net.initialize()
        if name == "gluon-hybrid":
            net.hybridize()

        def run(x: Array, dy: Array | None) -> tuple[Array, Array]:
            X = mx.nd.array(x, dtype=x.dtype)
            if dy is None:
                return net(X).asnumpy(), x
            X.attach_grad()
            with mx.autograd.record():
                Y = net(X)
            Y.backward(mx.nd.array(dy, dtype=dy.dtype))
            return Y.asnumpy(), X.grad.asnumpy()

        return run

    def save(layer: Any, path: Path) -> None:
        layer.save_parameters(str(path / "layer.params"))

    def resume(layer: Any, path: Path) -> None:
        layer.load_parameters(str(path / "layer.params"))

    return LayerWay(name, backend, True, False, program, save, resume, mx.random.seed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", parameters(metafunc.config, WAYS), indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> LayerWay:
    name, way = request.param
    loaded(request.config, name)
    return (_keras if name == "tensorflow" else _gluon)(load(name), way)


def logit_of(layer: Any) -> Array | None:
    """What a layer has learned, once it has run."""
    if not hasattr(layer, "logit"):
        return None
    return layer.logit.numpy() if hasattr(layer.logit, "numpy") else layer.logit.data().asnumpy()


def is_call(way: LayerWay, layer: Any, results: tuple[Array, Array], x: Array, dy: Array, key: Key) -> bool:
    """Whether an output and a gradient are those of a member with that key."""
    learned, (y, dx) = logit_of(layer), results
    gradient = {"gradient": True} if learned is None else {"learned": learned}  # which is linear
    return agrees(way, layer.member, y, host.apply(layer.member, x, key, learned=learned)) and agrees(
        way, layer.member, dx, host.apply(layer.member, dy, key, **gradient)
    )


all_members = pytest.mark.parametrize("member", MEMBERS, ids=repr)
one_of_each = pytest.mark.parametrize("member", REPRESENTATIVES, ids=repr)


class TestEveryMember:
    @all_members
    def test_calls(self, way: LayerWay, member: Member) -> None:
        """Each training call has the numbers of the next key, and evaluation takes none and gives X back."""
        layer = way.layer(member)
        assert type(layer.member) is type(member)
        run, (x, dy) = way.program(layer), (values(member.example_shape, seed=seed) for seed in (0, 1))
        for call in range(3):
            assert is_call(way, layer, run(x, dy), x, dy, Key(SEED, call)), call
            assert same_bits(run(x, None)[0], x)

    @one_of_each
    def test_a_saved_layer_goes_on(self, way: LayerWay, member: Member, tmp_path: Path) -> None:
        """With the very numbers, in a layer that was built from another seed."""
        first, x = way.layer(member), values(member.example_shape)
        way.program(first)(x, x)
        way.save(first, tmp_path)
        second = way.layer(member, seed=SEED + 1)
        run = way.program(second)
        run(x, x)
        way.resume(second, tmp_path)
        for call in (1, 2):
            assert is_call(way, second, run(x, x), x, x, Key(SEED, call)), call

    @one_of_each
    def test_the_framework_decides_without_a_seed(self, way: LayerWay, member: Member) -> None:
        """All calls differ, and after the framework's seed come again."""
        member = replace(member, p=0.5) if hasattr(member, "p") else member
        x = values((64, *member.example_shape[1:]))
        runs = []
        for _ in range(2):
            way.seed(5)
            run = way.program(way.layer(member, seed=None))
            runs.append([run(x, x)[0] for _ in range(2)])
        (a, b), again = runs
        assert not np.array_equal(a, b)
        assert same_bits(a, again[0]) == same_bits(b, again[1]) == way.seeded

    @one_of_each
    def test_manual_seed(self, way: LayerWay, member: Member) -> None:
        """Keys layers by the order in which they are built."""
        md.manual_seed(5)
        layers = [way.layer(member, seed=None) for _ in range(2)]
        x = values(member.example_shape)
        for number, layer in enumerate(layers):
            key = Key(5).fold_in("dropout").fold_in(number)
            assert is_call(way, layer, way.program(layer)(x, x), x, x, key)

    @one_of_each
    def test_nothing_dropped(self, way: LayerWay, member: Member) -> None:
        """The layer of a member that is set to do nothing gives X back, and takes a call like any other."""
        if member.learns:  # whose p is the logit's
            return
        layer, x = way.layer(member), values(member.example_shape)
        name = "p" if hasattr(member, "p") else "stddev"
        layer.member = replace(member, **{name: 0.0})
        y, dx = way.program(layer)(x, x)
        assert same_bits(y, x)
        assert same_bits(dx, x)
        layer.member = member
        assert is_call(way, layer, way.program(layer)(x, x), x, x, Key(SEED, 1))

    @one_of_each
    def test_the_mask_of_a_layer(self, way: LayerWay, member: Member) -> None:
        """Without running it, where it has one."""
        layer, x = way.layer(member), np.ones(member.example_shape, np.float32)
        if not isinstance(member, MaskMember):
            with pytest.raises(TypeError, match="layer: expected"):
                md.mask_at(layer, 0, x.shape)
            return
        y, _ = way.program(layer)(x, x)
        for mask in (md.last_mask(layer, x.shape), md.mask_at(layer, 0, x.shape)):
            assert mask.p == member.p
            assert np.array_equal(mask.keep(), y != 0)

    @one_of_each
    def test_a_bad_shape_takes_no_call(self, way: LayerWay, member: Member) -> None:
        layer = way.layer(member)
        try:
            member.check((3,))
        except ValueError as error:
            message = re.escape(str(error).partition(";")[0])
            run = way.program(layer)
            if way.name != "gluon-hybrid":  # whose error ends the program that it is in, as any of MXNet's operators
                with pytest.raises(ValueError, match=message):
                    run(values((3,)), values((3,)))
            x = values(member.example_shape)
            assert is_call(way, layer, run(x, x), x, x, Key(SEED, 0))


@pytest.mark.parametrize("bad", [None, 0.5, family.Dropout, "Dropout"])
def test_no_member(bad: Any, need: Any) -> None:
    for name in ("tensorflow", "mxnet"):
        backend = need(name)
        for build in (backend.layer, backend.MemberLayer):
            with pytest.raises(ValueError, match=r"member: expected a member of multidrop\.family; got"):
                build(bad)


class TestKeras:
    @pytest.fixture(autouse=True)
    def ours(self, need: Any) -> Any:
        return need("tensorflow")

    @all_members
    def test_a_model_is_saved_whole(self, ours: Any, member: Member, tmp_path: Path) -> None:
        """Of symbolic inputs, with the layer's settings and where it is."""
        import keras

        inputs = keras.Input(batch_shape=member.example_shape)
        outputs = ours.layer(member, seed=SEED)(inputs)
        assert outputs.shape == member.example_shape
        model, x = keras.Model(inputs, outputs), values(member.example_shape)
        model(x, training=True)
        model.save(tmp_path / "model.keras")
        other = keras.saving.load_model(tmp_path / "model.keras")
        for _ in range(2):
            assert same_bits(model(x, training=True).numpy(), other(x, training=True).numpy())
        assert other.layers[-1].member == member
        assert other.layers[-1].get_config() == model.layers[-1].get_config()

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
    @one_of_each
    def test_types(self, ours: Any, member: Member, policy: str) -> None:
        """A layer computes in its policy's type, as all of Keras' do."""
        import tensorflow as tf

        layer = ours.MemberLayer(member, seed=SEED, dtype=policy)
        X = tf.constant(values(member.example_shape))
        Y = layer(X, training=True)
        assert Y.dtype == layer.compute_dtype
        expected = md.apply(member, tf.cast(X, layer.compute_dtype), Key(SEED))
        assert same_bits(Y.numpy(), expected.numpy())

    @pytest.mark.parametrize(
        ("name", "settings", "member"),
        [
            ("DropPath", {"rate": 0.3, "mode": "batch"}, family.DropPath(0.3, "batch")),
            ("DropBlock", {"rate": 0.3, "block_size": 2}, family.DropBlock(0.3, 2, "channels_last")),
            ("DropBlock", {"data_format": "channels_first"}, family.DropBlock()),
            ("LockedDropout", {"rate": 0.3}, family.LockedDropout(0.3, True)),
            ("ConcreteDropout", {"rate": 0.3, "temperature": 0.2}, family.ConcreteDropout(0.3, 0.2)),
        ],
    )
    def test_named_layers(self, ours: Any, name: str, settings: dict[str, Any], member: Member) -> None:
        kind = getattr(ours, name)
        layer = kind(**settings, seed=SEED)
        assert layer.member == member
        configuration = layer.get_config()
        assert settings.items() <= configuration.items()
        again = kind.from_config(configuration)
        assert (again.member, again.get_config()) == (member, configuration)
        with pytest.raises(ValueError, match="rate: expected a probability"):
            kind(rate=1.5)
        with pytest.raises(ValueError, match="seed: expected"):
            kind(seed="one")

    def test_a_member_of_a_package_that_is_not_imported(self, ours: Any) -> None:
        configuration = ours.MemberLayer(family.Dropout()).get_config()
        text = configuration["member"].replace("Dropout", "Elsewhere")
        with pytest.raises(ValueError, match="member: expected one whose class is imported; got 'Elsewhere'"):
            ours.MemberLayer.from_config({**configuration, "member": text})
