"""The private names of Inductor, the compiler under `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch


class Inductor:
    """What it offers to those who tell it how to compute an operator.

    Attributes:
        apart: a function that has an operator run on its own.
        pointwise: makes a value out of a function of an element's place.
        ops: what such a function may use.
        assembles: whether that includes the assembly of NVIDIA's GPUs.
    """

    def __init__(self) -> None:
        import sympy  # type: ignore[import-untyped]  # it has no types
        from torch._inductor import ir, lowering
        from torch._inductor.codegen.triton import TritonOverrides
        from torch._inductor.virtualized import V, ops
        from torch.utils._sympy.functions import FloorDiv

        self.apart: Callable[[Any], Callable[..., Any]] = partial(lowering.fallback_handler, add_to_fallback_set=False)
        self.pointwise: Callable[..., Any] = ir.Pointwise.create
        self.ops: Any = ops
        self.assembles = hasattr(TritonOverrides, "inline_asm_elementwise") and torch.version.hip is None
        self.integer: Callable[[int], Any] = sympy.Integer
        self._register, self._graph, self._floor = lowering.register_lowering, V, FloorDiv
        self._fallbacks, self._box, self._computed = lowering.fallbacks, ir.MutableBox, ir.Pointwise

    def register(self, operator: Any, function: Callable[..., Any]) -> None:
        """Has it compute an operator by a function of the arguments in its own terms, also where a program has run the
        operator on its own before."""
        self._fallbacks.discard(operator)
        self._register(operator, type_promotion_kind=None)(function)

    def eighth(self, number: Any) -> Any:
        """A size or an index over 8, rounded down."""
        return self._floor(number, 8)

    def below(self, size: Any, bound: int) -> bool:
        """Whether a size is known to be below a bound."""
        return bool(self._graph.graph.sizevars.statically_known_lt(size, bound))

    def is_constant(self, X: Any) -> bool:
        """Whether a tensor is numbers in the code, and no memory."""
        while isinstance(X, self._box):
            X = X.data
        return isinstance(X, self._computed) and not X.get_read_names()

    def node(self) -> Any:
        """The node of the graph that it compiles now."""
        return self._graph.graph.current_node


@cache
def inductor() -> Inductor | None:
    """Inductor's parts. None where torch has moved one: a dropout stays an operator of its own in compiled programs,
    which costs a pass over memory."""
    try:
        return Inductor()
    except (ImportError, AttributeError):
        return None
