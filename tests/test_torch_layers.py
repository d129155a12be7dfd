"""What torch alone has of layers of the family: programs, checkpointing, dropped weights, and a learned p."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from members import CLASSES, one_of_each, values
from placed import PLACE, tensor

import multidrop as md
from multidrop import Key, family
from multidrop.family import Member

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")


@pytest.fixture(autouse=True)
def torch(need: Any) -> Iterator[Any]:
    need("torch")
    import torch

    torch._dynamo.reset()
    with md.use_backend("torch"):
        yield torch


def expected(torch: Any, member: Member, X: Any, call: int, layer: Any) -> Any:
    """What `md.apply` gives, by the logit of a layer that learns it."""
    return md.apply(member, X, Key(3, call), learned=getattr(layer, "logit", None))


class TestModule:
    @one_of_each
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_types(self, torch: Any, member: Member, dtype: str) -> None:
        layer = md.layer(member, seed=3)
        X = tensor(values(member.example_shape)).to(getattr(torch, dtype))
        assert torch.equal(layer(X), expected(torch, member, X, 0, layer))

    def test_a_compiled_program_is_no_export(self, torch: Any) -> None:
        """Though torch 2.11 says so in both: an export takes and drops in more operators."""
        found: list[str] = []

        def note(graph: Any, inputs: Any) -> Any:
            found.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
            return graph.forward

        X = tensor(np.ones((4, 8), np.float32)).requires_grad_()
        torch.compile(md.Dropout(0.5, seed=3), backend=note, fullgraph=True)(X)
        assert found == ["multidrop.position.default", "multidrop.dropout.default"]
        if PLACE == "cpu":  # elsewhere torch has a default device, of which its export may know nothing
            exported = torch.export.export(md.Dropout(0.5, seed=3), (X.detach(),))
            assert "multidrop.take_exported.default" in {str(node.target) for node in exported.graph.nodes}

    @one_of_each
    def test_copies(self, torch: Any, member: Member) -> None:
        """Go their own way from where the layer was."""
        layer = md.layer(member, seed=3)
        X = tensor(values(member.example_shape))
        layer(X)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)).to(PLACE)):  # which is on the host
            assert repr(other) == repr(layer)
            assert other.stream.device == layer.stream.device
            assert torch.equal(other(X), expected(torch, member, X, 1, layer))
        assert [*layer.state_dict()][-1] == "stream"
        assert "stream" not in md.layer(member).state_dict()
        assert layer.eval()(X) is X
        assert layer.stream.tolist() == [3, 1]

    def test_a_copy_is_where_the_layer_is(self, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not on the host, where a captured graph refuses it."""
        from multidrop_torch.keyed import Keyed

        moved: list[Any] = []
        layer, free = md.Dropout(0.5, seed=3), md.Dropout(0.5)
        monkeypatch.setattr(Keyed, "_move", lambda self, place: moved.append((self, place)))
        other = copy.deepcopy(layer)
        assert moved == [(other, layer.stream.device)]
        assert other.stream is not layer.stream
        assert copy.deepcopy(free).stream is None
        assert len(moved) == 1

    @one_of_each
    @pytest.mark.parametrize("reentrant", [False, True])
    @pytest.mark.parametrize("seed", [3, None])
    def test_checkpointing(self, torch: Any, member: Member, reentrant: bool, seed: int | None) -> None:
        """What is recomputed has the numbers of the first time, and takes no call."""
        from torch.utils.checkpoint import checkpoint

        grads = []
        for part in (lambda f, X: checkpoint(f, X, use_reentrant=reentrant), lambda f, X: f(X)):
            layer = md.layer(member, seed=seed)
            X = tensor(values((64, *member.example_shape[1:]))).requires_grad_()
            torch.manual_seed(0)
            for _ in range(2 if seed else 1):
                Y = part(lambda X, layer=layer: layer(X.sin()).cos(), X)
                Y.sum().backward()
            grads.append(X.grad)
            assert not seed or layer.stream.tolist() == [3, 2]
        assert torch.equal(*grads)

    @one_of_each
    def test_settings_that_change(self, torch: Any, member: Member) -> None:
        """Are those of the next call, compiled too: the first setting is set to several values."""
        layer, name = md.layer(member, seed=3), dataclasses.fields(member)[0].name
        program = torch.compile(layer, fullgraph=True, backend="aot_eager")
        X = tensor(values(member.example_shape))
        for call, value in enumerate((0.5, 0.25, 0.125, 0.5)):
            if hasattr(layer, "p"):
                layer.p = value
            else:
                layer.member = dataclasses.replace(layer.member, **{name: value})
            other = dataclasses.replace(member, **{name: value})
            torch.testing.assert_close(program(X), expected(torch, other, X, call, layer), rtol=1e-6, atol=1e-6)

    def test_bad_settings(self, torch: Any) -> None:
        layer = md.DropPath(0.5, seed=1)
        with pytest.raises(ValueError, match=r"p: expected a probability, a number in \[0, 1\]; got 2"):
            layer.p = 2
        with pytest.raises(AttributeError, match="'GaussianNoise' object has no attribute 'p'"):
            _ = md.GaussianNoise().p
        with pytest.raises(TypeError, match="X: expected a tensor of type"):
            layer.eval()([1.0])
        with pytest.raises(ValueError, match=r"X: expected 3 to 5 dimensions"):
            md.DropBlock(seed=1)(torch.ones(3, 4))

    @pytest.mark.parametrize("kind", CLASSES)
    def test_native_classes(self, kind: type[Member]) -> None:
        """Are what `md.layer` gives; those with a name of torch's are torch's."""
        import multidrop_torch

        native = getattr(multidrop_torch, kind.__name__, None)
        if native is None:  # a member needs no class of its own
            assert type(md.layer(kind(), seed=1)) is multidrop_torch.MemberLayer
            return
        if kind.__name__ in ("Dropout", "AlphaDropout", "FeatureAlphaDropout"):
            return
        assert type(md.layer(kind(), seed=1)) is native
        assert inspect.signature(native) == inspect.signature(getattr(md, kind.__name__))
        assert native.__doc__

        class Own(native):
            """A user's."""

        assert repr(Own(seed=1)) == repr(md.layer(kind(), seed=1))
        assert type(md.layer(kind(), seed=1)) is native
        assert Own.__doc__ == "A user's."

    def test_on_the_meta_device_and_moved(self, torch: Any) -> None:
        with torch.device("meta"):
            layers = md.DropPath(0.5, seed=3), md.ConcreteDropout(seed=3)
        assert repr(layers[1]) == "ConcreteDropout(p=0.1, temperature=0.1, seed=3)"
        for layer in layers:
            assert layer.to_empty(device="cpu").stream.tolist() == [3, 0]
            assert layer.double().stream.dtype == torch.int64


class TestWeights:
    MODULES = (
        ("Linear", (4, 5), (2, 4)),
        ("Conv1d", (4, 5, 3), (2, 4, 6)),
        ("Conv2d", (4, 5, 3), (2, 4, 6, 6)),
        ("Conv3d", (4, 5, 2), (2, 4, 4, 4, 4)),
    )

    @pytest.mark.parametrize(("name", "arguments", "shape"), MODULES)
    @pytest.mark.parametrize("compiled", [False, True])
    def test_modules(self, torch: Any, name: str, arguments: Any, shape: Any, compiled: bool) -> None:
        """Compute with the weight of each call; the gradient reaches what was kept."""
        from multidrop_torch import drop_weights

        plain = getattr(torch.nn, name)(*arguments)
        module = drop_weights(copy.deepcopy(plain), family.DropConnect(0.5), seed=3)
        program = torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module
        X = tensor(values(shape))
        for call in range(2):
            weight = md.apply(family.DropConnect(0.5), plain.weight, Key(3, call))
            Y = torch.func.functional_call(plain, {"weight": weight}, X)
            torch.testing.assert_close(program(X), Y, rtol=1e-6, atol=1e-6)
        module.zero_grad()
        program(X).sum().backward()
        original = module.parametrizations.weight.original
        kept = tensor(md.keep_mask(original.shape, 0.5, Key(3, 2)))
        assert torch.equal(original.grad != 0, kept)
        assert torch.equal(module.eval().weight, plain.weight)
        assert module.parametrizations.weight[0].stream.tolist() == [3, 3]

    def test_state_and_removal(self, torch: Any) -> None:
        from multidrop_torch import drop_weights
        from torch.nn.utils import parametrize

        def build() -> Any:
            return drop_weights(torch.nn.Linear(4, 5), family.DropConnect(0.5), seed=3)

        first, second, X = build(), build(), torch.ones(2, 4)
        first(X)
        second.load_state_dict(first.state_dict())
        assert torch.equal(copy.deepcopy(first)(X), second(X))
        original = second.parametrizations.weight.original.detach().clone()
        parametrize.remove_parametrizations(second.eval(), "weight", leave_parametrized=False)
        assert torch.equal(second.weight, original)
        assert type(second) is torch.nn.Linear

    def test_by_torchs_own_function(self, torch: Any) -> None:
        """Which takes a call to see what a layer gives, unless it is told not to."""
        from multidrop_torch import DropConnect
        from torch.nn.utils.parametrize import register_parametrization

        for unsafe in (False, True):
            module = register_parametrization(torch.nn.Linear(4, 5), "weight", DropConnect(0.5, seed=3), unsafe=unsafe)
            original = module.parametrizations.weight.original
            key = Key(3, 0 if unsafe else 1)
            assert torch.equal(module.weight, md.apply(family.DropConnect(0.5), original, key))
            module.weight = torch.zeros(5, 4)
            assert not original.any()

    def test_words(self, torch: Any) -> None:
        """A word that is dropped is so wherever it stands in a batch."""
        from multidrop_torch import drop_weights

        module = drop_weights(torch.nn.Embedding(11, 3), family.EmbeddingDropout(0.5), seed=3)
        words = torch.tensor([[0, 1, 2, 1], [5, 0, 10, 1]])
        kept = tensor(md.keep_mask((11, 1), 0.5, Key(3)))[words]
        assert torch.equal(module(words) != 0, kept.expand(2, 4, 3))

    @pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
    def test_recurrent_modules(self, torch: Any, name: str) -> None:
        """Drop hidden-to-hidden weights, one mask a forward, and keep their parameters."""
        from multidrop_torch import drop_weights

        member = family.DropConnect(0.5)
        plain = getattr(torch.nn, name)(4, 5, 2, bidirectional=True)
        module = drop_weights(copy.deepcopy(plain), member, seed=3)
        hidden = [name for name, _ in plain.named_parameters() if name.startswith("weight_hh")]
        assert len(hidden) == 4
        X = tensor(values((6, 3, 4)))
        for call in range(3):
            reference = copy.deepcopy(plain)
            for weight in hidden:
                key = Key(Key(3).fold_in(weight).seed, call)
                getattr(reference, weight).data = md.apply(member, getattr(plain, weight), key).detach()
            Y, _ = module(X)
            assert torch.equal(Y, reference(X)[0])
            module = copy.deepcopy(module).double().float()
        module.zero_grad()
        module(X)[0].sum().backward()
        for weight in hidden:
            key = Key(Key(3).fold_in(weight).seed, 3)
            assert (
                not getattr(module, weight)
                .grad[~tensor(md.keep_mask((len(getattr(module, weight)), 5), 0.5, key))]
                .any()
            )
            assert getattr(module, weight + "_dropout").stream[1] == 4
        assert torch.equal(module.eval()(X)[0], plain(X)[0])

    def test_a_forward_that_fails(self, torch: Any) -> None:
        """Leaves a recurrent module with its parameters."""
        from multidrop_torch import drop_weights

        module = drop_weights(torch.nn.LSTM(4, 5), family.DropConnect(0.5), seed=3)
        with pytest.raises(RuntimeError, match="input"):
            module(torch.ones(2, 2, 3))
        assert all(
            weight is getattr(module, name)
            for name, weight in zip(module._flat_weights_names, module._flat_weights, strict=True)
        )

    def test_cells_and_named_weights(self, torch: Any) -> None:
        from multidrop_torch import drop_weights

        cell = drop_weights(torch.nn.LSTMCell(4, 5), family.DropConnect(0.5), seed=3)
        assert [*cell.parametrizations] == ["weight_hh"]
        attention = drop_weights(torch.nn.MultiheadAttention(4, 2), family.DropConnect(0.5), "in_proj_weight", seed=3)
        assert [*attention.parametrizations] == ["in_proj_weight"]
        md.manual_seed(5)
        both = drop_weights(torch.nn.LSTMCell(4, 5), family.DropConnect(0.5), "weight_hh", "weight_ih")
        seeds = [layers[0].stream[0].item() % 2**64 for layers in both.parametrizations.values()]
        assert seeds == [Key(5).fold_in("dropout").fold_in(number).seed for number in range(2)]

    def test_bad_arguments(self, torch: Any) -> None:
        from multidrop_torch import drop_weights

        member = family.DropConnect(0.5)
        linear = torch.nn.Linear(4, 5)
        for names in (("weights",), ("weight", "other")):
            with pytest.raises(ValueError, match="names: expected some of weight, bias; got"):
                drop_weights(linear, member, *names)
        with pytest.raises(ValueError, match="names: expected some of none; got"):
            drop_weights(torch.nn.ReLU(), member)
        with pytest.raises(ValueError, match=r"member: expected a member of multidrop\.family; got 0\.5"):
            drop_weights(linear, 0.5)
        with pytest.raises(ValueError, match="seed: expected an integer"):
            drop_weights(linear, member, seed=-1)
        with pytest.raises(ValueError, match="module: expected one with sparse=False; got"):
            drop_weights(torch.nn.Embedding(4, 5, sparse=True), member)
        recurrent = drop_weights(torch.nn.LSTM(4, 5), member)
        with pytest.raises(ValueError, match="names: expected weights that nothing drops yet; got weight_hh_l0"):
            drop_weights(recurrent, member)
        assert type(linear) is torch.nn.Linear


class TestConcrete:
    @pytest.mark.parametrize("compiled", [False, True])
    def test_gradients(self, torch: Any, compiled: bool) -> None:
        layer = md.ConcreteDropout(0.2, temperature=0.5, seed=3)
        program = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
        X = tensor(values((5, 4))).requires_grad_()
        program(X).square().sum().backward()
        logit, Z = layer.logit.detach().clone().requires_grad_(), X.detach().clone().requires_grad_()
        md.apply(layer.member, Z, Key(3), learned=logit).square().sum().backward()
        torch.testing.assert_close(layer.logit.grad, logit.grad)
        torch.testing.assert_close(X.grad, Z.grad)

    def test_the_regularizer(self, torch: Any) -> None:
        """Is equation 3 of the paper, of the weight before it is scaled."""
        layer, weight = md.ConcreteDropout(0.3), tensor(values((6, 5), np.float64))
        p = 0.3
        M = weight / (1 - p)
        entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
        for scale in (1.0, 0.01):
            told = scale**2 * (1 - p) / 2 * M.square().sum() - 5 * entropy
            torch.testing.assert_close(layer.regularizer(weight, length_scale=scale), told, rtol=1e-6, atol=1e-6)
        with pytest.raises(ValueError, match="length_scale: expected a finite number of at least 0; got -1"):
            layer.regularizer(weight, length_scale=-1)

    def test_p_is_learned(self, torch: Any) -> None:
        """Towards 1/2, the highest entropy, where the weight costs nothing."""
        layer = md.ConcreteDropout(0.1, seed=3)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(100):
            optimizer.zero_grad()
            layer.regularizer(torch.zeros(3, 4)).backward()
            optimizer.step()
        assert layer.p == pytest.approx(0.5, abs=1e-3)
        assert repr(layer) == "ConcreteDropout(p=0.5, temperature=0.1, seed=3)"
        layer.p = 0.25
        assert layer.logit.item() == pytest.approx(np.log(1 / 3))
        with pytest.raises(ValueError, match="p: expected a probability above 0, to be learned; got"):
            layer.p = 0.0
