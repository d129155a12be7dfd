"""What torch's other readers of programs make of these layers: what they cannot carry is an error that names
`md.restore`, and what they turn off is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import multidrop as md


@pytest.fixture
def torch(need: Any) -> Any:
    need("torch")
    import torch

    return torch


def model_of(torch: Any, train: bool = True) -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.AlphaDropout(0.5))
    md.convert(model, seed=0)
    return model.train(train)


def scripted(torch: Any) -> None:
    torch.jit.script(model_of(torch))


def traced_by_fx(torch: Any) -> None:
    torch.fx.symbolic_trace(model_of(torch, train=False))


def quantized_by_fx(torch: Any) -> None:
    from torch.ao import quantization
    from torch.ao.quantization.quantize_fx import prepare_fx

    mapping = quantization.get_default_qconfig_mapping()
    prepare_fx(model_of(torch, train=False), mapping, (torch.ones(2, 8),))


def quantized(torch: Any) -> None:
    from torch.ao import quantization

    model, X = model_of(torch, train=False), torch.ones(2, 8)
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(model)
    prepared(X)
    quantization.convert(prepared)(torch.quantize_per_tensor(X, 0.1, 0, torch.quint8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # each of these is to be given up
@pytest.mark.parametrize("reader", [scripted, traced_by_fx, quantized_by_fx, quantized])
def test_the_error_names_the_cure(torch: Any, reader: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is one: with torch's own layers, the same works."""
    with pytest.raises(TypeError, match=r"md\.restore\(model\)"):
        reader(torch)
    convert = md.convert

    def and_back(model: Any, **settings: Any) -> None:
        convert(model, **settings)
        md.restore(model)

    monkeypatch.setattr(md, "convert", and_back)
    reader(torch)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["Dropout", "AlphaDropout", "DropPath", "GaussianNoise"])
def test_a_program_that_is_moved_to_evaluation(torch: Any, kind: str, strict: bool, seed: int | None) -> None:
    """torchao's `move_exported_model_to_eval` replaces torch's dropout in an exported program by one that is off, which
    turns these off too; its counterpart turns them on again."""
    with md.use_backend("torch"):
        layer = getattr(torch.nn, kind)(0.5) if hasattr(torch.nn, kind) else getattr(md, kind)(0.5, seed=seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), layer)
    md.convert(model, seed=seed)
    X = torch.randn(16, 8)
    program = torch.export.export(model, (X,), strict=strict).module()
    evaluated = model[0](X)
    for training in (True, False, True):
        switch(torch, program, training)
        assert torch.equal(program(X), evaluated) is not training


def switch(torch: Any, program: Any, training: bool) -> None:
    """What torchao does, by the same function."""

    class Pattern(torch.nn.Module):
        def __init__(self, on: bool) -> None:
            super().__init__()
            self.on = on

        def forward(self, X: Any) -> Any:
            return torch.nn.functional.dropout(X, 0.5, self.on)

    from torch.fx.subgraph_rewriter import replace_pattern_with_filters

    found, put = (torch.export.export(Pattern(on), (torch.ones(1),)).module() for on in (not training, training))
    for graph in (found, put):
        graph.graph.eliminate_dead_code()
        for node in list(graph.graph.nodes):  # what checks the inputs' shapes
            if node.op == "call_module" and "guards" in node.target:
                graph.graph.erase_node(node)
        graph.recompile()
    program.graph.eliminate_dead_code()
    program.recompile()
    replace_pattern_with_filters(program, found, put, match_filters=[], ignore_literals=True)
    program.recompile()
