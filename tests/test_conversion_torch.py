"""Models of torch get this library's layers, and their own back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.spec import masks


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> None:
        need("torch")

    def model(self) -> Any:
        import torch
        from torch import nn

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.drop = nn.Dropout(0.1)
                self.again = self.drop  # shared
                self.list = nn.ModuleList([nn.Dropout2d(0.2), nn.ReLU()])
                self.dict = nn.ModuleDict({"alpha": nn.AlphaDropout(0.3)})
                self.rate = 0.4

            def forward(self, X: Any) -> Any:
                X = self.again(self.dict["alpha"](self.drop(X)))
                return torch.nn.functional.dropout(X, self.rate, self.training)

        return nn.Sequential(nn.Linear(8, 8), Block(), nn.Dropout(0.5, inplace=True), nn.Linear(8, 2))

    def test_every_layer_is_replaced_and_restored(self) -> None:
        import multidrop_torch
        import torch

        model = self.model()
        before = {name: type(module) for name, module in model.named_modules()}
        held = model[2]
        state = model.state_dict()
        report = md.convert(model)
        assert [path for path, _ in report.replaced] == ["1.drop", "1.list.0", "1.dict.alpha", "2"]
        assert report.unreached == ()
        assert str(report).endswith("md.audit(model, *inputs) names whatever else is random.")
        assert isinstance(held, multidrop_torch.Dropout)
        assert (held.p, held.inplace) == (0.5, True)
        assert model[1].drop is model[1].again
        model.load_state_dict(state)
        model(torch.ones(4, 8)).sum().backward()
        assert "replaced: 4" in str(report)
        assert "  1.dict.alpha  AlphaDropout(p=0.3, inplace=False)" in str(report)
        assert md.convert(model).replaced == ()
        assert md.restore(model) == 4
        assert {name: type(module) for name, module in model.named_modules()} == before
        assert model.state_dict().keys() == state.keys()
        model(torch.ones(4, 8))

    def test_the_model_itself(self) -> None:
        import torch

        model = torch.nn.Dropout(0.5).eval()
        report = md.convert(model, seed=1)
        assert [path for path, _ in report.replaced] == [""]
        assert str(report).splitlines()[1].startswith("  (itself)  Dropout(p=0.5, ")
        assert not model.training
        X = torch.ones(64)
        assert model(X) is X
        expected = masks.dropout(X.numpy(), 0.5, md.Key(1).fold_in(""))
        assert np.array_equal(model.train()(X).numpy(), expected)

    def test_what_the_layer_built_here_is_not_restored(self) -> None:
        import multidrop_torch

        layer = multidrop_torch.Dropout(0.5)
        assert md.convert(layer).replaced == ()
        assert md.restore(layer) == 0
        assert isinstance(layer, multidrop_torch.Dropout)

    def test_what_cannot_be_reached_is_said(self) -> None:
        import torch
        from torch import nn

        class Loud(nn.Dropout):
            def forward(self, X: Any) -> Any:
                return super().forward(X) * 2

        class Named(nn.Dropout2d):
            pass

        model = nn.ModuleDict(
            {
                "named": Named(),
                "attention": nn.MultiheadAttention(8, 2, dropout=0.1),
                "rnn": nn.LSTM(8, 8, 2, dropout=0.2),
                "loud": Loud(),
            }
        )
        unreached = dict(md.convert(model).unreached)
        assert unreached["attention"] == "MultiheadAttention, which drops 0.1 by itself"
        assert unreached["rnn"] == "LSTM, which drops 0.2 by itself"
        assert unreached["loud"] == "Loud, a subclass of torch.nn.Dropout"
        assert unreached["named"] == "Named, a subclass of torch.nn.Dropout2d"
        report = md.convert(torch.nn.TransformerEncoderLayer(8, 2, dropout=0.1))
        assert [path for path, _ in report.replaced] == ["dropout", "dropout1", "dropout2"]
        assert [path for path, _ in report.unreached] == ["self_attn"]

    def test_what_is_not_registered_is_said(self) -> None:
        from torch import nn

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.drop = nn.Dropout(0.5)
                self.all = [self.drop, nn.Dropout(0.5)]
                self.more = {"a": (nn.Sequential(nn.ReLU(), nn.Dropout2d(0.5)),), "all": self.all}
                self.more["more"] = self.more

        report = md.convert(nn.Sequential(Model()))
        assert [path for path, _ in report.replaced] == ["0.drop"]
        assert report.unreached == (
            ("0", "Model.all[1], a Dropout that is not registered as a layer of it"),
            ("0", "Model.more['a'][0].1, a Dropout2d that is not registered as a layer of it"),
        )

    def test_a_seed_keys_by_path(self) -> None:
        import torch

        models = [self.model() for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        for model in models:
            md.convert(model, seed=5)
        X = torch.ones(4, 8)
        torch.manual_seed(0)
        first = models[0](X)
        torch.manual_seed(0)
        assert torch.equal(models[1](X), first)
        assert models[0][2].stream.tolist() != models[0][1].drop.stream.tolist()

    def test_copies_of_a_converted_model(self) -> None:
        import torch

        model = self.model()
        md.convert(model, seed=5)
        other = copy.deepcopy(model)
        X = torch.ones(4, 8)
        torch.manual_seed(0)
        first = model(X)
        torch.manual_seed(0)
        assert torch.equal(other(X), first)
        assert md.restore(other) == 4
        assert md.restore(model) == 4

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")  # at its first compilation
    def test_wrappers_are_no_part_of_a_path(self, need: Any) -> None:
        """The same architecture draws the same masks, compiled, averaged or spread over devices."""
        need("torch")
        import torch
        from torch import nn
        from torch.optim.swa_utils import AveragedModel

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))  # a name that wrappers use

            def forward(self, X: Any) -> Any:
                return self.module(X)

        plain = Model()
        report = md.convert(plain, seed=3)
        assert [path for path, _ in report.replaced] == ["module.1"]
        for wrap in (torch.compile, nn.DataParallel, AveragedModel, lambda net: nn.DataParallel(torch.compile(net))):
            model = wrap(Model())
            assert [path for path, _ in md.convert(model, seed=3).replaced] == ["module.1"]
            (stream,) = (value for name, value in model.state_dict().items() if name.endswith("stream"))
            assert torch.equal(stream, plain.module[1].stream)
            assert md.restore(model, report) == 1
