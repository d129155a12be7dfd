"""The devices that nets can be on."""

from __future__ import annotations

import torch


def devices() -> dict[str, torch.device]:
    """The CPU, and what torch finds of CUDA, MPS, XPU and other accelerators, by torch's names. A `torch.device` is a
    context manager: modules that are built within it are on it."""
    found = ["cpu"]
    accelerator = getattr(torch, "accelerator", None)  # of torch 2.6
    if accelerator is None:
        found += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    elif accelerator.is_available():
        kind = accelerator.current_accelerator().type
        found += [f"{kind}:{number}" for number in range(accelerator.device_count())]
    return {name: torch.device(name) for name in found}
