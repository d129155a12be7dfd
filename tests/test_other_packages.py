"""Layers of other packages that `convert` knows in torch, by stand-ins of their classes' names."""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import Any

import pytest

import multidrop as md
from multidrop import Key, family


@pytest.fixture
def torch(need: Any) -> Any:
    need("torch")
    import torch

    return torch


def stand_in(torch: Any, monkeypatch: pytest.MonkeyPatch, path: str, **attributes: Any) -> Any:
    """A module of another package's class, which has some attributes, and its class where the package would have it."""
    package, _, name = path.rpartition(".")

    def init(self: Any, **settings: Any) -> None:
        torch.nn.Module.__init__(self)
        vars(self).update(settings)

    kind = type(name, (torch.nn.Module,), {"__module__": package, "__init__": init, "forward": lambda self, x: x})
    held = ModuleType(package)
    setattr(held, name, kind)
    monkeypatch.setitem(sys.modules, package, held)
    return kind(**attributes)


class TestOthers:
    TIMM, TORCHVISION = "timm.layers.drop.DropPath", "torchvision.ops.stochastic_depth.StochasticDepth"

    @pytest.mark.parametrize(
        ("path", "attributes", "member"),
        [
            (TIMM, {"drop_prob": 0.25, "scale_by_keep": True}, family.DropPath(0.25)),
            ("timm.models.layers.drop.DropPath", {"drop_prob": 0.0, "scale_by_keep": True}, family.DropPath(0.0)),
            (TIMM, {"drop_prob": None}, family.DropPath(0.0)),
            (TORCHVISION, {"p": 0.25, "mode": "row"}, family.DropPath(0.25, "example")),
            (TORCHVISION, {"p": 0.25, "mode": "batch"}, family.DropPath(0.25, "batch")),
        ],
    )
    def test_replaced(
        self, torch: Any, monkeypatch: pytest.MonkeyPatch, path: str, attributes: dict[str, Any], member: Any
    ) -> None:
        theirs = stand_in(torch, monkeypatch, path, **attributes)
        before, kind = dict(vars(theirs)), type(theirs)
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), theirs)
        report = md.convert(model, seed=5)
        assert [(path, layer.partition("(")[0]) for path, layer in report.replaced] == [("1", "DropPath")]
        assert not report.unreached
        assert model[1] is theirs
        assert theirs.member == member
        X = torch.ones(64, 3)
        key = Key(5).fold_in("1")
        for call in range(2):
            assert torch.equal(theirs(X), md.apply(member, X, Key(key.seed, call)))
        assert not md.convert(copy.deepcopy(model)).replaced
        rate = "p" if "p" in attributes else "drop_prob"
        theirs.p = 0.125
        assert md.restore(copy.deepcopy(model)) == md.restore(model, report) == 1
        assert type(theirs) is kind
        assert vars(theirs) == before | {rate: 0.125}
        assert md.convert(model).replaced

    @pytest.mark.parametrize(
        ("path", "attributes"),
        [
            (TIMM, {"drop_prob": 0.25, "scale_by_keep": False}),
            (TORCHVISION, {"p": 0.25, "mode": "column"}),
            ("timm.layers.drop.DropBlock2d", {"drop_prob": 0.1}),
            ("torchvision.ops.drop_block.DropBlock2d", {"p": 0.1}),
            ("torchvision.ops.drop_block.DropBlock3d", {"p": 0.1}),
        ],
    )
    def test_reported(self, torch: Any, monkeypatch: pytest.MonkeyPatch, path: str, attributes: dict[str, Any]) -> None:
        theirs = stand_in(torch, monkeypatch, path, **attributes)
        report = md.convert(torch.nn.Sequential(theirs))
        assert not report.replaced
        ((where, what),) = report.unreached
        assert where == "0"
        assert what.startswith(path)

    def test_of_the_same_name(self, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere, a class may be anything."""
        theirs = stand_in(torch, monkeypatch, "mine.DropPath", drop_prob=0.25)
        assert not md.convert(theirs).replaced

    def test_those_of_ours_stay(self, torch: Any) -> None:
        with md.use_backend("torch"):
            model = torch.nn.Sequential(md.DropPath(0.5, seed=1), md.DropBlock(seed=1))
        report = md.convert(model)
        assert (report.replaced, report.unreached) == ((), ())
        assert md.restore(model) == 0
