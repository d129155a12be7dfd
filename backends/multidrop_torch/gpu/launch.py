"""Launching Triton kernels: each is compiled once for its types, its GPU and its constants, and then launched by what
Triton's own launcher calls in the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..internals import raw_stream

Program: TypeAlias = Callable[..., None]
"""A compiled kernel: takes the grid's size, the tensors, and the numbers, and runs on its GPU's current stream."""

_HERE: AbstractContextManager[Any] = nullcontext()
SPREAD, TOGETHER = ("3.5.", "3.6."), ("3.7.", "3.8.", "3.9.")
"""The versions of Triton whose launch function is known, by how it takes a kernel's arguments: each, or as a tuple."""


@cache
def program(
    module: str, name: str, types: tuple[torch.dtype, ...], index: int, constants: tuple[Any, ...], warps: int
) -> Program:
    """A kernel, compiled for the types of its tensors, a GPU and its constants.

    Args:
        module, name: the kernel.
        types: the types of the tensors, which are its first arguments.
        index: the GPU's number; below 0 where there is none.
        constants: its last arguments.
        warps: how many warps a program has.
    """
    kernel = compiled(module, name, types, index, constants, warps)
    if index >= 0:
        with torch.cuda.device(index):
            return _directly(kernel, index, constants) or _by_triton(kernel, index, constants)
    return _by_triton(kernel, index, constants)


def compiled(
    module: str, name: str, types: tuple[torch.dtype, ...], index: int, constants: tuple[Any, ...], warps: int
) -> Any:
    """Triton's compiled kernel, and in Triton's interpreter, which compiles nothing, the kernel as it is."""
    kernel = getattr(import_module(f".{module}", __package__), name)
    numbers = len(kernel.arg_names) - len(types) - len(constants)
    with _HERE if index < 0 else torch.cuda.device(index):
        done = kernel.warmup(*types, *[0] * numbers, *constants, grid=(1,), num_warps=warps, enable_fp_fusion=False)
    return done or kernel


def _by_triton(kernel: Any, index: int, constants: tuple[Any, ...]) -> Program:
    def launched(size: int, tensors: tuple[Tensor, ...], *numbers: int) -> None:
        with _HERE if index < 0 else torch.cuda.device(index):
            kernel[(size, 1, 1)](*tensors, *numbers, *constants)

    return launched


def _directly(kernel: Any, index: int, constants: tuple[Any, ...]) -> Program | None:
    """A launch by the C function under Triton's launcher, in half of the time of `kernel[grid]`. It passes addresses,
    and calls no launch hooks, which Triton's profiler sets. None where this version of Triton is not known to take
    these arguments, or the kernel needs scratch memory or Triton's sanitizer."""
    import triton

    run = kernel.run  # loads the kernel on the current GPU
    spread, together = (triton.__version__.startswith(versions) for versions in (SPREAD, TOGETHER))
    if not (spread or together) or run.global_scratch_size or run.profile_scratch_size:
        return None
    if getattr(run, "gsan_enabled", False):
        return None
    how, scratch, hooks = (run.launch_cooperative_grid, run.launch_pdl), (None, None), (None, None, None)
    options: tuple[Any, ...] = (*how, *scratch, kernel.packed_metadata, *hooks)
    if together:
        options = (*how, kernel.packed_metadata, *hooks, *scratch, run.arg_annotations, run.kernel_signature)
    launch, function, address, several = run.launch, kernel.function, Tensor.data_ptr, torch.cuda.device_count() > 1

    def launched(size: int, tensors: tuple[Tensor, ...], *numbers: int) -> None:
        if several and torch.cuda.current_device() != index:
            with torch.cuda.device(index):
                return launched(size, tensors, *numbers)
        given = *map(address, tensors), *numbers, *constants
        if together:
            return launch(size, 1, 1, raw_stream(index), function, *options, given)
        return launch(size, 1, 1, raw_stream(index), function, *options, *given)

    return launched
