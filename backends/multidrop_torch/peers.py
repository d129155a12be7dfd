"""Layers of other packages that do what a member of the family does: stochastic depth and DropBlock."""

from __future__ import annotations

import copy
import re
from typing import NamedTuple

import torch
from torch import nn

from multidrop import family

from .keyed import Keyed

RATES = ("drop_prob", "p", "drop_rate", "rate", "drop_path", "drop_path_rate")
"""What packages call the probability that a branch is dropped."""

_BRANCHES = re.compile(r"\w*(DropPath|StochasticDepth|DropBranch)")
_BLOCKS = re.compile(r"timm\.(models\.)?layers\.drop\.DropBlock2d|torchvision\.ops\.drop_block\.DropBlock[23]d")


class Peer(NamedTuple):
    """What a layer of another package's becomes."""

    member: family.DropPath | family.DropBlock
    rate: str
    """The attribute that has its probability, or the part of it that `scale` makes one of."""
    scale: float = 1.0
    note: str = ""
    """How the member differs."""

    def set_rate(self, module: nn.Module, p: float) -> None:
        """Gives the layer the probability that the member has now."""
        if p != self.member.p:
            vars(module)[self.rate] = p / self.scale


def peer_of(module: nn.Module) -> Peer | None:
    """What a layer becomes; None for one that does nothing of the kind, or something else."""
    if is_block(module):
        return None if unlike(module) else _block(module)
    rate = _rate_of(module)
    mode = rate and _mode(module, rate)
    return Peer(family.DropPath(float(vars(module)[rate] or 0.0), mode), rate) if rate and mode else None


def unlike(module: nn.Module) -> str:
    """How a layer of that kind differs from the member in more than its rate; "" where it does not, or drops
    nothing."""
    if is_block(module):
        if getattr(module, "with_noise", False):
            return "which fills blocks with noise, as DropBlock does not"
        return "" if getattr(module, "scale_by_keep", True) else "which does not scale, as DropBlock does"
    rate = _rate_of(module)
    if rate and vars(module)[rate] and _mode(module, rate) is None:
        return f"whose {rate} is {vars(module)[rate]}, and which does something else than DropPath"
    return ""


def is_block(module: nn.Module) -> bool:
    """Whether a layer is the DropBlock of a package that is known; by name, so that none of them is imported."""
    return _BLOCKS.fullmatch(f"{type(module).__module__}.{type(module).__qualname__}") is not None


def _block(module: nn.Module) -> Peer:
    held = vars(module)
    rate, scale = "drop_prob" if "drop_prob" in held else "p", float(held.get("gamma_scale", 1.0))
    p = min(1.0, (held[rate] or 0.0) * scale)
    note = f", which drops exactly p; {type(module).__name__} drops less"
    if held.get("couple_channels", False):
        note += ", the same blocks in all channels"
    return Peer(family.DropBlock(p, held["block_size"]), rate, scale, note)


def _rate_of(module: nn.Module) -> str | None:
    """The attribute with the rate of a layer that drops branches, by its name and its attributes."""
    if isinstance(module, Keyed) or not _BRANCHES.fullmatch(type(module).__name__):
        return None
    if [*module.parameters(), *module.buffers(), *module.children()]:
        return None
    rates = [name for name in RATES if name in vars(module)]
    return rates[0] if len(rates) == 1 and isinstance(vars(module)[rates[0]] or 0.0, float) else None


def _mode(module: nn.Module, rate: str) -> str | None:
    """How `DropPath` calls what a layer does to 64 examples at p = 0.5: in "example" mode each is 0 or twice itself, in
    "batch" mode they all are; None for anything else. torch's generators are put back."""
    tried = copy.copy(module)
    vars(tried)[rate] = 0.5
    X = torch.ones(64, 2, 3, device="cpu")
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        try:
            forward = type(tried).forward
            first, second, kept = (forward(tried.train(mode), X) for mode in (True, True, False))
            once = [first, second, *(forward(tried.train(), X) for _ in range(62))]
        except Exception:  # it takes other inputs, so that it does something else
            return None
    if not all(isinstance(Y, torch.Tensor) and Y.shape == X.shape for Y in (*once, kept)) or not torch.equal(kept, X):
        return None
    values = torch.stack([Y[:, 0, 0] for Y in once])
    if not all(torch.equal(Y, Y[:, :1, :1].expand_as(Y)) for Y in once) or set(values.unique().tolist()) != {0.0, 2.0}:
        return None
    if torch.equal(values, values[:, :1].expand_as(values)):
        return "batch"
    return "example" if not torch.equal(first, second) else None
