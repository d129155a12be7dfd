"""A layer of torch changes nothing else: no buffer, no draw that was not asked for, nothing that others average."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from test_family import one_of_each, values
from torch_programs import layer

import multidrop as md
from multidrop.family import Member

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import AlphaDropout, Dropout, Dropout2d, FeatureAlphaDropout, drop_weights, functional
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = [
    pytest.mark.usefixtures("torch_backend"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch"),
]

SEED = 2**63 + 12345  # which no float holds


def a_model(seed: int | None) -> Any:
    """Layers of several kinds, and a parametrization."""
    net = nn.Sequential(nn.Linear(8, 8), md.Dropout(0.5, seed=seed), nn.BatchNorm1d(8), md.DropPath(0.5, seed=seed))
    net.append(drop_weights(nn.Linear(8, 8), md.family.DropConnect(0.5), seed=seed))
    return net


@contextmanager
def generator_left_alone() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


class TestUnkeyed:
    @one_of_each
    def test_no_state(self, member: Member) -> None:
        layer = md.layer(member)
        X = torch.from_numpy(values(member.example_shape))
        for module in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            module(X)
            assert module.stream is None
            assert not [*module.buffers()]
            assert [*module.state_dict()] == [name for name, _ in module.named_parameters()]
            torch.manual_seed(0)
            first = module(X)
            torch.manual_seed(0)
            assert torch.equal(layer(X), first)

    def test_no_state_in_a_model(self) -> None:
        for seed in (None, 3):
            assert {name.partition(".")[0] for name, _ in a_model(seed).named_buffers()} == {"2"}
        assert not any("stream" in name for name in a_model(None).state_dict())

    @pytest.mark.parametrize("seed", [None, 3])
    def test_built_where_buffers_get_no_memory(self, seed: int | None) -> None:
        """As accelerate's `init_empty_weights(include_buffers=True)` does, by patching `register_buffer`."""
        register = nn.Module.register_buffer

        def to_meta(module: Any, name: str, buffer: Any, persistent: bool = True) -> None:
            register(module, name, buffer, persistent)
            if buffer is not None:
                module._buffers[name] = buffer.to("meta")

        state = a_model(seed).state_dict()
        with patch.object(nn.Module, "register_buffer", to_meta), torch.device("meta"):
            empty = a_model(seed)
        empty.load_state_dict(state, assign=True)
        assert empty(torch.ones(4, 8)).shape == (4, 8)

    def test_a_state_of_a_keyed_layer(self) -> None:
        """Loads, as one of a former version does: an unkeyed layer has no use for a position."""
        layer = Dropout(0.5)
        layer.load_state_dict(Dropout(0.5, seed=3).state_dict())
        assert layer.stream is None

    @pytest.mark.parametrize("compiled", [False, True])
    def test_what_drops_nothing_draws_nothing(self, compiled: bool) -> None:
        """Layers and calls; a keyed layer takes its call."""
        X = torch.ones(4, 8, 2, 2)
        kinds = Dropout, Dropout2d, AlphaDropout, FeatureAlphaDropout, md.DropPath, md.DropBlock, md.GaussianDropout
        idle: list[Callable[..., Any]] = [kind(0.0) for kind in kinds]
        idle += [md.layer(md.family.DropBlock(0.5)).eval(), Dropout(0.5).eval(), Dropout(0.0, inplace=True)]
        idle += [lambda X: md.dropout_layer(X, 0.0), lambda X: md.apply(md.family.GaussianDropout(0.0), X)]
        idle += [lambda X: functional.dropout(X, 0.5, training=False), lambda X: functional.alpha_dropout(X, 0.0, True)]
        if compiled:
            idle = [torch.compile(run, fullgraph=True, backend="aot_eager") for run in idle]
        with generator_left_alone():
            for run in idle:
                assert torch.equal(run(X), X)
            assert torch.equal(md.relu_dropout(-X, 0.0), torch.zeros_like(X))
        layers = [kind(0.0, seed=3) for kind in kinds]
        for module in layers:
            (torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module)(X)
            assert module.stream.tolist() == [3, 1]

    def test_the_last_mask_at_no_rate(self) -> None:
        layer = Dropout(0.5)
        layer(torch.ones(8))
        layer.p = 0.0
        layer(torch.ones(4, 2))
        assert md.last_mask(layer).keep().all()
        assert md.last_mask(layer).shape == (4, 2)

    def test_the_last_mask_after_a_program(self) -> None:
        """Is not known of an unkeyed layer, which is an error and not the mask before."""
        layer, X = Dropout(0.5), torch.ones(64)
        run = torch.compile(layer, fullgraph=True, backend="aot_eager")
        kept = layer(X) != 0
        assert np.array_equal(md.last_mask(layer).keep(), kept)
        run(X)
        with pytest.raises(ValueError, match="layer: expected a layer that has dropped something"):
            md.last_mask(layer)
        kept = layer(X) != 0
        assert np.array_equal(md.last_mask(layer).keep(), kept)

    @pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
    def test_exported(self) -> None:
        """With another mask in each run, also of the program's decomposition."""
        for seed in (3, None):
            program = torch.export.export(Dropout(0.5, seed=seed), (torch.ones(64),))
            for run in (program.module(), program.run_decompositions().module()):
                assert len({run(torch.ones(64)).numpy().tobytes() for _ in range(3)}) == 3


class TestAverages:
    """EMA, SWA and federated averaging leave positions whole."""

    def trained(self, seed: int, steps: int) -> Any:
        net = a_model(seed)
        for _ in range(steps):
            net(torch.ones(4, 8))
        return net

    @pytest.mark.parametrize("buffers", [False, True])
    def test_averaged_models(self, buffers: bool) -> None:
        net = self.trained(SEED, 1)
        average = AveragedModel(net, use_buffers=buffers)
        for _ in range(3):
            net(torch.ones(4, 8))
            average.update_parameters(net)
        for index in (1, 3):
            assert self.words(average.module[index], net[index]) == [(SEED, 1), (SEED, 4)]

    def words(self, *layers: Any) -> list[tuple[int, ...]]:
        return [tuple(word % 2**64 for word in layer.stream.tolist()) for layer in layers]

    def test_states_that_are_averaged_in_place(self) -> None:
        """As timm's ModelEmaV2 does: what is written to the tensors of a state dict moves no layer."""
        net = self.trained(SEED, 5)
        average = self.trained(SEED, 2)
        for ours, theirs in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            ours.copy_(0.9 * ours + 0.1 * theirs)
        assert self.words(average[1], average[3]) == [(SEED, 2)] * 2
        assert torch.equal(average[2].num_batches_tracked, torch.tensor(2))  # torch's own, rounded

    @pytest.mark.parametrize("divide", [lambda x: x / 2, lambda x: x.double() / 2, lambda x: x.float().mul(0.5)])
    def test_means_that_are_loaded(self, divide: Callable[[Any], Any]) -> None:
        """Each client stays where it is."""
        clients = [self.trained(SEED, steps) for steps in (1, 3)]
        states = [client.state_dict() for client in clients]
        mean = {name: divide(states[0][name] + states[1][name]) for name in states[0]}
        for client, steps in zip(clients, (1, 3), strict=True):
            client.load_state_dict(mean)
            assert self.words(client[1], client[3]) == [(SEED, steps)] * 2
            assert torch.equal(client[0].weight, mean["0.weight"])


class TestHooks:
    @pytest.mark.parametrize("training", [True, False])
    def test_on_the_layers_of_a_net(self, training: bool) -> None:
        """See the hidden activations, and what is left of them; a hook changes nothing."""
        X = torch.randn(5, 8)
        net, plain = (md.Net(8, 3, 16, 16, seed=1).train(training) for _ in range(2))
        seen: list[tuple[Any, Any]] = []
        for name in ("dropout1", "dropout2"):
            getattr(net, name).register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
        assert torch.equal(net(X), plain(X))
        assert torch.equal(seen[0][0], torch.relu(net.lin1(X)))
        for drop, (H, Y) in zip((net.dropout1, net.dropout2), seen, strict=True):
            assert torch.equal(Y, md.dropout_layer(H, drop.p, md.last_mask(drop).key) if training else H)

    def test_of_other_kinds(self) -> None:
        """Before the forward, around the backward, on all modules, and a forward of the instance's."""
        X, calls = torch.randn(5, 8), []
        net = md.Net(8, 3, 16, 16, seed=1)
        handles = [
            net.dropout1.register_forward_pre_hook(lambda *_: calls.append("pre")),
            net.dropout1.register_full_backward_hook(lambda *_: calls.append("backward")),
            nn.modules.module.register_module_forward_hook(
                lambda module, *_: calls.append("all") if module is net.dropout2 else None
            ),
        ]
        net(X).sum().backward()
        assert calls == ["pre", "all", "backward"]
        for handle in handles:
            handle.remove()
        forward = net.dropout1.forward
        net.dropout1.forward = lambda X: calls.append("own") or forward(X)
        net(X)
        assert calls[3:] == ["own"]


@pytest.mark.parametrize(
    "number", [lambda p: torch.tensor(p), np.float32, np.float64, lambda p: torch.tensor(p, dtype=torch.float64)]
)
def test_rates_as_tensors_and_scalars(number: Callable[[float], Any]) -> None:
    """As torch's own layers take them, at construction and later."""
    X, p = torch.ones(64), number(0.25)
    for drop in (nn.Dropout, lambda p: Dropout(p, seed=3), lambda p: md.DropPath(p, seed=3)):
        layer = drop(number(0.5))
        layer.p = p
        assert layer(X).shape == X.shape
    layer = Dropout(p, seed=3)
    assert torch.equal(layer(X), md.dropout_layer(X, p, 3))
    assert torch.equal(layer(X), md.dropout_layer(X, 0.25, md.Key(3, 1)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_alpha_dropout_is_the_member(dtype: str, p: float) -> None:
    """In every bit."""
    X = torch.randn(4, 8, 6).to(getattr(torch, dtype))
    for kind in (AlphaDropout, FeatureAlphaDropout):
        member = getattr(md.family, kind.__name__)(p)
        assert torch.equal(kind(p, seed=3)(X), md.apply(member, X, 3))
        assert torch.equal(kind(p, inplace=True, seed=3)(X.clone()), md.apply(member, X, 3))


@pytest.mark.parametrize("learned", [-1.0, [-1.0, 0.0, 1.0], np.float64(-1.0), np.zeros((4, 1), np.float32)])
def test_learned_from_the_host(learned: Any) -> None:
    """Host data is taken as a tensor of it is."""
    X, member = torch.from_numpy(values((4, 3))), md.family.ConcreteDropout(0.3)
    expected = md.apply(member, X, 3, learned=torch.as_tensor(learned))
    assert torch.equal(md.apply(member, X, 3, learned=learned), expected)
    with pytest.raises(TypeError, match="learned: expected a tensor of type"):
        md.apply(member, X, 3, learned=1)


@pytest.mark.parametrize("seed", [3, None])
def test_a_module_without_memory(seed: int | None) -> None:
    """On the meta device, and moved there and back, a layer keeps its position, or loads one."""
    with torch.device("meta"):
        built = torch.nn.Sequential(torch.nn.Linear(4, 8), layer(seed))
    moved = layer(seed)
    moved(torch.ones(8))
    assert moved.to("meta").to_empty(device="cpu").stream is None if seed is None else moved.stream.tolist() == [3, 1]
    built.load_state_dict({"0.weight": torch.ones(8, 4), "0.bias": torch.ones(8)}, assign=True)
    assert built(torch.ones(2, 4)).shape == (2, 8)
    if seed is not None:
        assert built.to("cpu")[1].stream.tolist() == [3, 1]
        built[1].to("meta").load_state_dict({"stream": torch.tensor([7, 9])}, assign=True)
        assert built[1].half().stream.tolist() == [7, 9]


def test_a_state_is_copied() -> None:
    """The entry of a state dict moves no layer, and a layer that loads it moves no other."""
    first, second = layer(1), layer(2)
    state = first.state_dict()
    second.load_state_dict(state, assign=True)
    first(torch.ones(8))
    assert second.stream.tolist() == state["stream"].tolist() == [1, 0]
    state["stream"].zero_()
    assert first.stream.tolist() == [1, 1]
    second.load_state_dict({"stream": torch.ones(2, dtype=torch.int64, device="meta")}, assign=True)
    assert second.stream.tolist() == [1, 0]


def test_a_position_keeps_its_type() -> None:
    """Where weights get another one; a state of another type or shape is an error."""
    module = layer().type(torch.float32)
    assert torch.equal(module.stream, torch.tensor([3, 0]))
    for bad in (torch.ones(2, dtype=torch.int32), torch.ones(3, dtype=torch.int64)):
        for assign in (False, True):
            with pytest.raises(RuntimeError, match=r"stream: expected a position, torch\.int64 of shape \(2,\); got"):
                module.load_state_dict({"stream": bad}, assign=assign)
    assert torch.equal(module.stream, torch.tensor([3, 0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_where_new_tensors_have_no_memory(copied: Callable[[Any], Any]) -> None:
    module = layer()
    module(torch.ones(8))
    with torch.device("meta"):
        assert copied(module).stream.tolist() == [3, 1]


@pytest.mark.parametrize("seed", [3, None])
def test_a_call_where_new_tensors_have_no_memory(seed: int | None) -> None:
    """What is drawn and counted is on the host, whatever torch's default device."""
    module, X = layer(seed), torch.ones(4, 16, requires_grad=True)
    many = torch.ones(3, 4, 16)
    with torch.device("meta"):
        Y = module(X)
        assert torch.equal(md.dropout_layer(X, 0.5, md.last_mask(module).key), Y)
        torch.autograd.grad(Y, X, many, is_grads_batched=True)
        assert torch.func.vmap(module, randomness="different")(X).is_cpu


def test_imported_where_new_tensors_have_no_memory() -> None:
    code = """
import torch
import multidrop as md
with torch.device("meta"):
    import multidrop_torch
md.manual_seed(3)
first, second = [md.dropout_layer(torch.ones(64), 0.5) for _ in range(2)]
assert not torch.equal(first, second)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_layer_that_was_built_in_inference_mode() -> None:
    with torch.inference_mode():
        module = layer()
    module.load_state_dict({"stream": torch.tensor([7, 9])})
    assert module.stream.tolist() == [7, 9]


def test_a_keyed_layer_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    layer()(torch.ones(64, 64, requires_grad=True)).sum().backward()
    with torch.no_grad():
        layer()(torch.ones(64, 64))
    assert torch.equal(torch.get_rng_state(), state)


def test_fork_rng() -> None:
    module, X = layer(None), torch.ones(64, 64)
    torch.manual_seed(0)
    with torch.random.fork_rng():
        first = module(X)
    assert torch.equal(module(X), first)


def test_state_of_an_ordinary_dropout_loads() -> None:
    ours = torch.nn.Sequential(torch.nn.Linear(2, 2), layer())
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    ours.load_state_dict(theirs.state_dict())
    assert ours.state_dict()["1.stream"].tolist() == [3, 0]
    torch.nn.Sequential(torch.nn.Linear(2, 2), layer(None)).load_state_dict(theirs.state_dict())
