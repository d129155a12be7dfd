"""The assertions of `multidrop.testing`: they pass what is right, and find what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import family
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.testing import assert_expectation_preserved, assert_resumes, assert_same_mask, assert_same_values

X = np.linspace(1.0, 2.0, 60, dtype=np.float32).reshape(4, 15)


class TestValues:
    def test_equal(self, backend: Any) -> None:
        assert_same_values(backend.tensor(X, "float32"), X)
        assert_same_values([1.0, 2.0], np.array([1.0, 2.0]))
        assert_same_values(np.array([np.nan, -np.nan]), np.array([-np.nan, np.nan]))
        assert_same_values(np.float32(1.0), np.float64(1.0), bits=False)
        assert_same_values(np.array([0.0, np.nan]), np.array([-0.0, np.nan]), bits=False)
        assert_same_values([True, False], [True, False])
        assert_same_values([], np.zeros(0))

    @pytest.mark.parametrize(
        ("a", "b", "bits", "message"),
        [
            ([1.0, 2.0, 3.0], [1.0, 2.5, 3.5], True, r"2 of 3 elements; the first at \(1,\): 2\.0 \(float64 0x40"),
            ([0.0], [-0.0], True, r"1 of 1 elements; .* 0x0000000000000000\) and -0\.0 .* 0x8000000000000000"),
            ([1.0], [np.nan], True, "values differ"),
            ([1.0], [np.nan], False, "values differ"),
            ([1, 2], [1, 3], True, "values differ"),
            ([1.0], [[1.0]], False, r"shapes differ: \(1,\) and \(1, 1\)"),
            (np.float32([1.0]), np.float64([1.0]), True, "types differ: float32 and float64"),
        ],
    )  # fmt: skip
    def test_different(self, a: Any, b: Any, bits: bool, message: str) -> None:
        with pytest.raises(AssertionError, match=message):
            assert_same_values(a, b, bits)

    def test_of_no_framework(self) -> None:
        with pytest.raises(TypeError, match=r"^b: expected a tensor"):
            assert_same_values([1.0], {1.0})


class TestMasks:
    def test_equal(self, backend: Any) -> None:
        Y = md.dropout_layer(backend.tensor(X, "float32"), 0.5, 3)
        assert_same_mask(Y, masks.dropout(X, 0.5, 3))
        assert_same_mask(Y, md.keep_mask(X.shape, 0.5, 3))
        layer = md.Dropout(0.5, seed=3)
        if backend.name == "numpy":
            layer(X)
            assert_same_mask(md.last_mask(layer), Y)

    def test_different(self) -> None:
        keep = md.keep_mask((4, 15), 0.5, 3)
        other = keep.copy()
        other[2, 1] ^= True
        who = "a keeps it, b drops it" if keep[2, 1] else "a drops it, b keeps it"
        with pytest.raises(AssertionError, match=rf"masks differ in 1 of 60 elements; the first at \(2, 1\): {who}"):
            assert_same_mask(X * keep, other)
        with pytest.raises(AssertionError, match="shapes differ"):
            assert_same_mask(keep, keep[1:])


class TestExpectation:
    def test_members(self) -> None:
        x = np.ones((16, 8, 6, 6), np.float32)
        for cls in family.MEMBERS.values():
            if cls.unbiased and cls.__module__.startswith("multidrop."):
                given = x.reshape(16, 8, 36) if cls is family.LockedDropout else x
                assert_expectation_preserved(cls(), given, deviation=0.05)

    def test_layers(self) -> None:
        assert_expectation_preserved(md.Dropout(0.5, seed=1), X, deviation=0.05)

    @pytest.mark.parametrize("factor", [0.95, 1.05])
    def test_a_bias_is_found(self, factor: float) -> None:
        """Of the size that it is to find."""
        stream = md.Stream(3)
        biased = lambda x: md.dropout_layer(x, 0.5, stream.next()) * np.float32(factor)  # noqa: E731
        with pytest.raises(AssertionError, match=r"not preserved: \d+ draws have the mean \d\.\d+·X, .* 0\.999"):
            assert_expectation_preserved(biased, X, deviation=0.05)

    def test_its_power(self) -> None:
        """How often a bias of just the stated size is found: of 200 seeds, all but a few."""
        found = 0
        for seed in range(200):
            stream = md.Stream(seed)
            try:
                assert_expectation_preserved(
                    lambda x, s=stream: md.dropout_layer(x, 0.5, s.next()) * 1.2, X, deviation=0.2
                )
            except AssertionError:
                found += 1
        assert found >= 190

    def test_a_member_that_is_biased(self) -> None:
        with pytest.raises(AssertionError, match="not preserved"):
            assert_expectation_preserved(family.AlphaDropout(0.5), X, deviation=0.05)

    def test_nothing_random(self) -> None:
        assert_expectation_preserved(lambda x: x, X)
        with pytest.raises(AssertionError, match="not preserved: 64 draws"):
            assert_expectation_preserved(lambda x: 1.001 * x, X)
        with pytest.raises(AssertionError, match=r"expected an output of X's shape, \(4, 15\)"):
            assert_expectation_preserved(lambda x: x[0], X)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"X": np.zeros(3)}, "X: expected finite numbers that are not all 0; got "),
            ({"X": np.array([1.0, np.nan])}, "X: expected finite numbers that are not all 0; got "),
            ({"deviation": 0.0}, "deviation: expected a finite number above 0; got "),
            ({"deviation": "1"}, "deviation: expected a finite number of at least 0; got "),
            ({"deviation": 1e-4}, r"most: expected at least \d+ draws, .*; got 20000"),
            ({"seed": -1}, "seed: expected an integer"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}"):
            assert_expectation_preserved(family.Dropout(0.5), **{"X": X, **arguments})


class Counting:
    """A layer that saves where it is."""

    def __init__(self, saves: bool = True) -> None:
        self.stream, self.saves = md.Stream(1), saves

    def __call__(self, x: Any) -> Any:
        return md.dropout_layer(x, 0.5, self.stream.next())

    def state_dict(self) -> dict[str, Any]:
        return {"key": self.stream.key if self.saves else Key(1)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream.key = state["key"]


class TestResumption:
    def test_layers(self, need: Any) -> None:
        assert_resumes(Counting, X)
        need("torch")
        import torch
        from multidrop_torch import Dropout

        assert_resumes(lambda: Dropout(0.5, seed=1), torch.tensor(X))

    def test_training(self, need: Any) -> None:
        """A step that trains."""
        need("torch")
        import torch
        from multidrop_torch import Dropout

        def make() -> Any:
            torch.manual_seed(0)
            net = torch.nn.Sequential(torch.nn.Linear(15, 8), Dropout(0.5, seed=1), torch.nn.Linear(8, 1))
            optimizer = torch.optim.SGD(net.parameters(), 0.1)

            def step(x: Any) -> Any:
                loss = net(x).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return loss

            step.net = net  # type: ignore[attr-defined]
            return step

        assert_resumes(
            make,
            torch.tensor(X),
            save=lambda step: step.net.state_dict(),
            load=lambda step, state: step.net.load_state_dict(state),
        )

    def test_a_position_that_is_not_saved(self) -> None:
        with pytest.raises(AssertionError, match=r"^saved after 1 calls and loaded, call 1 has another result: values"):
            assert_resumes(lambda: Counting(saves=False), X)

    def test_a_layer_that_is_not_keyed(self) -> None:
        with pytest.raises(AssertionError, match=r"^make: expected the same each time"):
            assert_resumes(lambda: md.Dropout(0.5), X, save=lambda layer: None, load=lambda layer, state: None)

    def test_what_cannot_fail(self) -> None:
        with pytest.raises(AssertionError, match=r"^every call has the same result"):
            assert_resumes(lambda: lambda x: x, X, save=lambda layer: None, load=lambda layer, state: None)

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"^calls: expected an integer above 1; got 1"):
            assert_resumes(Counting, X, calls=1)
        with pytest.raises(ValueError, match=r"^save: expected a function, .* no state_dict or get_weights; got None"):
            assert_resumes(_Bare, X)


class _Bare:
    def __init__(self) -> None:
        self.stream = md.Stream(1)

    def __call__(self, x: Any) -> Any:
        return md.dropout_layer(x, 0.5, self.stream.next())
