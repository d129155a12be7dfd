"""Layers of other packages: those that `convert` knows, and models that hold them, built from their configurations."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from typing import Any

import pytest

import multidrop as md
from multidrop import Key, family


@pytest.fixture
def torch(need: Any) -> Any:
    need("torch")
    import torch

    return torch


@pytest.fixture
def packages(torchvision: Any) -> Any:
    """timm, torchvision and transformers, imported beside the CPU build of torch."""
    import timm.layers
    import transformers.models.segformer.modeling_segformer
    import transformers.models.swin.modeling_swin

    return {"timm": timm.layers, "torchvision": torchvision.ops} | {
        name: getattr(transformers.models, name) for name in ("segformer", "swin")
    }


def branches(packages: Any) -> dict[str, tuple[Any, str, Any]]:
    """Layers that drop branches, each with the attribute that has its rate and the member that it is."""
    segformer, swin = packages["segformer"].modeling_segformer, packages["swin"].modeling_swin
    depth = packages["torchvision"].StochasticDepth
    return {
        "timm": (packages["timm"].DropPath(0.25), "drop_prob", family.DropPath(0.25)),
        "none": (packages["timm"].DropPath(None), "drop_prob", family.DropPath(0.0)),
        "row": (depth(0.25, "row"), "p", family.DropPath(0.25)),
        "batch": (depth(0.25, "batch"), "p", family.DropPath(0.25, "batch")),
        "segformer": (segformer.SegformerDropPath(0.25), "drop_prob", family.DropPath(0.25)),
        "swin": (swin.SwinDropPath(0.25), "drop_prob", family.DropPath(0.25)),
    }


def blocks(packages: Any) -> dict[str, tuple[Any, str, Any]]:
    """The same for layers that drop blocks."""
    timm, ops = packages["timm"].DropBlock2d, packages["torchvision"]
    return {
        "timm": (timm(0.25, 5, couple_channels=False), "drop_prob", family.DropBlock(0.25, 5)),
        "coupled": (timm(0.25, 5, gamma_scale=0.5), "drop_prob", family.DropBlock(0.125, 5)),
        "2d": (ops.DropBlock2d(0.25, 3), "p", family.DropBlock(0.25, 3)),
        "3d": (ops.DropBlock3d(0.25, 3), "p", family.DropBlock(0.25, 3)),
    }


class TestMembers:
    @pytest.mark.parametrize("name", ["timm", "none", "row", "batch", "segformer", "swin"])
    def test_branches(self, torch: Any, packages: Any, name: str) -> None:
        theirs, rate, member = branches(packages)[name]
        report = self.check(torch, theirs, rate, member, torch.ones(64, 3, 2))
        assert report.replaced[0].layer.startswith("DropPath(")

    @pytest.mark.parametrize("name", ["timm", "coupled", "2d", "3d"])
    def test_blocks(self, torch: Any, packages: Any, name: str) -> None:
        """The report says that they drop another share."""
        theirs, rate, member = blocks(packages)[name]
        kind = type(theirs).__name__
        report = self.check(torch, theirs, rate, member, torch.ones(2, 3, *[9] * (3 if name == "3d" else 2)))
        told = report.replaced[0].layer
        assert told.startswith("DropBlock(")
        assert f", which drops exactly p; {kind} drops less" in told
        assert told.endswith("the same blocks in all channels") is (name == "coupled")

    def check(self, torch: Any, theirs: Any, rate: str, member: Any, X: Any) -> Any:
        """Converts a layer in a model, compares its masks with the member's, and restores it."""
        before, kind = dict(vars(theirs)), type(theirs)
        model = torch.nn.Sequential(torch.nn.Identity(), theirs)
        state = torch.get_rng_state()
        report = md.convert(model, seed=5)
        assert torch.equal(torch.get_rng_state(), state)
        assert [path for path, _ in report.replaced] == ["1"]
        assert report.unreached == ()
        assert theirs.member == member
        key = Key(5).fold_in("1")
        for call in range(2):
            assert torch.equal(theirs(X), md.apply(member, X, Key(key.seed, call)))
        assert not md.convert(copy.deepcopy(model)).replaced
        assert not md.audit(model, X).random
        assert md.restore(copy.deepcopy(model)) == md.restore(model, report) == 1
        assert type(theirs) is kind
        assert vars(theirs) == before
        assert md.convert(model).replaced
        theirs.p = 0.0625
        md.restore(model)
        assert vars(theirs)[rate] == (0.125 if vars(theirs).get("gamma_scale") == 0.5 else 0.0625)
        return report

    def test_what_does_something_else(self, torch: Any, packages: Any) -> None:
        """Is named; what does nothing is not."""
        path, block = packages["timm"].DropPath, packages["timm"].DropBlock2d

        class MyDropPath(torch.nn.Module):
            """Drops single elements."""

            def __init__(self, p: float) -> None:
                super().__init__()
                self.p = p

            def forward(self, X: Any) -> Any:
                return torch.nn.functional.dropout(X, self.p, self.training)

        class Other(MyDropPath):
            """Has another name."""

        model = torch.nn.ModuleDict(
            {
                "unscaled": path(0.25, scale_by_keep=False),
                "idle": path(0.0, scale_by_keep=False),
                "noise": block(0.25, with_noise=True),
                "mine": MyDropPath(0.25),
                "other": Other(0.25),
            }
        )
        report = md.convert(model)
        assert not report.replaced
        assert [path for path, _ in report.unreached] == ["unscaled", "noise", "mine"]
        told = [what.partition(", ")[2] for _, what in report.unreached]
        assert told[0] == "whose drop_prob is 0.25, but which does not do what DropPath does"
        assert told[1] == "which fills blocks with noise, unlike DropBlock"

    def test_a_class_of_ones_own_that_does_the_same(self, torch: Any) -> None:
        class DropPath(torch.nn.Module):
            """As in fastai and in many repositories."""

            def __init__(self, drop_prob: float) -> None:
                super().__init__()
                self.drop_prob = drop_prob

            def forward(self, X: Any) -> Any:
                if not self.training:
                    return X
                kept = torch.rand(len(X), *[1] * (X.ndim - 1)) >= self.drop_prob
                return X / (1 - self.drop_prob) * kept

        model = torch.nn.Sequential(DropPath(0.5))
        assert [path for path, _ in md.convert(model, seed=0).replaced] == ["0"]
        assert md.restore(model) == 1
        assert type(model[0]) is DropPath

    def test_those_of_ours_stay(self, torch: Any) -> None:
        with md.use_backend("torch"):
            model = torch.nn.Sequential(md.DropPath(0.5, seed=1), md.DropBlock(seed=1))
        report = md.convert(model)
        assert (report.replaced, report.unreached) == ((), ())
        assert md.restore(model) == 0


def vision_models(torchvision: Any, name: str) -> Any:
    """Small models with stochastic depth, of random weights."""
    import timm
    import transformers

    if name == "segformer":
        config = transformers.SegformerConfig(
            depths=[1, 1],
            num_encoder_blocks=2,
            sr_ratios=[2, 1],
            hidden_sizes=[8, 16],
            patch_sizes=[3, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
            drop_path_rate=0.1,
            hidden_dropout_prob=0.1,
        )
        return transformers.SegformerForSemanticSegmentation(config)
    if name == "swin":
        sizes = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
        return transformers.SwinForImageClassification(
            transformers.SwinConfig(image_size=32, window_size=4, drop_path_rate=0.1, **sizes)
        )
    if name == "convnext":
        layer = torchvision.models.convnext.CNBlockConfig
        return torchvision.models.ConvNeXt([layer(8, 16, 1), layer(16, None, 1)], stochastic_depth_prob=0.1)
    if name == "efficientnet":
        layer = torchvision.models.efficientnet.MBConvConfig
        settings = [layer(1, 3, 1, 8, 8, 2), layer(2, 3, 1, 8, 8, 1)]
        return torchvision.models.EfficientNet(settings, 0.2, stochastic_depth_prob=0.1, last_channel=16)
    if name == "timm swin":
        sizes = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
        return timm.models.swin_transformer.SwinTransformer(drop_path_rate=0.1, drop_rate=0.1, **sizes)
    return timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock, (1, 1, 1, 1), channels=(8, 8, 8, 8), stem_width=8, drop_block_rate=0.1
    )


@pytest.mark.parametrize("name", ["segformer", "swin", "convnext", "efficientnet", "timm swin", "timm resnet"])
def test_stochastic_depth_in_models(torch: Any, torchvision: Any, name: str) -> None:
    """The audit names it before; after a conversion it is keyed, and nothing is random."""
    torch.manual_seed(0)
    model, X = vision_models(torchvision, name), torch.randn(2, 3, 32, 32)
    held = {path: type(layer).__name__ for path, layer in model.named_modules()}
    expected = {
        path
        for path, layer in model.named_modules()
        if any(word in held[path] for word in ("DropPath", "StochasticDepth", "DropBlock", "Dropout"))
        and any(getattr(layer, rate, 0.0) for rate in ("p", "drop_prob"))
    }
    assert {path for path, _, _ in md.audit(model, X).random} == expected
    report = md.convert(model, seed=0)
    assert expected <= {path for path, _ in report.replaced}
    assert report.unreached == ()
    assert md.audit(model, X).random == ()
    assert md.restore(model) == len(report.replaced)
    assert {path: type(layer).__name__ for path, layer in model.named_modules()} == held


class TestPatchedForwards:
    """A module whose `forward` was patched on the instance."""

    def keyed(self, torch: Any, model: Any, layer: Any, path: str) -> bool:
        X = torch.ones(8, 8)
        return torch.equal(layer(X), md.dropout_layer(X, 0.5, md.Key(0).fold_in(path)))

    def test_by_accelerate(self, torch: Any, torchvision: Any) -> None:
        from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

        class Counted(ModelHook):
            calls = 0

            def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
                self.calls += 1
                return args, kwargs

        model, hook = torch.nn.Sequential(torch.nn.Dropout(0.5)), Counted()
        add_hook_to_module(model[0], hook)
        report = md.convert(model, seed=0)
        assert [path for path, _ in report.replaced] == ["0"]
        assert self.keyed(torch, model, model[0], "0")
        assert hook.calls == 1
        assert md.audit(model, torch.ones(8, 8)).random == ()
        md.restore(model)
        assert [path for path, _, _ in md.audit(model, torch.ones(8, 8)).random] == ["0"]
        remove_hook_from_module(model[0])
        assert model[0].forward.__func__ is torch.nn.Dropout.forward

    def test_by_a_closure(self, torch: Any) -> None:
        """As a profiler does it."""
        model, seen = torch.nn.Sequential(torch.nn.Dropout(0.5)), []

        def patch(layer: Any) -> None:
            original = layer.forward

            def timed(*args: Any) -> Any:
                seen.append(layer)
                return original(*args) if args else unset

            layer.forward, layer.numbers = timed, torch.ones(2).numpy()
            if seen:  # it has no value
                unset = None

        patch(model[0])
        assert md.convert(model, seed=0).unreached == ()
        assert self.keyed(torch, model, model[0], "0")
        md.restore(model)
        assert not self.keyed(torch, model, model[0], "0")
        assert len(seen) == 2

    def test_out_of_reach(self, torch: Any) -> None:
        """Is said, and nothing is replaced."""
        model = torch.nn.Sequential(torch.nn.Dropout(0.5))
        model[0].forward = functools.partial(torch.nn.functional.dropout, p=0.5)
        report = md.convert(model, seed=0)
        assert report.replaced == ()
        ((path, what),) = report.unreached
        assert path == "0"
        assert what.startswith("Dropout, whose forward was patched on the instance by functools")
        assert type(model[0]) is torch.nn.Dropout


def test_a_keras_model_on_torch(torch: Any) -> None:
    """Is a torch module too. What its layers need is said, in a process of its own, for Keras has one backend."""
    program = """
import keras, torch, multidrop as md
inner = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5, name="a"), keras.layers.Dropout(0.0),
                          keras.layers.GaussianNoise(0.1, name="b")])
report = md.convert(inner)
assert report.replaced == ()
assert len(report.unreached) == 3, report
assert all("KERAS_BACKEND=tensorflow" in what for _, what in report.unreached)
holder = torch.nn.ModuleDict({"own": torch.nn.Dropout(0.5), "keras": inner})
report = md.convert(holder)
assert [path for path, _ in report.replaced] == ["own"]
assert {path for path, _ in report.unreached} == {"keras"}
try:
    md.audit(inner, torch.ones(2, 4))
except TypeError as error:
    assert "KERAS_BACKEND=tensorflow" in str(error)
else:
    raise AssertionError("no error")
"""
    environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
