"""Activation checkpointing changes nothing: neither masks, nor positions, nor the random numbers of others."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from test_family import one_of_each, values

import multidrop as md
from multidrop.family import Member

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import Dropout
    from torch import nn
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.checkpoint import (
        CheckpointPolicy,
        checkpoint,
        checkpoint_sequential,
        create_selective_checkpoint_contexts,
        set_checkpoint_early_stop,
    )
    from torch.utils.flop_counter import FlopCounterMode

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")


@pytest.fixture(autouse=True)
def torch_backend(need: Any) -> None:
    need("torch")
    torch.compiler.reset()


def blocks(others: float = 0.3) -> Any:
    """Three, two of which have the same seed; each calls its layer twice, around one of torch's own."""

    class Block(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.linear, self.ours, self.theirs = nn.Linear(8, 8), Dropout(0.5, seed=seed), nn.Dropout(others)

        def forward(self, X: Any) -> Any:
            return self.ours(torch.tanh(self.theirs(self.ours(self.linear(X))))) + X

    torch.manual_seed(0)
    return nn.Sequential(Block(1), Block(1), Block(2))


def trained(run: Callable[[Any, Any], Any], net: Any) -> tuple[list[float], list[list[int]], Any]:
    """Losses and gradients of three steps; then the positions and torch's generator."""
    torch.manual_seed(1)
    optimizer, found = torch.optim.SGD(net.parameters(), 0.1), []
    for _ in range(3):
        X = torch.ones(16, 8, requires_grad=True)
        loss = run(net, X).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found += [loss.item(), X.grad.sum().item()]
    return found, [block.ours.stream.tolist() for block in net], torch.get_rng_state()


def plain(net: Any, X: Any) -> Any:
    return net(X)


def each(**options: Any) -> Callable[[Any, Any], Any]:
    """Each block is a part."""

    def run(net: Any, X: Any) -> Any:
        for block in net:
            X = checkpoint(block, X, **options)
        return X

    return run


def nested(outer: bool, inner: bool) -> Callable[[Any, Any], Any]:
    return lambda net, X: checkpoint(lambda X: each(use_reentrant=inner)(net, X), X, use_reentrant=outer)


def selective(save: str) -> Callable[[Any, Any], Any]:
    """Keeps what operators with a name give."""

    def policy(context: Any, operator: Any, *_: Any, **__: Any) -> Any:
        return CheckpointPolicy.MUST_SAVE if save in str(operator) else CheckpointPolicy.PREFER_RECOMPUTE

    return each(use_reentrant=False, context_fn=functools.partial(create_selective_checkpoint_contexts, policy))


def counted(reentrant: bool) -> Callable[[Any, Any], Any]:
    """A dispatch mode is around the forward alone."""

    def run(net: Any, X: Any) -> Any:
        with FlopCounterMode(display=False):
            return each(use_reentrant=reentrant)(net, X)

    return run


def packed(within: bool) -> Callable[[Any, Any], Any]:
    """Hooks on saved tensors, which are no functions, around the parts or within them."""
    same = functools.partial(lambda _, X: X, None)

    def hooked(block: Any, X: Any) -> Any:
        with saved_tensors_hooks(same, same):
            return block(X)

    def run(net: Any, X: Any) -> Any:
        if not within:
            return hooked(functools.partial(each(use_reentrant=False), net), X)
        for block in net:
            X = checkpoint(hooked, block, X, use_reentrant=False)
        return X

    return run


def whole(net: Any, X: Any) -> Any:
    with set_checkpoint_early_stop(False):
        return each(use_reentrant=False)(net, X)


WAYS = {
    "reentrant": lambda: each(use_reentrant=True),
    "not reentrant": lambda: each(use_reentrant=False),
    "debug": lambda: each(use_reentrant=False, debug=True),
    "without early stop": lambda: whole,
    "two segments": lambda: lambda net, X: checkpoint_sequential(net, 2, X, use_reentrant=False),
    "two segments, reentrant": lambda: lambda net, X: checkpoint_sequential(net, 2, X, use_reentrant=True),
    "matrices saved": lambda: selective("addmm"),
    "our output saved": lambda: selective("multidrop"),
    "counted": lambda: counted(False),
    "counted, reentrant": lambda: counted(True),
    "hooks around": lambda: packed(False),
    "hooks within": lambda: packed(True),
} | {
    f"{'reentrant' if inner else 'not'} in {'reentrant' if outer else 'not'}": functools.partial(nested, outer, inner)
    for outer in (False, True)
    for inner in (False, True)
}


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same(way: str) -> None:
    """Losses, gradients, positions, and torch's generator, which another layer uses."""
    losses, positions, generator = trained(WAYS[way](), blocks())
    expected, moved, state = trained(plain, blocks())
    assert losses == expected
    assert positions == moved
    assert torch.equal(generator, state)


@one_of_each
@pytest.mark.parametrize("seed", [3, None])
def test_members_under_a_mode(member: Member, seed: int | None) -> None:
    """A mode around the forward, and a recomputation without it, change no value and no draw."""
    found = []
    with md.use_backend("torch"):
        layers = [md.layer(member, seed=seed) for _ in range(2)]
    for layer, run in zip(layers, (lambda part, X: part(X), checkpoint), strict=True):
        X = torch.from_numpy(values(member.example_shape)).requires_grad_()
        torch.manual_seed(0)
        with FlopCounterMode(display=False) if run is checkpoint else nullcontext():
            options = {"use_reentrant": False} if run is checkpoint else {}
            Y = run(lambda X, layer=layer: layer(layer(X.sin()).cos()).tanh(), X, **options)
        Y.sum().backward()
        found.append((Y, X.grad, torch.get_rng_state()))
    assert all(torch.equal(ours, plain) for plain, ours in zip(*found, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_without_the_state_of_the_generator(reentrant: bool) -> None:
    run = each(use_reentrant=reentrant, preserve_rng_state=False)
    assert trained(run, blocks(0.0))[:2] == trained(plain, blocks(0.0))[:2]


@pytest.mark.parametrize("kind", [Dropout, nn.Dropout] if torch is not None else [])
def test_without_a_key_or_the_state_of_the_generator(kind: Any) -> None:
    """Nothing names the first mask, with torch's own layers as with these."""
    layer, X = kind(0.5), torch.ones(64, requires_grad=True)
    Y = checkpoint(lambda X: layer(X).sin(), X, use_reentrant=True, preserve_rng_state=False)
    Y.sum().backward()
    assert not torch.equal(Y != 0, X.grad != 0)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_blocks_in_parts(reentrant: bool, compiler: str) -> None:
    net = blocks(0.0)
    expected, moved, _ = trained(plain, copy.deepcopy(net))
    for block in net:
        block.compile(backend=compiler)
    losses, positions, _ = trained(each(use_reentrant=reentrant), net)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert positions == moved


def test_several_backward_passes() -> None:
    """Each recomputes with the masks of the first run."""
    net, X = blocks(0.0), torch.ones(16, 8, requires_grad=True)
    other = copy.deepcopy(net)
    Y = each(use_reentrant=False)(net, X)
    gradients = [torch.autograd.grad(Y.sum(), X, retain_graph=True)[0] for _ in range(2)]
    expected = torch.autograd.grad(other(X).sum(), X)[0]
    assert all(torch.equal(gradient, expected) for gradient in gradients)


def test_a_saved_tensor_that_is_looked_at() -> None:
    """Recomputes outside of a backward pass, and takes no call."""
    layer, X = Dropout(0.5, seed=5), torch.ones(64, requires_grad=True)
    Y = checkpoint(lambda X: layer(X).sin(), X, use_reentrant=False)
    assert torch.equal(Y.grad_fn._saved_self, md.dropout_layer(X, 0.5, 5))
    assert layer.stream.tolist() == [5, 1]


def test_a_layer_that_is_keyed_anew_before_the_backward_pass() -> None:
    layer, X = Dropout(0.5, seed=5), torch.ones(64, requires_grad=True)
    Y = checkpoint(lambda X: layer(X).sin(), X, use_reentrant=False)
    layer.load_state_dict(Dropout(0.5, seed=6).state_dict())
    with pytest.raises(RuntimeError, match="expected the keys that the first run of a checkpointed part took, 0 of"):
        Y.sum().backward()


def test_a_backward_pass_that_recomputes_by_other_means() -> None:
    """Tells nobody which call it repeats."""
    layer = Dropout(0.5, seed=5)

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, X: Any) -> Any:
            ctx.save_for_backward(X)
            return layer(X)

        @staticmethod
        def backward(ctx: Any, dY: Any) -> Any:
            return layer(*ctx.saved_tensors) * dY

    with pytest.raises(RuntimeError, match="got a keyed dropout in a backward pass"):
        Own.apply(torch.ones(64, requires_grad=True)).sum().backward()


def test_modes_see_what_drops() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(operator.name())
            return operator(*args, **(kwargs or {}))

    for layer in (Dropout(0.5, seed=5), Dropout(0.5)):
        names: list[str] = []
        X = torch.ones(64, requires_grad=True)
        with Names():
            Y = layer(X)
        assert "multidrop::drop" in names
        assert torch.equal(Y, md.dropout_layer(X, 0.5, md.last_mask(layer).key))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("constant", [False, True], ids=["", "of what needs no gradient"])
def test_a_program_that_recomputes_takes_a_mask_once(compiler: str, seed: int | None, constant: bool) -> None:
    """`torch.utils.checkpoint` within `torch.compile`: the gradient has the output's mask, and one call is taken."""
    module, ones = Dropout(0.5, seed=seed), torch.ones(64)

    def part(X: torch.Tensor) -> torch.Tensor:
        return (module(ones) * X if constant else module(X)).square().sin()

    torch._dynamo.reset()
    program = torch.compile(
        lambda X: checkpoint(part, X, use_reentrant=False), backend=compiler, fullgraph=True, dynamic=False
    )
    for call in range(2):
        X = torch.ones(64, requires_grad=True)
        Y = program(X)
        Y.sum().backward()
        assert X.grad is not None
        assert torch.equal(Y != 0, X.grad != 0)
        if seed is not None:
            assert np.array_equal((Y != 0).numpy(), md.keep_mask(64, 0.5, md.Key(seed, call)))
            assert module.stream.tolist() == [seed, call + 1]


def test_checkpointed_parts_that_begin_at_one_state_of_the_generator() -> None:
    module, inputs, outputs = Dropout(0.5, seed=1), [], []
    for reentrant in (False, False, True, True):
        torch.manual_seed(0)
        inputs.append(torch.ones(64, requires_grad=True))
        outputs.append(checkpoint(lambda X: module(X).square(), inputs[-1], use_reentrant=reentrant))
    torch.stack(outputs).sum().backward()
    for call, (X, Y) in enumerate(zip(inputs, outputs, strict=True)):
        assert torch.equal(Y != 0, X.grad != 0)
        assert np.array_equal((Y != 0).numpy(), md.keep_mask(64, 0.5, md.Key(1, call)))


def test_a_module_that_checkpoints_itself() -> None:
    from torch.distributed._composable import checkpoint as checkpoint_itself

    net = torch.nn.Sequential(torch.nn.Linear(8, 8), Dropout(0.5, seed=1), torch.nn.Tanh())
    plain, X = copy.deepcopy(net), torch.rand(4, 8, requires_grad=True)
    checkpoint_itself(net)
    gradients = [torch.autograd.grad(module(X).square().sum(), X)[0] for module in (net, plain)]
    assert torch.equal(*gradients)
    assert net[1].stream.tolist() == [1, 1]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("seed", [3, None])
def test_activation_checkpointing(reentrant: bool, seed: int | None) -> None:
    """A layer draws the same masks when it is recomputed, in parts with several calls, nested ones too, and a keyed one
    is afterwards where it would be without."""

    def run(part: Callable[..., Any]) -> tuple[Any, Any]:
        torch.manual_seed(0)
        module = Dropout(0.5, seed=seed)
        X = torch.ones(64, 64, requires_grad=True)
        Y = part(lambda X: module(module(X).tanh()) + part(module, X).tanh(), X)
        Y = part(lambda Y: module(Y).sin(), Y)
        Y.square().sum().backward()
        return X.grad, module.stream

    def checkpointed(function: Any, X: Any) -> Any:
        return checkpoint(function, X, use_reentrant=reentrant)

    plain, position = run(lambda function, X: function(X))
    recomputed, moved = run(checkpointed)
    assert torch.equal(recomputed, plain)
    assert moved is position is None if seed is None else torch.equal(moved, position)
