"""This library's layer in the place of Gluon's, in a block that is there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mxnet import gluon

from multidrop import checks
from multidrop.conversion import Replaced
from multidrop.spec.keys import Key
from multidrop.unreached import Unreached, calls, unreached, unregistered

from . import internals
from .layers import Dropout, Random
from .position import BITS_OF


def convert(
    model: gluon.Block, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives blocks another class, so that all that holds one holds the new layer."""
    replaced, others = [], []
    blocks = list(blocks_of(model))
    params = [param for _, block in blocks if isinstance(block, gluon.Block) for param in block.params.values()]
    names, contexts = {param.name for param in params}, internals.contexts_of(params)
    for path, block in blocks:
        if type(block) is gluon.nn.Dropout:
            block.__class__ = Dropout
            rate, axes = internals.dropout_settings(block)
            block.rate, block.axes = float(rate), checks.axis_numbers(axes)
            block._key_by(key_of(path), names)
            if block.stream is not None:
                names.add(block.stream.name)
                if contexts:
                    block.stream.initialize(ctx=contexts)
            block.converted = True
            replaced.append(Replaced(path, repr(block)))
        else:
            others += [Unreached(path, what) for what in _unreached(block)]
    others += unregistered(blocks, blocks_of, gluon.Block, (gluon.nn.Dropout,), Random)
    _trace_anew(model)
    return tuple(replaced), tuple(others)


def restore(model: gluon.Block, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    named = [block for path, block in blocks_of(model) if paths is None or path in paths]
    blocks = [block for block in named if "converted" in vars(block)]
    for block in blocks:
        del block.converted
        internals.set_dropout(block, block.rate, block.axes)
        block._key_by(None)
        del block.rate, block.axes, block.last
        block.__class__ = gluon.nn.Dropout
    _trace_anew(model)
    return len(blocks)


def blocks_of(model: gluon.Block) -> Iterator[tuple[str, gluon.Block]]:
    """A block and all within it, each once, by the names along the way; a `Net` has none."""
    seen: set[int] = set()

    def walk(block: gluon.Block, path: str) -> Iterator[tuple[str, gluon.Block]]:
        if id(block) in seen:
            return
        seen.add(id(block))
        yield path, block
        for name, child in internals.children_of(block).items():
            yield from walk(child, f"{path}.{name}" if path else name)

    return walk(model, "")


def _unreached(block: gluon.Block) -> Iterator[str]:
    if isinstance(block, Random) or not isinstance(block, gluon.Block):  # a `Net` is none
        return iter(())
    if isinstance(block, gluon.nn.Dropout):
        return iter([f"{type(block).__name__}, a subclass with a forward of its own"])
    if isinstance(block, internals.RecurrentLayer) and (p := internals.dropout_of(block)):
        return iter([f"{type(block).__name__}, which drops {p} between its layers in a fused operation"])
    if isinstance(block, gluon.SymbolBlock):
        operators = _dropping(json.loads(internals.graph_of(block).tojson()))
        return (f"{type(block).__name__}, whose graph drops {p} in {name}" for name, p in operators)
    if isinstance(block, gluon.nn.Lambda | gluon.nn.HybridLambda):
        return (
            f"{type(block).__name__} calls {function}"
            for function in dict.fromkeys(calls(internals.function_of(block)))
        )
    for cell, rates in _CELLS.items():
        if isinstance(block, cell):
            dropped = {rate: internals.found(block, rate) for rate in rates}
            found = [f"{rate} = {p}" for rate, p in dropped.items() if p]
            return (f"{type(block).__name__}.{what}, which it hands to a function" for what in found)
    method = "forward" if type(block).forward is not gluon.HybridBlock.forward else "hybrid_forward"
    return unreached(block, method, (Random, gluon.nn.Dropout), "mxnet.")


_CELLS = {
    gluon.rnn.DropoutCell: internals.CELL_RATES,
    gluon.rnn.ZoneoutCell: ("zoneout_outputs", "zoneout_states"),
    gluon.contrib.rnn.VariationalDropoutCell: ("drop_inputs", "drop_states", "drop_outputs"),
}


def _dropping(graph: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The operators of a symbol, and of the symbols within it, that drop, by name, and with which probability."""
    for node in graph["nodes"]:
        default = {"Dropout": 0.5, "_npx_dropout": 0.5, "RNN": 0.0}.get(node["op"])
        attrs = node.get("attrs", {})
        if default is not None and BITS_OF not in attrs and (p := float(attrs.get("p", default))):
            yield node["name"], p
        for inner in node.get("subgraphs", ()):
            yield from _dropping(inner)


def _trace_anew(model: gluon.Block) -> None:
    """A hybridized program holds the operators that it was traced with."""
    for _, block in blocks_of(model):
        if isinstance(block, gluon.HybridBlock):
            internals.forget_program(block)
