"""The dropout family: every member that is listed, in every framework and every way of running it, against NumPy.

A member is tried with its default settings, and with each value of a setting that has few, so that a new one needs no
test here. Decisions are compared bit by bit. Numbers that a logarithm gave are promised to within 16 units in the last
place of float64, and a compiler may round a product and a sum once: there the bound is that of
`multidrop.testing.vectors.BOUNDS`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from conftest import loaded, parameters
from family_ways import DTYPES, WAYS, Way, ways_of
from members import KEY, REPRESENTATIVES, all_members, one_of_each, values

import multidrop as md
from multidrop import Key, family
from multidrop.family import Member, oracle
from multidrop.testing import same_bits
from multidrop.testing.vectors import BOUNDS, differing, draws_reals


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", parameters(metafunc.config, WAYS), indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    backend, name = request.param
    loaded(request.config, backend)
    return next(way for way in ways_of(backend) if way.name == name)


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
        for name in DTYPES.keys() - set(way.lacks):
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
