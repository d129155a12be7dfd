"""Layers of the dropout family: every member that is listed, in every framework and every way of running it, against
`md.apply`'s oracle; a new member needs no test here."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import loaded, parameters
from layer_ways import LAYER_WAYS, LayerWay, layer_ways_of
from members import all_members, one_of_each, values

import multidrop as md
from multidrop import Key, family
from multidrop.dispatch import load
from multidrop.family import MaskMember, Member, oracle
from multidrop.testing import same_bits
from multidrop.testing.vectors import BOUNDS, draws_reals

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")

LEARNED = 2.0**-16
"""How far a layer's output is from the member's whose p it learns: the logit is rounded to float32, and divided by the
temperature."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", parameters(metafunc.config, LAYER_WAYS), indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Iterator[LayerWay]:
    """Each way in turn, its backend set for the test."""
    backend, name = request.param
    loaded(request.config, backend)
    with md.use_backend(backend):
        yield next(way for way in layer_ways_of(backend) if way.name == name)


def agrees(way: LayerWay, member: Member, got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a result is the oracle's: in every bit, or within a bound where that is all that is promised."""
    if member.learns:
        bound = max(LEARNED, BOUNDS[expected.dtype.name])
        return got.dtype == expected.dtype and np.allclose(got, expected, bound, bound)
    if (draws_reals(member) and not way.host_numbers) or (way.fuses and not isinstance(member, MaskMember)):
        bound = BOUNDS[expected.dtype.name]
        return got.dtype == expected.dtype and np.allclose(got, expected, bound, bound)
    return same_bits(got, expected)


def of_call(way: LayerWay, program: Any, member: Member, key: Key, dtype: str = "float32") -> bool:
    """Whether the next forward and backward in training mode are those of a key."""
    x, dy = (values(member.example_shape, dtype, seed) for seed in (0, 1))
    y, dx = way.run(program, x, dy, True)
    expected = oracle.apply(member, x, key), oracle.apply(member, dy, key, gradient=True)
    return agrees(way, member, y, expected[0]) and agrees(way, member, dx, expected[1])


class TestEveryWay:
    @all_members
    def test_values_and_gradients(self, way: LayerWay, member: Member) -> None:
        program = way.program(md.layer(member, seed=3))
        for call, dtype in enumerate(("float32", *way.types)):
            assert of_call(way, program, member, Key(3, call), dtype), dtype

    @one_of_each
    def test_a_layer_is_apply(self, way: LayerWay, member: Member) -> None:
        """In every bit, of a narrow type. (Programs are compared with the oracle elsewhere.)"""
        if not way.seen or member.learns:  # a layer that learns begins with a logit that is rounded
            return
        backend, x = load(way.backend), values(member.example_shape).astype(np.float16)
        y, _ = way.run(way.program(md.layer(member, seed=3)), x, x, True)
        X = backend.tensor(x.astype(y.dtype))  # a Keras layer computes in float32
        assert same_bits(y, backend.to_numpy(md.apply(member, X, Key(3))))

    @one_of_each
    def test_evaluation(self, way: LayerWay, member: Member) -> None:
        """Passes its input and the gradient on, and takes no call."""
        program = way.program(md.layer(member, seed=3))
        x, dy = (values(member.example_shape, seed=seed) for seed in (0, 1))
        for result, expected in zip(way.run(program, x, dy, False), (x, dy), strict=True):
            assert same_bits(result, expected)
        assert of_call(way, program, member, Key(3))

    @one_of_each
    def test_saved_and_resumed(self, way: LayerWay, member: Member, tmp_path: Path) -> None:
        layer, other = md.layer(member, seed=3), md.layer(member, seed=4)
        program, resumed = way.program(layer), way.program(other)
        for call in range(2):
            assert of_call(way, program, member, Key(3, call))
        way.resume(layer, other, tmp_path)
        assert of_call(way, resumed, member, Key(3, 2))
        assert of_call(way, program, member, Key(3, 2))

    @one_of_each
    def test_after_manual_seed(self, way: LayerWay, member: Member) -> None:
        md.manual_seed(5)
        for number in range(2):
            layer = md.layer(member)
            if way.seen:  # a program runs the same layer
                assert of_call(way, way.program(layer), member, Key(5).fold_in("dropout").fold_in(number))

    @one_of_each
    def test_without_a_key(self, way: LayerWay, member: Member) -> None:
        """Follows the framework's generator: each call draws anew, and the same after the same seed."""
        member = dataclasses.replace(member, p=0.5) if hasattr(member, "p") else member
        x = values((64, *member.example_shape[1:]))
        runs = []
        for _ in range(2):
            way.seed(7)
            program = way.program(md.layer(member))
            runs.append([way.run(program, x, x, True)[0] for _ in range(2)])
        (first, second), again = runs
        assert not np.array_equal(first, second)
        assert all(map(same_bits, again, (first, second)))

    @one_of_each
    def test_nothing_dropped(self, way: LayerWay, member: Member) -> None:
        """At p = 0, and at a deviation of 0, X comes back with every bit, but that p = 0 cannot be learned."""
        idle = dataclasses.replace(member, **{dataclasses.fields(member)[0].name: 0.0})
        if member.learns:
            with pytest.raises(ValueError, match=r"p: expected a probability above 0, to be learned; got 0\.0"):
                md.layer(idle)
            return
        program = way.program(md.layer(idle, seed=3))
        x = values(member.example_shape)
        x.flat[:4] = np.nan, np.inf, -np.inf, -0.0
        for result in way.run(program, x, x, True):
            assert same_bits(result, x)

    @all_members
    def test_masks_that_are_asked_for(self, way: LayerWay, member: Member) -> None:
        """Of members that drop by a mask; of others it is an error."""
        layer, shape = md.layer(member, seed=3), member.example_shape
        if not isinstance(member, MaskMember):
            with pytest.raises(TypeError, match=r"layer: expected one of .*DropPath.*, which drop by a mask; got "):
                md.last_mask(layer)
            with pytest.raises(TypeError, match="which drop by a mask; got"):
                md.mask_at(layer, 0, shape)
            return
        told = md.mask_at(layer, 1, shape).keep()
        program = way.program(layer)
        for _ in range(2):
            y, _ = way.run(program, np.ones(shape, np.float32), np.ones(shape, np.float32), True)
        assert np.array_equal(told, y != 0)
        assert np.array_equal(md.last_mask(layer, None if way.seen else shape).keep(), y != 0)
        if member.axes(len(shape)) and not isinstance(member, family.DropPath):
            with pytest.raises(ValueError, match=r"shape: expected that of an input of "):
                md.mask_at(layer, 0, (3,))

    @one_of_each
    def test_bad_input(self, way: LayerWay, member: Member) -> None:
        """Is an error, and takes no call."""
        layer = md.layer(member, seed=3)
        program = way.program(layer)
        assert of_call(way, program, member, Key(3))
        if len(member.example_shape) > 2 and way.name in ("numpy", "torch-eager", "tensorflow-eager"):
            x = np.ones((4,), np.float32)
            with pytest.raises(ValueError, match=r"X: expected 3 to [0-9]+ dimensions"):
                way.run(program, x, x, True)
        assert of_call(way, program, member, Key(3, 1))
        for bad in (member.text, type(member), None):
            with pytest.raises(ValueError, match=r"member: expected a member of multidrop\.family; got"):
                md.layer(bad)
        with pytest.raises(ValueError, match=r"seed: expected an integer in \[0, 2\^64\); got"):
            md.layer(member, seed=-1)

    @one_of_each
    def test_short_constructors(self, way: LayerWay, member: Member) -> None:
        """Take the member's settings by place or name, and give what `layer` gives."""
        build, settings = getattr(md, type(member).__name__), dataclasses.asdict(member)
        if isinstance(member, family.Dropout):  # which is older, and is documented by itself
            settings = {"p": settings["p"]}
        for layer in (build(**settings, seed=3), build(*settings.values(), seed=3)):
            assert type(layer) is type(md.layer(member, seed=3))
            if way.seen:  # a program runs the same layer
                assert of_call(way, way.program(layer), member, Key(3))


class TestNumPy:
    """Whose gradients are written by hand."""

    def test_the_gradient_of_what_is_learned(self) -> None:
        """Is the slope of the output, by differences; a step that is taken before the backward changes nothing."""
        layer = md.ConcreteDropout(0.2, temperature=0.5, seed=3)
        x, dy = (values((5, 4), np.float64, seed) for seed in (0, 1))
        step = np.array(1e-6)
        logit = layer.parameters["logit"]
        up, down = (oracle.apply(layer.member, x, Key(3), learned=logit + sign * step) for sign in (1, -1))
        layer(x)
        layer.parameters["logit"] += 1.0
        layer.backward(dy)
        assert layer.gradients["logit"] == pytest.approx((dy * (up - down)).sum() / (2 * step), rel=1e-6)
        assert layer.p == pytest.approx(1 / (1 + 4 / np.e))
        layer.p = 0.5
        assert layer.parameters["logit"] == 0.0
        assert repr(layer) == "ConcreteDropout(p=0.5, temperature=0.5)"

    def test_settings_that_change(self) -> None:
        """Before the backward, which is that of the forward, and before the next mask."""
        layer, x = md.DropPath(0.5, seed=3), values((64, 3))
        y = layer(x)
        layer.p = 0.9
        assert np.array_equal(layer.backward(x), y)
        assert md.last_mask(layer).p == 0.5
        assert md.mask_at(layer, 1).p == 0.9
        with pytest.raises(ValueError, match=r"dY: expected the shape of the last output, \(64, 3\); got \(3,\)"):
            layer.backward(x[0])
        with pytest.raises(TypeError, match="X: expected a tensor of type"):
            layer.eval()(np.arange(3))


class TestConstructors:
    @one_of_each
    def test_what_they_say_of_themselves(self, member: Member) -> None:
        kind = type(member)
        build = getattr(md, kind.__name__)
        assert kind.__name__ in dir(md)
        assert pickle.loads(pickle.dumps(build)) is build
        if kind is family.Dropout:
            return
        *settings, seed = inspect.signature(build).parameters.values()
        assert settings == [*inspect.signature(kind).parameters.values()]
        assert (seed.name, seed.kind, seed.default) == ("seed", seed.KEYWORD_ONLY, None)
        text = inspect.getdoc(build) or ""
        assert text.startswith((inspect.getdoc(kind) or "").partition("\n\n")[0])
        assert text.index("\n    seed: ") > text.index("\n\nArgs:")

    def test_names_that_no_member_has(self) -> None:
        for module in (md, md.layers):
            with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'DropPaths'"):
                _ = module.DropPaths

    def test_a_member_of_the_users(self) -> None:
        """Has one too, whose documentation lists the seed alone."""

        @dataclasses.dataclass(frozen=True)
        class Halved(Member):
            def __call__(self, X: Any, draw: Any) -> Any:
                return X * 0.5

        try:
            layer = md.Halved(seed=1)
            assert np.array_equal(layer(np.ones(3, np.float32)), np.full(3, 0.5, np.float32))
            assert "\n\nArgs:\n    seed: " in (inspect.getdoc(md.Halved) or "")
            assert repr(layer) == "Halved()"
        finally:
            del family.MEMBERS["Halved"]

    def test_bad_settings(self) -> None:
        with pytest.raises(ValueError, match=r"p: expected a probability, a number in \[0, 1\]; got 2"):
            md.DropPath(2)
        with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
            md.DropBlock(size=3)
