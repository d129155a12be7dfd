"""How p changes over the steps of training, and programs that see it without being compiled anew."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from members import values

import multidrop as md
from multidrop import Key, family
from multidrop.family import oracle, schedules
from multidrop.testing import same_bits


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


STEPS = [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1.0]
KEY = Key(7, 3)
member = family.VariableDropout()


def agree(name: str, p: float, y: np.ndarray, dx: np.ndarray, x: np.ndarray, dy: np.ndarray) -> None:
    """Checks an output and a gradient against those of the dropout with a constant p."""
    constant = family.Dropout(p)
    assert same_bits(y, oracle.apply(constant, x, KEY)), (name, p)
    assert same_bits(dx, oracle.apply(constant, dy, KEY, gradient=True)), (name, p)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
class TestVariableDropout:
    """Has the bits of `Dropout` at each p, in one program."""

    def arrays(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        x, dy = (values((50, 7), dtype, seed) for seed in range(2))
        return x, dy

    def test_numpy(self, need: Any, dtype: str) -> None:
        need("numpy")
        x, dy = self.arrays(dtype)
        for p in STEPS:
            y, dx = (md.apply(member, each, KEY, learned=np.array(p)) for each in (x, dy))
            agree("numpy", p, y, dx, x, dy)
            assert same_bits(md.apply(family.VariableDropout(p), x, KEY), y)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
    def test_torch(self, need: Any, dtype: str) -> None:
        need("torch")
        import torch
        from torch._dynamo.testing import CompileCounterWithBackend

        def function(X: Any, p: Any) -> Any:
            return md.apply(member, X, KEY, learned=p)

        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        x, dy = self.arrays(dtype)
        for run in (function, torch.compile(function, fullgraph=True, backend=counter)):
            rate, counts = torch.zeros((), dtype=torch.float64), set()
            for p in STEPS:
                X = torch.from_numpy(x).requires_grad_()
                Y = run(X, rate.fill_(p))
                (dX,) = torch.autograd.grad(Y, X, torch.from_numpy(dy))
                agree("torch", p, Y.detach().numpy(), dX.numpy(), x, dy)
                counts.add(counter.frame_count)
            assert len(counts) == 1  # all in the first run
        assert counter.frame_count

    def test_tensorflow(self, need: Any, dtype: str) -> None:
        need("tensorflow")
        import tensorflow as tf

        x, dy = self.arrays(dtype)
        for options in (None, {}, {"jit_compile": True}):
            rate = tf.Variable(0.0, dtype=tf.float64)

            def both(X: Any, dY: Any, rate: Any = rate) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(X)
                    Y = md.apply(member, X, KEY, learned=rate)
                return Y, tape.gradient(Y, X, output_gradients=dY)

            run = both if options is None else tf.function(both, autograph=False, **options)
            for p in STEPS:
                rate.assign(p)
                Y, dX = run(tf.constant(x), tf.constant(dy))
                agree(f"tensorflow {options}", p, Y.numpy(), dX.numpy(), x, dy)
            assert options is None or run.experimental_get_tracing_count() == 1

    def test_mxnet(self, need: Any, dtype: str) -> None:
        need("mxnet")
        import mxnet as mx

        x, dy = self.arrays(dtype)
        rate = mx.np.zeros((1,), dtype="float64")
        X = mx.np.array(x, dtype=dtype)
        X.attach_grad()
        for p in STEPS:
            rate[:] = p
            with mx.autograd.record():
                Y = md.apply(member, X, KEY, learned=rate)
            Y.backward(mx.np.array(dy, dtype=dtype))
            agree("mxnet", p, Y.asnumpy(), X.grad.asnumpy(), x, dy)


def test_the_gradient_of_a_p() -> None:
    """Is the slope of the scale, by differences within one mask."""
    x, dy, p = values((50, 7), np.float64), values((50, 7), np.float64, 1), np.array(0.25)
    ends = [(oracle.apply(member, x, KEY, learned=p + step) * dy).sum() for step in (1e-9, -1e-9)]
    assert oracle.learned_gradient(member, dy, x, p, KEY) == pytest.approx((ends[0] - ends[1]) / 2e-9, rel=1e-5)
