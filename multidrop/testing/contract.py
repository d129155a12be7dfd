"""Tests that every backend must pass; its author runs them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import product
from typing import Any
from unittest import SkipTest

import numpy as np
import numpy.typing as npt

from .. import checks, dispatch, family
from ..family import Member, oracle
from ..spec.keys import Key
from ..streams import Stream, manual_seed
from . import vectors
from .bits import _first

Tensor = Any
Array = npt.NDArray[Any]
FORM = re.compile(r"^\w+: expected .+; got .+", re.DOTALL)
KEY = Key(7, 3)


class Conformance:
    """The tests of a backend. Subclass it in a test module:

        class TestMine(multidrop.testing.Conformance):
            backend = "mine"

    Compares each member of the family with `vectors.json`, for each type and for several keys and starts. Then tests
    gradients, calls without a key, layers, and errors.

    Attributes:
        backend: the backend's name, or the backend itself.
        lacks: the types that its framework lacks, out of "float16", "bfloat16", "float32" and "float64".
    """

    backend: Any = None
    lacks: tuple[str, ...] = ()

    # Each framework differentiates in its own way, so the contract has no gradient. A subclass may define
    #
    #     def gradient(self, member, X, dY, key, start): ...
    #
    # which returns the gradient of `self.loaded.apply(member, X, key, start=start)` with respect to X, from dY.
    gradient: Callable[..., Tensor] | None = None

    def training_call(self, layer: Any, X: Tensor) -> Tensor:
        """Calls a layer in training mode. Override it if a plain call does not train."""
        return layer(X)

    @property
    def loaded(self) -> Any:
        """The backend."""
        return dispatch.load(self.backend) if isinstance(self.backend, str) else self.backend

    @classmethod
    def parameters(cls) -> dict[str, tuple[str, ...]]:
        """The parameters of the tests and their values: the names of all members, and the types."""
        names = dict.fromkeys(type(case.member).__name__ for case in vectors.cases())
        return {"member_name": tuple(names), "dtype": tuple(t for t in checks.FLOATING if t not in cls.lacks)}

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Runs each test once for each member and type that it takes."""
        for name, values in self.parameters().items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    def test_contract(self) -> None:
        """The backend has every required attribute, each of the right kind."""
        backend = self.loaded
        absent = sorted(dispatch.required() - set(dir(backend)))
        _expect(not absent, f"it has {', '.join(absent)}")
        _expect(isinstance(backend.name, str) and isinstance(backend.version, str), "name and version are strings")
        _expect(all(isinstance(each, type) for each in backend.types), "types are types")
        drawn = {backend.draw_key() for _ in range(3)}
        _expect(all(isinstance(key, Key) for key in drawn), "draw_key returns keys")
        _expect(len(drawn) == 3, "draw_key returns a new key each time")

    def test_tensors(self, dtype: str) -> None:
        """Host data comes back unchanged from a tensor."""
        for shape in ((5, 7), (0, 3), ()):
            tensor = self._tensor(vectors.inputs(shape), dtype)
            # A NumPy array is right too: it belongs to whichever backend is set.
            right = isinstance(tensor, (*self.loaded.types, np.ndarray))
            _expect(right, f"tensor returns an instance of one of types; not a {type(tensor).__name__}")
            self._same(tensor, vectors.inputs(shape).astype(_host_type(dtype)), f"a tensor of shape {shape}")

    def test_vectors(self, member_name: str, dtype: str) -> None:
        """A member returns the bits of the vectors, for each key and start."""
        for case in vectors.cases():
            if type(case.member).__name__ == member_name:
                X = self._tensor(vectors.inputs(case.shape), dtype)
                Y = self.loaded.apply(case.member, X, case.key, start=case.start)
                _expect(type(Y) is type(X), f"apply returns a {type(X).__name__}, like its X; not a {type(Y).__name__}")
                expected = vectors.numbers(case.outputs[dtype], dtype, case.shape)
                self._same(Y, expected, _told(case), 0.0 if case.exact else vectors.BOUNDS[dtype])

    def test_nothing_dropped(self, member_name: str) -> None:
        """X comes back unchanged in every bit if a member's first setting (p, or a standard deviation) is 0."""
        member = self._member(member_name)
        name = fields(member)[0].name
        x = vectors.inputs(member.example_shape).astype(np.float32)
        idle = type(member)(**{name: 0.0})
        self._same(self.loaded.apply(idle, self._tensor(x), KEY), x, f"{idle}")

    def test_gradient(self, member_name: str) -> None:
        """The gradient uses the draws of the forward pass, for several keys and starts."""
        if self.gradient is None:
            raise SkipTest("no `gradient` is defined: see multidrop.testing.Conformance")
        for case in vectors.cases():
            if type(case.member).__name__ == member_name:
                x, dy = (np.nan_to_num(vectors.inputs(case.shape), posinf=4.0, neginf=-4.0) + n for n in (0.0, 0.125))
                x, dy = x.astype(np.float32), dy.astype(np.float32)
                dX = self.gradient(case.member, self._tensor(x), self._tensor(dy), case.key, case.start)
                expected = oracle.apply(case.member, dy, case.key, case.start, gradient=True)
                bound = 0.0 if case.exact else vectors.BOUNDS["float32"]
                self._same(dX, expected, f"the gradient of {_told(case)}", bound)

    def test_unkeyed(self) -> None:
        """Calls without a key take the keys of the stream of `manual_seed`, and a call that fails takes none. Without
        `manual_seed` all calls differ."""
        x = np.ones((16, 16), np.float32)
        member, X = family.Dropout(0.5), self._tensor(x)
        with _seeded(5):
            stream = Stream(Key(5).fold_in("calls"))
            for number in range(3):
                self._same(self.loaded.apply(member, X), oracle.apply(member, x, stream.next()), f"call {number}")
                self._fails(lambda: self.loaded.apply(member, X, -1), "")
                self._fails(lambda: self.loaded.apply("Dropout", X), "")
                self._fails(lambda: self.loaded.apply(family.SpatialDropout(), X), "")
        with _seeded(None):
            a, b = (self.loaded.to_numpy(self.loaded.apply(member, X)) for _ in range(2))
        _expect(not np.array_equal(a, b), "two calls draw different masks")

    def test_layer(self, member_name: str) -> None:
        """A layer with a seed counts its calls in training mode, starting at its key's call."""
        backend = self.loaded
        if not hasattr(backend, "layer"):
            raise SkipTest("it has no `layer`, which `test_contract` reports")
        member = self._member(member_name)
        x = vectors.inputs(member.example_shape).astype(np.float32)
        bound = vectors.BOUNDS["float32"] if vectors.draws_reals(member) else 0.0
        layer = backend.layer(member, seed=Key(11, 2**32 - 1))
        for call in range(3):
            Y = self.training_call(layer, self._tensor(x))
            self._same(
                Y, oracle.apply(member, x, Key(11, 2**32 - 1 + call)), f"call {call} of a layer of {member}", bound
            )
        with _seeded(5):
            layers = [backend.layer(member) for _ in range(2)]
            for number, layer in enumerate(layers):
                key = Key(5).fold_in("dropout").fold_in(number)
                Y = self.training_call(layer, self._tensor(x))
                self._same(Y, oracle.apply(member, x, key), f"layer {number} after manual_seed of {member}", bound)

    def test_errors(self) -> None:
        """Bad input raises a ValueError, or for a tensor of the wrong type a TypeError. The message names the argument,
        what was expected and what came."""
        backend, member, X = self.loaded, family.Dropout(0.5), self._tensor(np.ones((4, 3), np.float32))
        for name, call in (
            ("member", lambda: backend.apply("Dropout", X, 1)),
            ("key", lambda: backend.apply(member, X, -1)),
            ("key", lambda: backend.apply(member, X, 2**64)),
            ("key", lambda: backend.apply(member, X, "1")),
            ("start", lambda: backend.apply(member, X, 1, start=-1)),
            ("start", lambda: backend.apply(member, X, 1, start=1.5)),
            ("start", lambda: backend.apply(member, X, 1, start=2**64 - 1)),
            ("start", lambda: backend.apply(family.DropPath(0.5), X, 1, start=1)),
            ("X", lambda: backend.apply(family.SpatialDropout(0.5), X, 1)),
            ("X", lambda: backend.apply(member, backend.tensor([1, 2, 3], "int32"), 1)),
        ):
            self._fails(call, name)
        if hasattr(backend, "layer"):
            self._fails(lambda: backend.layer("Dropout"), "member")
            self._fails(lambda: backend.layer(member, seed=-1), "seed")

    def _member(self, name: str) -> Member:
        return next(case.member for case in vectors.cases() if type(case.member).__name__ == name)

    def _tensor(self, x: Array, dtype: str = "float32") -> Tensor:
        return self.loaded.tensor(x.astype(_host_type(dtype)), dtype)

    def _same(self, got: Tensor, expected: Array, what: str, bound: float = 0.0) -> None:
        y = self.loaded.to_numpy(got)
        if y.dtype.name == "bfloat16":
            y = y.astype(np.float32)
        came = f"{type(y).__name__} of {y.dtype} and shape {y.shape}"
        _expect((y.dtype, y.shape) == (expected.dtype, expected.shape), f"{what} has {expected.dtype} and "
                f"shape {expected.shape}; it is {came}")  # fmt: skip
        wrong = vectors.differing(y, expected, bound)
        if wrong.any():
            at = _first(wrong)
            raise AssertionError(
                f"{what}: {wrong.sum()} of {wrong.size} elements differ; at {at}, expected {expected[at]!r}; "
                f"got {y[at]!r}"
            )

    def _fails(self, call: Callable[[], Any], name: str) -> None:
        """Expects an error about the argument `name` (any argument if "") in the form of all errors."""
        kind = TypeError if name == "X" else ValueError
        try:
            result = call()
        except (ValueError, TypeError) as error:
            text = str(error)
            right = isinstance(error, (ValueError, kind)) and FORM.match(text) and text.startswith(name)
            _expect(bool(right), f"an error `{name or '…'}: expected …; got …`, not {type(error).__name__}: {text}")
            return
        raise AssertionError(f"expected an error `{name or '…'}: expected …; got …`; got {checks.shown(result)}")


def conformance(
    backend: Any, *, lacks: tuple[str, ...] = (), gradient: Callable[..., Tensor] | None = None
) -> tuple[str, ...]:
    """Runs all tests of `Conformance`, without pytest.

    Args:
        backend: the backend's name, or the backend itself.
        lacks: the types that its framework lacks.
        gradient: takes (member, X, dY, key, start) and returns the gradient of `apply` with respect to X, from dY.

    Returns:
        The skipped tests, each with the reason: "test_gradient[Dropout]: …".

    Raises:
        AssertionError: if tests failed; lists each with its error.
    """
    own = None if gradient is None else staticmethod(gradient)
    tests: Any = type("Tests", (Conformance,), {"backend": backend, "lacks": lacks, "gradient": own})()
    failed, skipped = [], []
    for name, test in inspect.getmembers(tests, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        wanted = {each: tests.parameters()[each] for each in inspect.signature(test).parameters}
        for values in product(*wanted.values()):
            label = f"{name}[{'-'.join(values)}]" if values else name
            try:
                test(*values)
            except SkipTest as reason:
                skipped.append(f"{label}: {reason}")
            except Exception as error:  # a backend under test may raise anything
                failed.append(f"{label}: {type(error).__name__}: {error}")
    if failed:
        raise AssertionError("\n".join([f"{len(failed)} tests failed:", *failed]))
    return tuple(skipped)


def _expect(right: bool, what: str) -> None:
    if not right:
        raise AssertionError(f"expected that {what}")


def _host_type(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _told(case: vectors.Case) -> str:
    return f"{case.member} of {case.shape} with {case.key} from {case.start}"


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    manual_seed(seed)
    try:
        yield
    finally:
        manual_seed(None)
