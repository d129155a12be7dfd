"""A p that changes over the steps, in programs that torch compiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import Key
from multidrop.family import oracle, schedules

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")

STEPS = [schedules.linear(0.1, 0.5, 5)(step) for step in range(6)]


@pytest.mark.parametrize("name", ["Dropout", "DropPath", "LockedDropout"])
def test_a_layer_of_a_mask_is_compiled_twice(need: Any, name: str) -> None:
    """With p as a number, and when it first changes, with p as an input. Each step has the bits of its p."""
    need("torch")
    import torch
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    with md.use_backend("torch"):
        layer = getattr(md, name)(STEPS[0], seed=3)
    program = torch.compile(layer, fullgraph=True, backend=counter)
    x, dy = (np.random.default_rng(n).normal(size=(6, 5, 4)).astype(np.float32) for n in range(2))
    for call, p in enumerate(STEPS):
        layer.p = p
        X = torch.from_numpy(x).requires_grad_()
        Y = program(X)
        (dX,) = torch.autograd.grad(Y, X, torch.from_numpy(dy))
        member = getattr(md.family, name)(p)
        assert np.array_equal(Y.detach(), oracle.apply(member, x, Key(3, call)))
        assert np.array_equal(dX, oracle.apply(member, dy, Key(3, call)))
    assert counter.frame_count == 2


def test_a_function_is_compiled_twice(need: Any) -> None:
    need("torch")
    import torch
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    program = torch.compile(lambda X, p: md.dropout_layer(X, p, 3), fullgraph=True, backend=counter)
    X = torch.linspace(-1.0, 1.0, 100)
    for p in STEPS:
        assert torch.equal(program(X, p), md.dropout_layer(X, p, 3))
    assert counter.frame_count == 2
