"""Subclasses of torch's tensors, as users write them, for `test_torch_subclasses`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map


class Plain(torch.Tensor):
    """A subclass with memory, of which torch makes results by `__torch_function__`."""


class Seeing(torch.Tensor):
    """One that sees the functions that are called."""

    seen: list[Any] = []  # noqa: RUF012  # of the class

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


class Wrapper(torch.Tensor):
    """One that holds two others, and has each operator run on both."""

    @staticmethod
    def __new__(cls, first: Any, second: Any) -> Any:
        made = torch.Tensor._make_wrapper_subclass(
            cls, first.size(), strides=first.stride(), dtype=first.dtype, requires_grad=first.requires_grad
        )
        made.first, made.second = first, second
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:  # which torch writes into its records, where values are not known
        return "Wrapper"

    def __tensor_flatten__(self) -> Any:
        return ["first", "second"], None

    @staticmethod
    def __tensor_unflatten__(parts: Any, context: Any, size: Any, stride: Any) -> Any:
        return Wrapper(parts["first"], parts["second"])

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def part(name: str) -> Any:
            own = lambda x: getattr(x, name) if isinstance(x, cls) else x  # noqa: E731
            return operator(*tree_map(own, args), **tree_map(own, kwargs or {}))

        first, second = part("first"), part("second")
        return cls(first, second) if isinstance(first, torch.Tensor) else first


MAKERS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda x: x.as_subclass(Plain),
    "seeing": lambda x: x.as_subclass(Seeing),
    "wrapper": lambda x: Wrapper(x.clone(), x.clone()),
    "buffer": torch.nn.Buffer,
    "parameter": torch.nn.Parameter,
}


def values(x: Any) -> Any:
    """What a tensor holds."""
    if isinstance(x, Wrapper):
        assert torch.equal(x.first, x.second)  # one mask for both
        return x.first.detach()
    return x.detach().as_subclass(torch.Tensor)
