"""The dropout family: every member that is listed, in every framework and every way of running it, against NumPy.

A member is tried with its default settings, and with each value of a setting that has few, so that a new one needs no
test here. Decisions are compared bit by bit. Numbers that a logarithm gave are promised to within 16 units in the last
place of float64, and a compiler may round a product and a sum once: there the bound is that of
`multidrop.testing.vectors.BOUNDS`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
import re
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import loaded, parameters
from family_ways import DTYPES, WAYS, Way, ways_of
from hypothesis import given
from hypothesis import strategies as st

import multidrop as md
from multidrop import Key, family
from multidrop.family import Member, oracle, schedules
from multidrop.family.drop_block import block_rate
from multidrop.spec import masks
from multidrop.testing import same_bits
from multidrop.testing.vectors import BOUNDS, differing, draws_reals

KEY = Key(7, 3)
CLASSES = [cls for cls in family.MEMBERS.values() if cls.__module__.startswith("multidrop.")]
RATES = (0.05, 0.1, 0.2, 0.5)


def variants(cls: type[Member]) -> list[Member]:
    """A member with its defaults, and with each other value of a setting that has few."""
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(cls)}
    return [cls(), *(cls(**{name: value}) for name, values in choices.items() for value in values[1:])]


MEMBERS = [member for cls in CLASSES for member in variants(cls)]
REPRESENTATIVES = [cls() for cls in CLASSES]
all_members = pytest.mark.parametrize("member", MEMBERS, ids=repr)
one_of_each = pytest.mark.parametrize("member", REPRESENTATIVES, ids=repr)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", parameters(metafunc.config, WAYS), indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    backend, name = request.param
    loaded(request.config, backend)
    return next(way for way in ways_of(backend) if way.name == name)


def values(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def agrees(way: Way, member: Member, got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a result is the oracle's: in every bit, or within the bound where that is all that is promised."""
    if (draws_reals(member) and not way.host_numbers) or (way.fuses and not isinstance(member, family.MaskMember)):
        bound = BOUNDS[expected.dtype.name]
        alike = got.dtype == expected.dtype and got.shape == expected.shape
        return alike and not differing(got, expected, bound).any()
    return same_bits(got, expected)


class TestEveryWay:
    """Values and gradients."""

    @all_members
    def test_values_and_gradients(self, way: Way, member: Member) -> None:
        for name in ("float32", "float16") if way.traced else DTYPES.keys() - set(way.lacks):
            x, dy = (values(member.example_shape, DTYPES[name], seed) for seed in (0, 1))
            y, dx = way.both(member, x, dy, KEY, 0)
            assert agrees(way, member, y, oracle.apply(member, x, KEY)), name
            assert agrees(way, member, dx, oracle.apply(member, dy, KEY, gradient=True)), name

    @one_of_each
    def test_a_part_equals_the_whole(self, way: Way, member: Member) -> None:
        """Along the first axis; and at any element, for a member whose elements share nothing."""
        rest = member.example_shape[1:]
        whole = values((7, *rest))
        x, start = whole[2:5], 2 * math.prod(rest)
        y, dx = way.both(member, x, x, KEY, start)
        expected = oracle.apply(member, whole, KEY)[2:5]
        assert agrees(way, member, y, expected)
        assert agrees(way, member, dx, oracle.apply(member, whole, KEY, gradient=True)[2:5])
        if not (member.axes(x.ndim) or member.margin(x.ndim)):
            flat = oracle.apply(member, whole.ravel(), KEY)
            y, _ = way.both(member, whole.ravel()[5:18], whole.ravel()[5:18], KEY, 5)
            assert agrees(way, member, y, flat[5:18])

    @one_of_each
    def test_calls_without_a_key(self, way: Way, member: Member) -> None:
        """After `manual_seed`, those of its stream, one for each run of a program; before, all different."""
        x = values((64, *member.example_shape[1:]))
        member = dataclasses.replace(member, p=0.5) if hasattr(member, "p") else member
        md.manual_seed(5)
        stream = md.Stream(Key(5).fold_in("calls"))
        for y in way.repeated(member, x, 2):
            assert agrees(way, member, y, oracle.apply(member, x, stream.next()))
        md.manual_seed(None)
        a, b = way.repeated(member, x, 2)
        assert not np.array_equal(a, b)

    @one_of_each
    def test_nothing_dropped(self, way: Way, member: Member) -> None:
        """At p = 0, and at a deviation of 0, X comes back with every bit."""
        idle = dataclasses.replace(member, **{dataclasses.fields(member)[0].name: 0.0})
        x = values(member.example_shape)
        x.flat[:4] = np.nan, np.inf, -np.inf, -0.0
        for result in way.both(idle, x, x, KEY, 0):
            assert same_bits(result, x)

    @one_of_each
    def test_everything_dropped(self, way: Way, member: Member) -> None:
        """At p = 1 all is zero, whatever the input holds, and so is the gradient."""
        try:
            full = dataclasses.replace(member, p=1.0)
        except (TypeError, ValueError) as error:  # of one that has no p, or for which 1 means infinity
            assert re.search(r"p: expected a probability below 1; got|unexpected keyword argument 'p'", str(error))  # noqa: PT017
            return
        x = np.full(member.example_shape, np.inf, np.float32)
        x.flat[0] = np.nan
        for result in way.both(full, x, x, KEY, 0):
            assert not result.any()

    @one_of_each
    def test_empty(self, way: Way, member: Member) -> None:
        x = np.zeros((0, *member.example_shape[1:]), np.float32)
        if way.name == "mxnet-hybrid":  # MXNet takes a size of 0 for one that it does not know
            return
        for result in way.both(member, x, x, KEY, 0):
            assert same_bits(result, x)


class TestNumPy:
    """The oracle."""

    @all_members
    def test_the_gradient_is_the_slope(self, member: Member) -> None:
        """Against differences, which are exact but for rounding, as a member is linear."""
        x, dy = (values(member.example_shape, np.float64, seed) for seed in (0, 1))
        slope = (oracle.apply(member, x + 1.0, KEY) - oracle.apply(member, x - 1.0, KEY)) / 2.0
        assert np.allclose(oracle.apply(member, dy, KEY, gradient=True), dy * slope)

    @all_members
    def test_it_is_rounded_once(self, member: Member) -> None:
        """To float16 from what it is in float32, and from float64 to float32 within a few roundings."""
        x = values(member.example_shape, np.float16)
        wide = oracle.apply(member, x.astype(np.float32), KEY)
        assert same_bits(oracle.apply(member, x, KEY), wide.astype(np.float16))
        assert np.allclose(wide, oracle.apply(member, x.astype(np.float64), KEY), 2.0**-21, 2.0**-21)

    @one_of_each
    def test_any_layout(self, member: Member) -> None:
        x = values(member.example_shape)
        for other in (np.asfortranarray(x), np.repeat(x, 2, 0)[::2], x[::-1].copy()[::-1]):
            assert same_bits(md.apply(member, other, KEY), oracle.apply(member, x, KEY))

    @one_of_each
    def test_the_input_is_left(self, member: Member) -> None:
        x = values(member.example_shape)
        before = x.copy()
        md.apply(member, x, KEY)
        assert same_bits(x, before)

    @pytest.mark.parametrize(
        "member", [member for member in REPRESENTATIVES if member.example_shape == (4, 3)], ids=repr
    )
    def test_a_number(self, member: Member) -> None:
        """Without dimensions, as the same in one."""
        if isinstance(member, family.DropPath):  # which has examples
            return
        x = np.float32(1.7)
        y = md.apply(member, np.asarray(x), KEY)
        assert y.shape == ()
        assert same_bits(y.reshape(1), md.apply(member, x.reshape(1), KEY))


class TestMXNet:
    @one_of_each
    def test_a_gradient_that_is_added(self, need: Any, member: Member) -> None:
        need("mxnet")
        import mxnet as mx

        x = values(member.example_shape)
        X = mx.np.array(x)
        X.attach_grad(grad_req="add")
        for _ in range(2):
            with mx.autograd.record():
                Y = md.apply(member, X, KEY)
            Y.backward(mx.np.array(x))
        assert same_bits(X.grad.asnumpy(), 2 * oracle.apply(member, x, KEY, gradient=True))


class TestTorch:
    """What torch alone has: derivatives of any order, forward mode, and `torch.func`."""

    # By torch itself, for its forward mode.
    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    @all_members
    def test_derivatives(self, need: Any, member: Member) -> None:
        need("torch")
        import torch

        X = torch.from_numpy(values(member.example_shape, np.float64)).requires_grad_()

        def function(X: Any) -> Any:
            return md.apply(member, X, KEY)

        assert torch.autograd.gradcheck(function, X, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, X)

    @one_of_each
    def test_vmap(self, need: Any, member: Member) -> None:
        """With a key, every example has its numbers. Without one, `randomness` decides."""
        need("torch")
        import torch

        X = torch.from_numpy(values((3, *member.example_shape)))
        Y = torch.vmap(lambda x: md.apply(member, x, KEY))(X)
        assert torch.equal(Y, torch.stack([md.apply(member, x, KEY) for x in X]))
        with pytest.raises(RuntimeError, match="randomness"):
            torch.vmap(lambda x: md.apply(member, x))(X)
        for_each = torch.func.grad(lambda x: md.apply(member, x).sum())
        md.manual_seed(1)
        first, *_ = torch.vmap(for_each, randomness="different")(X)
        key = Key(1).fold_in("calls")
        assert torch.equal(first, torch.func.grad(lambda x: md.apply(member, x, key).sum())(X[0]))

    @one_of_each
    def test_checkpointing(self, need: Any, member: Member) -> None:
        """What is recomputed has the numbers of the first time."""
        need("torch")
        import torch
        from torch.utils.checkpoint import checkpoint

        X = torch.from_numpy(values((64, *member.example_shape[1:]))).requires_grad_()
        md.manual_seed(1)
        Y = checkpoint(lambda X: md.apply(member, X.sin()), X, use_reentrant=False)
        Y.sum().backward()
        dY = md.apply(member, torch.ones_like(X).requires_grad_(), Key(1).fold_in("calls"))
        (slope,) = torch.autograd.grad(dY.sum(), dY.grad_fn.next_functions[0][0].variable)
        assert torch.allclose(X.grad, slope * X.detach().cos())

    @one_of_each
    def test_built_in_a_program(self, need: Any, member: Member) -> None:
        need("torch")
        import torch

        cls = type(member)
        torch._dynamo.reset()
        program = torch.compile(lambda X: md.apply(cls(), X, KEY), fullgraph=True, backend="aot_eager")
        x = values(member.example_shape)
        assert np.allclose(program(torch.from_numpy(x)).numpy(), oracle.apply(member, x, KEY), rtol=1e-6)

    @one_of_each
    def test_channels_last_in_memory(self, need: Any, member: Member) -> None:
        """Elements count in their logical order, whatever the layout, which the result keeps."""
        need("torch")
        import torch

        x = values(member.example_shape)
        X = torch.from_numpy(x).transpose(0, -1).contiguous().transpose(0, -1)
        for run in (md.apply, torch.compile(md.apply, fullgraph=True, backend="aot_eager")):
            torch._dynamo.reset()
            assert np.allclose(run(member, X, KEY).numpy(), oracle.apply(member, x, KEY), rtol=1e-6)

    def test_no_strided_tensor(self, need: Any) -> None:
        need("torch")
        import torch

        jagged = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged)
        with pytest.raises(
            TypeError, match=r"X: expected a tensor of strided layout for GaussianNoise; got torch\.jagged"
        ):
            md.apply(family.GaussianNoise(), jagged, KEY)


class TestTensorflow:
    @one_of_each
    def test_sizes_that_are_not_known(self, need: Any, member: Member) -> None:
        need("tensorflow")
        import tensorflow as tf

        x = values(member.example_shape)
        signature = [tf.TensorSpec([None] * x.ndim, tf.float32)]
        program = tf.function(lambda X: md.apply(member, X, KEY), signature, autograph=False)
        assert np.allclose(program(tf.constant(x)), oracle.apply(member, x, KEY), rtol=1e-6)
        if member.axes(x.ndim) or member.margin(x.ndim):
            program = tf.function(lambda X: md.apply(member, X, KEY, start=8), signature, autograph=False)
            with pytest.raises(ValueError, match=r"start: expected 0, where the shape of X\[0\] is not known; got 8"):
                program(tf.constant(x))

    def test_a_rank_that_is_not_known(self, need: Any) -> None:
        need("tensorflow")
        import tensorflow as tf

        def program(member: Member) -> Any:
            return tf.function(lambda X: md.apply(member, X, KEY), [tf.TensorSpec(None)], autograph=False)

        x = values((4, 3))
        got = program(family.Dropout())(tf.constant(x)).numpy()
        assert same_bits(got, oracle.apply(family.Dropout(), x, KEY))
        with pytest.raises(ValueError, match="X: expected a tensor whose number of dimensions is known, for DropPath"):
            program(family.DropPath())(tf.constant(x))


class TestLearned:
    """Concrete dropout's p, by its logit."""

    member = family.ConcreteDropout(temperature=0.5)

    def test_the_gradient_is_the_slope(self) -> None:
        """In NumPy, against differences."""
        x, dy, logit = values((5, 4), np.float64), values((5, 4), np.float64, 1), np.full((1, 4), -1.5)

        def loss(logit: np.ndarray) -> float:
            return float((md.apply(self.member, x, KEY, learned=logit) * dy).sum())

        got = oracle.learned_gradient(self.member, dy, x, logit, KEY)
        step = 1e-6 * np.eye(4)[:, None]
        assert np.allclose(got[0], [(loss(logit + d) - loss(logit - d)) / 2e-6 for d in step], rtol=1e-7)

    def test_it_is_the_member_with_that_p(self) -> None:
        x = values((5, 4))
        fixed = md.apply(family.ConcreteDropout(0.2, 0.5), x, KEY)
        assert np.allclose(md.apply(self.member, x, KEY, learned=np.log(0.25)), fixed, rtol=1e-6)

    def test_torch(self, need: Any) -> None:
        need("torch")
        import torch

        X, logit = torch.from_numpy(values((5, 4), np.float64)).requires_grad_(), torch.tensor([-1.5]).double()
        logit.requires_grad_()
        expected = oracle.learned_gradient(
            self.member, np.ones((5, 4)), X.detach().numpy(), logit.detach().numpy(), KEY
        )

        def function(X: Any, logit: Any) -> Any:
            return md.apply(self.member, X, KEY, learned=logit)

        assert torch.autograd.gradcheck(function, (X, logit))
        assert torch.autograd.gradgradcheck(function, (X, logit))
        for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
            (got,) = torch.autograd.grad(run(X, logit).sum(), logit)
            assert np.allclose(got.numpy(), expected)

    def test_tensorflow(self, need: Any) -> None:
        need("tensorflow")
        import tensorflow as tf

        x, logit = values((5, 4)), tf.Variable([-1.5])
        expected = oracle.learned_gradient(self.member, np.ones((5, 4)), x, logit.numpy(), KEY)

        def function(X: Any) -> Any:
            with tf.GradientTape() as tape:
                Y = md.apply(self.member, X, KEY, learned=logit)
            return tape.gradient(Y, logit)

        for run in (function, tf.function(function), tf.function(function, jit_compile=True)):
            assert np.allclose(run(tf.constant(x)), expected, rtol=1e-5)

    def test_mxnet(self, need: Any) -> None:
        need("mxnet")
        import mxnet as mx

        x = values((5, 4))
        X, logit = mx.np.array(x), mx.np.array([-1.5])
        X.attach_grad()
        logit.attach_grad()
        with mx.autograd.record():
            Y = md.apply(self.member, X, KEY, learned=logit)
        Y.backward()
        assert np.array_equal(X.grad.asnumpy(), md.apply(self.member, np.ones_like(x), KEY, learned=np.float32([-1.5])))
        assert np.array_equal(
            logit.grad.asnumpy(), oracle.learned_gradient(self.member, np.ones_like(x), x, np.float32([-1.5]), KEY)
        )


class TestExpectation:
    """Size and power: of N independent outputs with mean m and deviation s, the mean is within 5·s/√N of m but for one
    key in 1.7 million. Keys are fixed, so that a test passes always or never, and one that is off by twice the bound
    fails with probability 1 − Q(5) > 0.999999."""

    CALLS = 2000

    @one_of_each
    @pytest.mark.parametrize("p", RATES)
    def test_each_element(self, member: Member, p: float) -> None:
        """E[y] = x at each element, over calls. Of up to 300 elements at once, so that the bound is 6 deviations."""
        if not member.unbiased:
            return  # alpha and concrete dropout, whose own tests follow
        if hasattr(member, "p"):
            member = dataclasses.replace(member, p=p)
        x = np.ones(member.example_shape)
        samples = np.stack([oracle.apply(member, x, Key(2014, call)) for call in range(self.CALLS)])
        deviation = samples.std()  # of all elements, which have one distribution
        assert np.abs(samples.mean(axis=0) - 1.0).max() < 6.0 * deviation / math.sqrt(self.CALLS)

    @pytest.mark.parametrize("p", RATES)
    def test_alpha_keeps_mean_and_variance(self, p: float) -> None:
        """Of an input of mean 0 and variance 1. The variance of a square is at most some tens here; 30 is taken."""
        n = 2**20
        y = oracle.apply(family.AlphaDropout(p), values((n,), np.float64), KEY)
        assert abs(y.mean()) < 5.0 / math.sqrt(n)
        assert abs(y.var() - 1.0) < 5.0 * math.sqrt(30 / n)

    @pytest.mark.parametrize("p", RATES)
    def test_concrete_is_near_dropout(self, p: float) -> None:
        """At a low temperature the share p is nearly 0, and the rest nearly 1/(1 − p)."""
        n = 2**16
        y = oracle.apply(family.ConcreteDropout(p, 0.01), np.ones(n), KEY)
        assert abs((y < 0.5).mean() - p) < 5.0 * math.sqrt(p * (1 - p) / n)
        assert ((y < 0.05) | (np.abs(y * (1 - p) - 1.0) < 0.05)).mean() > 0.95


class TestDropBlock:
    @pytest.mark.parametrize("p", [*RATES, 1e-6, 1.0 - 1e-6])
    @pytest.mark.parametrize("elements", [1, 2, 9, 49, 81, 729])
    def test_the_rate_of_blocks(self, p: float, elements: int) -> None:
        """It solves the equation, as nearly as a multiple of 2^-32 can."""
        kept = 1.0 - block_rate(p, elements)
        assert kept * 2**32 == masks.threshold(block_rate(p, elements))
        assert (kept - 2.0**-33) ** elements <= 1.0 - p <= (kept + 2.0**-33) ** elements

    def test_the_ends(self) -> None:
        assert block_rate(0.0, 49) == 0.0
        assert block_rate(1.0, 49) == 1.0
        assert [block_rate(p, 1) for p in RATES] == [1.0 - masks.threshold(p) / 2**32 for p in RATES]

    @pytest.mark.parametrize("p", RATES)
    @pytest.mark.parametrize("block_size", range(1, 10))
    def test_the_share(self, p: float, block_size: int) -> None:
        """p of all elements, and of those at a corner, on maps of any size. Maps are independent, their elements are
        not: the mean over maps has the deviation of a map's share over the root of their number."""
        for size in (7, 14, 28, 56):
            maps = 200_000 // (size + block_size) ** 2 + 400
            member = family.DropBlock(p, block_size)
            dropped = oracle.apply(member, np.ones((maps, 1, size, size), np.float32), Key(size, block_size)) == 0
            shares = dropped.mean(axis=(1, 2, 3))
            assert abs(shares.mean() - p) < 5.0 * shares.std() / math.sqrt(maps)
            for corner in (0, -1):
                assert abs(dropped[:, 0, corner, corner].mean() - p) < 5.0 * math.sqrt(p * (1 - p) / maps)

    def test_the_papers_rate_fails(self) -> None:
        """The test above can fail: the share that the paper's γ gives, by the same bounds."""
        p, block, size, maps = 0.2, 7, 14, 4000
        gamma = p * size**2 / block**2 / (size - block + 1) ** 2
        inner = ~md.keep_mask((maps, size - block + 1, size - block + 1), gamma, KEY)
        dropped = np.zeros((maps, size, size), bool)
        for map_, i, j in np.argwhere(inner):
            dropped[map_, i : i + block, j : j + block] = True
        assert abs(dropped.mean() - p) > 5.0 * dropped.mean(axis=(1, 2)).std() / math.sqrt(maps)
        assert round(dropped.mean(), 2) == 0.17  # as docs/family.md says

    @given(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.booleans())
    def test_it_is_the_text(self, block_size: int, positions: list[int], last: bool) -> None:
        """An element is dropped where a block covers it, by loops."""
        member = family.DropBlock(0.3, block_size, "channels_last" if last else "channels_first")
        shape = (2, *positions, 2) if last else (2, 2, *positions)
        axes = range(1, 1 + len(positions)) if last else range(2, 2 + len(positions))
        gamma = block_rate(0.3, block_size ** len(positions))
        wide = [size + block_size - 1 if axis in axes else size for axis, size in enumerate(shape)]
        blocks = ~md.keep_mask(wide, gamma, KEY)
        kept = oracle.apply(member, np.ones(shape), KEY) != 0
        for index in np.ndindex(*shape):
            reach = (range(i, i + block_size) if axis in axes else range(i, i + 1) for axis, i in enumerate(index))
            assert kept[index] != any(blocks[place] for place in product(*reach))


class TestValues:
    """A member is a value."""

    @all_members
    def test_equality_text_and_copies(self, member: Member) -> None:
        again = dataclasses.replace(member)
        assert again == member
        assert hash(again) == hash(member)
        assert family.of_text(member.text) == member
        assert pickle.loads(pickle.dumps(member)).text == member.text
        assert eval(repr(member), vars(family)) == member
        with pytest.raises(dataclasses.FrozenInstanceError):
            member.p = 0.3  # type: ignore[attr-defined]  # what is tested

    @one_of_each
    def test_it_is_documented(self, member: Member) -> None:
        text = inspect.getdoc(type(member))
        assert text
        for part in ("Args:", *(f"{field.name}:" for field in dataclasses.fields(member)), "Raises:"):
            assert part in text
        assert "Source:" in text + str(type(member).__mro__[1].__doc__)  # a member that extends another has its source
        assert f"**{type(member).__name__}**" in SPECIFICATION.read_text()

    @pytest.mark.parametrize("cls", CLASSES)
    def test_bad_settings(self, cls: type[Member]) -> None:
        for field in dataclasses.fields(cls):
            for bad in (-0.5, math.nan, math.inf, None, "half", [0.5]):
                with pytest.raises(ValueError, match=rf"{field.name}: expected .*; got "):
                    cls(**{field.name: bad})


class TestList:
    def test_two_of_one_name(self) -> None:
        with pytest.raises(
            ValueError, match=r"member: expected a name that no other has; got Dropout of test_family, .*"
        ):
            type("Dropout", (Member,), {"__module__": __name__})
        assert family.MEMBERS["Dropout"] is family.Dropout

    def test_one_that_is_defined_again(self) -> None:
        first, second = (type("Again", (Member,), {"__module__": __name__}) for _ in range(2))
        text = first().text
        assert type(family.of_text(text)) is second
        third = type("Again", (Member,), {"__module__": __name__})
        assert type(family.of_text(text)) is third


class TestErrors:
    """Of each kind one, and none takes a mask."""

    @pytest.mark.parametrize("bad", [None, 0.5, family.Dropout, "Dropout"])
    def test_no_member(self, backend: Any, bad: Any) -> None:
        with pytest.raises(ValueError, match=r"member: expected a member of multidrop\.family; got "):
            md.apply(bad, backend.tensor(values((4, 3))))

    @one_of_each
    def test_bad_calls_take_no_mask(self, backend: Any, member: Member) -> None:
        X = backend.tensor(values(member.example_shape))
        shared = member.axes(len(member.example_shape)) or member.margin(len(member.example_shape))
        md.manual_seed(9)
        for bad in (-1, 1.5, None, 2**64, 2**64 - 1, *([1] if shared else [])):
            with pytest.raises(ValueError, match="start: expected"):
                md.apply(member, X, start=bad)
        with pytest.raises(ValueError, match="key: expected"):
            md.apply(member, X, -1)
        with pytest.raises(TypeError, match="X: expected a tensor of type float16"):
            md.apply(member, backend.tensor(np.arange(6).reshape(2, 3)))
        if not member.learns:
            with pytest.raises(ValueError, match="learned: expected None"):
                md.apply(member, X, learned=X)
        if shared:
            with pytest.raises(ValueError, match=r"X: expected .* dimensions, .*; got 0"):
                md.apply(member, backend.tensor(np.float32(1.0)))
        first = backend.to_numpy(md.apply(member, X))
        assert np.allclose(
            first, oracle.apply(member, values(member.example_shape), Key(9).fold_in("calls")), atol=1e-6
        )

    def test_learned_is_floating(self, backend: Any) -> None:
        X = backend.tensor(values((4, 3)))
        with pytest.raises(TypeError, match="learned: expected a tensor of type"):
            md.apply(family.ConcreteDropout(), X, learned=backend.tensor(np.arange(3)))
        for bad in ("x", [1j], np.ma.array([0.0], mask=[True])):
            with pytest.raises(TypeError, match=r"learned: expected .*; got .*: (convert|fill) it with "):
                md.apply(family.ConcreteDropout(), X, learned=bad)

    @pytest.mark.parametrize("shape", [(7,), (4, 1, 3), (1, 1, 1), (3, 4), (0,)])
    def test_learned_fits(self, backend: Any, shape: tuple[int, ...]) -> None:
        """To X, and takes no numbers where it does not."""
        member, X = family.ConcreteDropout(), backend.tensor(values((4, 3)))
        md.manual_seed(9)
        with pytest.raises(ValueError, match=r"learned: expected a shape that .* X's, \(4, 3\); got \("):
            md.apply(member, X, learned=backend.tensor(np.zeros(shape, np.float32)))
        first = backend.to_numpy(md.apply(member, X))
        assert np.allclose(first, oracle.apply(member, values((4, 3)), Key(9).fold_in("calls")), atol=1e-6)

    def test_a_gradient_on_the_host(self, need: Any) -> None:
        numpy = need("numpy")
        for bad in ("x", [1j], np.ma.array([0.0], mask=[True])):
            with pytest.raises(TypeError, match=r"dY: expected .*; got .*: (convert|fill) it with "):
                numpy.gradient(family.Dropout(), bad, 1)

    def test_sparse_arrays_of_mxnet(self, need: Any) -> None:
        need("mxnet")
        import mxnet as mx

        member, X = family.ConcreteDropout(), mx.nd.ones((4, 3))
        sparse = X.tostype("csr")
        for name, call in (
            ("X", lambda: md.apply(member, sparse, 1)),
            ("learned", lambda: md.apply(member, X, 1, learned=sparse)),
        ):
            with pytest.raises(TypeError, match=rf"{name}: expected .* storage; got csr: convert it with {name}\."):
                call()

    @one_of_each
    def test_numbers_of_all_kinds(self, backend: Any, member: Member) -> None:
        """Are taken for the key and the start, and for settings, which become plain ones."""
        x = values(member.example_shape)
        start, expected = 2 * x[0].size, oracle.apply(member, x, Key(7), 2 * x[0].size)
        for kind in (np.int64, np.array, lambda number: backend.tensor(np.array(number))):
            Y = backend.to_numpy(md.apply(member, backend.tensor(x), kind(7), start=kind(start)))
            assert np.allclose(Y, expected, atol=1e-6)
        plain = {field.name: getattr(member, field.name) for field in dataclasses.fields(member)}
        odd = {name: value if type(value) in (str, bool) else np.array(value) for name, value in plain.items()}
        assert type(member)(**odd).text == member.text

    @one_of_each
    def test_host_arrays_of_any_layout(self, backend: Any, member: Member) -> None:
        x = values(member.example_shape)
        expected = oracle.apply(member, x, Key(7))
        for data in (x.astype(">f4"), x[::-1].copy()[::-1], np.ascontiguousarray(x.T).T):
            Y = backend.to_numpy(md.apply(member, data, 7))
            assert type(Y) is np.ndarray
            assert np.allclose(Y, expected, atol=1e-6)


class TestSchedules:
    @pytest.mark.parametrize(
        "schedule",
        [schedules.linear(0.1, 0.5, 40), schedules.cosine(0.1, 0.5, 40), schedules.warm_up(0.5, 40),
         schedules.curriculum(0.5, 40)],
        ids=repr,
    )  # fmt: skip
    def test_from_the_begin_to_the_end(self, schedule: Any) -> None:
        ps = [schedule(step) for step in range(60)]
        assert ps[0] == schedule.begin
        assert ps[40:] == [0.5] * 20
        assert all(a < b for a, b in pairwise(ps[:41]))
        assert pickle.loads(pickle.dumps(schedule)) == schedule

    def test_formulas(self) -> None:
        assert schedules.linear(0.0, 0.4, 4)(1) == pytest.approx(0.1)
        assert schedules.cosine(0.0, 0.4, 4)(2) == pytest.approx(0.2)
        assert schedules.cosine(0.0, 0.4, 3)(1) == pytest.approx(0.1)
        assert schedules.curriculum(0.5, 100)(30) == pytest.approx(0.5 * (1 - math.exp(-3)))
        assert schedules.linear(0.5, 0.1, 4)(3) == pytest.approx(0.2)

    @pytest.mark.parametrize(
        ("name", "make"),
        [
            ("begin", lambda: schedules.linear(-0.1, 0.5, 4)),
            ("end", lambda: schedules.cosine(0.1, math.nan, 4)),
            ("steps", lambda: schedules.warm_up(0.5, 0)),
            ("rate", lambda: schedules.curriculum(0.5, 4, -1.0)),
            ("step", lambda: schedules.warm_up(0.5, 4)(-1)),
        ],
    )
    def test_bad_arguments(self, name: str, make: Any) -> None:
        with pytest.raises(ValueError, match=f"{name}: expected .*; got "):
            make()


SPECIFICATION = Path(__file__).parent.parent / "docs" / "specification.md"


def vectors() -> Iterator[tuple[Member, tuple[int, ...], str]]:
    """Of the specification's table: a member, a shape, and what it gives of ones."""
    rows = re.findall(r"^\| `(\w+\(.*?\))` \| `(\(.*?\))` \| `(.*?)` \|$", SPECIFICATION.read_text(), re.MULTILINE)
    for text, shape, expected in rows:
        yield eval(text, vars(family)), eval(shape), expected


def outputs(member: Member, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """What a member gives of ones, float32."""
    return oracle.apply(member, np.ones(shape or member.example_shape, np.float32), KEY)


def shown(y: np.ndarray) -> str:
    """Numbers in row-major order, as the specification's table has them."""
    return " ".join(str(v).removesuffix(".0") for v in y.ravel())


def test_the_page_on_the_family_runs() -> None:
    """And the member that it writes is one in every framework."""
    blocks = re.findall(r"```python\n(.*?)```", (SPECIFICATION.parent / "family.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": __name__}  # which `dataclass` looks up
    for block in blocks:
        if "torch" not in block:  # which test_packaging runs, where torch is
            exec(block, names)
    assert np.isin(names["Y"], (-1.0, 1.0)).all()
    assert abs((names["Y"] == -1.0).mean() - 0.3) < 5.0 * math.sqrt(0.3 * 0.7 / names["Y"].size)


class TestSpecification:
    def test_each_member_has_a_vector(self) -> None:
        lacking = [cls() for cls in CLASSES if cls not in {type(member) for member, _, _ in vectors()}]
        rows = [f"| `{each}` | `{each.example_shape}` | `{shown(outputs(each))}` |" for each in lacking]
        assert not lacking, "\n".join(["the specification's table lacks:", *rows])

    @pytest.mark.parametrize(("member", "shape", "expected"), list(vectors()), ids=repr)
    def test_vectors(self, member: Member, shape: tuple[int, ...], expected: str) -> None:
        y = outputs(member, shape)
        wanted = np.array([float(number) for number in expected.split()], np.float32)
        assert same_bits(y.ravel(), wanted), shown(y)
