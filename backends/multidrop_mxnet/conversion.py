"""This library's layer in the place of Gluon's, in a block that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mxnet import gluon

from multidrop.conversion import Replaced, Unreached
from multidrop.keys import Key

from .layers import Dropout


def convert(
    model: gluon.Block, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives blocks another class, so that all that holds one holds the new layer."""
    replaced, unreached = [], []
    for path, block in list(_blocks(model)):
        if type(block) is gluon.nn.Dropout:
            block.__class__ = Dropout
            block.rate, block.axes = float(block._rate), tuple(block._axes)
            block._key_by(key_of(path))
            block.converted = True
            replaced.append(Replaced(path, repr(block)))
        elif isinstance(block, gluon.nn.Dropout):
            unreached.append(Unreached(path, f"{type(block).__name__}, a subclass with a forward of its own"))
        elif getattr(block, "_dropout", 0) and isinstance(block, gluon.rnn.rnn_layer._RNNLayer):
            what = f"{type(block).__name__}, which drops {block._dropout} between its layers in a fused operation"
            unreached.append(Unreached(path, what))
    _trace_anew(model)
    return tuple(replaced), tuple(unreached)


def restore(model: gluon.Block) -> int:
    """`multidrop.restore`."""
    blocks = [block for _, block in _blocks(model) if vars(block).pop("converted", False)]
    for block in blocks:
        block._rate, block._axes = block.rate, block.axes
        if block.stream is not None:
            del block.params._params[block.stream.name], block._reg_params["stream"]
        del block.stream, block.rate, block.axes, block.last
        block.__class__ = gluon.nn.Dropout
    _trace_anew(model)
    return len(blocks)


def _blocks(model: gluon.Block) -> Iterator[tuple[str, gluon.Block]]:
    """A block and all within it, each once, by the names along the way."""
    seen: set[int] = set()

    def walk(block: gluon.Block, path: str) -> Iterator[tuple[str, gluon.Block]]:
        if id(block) in seen:
            return
        seen.add(id(block))
        yield path, block
        for name, child in block._children.items():
            yield from walk(child, f"{path}.{name}" if path else name)

    return walk(model, "")


def _trace_anew(model: gluon.Block) -> None:
    """A hybridized program holds the operators that it was traced with."""
    for _, block in _blocks(model):
        if isinstance(block, gluon.HybridBlock):
            block._clear_cached_op()
