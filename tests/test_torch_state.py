"""A layer of torch changes nothing else: no buffer, no draw that was not asked for, nothing that others average."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from test_family import one_of_each, values

import multidrop as md
from multidrop.family import Member

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import AlphaDropout, Dropout, Dropout2d, FeatureAlphaDropout, drop_weights, functional
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")

SEED = 2**63 + 12345  # which no float holds


@pytest.fixture(autouse=True)
def torch_backend(need: Any) -> Iterator[None]:
    need("torch")
    torch.compiler.reset()
    with md.use_backend("torch"):
        yield


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
        for layer in layers:
            (torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer)(X)
            assert layer.stream.tolist() == [3, 1]

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
        for layer, (H, Y) in zip((net.dropout1, net.dropout2), seen, strict=True):
            assert torch.equal(Y, md.dropout_layer(H, layer.p, md.last_mask(layer).key) if training else H)

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
