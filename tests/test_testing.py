"""The tests that authors of backends run: they pass what is right, and find what is wrong."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from multidrop import checks, dispatch, family, host
from multidrop.family import Member, oracle
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.streams import call_key
from multidrop.testing import Conformance, assert_same_values, conformance, vectors

ROOT = Path(__file__).parent.parent


class _BuiltIn(Conformance):
    """A backend of this library, where the run is about it."""

    @pytest.fixture(autouse=True)
    def wanted(self, need: Any) -> None:
        need(self.backend)


class TestNumpyConforms(_BuiltIn):
    backend = "numpy"

    def gradient(self, member: Member, X: Any, dY: Any, key: Key, start: int) -> Any:
        return self.loaded.gradient(member, dY, key, start=start)


class TestTorchConforms(_BuiltIn):
    backend = "torch"

    def gradient(self, member: Member, X: Any, dY: Any, key: Key, start: int) -> Any:
        import torch

        X.requires_grad_()
        (dX,) = torch.autograd.grad(self.loaded.apply(member, X, key, start=start), X, dY)
        return dX


class TestTensorflowConforms(_BuiltIn):
    backend = "tensorflow"

    def gradient(self, member: Member, X: Any, dY: Any, key: Key, start: int) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = self.loaded.apply(member, X, key, start=start)
        return tape.gradient(Y, X, output_gradients=dY)

    def training_call(self, layer: Any, X: Any) -> Any:
        return layer(X, training=True)


class TestMxnetConforms(_BuiltIn):
    backend = "mxnet"
    lacks = ("bfloat16",)

    @pytest.fixture(autouse=True)
    def shapes(self, wanted: None) -> Iterator[None]:
        """Else MXNet takes () and (0, 3) for shapes that are not known."""
        import mxnet as mx

        with mx.util.np_shape(True):
            yield

    def gradient(self, member: Member, X: Any, dY: Any, key: Key, start: int) -> Any:
        import mxnet as mx

        X.attach_grad()
        with mx.autograd.record():
            Y = self.loaded.apply(member, X, key, start=start)
        Y.backward(dY)
        return X.grad

    def training_call(self, layer: Any, X: Any) -> Any:
        import mxnet as mx

        for parameter in layer.collect_params().values():  # what is learned, before the first call
            if parameter._data is None:  # a second initialize warns
                parameter.initialize()
        with mx.autograd.train_mode():
            return layer(X)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(ROOT / "tests" / "plugin")
    import multidrop_toyframe

    yield multidrop_toyframe
    for name in ("toyframe", "multidrop_toyframe"):
        del sys.modules[name]


def by_oracle(toy: Any, member: Member, X: Any, dY: Any, key: Key, start: int, more: int = 0) -> Any:
    """The toy's gradient, with another key where `more` is not 0."""
    return toy.tensor(oracle.apply(member, toy.to_numpy(dY), Key(key.seed, key.call + more), start, gradient=True))


TOY: dict[str, Any] = {"lacks": ("bfloat16",)}


class TestToyConforms:
    def test_all(self, toy: Any) -> None:
        assert conformance(toy, **TOY, gradient=partial(by_oracle, toy)) == ()

    def test_without_a_gradient_it_says_so(self, toy: Any) -> None:
        skipped = conformance(toy, **TOY)
        assert len(skipped) == len(Conformance.parameters()["member_name"])
        assert all(re.match(r"test_gradient\[\w+\]: no `gradient` is defined", line) for line in skipped)


class Unscaled(oracle.Draw):
    def dropout(self, X: Any, p: float, axes: tuple[int, ...] = ()) -> Any:
        return (super().dropout(X, p, axes) * (1.0 - p)).astype(X.dtype)


class ByMask(oracle.Draw):
    """Dropout from `keep`, so that a mask that is wrong is wrong everywhere."""

    def dropout(self, X: Any, p: float, axes: tuple[int, ...] = ()) -> Any:
        return self.select(X, self.keep(X, p, axes), masks.scale(p))


class LanesSwapped(ByMask):
    """The high half of a word before the low one."""

    def keep(self, X: Any, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Any:
        shape, first = family.extent(X.shape, self.start, axes, margin)
        low = first - first % 2
        even = host.keep_mask(int(np.prod(shape)) + 2 + first % 2, p, self.key, low)
        even = even[: even.size // 2 * 2]
        return even.reshape(-1, 2)[:, ::-1].ravel()[first - low :][: int(np.prod(shape))].reshape(shape)


class SixteenBits(ByMask):
    """p to 2^-16, as if there were no second plane."""

    def keep(self, X: Any, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Any:
        shape, first = family.extent(X.shape, self.start, axes, margin)
        uniforms = masks.uniforms(int(np.prod(shape)), self.key, first).reshape(shape)
        return (uniforms >> np.uint32(16)).astype(np.uint64) < masks.threshold(p) >> 16


class Multiplying(ByMask):
    def select(self, X: Any, keep: Any, scale: float) -> Any:
        wide = self.wide(X, X)
        return (wide * keep * wide.dtype.type(scale)).astype(X.dtype)


class FromZero(oracle.Draw):
    def __init__(self, key: Key, start: int) -> None:
        super().__init__(key)


class FirstCall(oracle.Draw):
    def __init__(self, key: Key, start: int) -> None:
        super().__init__(Key(key.seed), start)


class TestSabotage:
    """Each broken backend is the toy with one thing wrong, and the test that is named finds it."""

    def changed(self, toy: Any, **changes: Any) -> Any:
        return SimpleNamespace(**{**{name: getattr(toy, name) for name in dispatch.required()}, **changes})

    def drawing(self, toy: Any, draw: type) -> Callable[..., Any]:
        def apply(member: Member, X: Any, key: Any = None, *, start: int = 0) -> Any:
            X = toy.tensor(X)
            checks.floating(X.dtype, "…")
            start = family.checked(member).check(X.shape, start)
            key = (call_key("toyframe") or toy.draw_key()) if key is None else as_key(key)
            array = toy.to_numpy(X)
            with np.errstate(all="ignore"):
                return toy.tensor(family.run(member, np.atleast_1d(array), draw(key, start)).reshape(array.shape))

        return apply

    def found(self, toy: Any, test: str, **changes: Any) -> None:
        with pytest.raises(AssertionError, match=rf"(?m)^{test}(\[|:)"):
            conformance(self.changed(toy, **changes), **TOY)

    def test_the_way_of_breaking_breaks_nothing_itself(self, toy: Any) -> None:
        for draw in (oracle.Draw, ByMask):
            conformance(self.changed(toy, apply=self.drawing(toy, draw)), **TOY)

    @pytest.mark.parametrize("draw", [Unscaled, LanesSwapped, SixteenBits, Multiplying, FromZero, FirstCall])
    def test_values(self, toy: Any, draw: type) -> None:
        self.found(toy, "test_vectors", apply=self.drawing(toy, draw))

    def test_a_gradient_with_another_mask(self, toy: Any) -> None:
        with pytest.raises(AssertionError, match=r"(?m)^test_gradient\[Dropout\]: .*the gradient of Dropout"):
            conformance(toy, **TOY, gradient=partial(by_oracle, toy, more=1))

    @pytest.mark.parametrize("name", sorted(dispatch.required()))
    def test_an_attribute_that_is_missing(self, toy: Any, name: str) -> None:
        backend = self.changed(toy)
        delattr(backend, name)
        with pytest.raises(AssertionError, match=rf"test_contract: AssertionError: expected that it has {name}"):
            conformance(backend, **TOY)

    def test_a_key_that_is_always_the_same(self, toy: Any) -> None:
        self.found(toy, "test_contract", draw_key=lambda: Key(1))

    def test_a_type_that_changes(self, toy: Any) -> None:
        self.found(toy, "test_tensors", to_numpy=lambda tensor: toy.to_numpy(tensor).astype(np.float64))

    def test_a_value_of_another_kind(self, toy: Any) -> None:
        def apply(*args: Any, **kwargs: Any) -> Any:
            return toy.to_numpy(toy.apply(*args, **kwargs))

        self.found(toy, "test_vectors", apply=apply, to_numpy=lambda x: x if type(x) is np.ndarray else toy.to_numpy(x))

    def test_a_counter_that_a_trace_froze(self, toy: Any) -> None:
        def apply(member: Member, X: Any, key: Any = None, *, start: int = 0) -> Any:
            return toy.apply(member, X, Key(5).fold_in("calls") if key is None else key, start=start)

        self.found(toy, "test_unkeyed", apply=apply)

    def test_a_failing_call_that_takes_a_mask(self, toy: Any) -> None:
        def apply(member: Member, X: Any, key: Any = None, *, start: int = 0) -> Any:
            key = (call_key("toyframe") or toy.draw_key()) if key is None else key
            return toy.apply(member, X, key, start=start)

        self.found(toy, "test_unkeyed", apply=apply)

    def test_something_dropped_at_p_0(self, toy: Any) -> None:
        def apply(member: Member, X: Any, key: Any = None, *, start: int = 0) -> Any:
            Y = toy.apply(member, X, key, start=start)
            return toy.tensor(toy.to_numpy(Y) + 0.0, Y.dtype) if member.idle else Y  # −0 becomes 0

        self.found(toy, "test_nothing_dropped", apply=apply)

    @pytest.mark.parametrize("frozen", [True, False])
    def test_a_layer_of_other_masks(self, toy: Any, frozen: bool) -> None:
        """One that does not count, and one that begins a call too late."""

        def layer(member: Member, *, seed: Any = None) -> Any:
            made = toy.layer(member, seed=seed)
            if frozen:
                return lambda X: toy.layer(member, seed=made.stream.key)(X)
            made.stream.next()
            return made

        self.found(toy, "test_layer", layer=layer)

    @pytest.mark.parametrize("kind", [ValueError, RuntimeError, AttributeError])
    def test_errors_of_another_form(self, toy: Any, kind: type[Exception]) -> None:
        def apply(*args: Any, **kwargs: Any) -> Any:
            try:
                return toy.apply(*args, **kwargs)
            except (ValueError, TypeError):
                raise kind("bad input") from None

        self.found(toy, "test_errors", apply=apply)

    def test_no_error(self, toy: Any) -> None:
        def apply(member: Any, X: Any, key: Any = None, *, start: Any = 0) -> Any:
            return toy.apply(member, X, key, start=int(start))

        self.found(toy, "test_errors", apply=apply)


class TestVectors:
    def test_the_file_is_what_the_oracle_gives(self) -> None:
        """`python tools/make_vectors.py` writes it. Numbers that a logarithm gave may differ in the last bits between
        machines."""
        written, now = json.loads(vectors.FILE.read_text()), json.loads(
            runpy.run_path(str(ROOT / "tools" / "make_vectors.py"))["text"]()
        )  # fmt: skip
        assert [{**case, "outputs": None} for case in written["cases"]] == [
            {**case, "outputs": None} for case in now["cases"]
        ]
        assert {**written, "cases": None} == {**now, "cases": None}
        for old, new in zip(written["cases"], now["cases"], strict=True):
            assert old["exact"] <= (old["outputs"] == new["outputs"]), old
            for dtype in checks.FLOATING:
                bound = 0.0 if old["exact"] else vectors.BOUNDS[dtype]
                a, b = (vectors.numbers(case["outputs"][dtype], dtype, case["shape"]) for case in (old, new))
                assert not vectors.differing(a, b, bound).any(), old

    def test_it_has_every_member_type_key_and_start(self) -> None:
        own = {name for name, cls in family.MEMBERS.items() if cls.__module__.startswith("multidrop.")}
        for name in own:
            cases = [case for case in vectors.cases() if type(case.member).__name__ == name]
            assert len({(case.key, case.start) for case in cases}) >= 6
            assert all(set(case.outputs) == set(checks.FLOATING) for case in cases)
        assert own == set(Conformance.parameters()["member_name"])

    def test_it_stays_small(self) -> None:
        assert vectors.FILE.stat().st_size < 300_000

    def test_what_it_says_of_the_inputs(self) -> None:
        """Written again from the text of "about"."""
        special = {3: "nan", 7: "inf", 11: "-inf", 14: "-0.0"}
        x = [float(special.get(i % 16, (((37 * i + 11) % 64) - 32) / 8)) for i in range(70)]
        assert vectors.digits(vectors.inputs((5, 14))) == vectors.digits(np.array(x))
        for dtype in (np.float16, np.float32):
            assert_same_values(vectors.inputs((5, 14)).astype(dtype), np.array(x).reshape(5, 14), bits=False)

    def test_digits_are_read_as_they_were_written(self) -> None:
        for dtype in ("float16", "float32", "float64"):
            x = vectors.inputs((5, 7)).astype(dtype)
            assert_same_values(vectors.numbers(vectors.digits(x), dtype, (5, 7)), x)
        assert vectors.digits(np.array([-0.0, 1.0, -np.nan], np.float32)) == "800000003f8000007fc00000"
        assert vectors.numbers("3f80c000", "bfloat16", (2,)).tolist() == [1.0, -2.0]
