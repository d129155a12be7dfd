"""`audit` of models of torch: it names every random layer, nothing else, and leaves everything as it was."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audited import names
from members import values

import multidrop as md


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> Any:
        need("torch")
        import torch

        torch.manual_seed(0)
        return torch

    def module(self, torch: Any, forward: Any, **layers: Any) -> Any:
        """A module that holds layers and runs a function of (module, X)."""

        class Module(torch.nn.Module):
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return forward(self, *args, **kwargs)

        module = Module()
        for name, layer in layers.items():
            setattr(module, name, layer)
        return module

    def test_every_random_layer_and_no_other(self, torch: Any) -> None:
        """Whatever makes it random, before, between and behind other layers."""
        from torch.nn import functional as F

        def helper(X: Any) -> Any:
            return X * torch.bernoulli(torch.full_like(X, 0.5))

        def between(module: Any, X: Any) -> Any:
            return module.second(F.dropout(module.first(X), 0.3))

        def quiet(module: Any, X: Any) -> Any:
            return X * torch.bernoulli(torch.ones_like(X))

        model = torch.nn.Sequential(
            self.module(torch, lambda module, X: helper(X)),
            torch.nn.Linear(8, 8),
            self.module(torch, between, first=torch.nn.Linear(8, 8), second=torch.nn.Dropout(0.2)),
            torch.nn.Dropout(0.0),
            self.module(torch, quiet),
            torch.nn.BatchNorm1d(8),
            self.module(torch, lambda module, X: X * random.random()),
            self.module(torch, lambda module, X: X * float(np.random.rand())),
            self.module(torch, lambda module, X: (module.drop(X), X)[1], drop=torch.nn.Dropout(0.5, inplace=True)),
            torch.nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1),
            torch.nn.RReLU(),
            torch.nn.Linear(8, 2),
        )  # fmt: skip
        expected = [
            "0",
            "2",
            "2.second",
            "6",
            "7",
            "8.drop",
            "9.self_attn",
            "9.dropout",
            "9.dropout1",
            "9.dropout2",
            "10",
        ]
        report = md.audit(model, torch.randn(4, 8))
        assert sorted(path for path, _, _ in report.random) == sorted(expected)
        assert {path: what for path, _, what in report.random}["2"] == "the input of 2.second"

    def test_what_is_seldom_random(self, torch: Any) -> None:
        """A branch that is dropped once in a hundred calls of a layer, and one in ten of a function within a layer."""
        drop = self.module(torch, lambda module, X: X * (torch.rand(1) > 0.01))
        block = self.module(
            torch, lambda module, X: module.inner(X) * (torch.rand(1) > 0.1), inner=torch.nn.Linear(4, 4)
        )
        assert names(torch.nn.Sequential(drop, block), torch.randn(1, 4)) == ["0", "1"]

    def test_layers_that_are_skipped(self, torch: Any) -> None:
        """As by LayerDrop: the layer that chooses is random, and so is what drops in the others."""
        inner = [torch.nn.Dropout(0.5) for _ in range(4)]

        def forward(module: Any, X: Any) -> Any:
            for layer in module.layers:
                if torch.rand([]) > 0.5:
                    X = layer(X)
            return X

        model = torch.nn.Sequential(self.module(torch, forward, layers=torch.nn.ModuleList(inner)))
        report = md.audit(model, torch.randn(8, 8))
        assert {path for path, _, _ in report.random} == {"0", *(f"0.layers.{n}" for n in range(4))}
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 8)) == ["0"]

    def test_inputs_and_outputs_of_all_kinds(self, torch: Any) -> None:
        @dataclasses.dataclass
        class Output:
            hidden: Any
            cache: list[Any]
            rest: Any = None

        class Cache:
            def __init__(self) -> None:
                self.keys: list[Any] = []

        def random_(module: Any, output: Any, *, scale: Any) -> Any:
            X = module.drop(output.hidden) * scale["by"][0]
            return Output(torch.nn.functional.dropout(X, 0.5), [X, None, "text"])

        def first(module: Any, X: Any, cache: Any, flag: bool) -> Any:
            cache.keys.append(X)
            assert len(cache.keys) == 1
            return Output(X, [None], flag)

        def last(module: Any, output: Any) -> Any:
            return {"a": (output.hidden, float(output.hidden.sum())), "nan": torch.tensor(float("nan"))}

        first, middle, last = (
            self.module(torch, first),
            self.module(torch, random_, drop=torch.nn.Dropout(0.5)),
            self.module(torch, last),
        )

        def forward(module: Any, X: Any, cache: Any, flag: bool) -> Any:
            return module.last(module.middle(module.first(X, cache, flag), scale={"by": [X.mean()]}))

        model = self.module(torch, forward, first=first, middle=middle, last=last)
        cache = Cache()
        assert names(model, torch.randn(4, 4), cache, flag=True) == ["middle", "middle.drop"]
        assert cache.keys == []

    def test_everything_is_as_it_was(self, torch: Any) -> None:
        """Also after an error."""

        def forward(module: Any, X: Any, fail: bool = False) -> Any:
            module.count += 1
            module.seen.append(X)
            module.table[module.count] = {"x": X}
            module.table["inner"]["more"] = X
            module.plain.add_(1)
            module.new = X
            X = module.drop(module.norm(X)) * torch.rand(4, generator=module.generator)
            if fail:
                raise RuntimeError("fails")
            return X

        norm, drop = torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
        model = self.module(torch, forward, norm=norm, drop=drop).eval()
        norm.train()
        model.count, model.seen, model.table, model.plain = 0, [], {"inner": {}}, torch.zeros(2)
        model.generator = torch.Generator().manual_seed(3)
        md.convert(model, seed=1)
        drop(torch.ones(2))
        X = torch.randn(8, 4)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        generators = torch.get_rng_state(), model.generator.get_state()
        held = [vars(layer).keys() for layer in model.modules()]
        assert names(model, X) == [""]
        with pytest.raises(RuntimeError, match="fails"):
            md.audit(model, X, fail=True)
        assert (model.count, model.seen, model.table) == (0, [], {"inner": {}})
        assert model.plain.tolist() == [0, 0]
        assert (model.training, norm.training, drop.training) == (False, True, False)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), generators[0])
        assert torch.equal(model.generator.get_state(), generators[1])
        assert [vars(layer).keys() for layer in model.modules()] == held
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())

    def test_functions_after_manual_seed(self, torch: Any) -> None:
        """Are keyed, and go on from where they were."""
        model = self.module(torch, lambda module, X: md.dropout_layer(X, 0.5))
        X = torch.ones(64)
        assert names(model, X) == [""]
        md.manual_seed(3)
        assert names(model, X) == []
        after = model(X)
        md.manual_seed(3)
        assert torch.equal(model(X), after)

    def test_hooks_that_drop(self, torch: Any) -> None:
        """Count for the layer that has them, the model too."""
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        model[0].register_forward_hook(lambda layer, args, Y: torch.nn.functional.dropout(Y, 0.5))
        model[2].register_forward_pre_hook(lambda layer, args: (torch.nn.functional.dropout(args[0], 0.5),))
        assert names(model, torch.randn(8, 4)) == ["0", "2"]
        model.register_forward_hook(lambda layer, args, Y: torch.nn.functional.dropout(Y, 0.5))
        assert names(model, torch.randn(8, 4)) == ["", "0", "2"]

    def test_gradients_within_the_model(self, torch: Any) -> None:
        def forward(module: Any, X: Any) -> Any:
            (dX,) = torch.autograd.grad(module.inner(X).sum(), X, create_graph=True)
            return dX

        inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Tanh())
        model = self.module(torch, forward, inner=inner)
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 4, requires_grad=True)) == []

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
    def test_programs_within_the_model(self, torch: Any) -> None:
        """A compiled one is run by its layers; of one that is scripted, the whole is named."""
        compiled = torch.compile(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)), backend="eager")
        scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)))
        found = names(torch.nn.Sequential(compiled, scripted), torch.randn(8, 4))
        assert found == ["0.1", "1"]

    def test_wrappers(self, torch: Any) -> None:
        """Are no layers, and keep their modes."""
        inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        model = torch.nn.DataParallel(torch.nn.Sequential(torch.compile(inner, backend="eager"))).eval()
        assert names(model, torch.randn(8, 4)) == ["0.1"]
        assert not any(module.training for module in model.modules())
        md.compare(model, copy.deepcopy(model), [values((8, 4))])
        assert not any(module.training for module in model.modules())

    def test_lazy_layers(self, torch: Any) -> None:
        model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.Dropout(0.5), torch.nn.LazyBatchNorm1d())
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 3)) == []
        assert model[1].stream.tolist()[1] == 0
        md.restore(model)
        assert names(model, torch.randn(8, 3)) == ["1"]

    def test_keyed_layers_that_are_recomputed(self, torch: Any) -> None:
        """They draw no numbers, and the recomputed call moves no stream."""
        from torch.utils.checkpoint import checkpoint

        def forward(module: Any, X: Any) -> Any:
            return checkpoint(module.inner, X, use_reentrant=False)

        inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        model = self.module(torch, forward, inner=inner)
        assert names(model, torch.randn(8, 4)) == ["inner.1"]
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 4)) == []

    def test_one_layer_at_several_places(self, torch: Any) -> None:
        drop = torch.nn.Dropout(0.5)
        model = torch.nn.Sequential(drop, torch.nn.Linear(4, 4), drop)
        assert names(model, torch.randn(8, 4)) == ["0"]
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 4)) == []

    def test_gpt2_with_fused_attention(self, torch: Any, torchvision: Any) -> None:
        """With the cache that it makes and gives back, and one that it is given."""
        import transformers

        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="sdpa", **sizes))
        X = torch.randint(0, 50, (2, 6))
        inner = [f"transformer.h.0.{name}" for name in ("attn", "attn.resid_dropout", "mlp.dropout")]
        assert names(model, input_ids=X) == ["transformer.drop", *inner]
        md.convert(model, seed=0)
        assert names(model, input_ids=X, labels=X) == inner[:1]
        cache = transformers.DynamicCache()
        assert names(model, X, past_key_values=cache, use_cache=True) == inner[:1]
        assert cache.get_seq_length() == 0

    def test_the_page(self, torch: Any) -> None:
        """The example of docs/drop-in.md prints what the page shows."""
        page = (Path(md.__file__).parents[1] / "docs" / "drop-in.md").read_text(encoding="utf-8")
        section = page.partition("## What else is random")[2]
        (code, shown), printed = re.findall(r"```(?:python|text)\n(.*?)```", section, re.DOTALL)[:2], io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        assert printed.getvalue() == shown
