"""SavedModels that hold this library's operators, which need its import before they are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from multidrop import exporting

from . import internals, native, xla


def _operators(program: Any) -> Iterator[str]:
    """The operators of this library in a `GraphDef`, in its functions too."""
    for node in chain(program.node, *(function.node_def for function in program.library.function)):
        if node.op == native.OP:
            yield native.OP
        elif xla.P in node.attr:
            yield f"{xla.OP} of {xla.TARGET}"


def _tell(program: Any) -> None:
    if operator := next(_operators(program), None):
        exporting.tell(operator, "multidrop_tensorflow")


internals.watch_saved_programs(_tell)
