"""Tensors that are made of others, and what torch's operators are to do with them.

A subclass of `torch.Tensor` says itself what happens to it, in `__torch_function__` or `__torch_dispatch__`. So it is
dropped by an operator, eagerly too: the subclass sees the operator and makes the result. Some of torch's own subclasses
know nothing of this library's operators. The rules here tell them: a jagged tensor has the mask of its values, in
order; a masked one that of its data; a distributed one that of the whole tensor, of which each rank draws its part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from . import distributed, internals

PLAIN = {Tensor, nn.Parameter}
"""The types whose memory may be read and written past torch's dispatcher."""


@internals.constant_in_programs
def ready(kind: type) -> bool:
    """Registers the rules for a type of tensors, if it has some, also while a program is traced. This waits for the
    first such tensor, because importing `torch.distributed.tensor` takes over a second."""
    return _registered(kind)


@cache
def _registered(kind: type) -> bool:
    register = internals.find("library.register_torch_dispatch")  # public, and not in every version
    for name, rule in _rules(kind).items():
        register(f"multidrop::{name}", kind, _ruled(rule))
    return True


def _rules(kind: type) -> dict[str, Callable[..., Tensor]]:
    module: Any = sys.modules.get("torch.distributed.tensor")
    if module and issubclass(kind, module.DTensor):
        return distributed.RULES
    masked: Any = sys.modules.get("torch.masked")
    if masked and issubclass(kind, masked.MaskedTensor):
        return {name: _of_data(name) for name in (*_DROPS, "member_values")}
    return _JAGGED if kind is internals.jagged_class() else {}


def _ruled(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A rule as torch calls it."""

    def run(_: type, operator: Any, types: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            return rule(*arguments, **named)

    return run


def _of_values(name: str) -> Callable[..., Tensor]:
    """The rule for a jagged tensor: its values are dropped, in order."""

    def rule(X: Any, *arguments: Any) -> Tensor:
        operator = getattr(torch.ops.multidrop, name).default
        return internals.with_values(X, operator(internals.values_of(X), *arguments))

    return rule


def _of_data(name: str) -> Callable[..., Tensor]:
    """The rule for a masked tensor: its data are dropped, and what is masked out stays so."""

    def rule(X: Any, *arguments: Any) -> Tensor:
        operator = getattr(torch.ops.multidrop, name).default
        made: Tensor = torch.masked.masked_tensor(operator(X.get_data(), *arguments), X.get_mask())
        return made

    return rule


_DROPS = ("drop", "drop_scheduled")
_JAGGED = {name: _of_values(name) for name in _DROPS}
