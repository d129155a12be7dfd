"""Recognises layers of other packages that a member of the family replaces: stochastic depth and DropBlock."""

from __future__ import annotations

import copy
import re
from typing import NamedTuple

import torch
from torch import nn

from multidrop import family

from .keyed import Keyed

RATES = ("drop_prob", "p", "drop_rate", "rate", "drop_path", "drop_path_rate")
"""The attributes in which packages hold the probability of dropping a branch."""

_BRANCHES = re.compile(r"\w*(DropPath|StochasticDepth|DropBranch)")
_BLOCKS = re.compile(r"timm\.(models\.)?layers\.drop\.DropBlock2d|torchvision\.ops\.drop_block\.DropBlock[23]d")


class Peer(NamedTuple):
    """The member that replaces a layer of another package."""

    member: family.DropPath | family.DropBlock
    rate: str
    """The layer's attribute with the probability before it is multiplied by `scale`."""
    scale: float = 1.0
    note: str = ""
    """How the member differs from the layer."""

    def set_rate(self, module: nn.Module, p: float) -> None:
        """Sets the layer's probability to p, the member's current one."""
        if p != self.member.p:
            vars(module)[self.rate] = p / self.scale


def peer_of(module: nn.Module) -> Peer | None:
    """The member that replaces a layer; None if no member does the same."""
    if is_block(module):
        return None if unlike(module) else _block(module)
    rate = _rate_of(module)
    mode = rate and _mode(module, rate)
    return Peer(family.DropPath(float(vars(module)[rate] or 0.0), mode), rate) if rate and mode else None


def unlike(module: nn.Module) -> str:
    """Why a layer of such a kind cannot be replaced by the member; "" if it can, if it drops nothing, or if it is of
    another kind."""
    if is_block(module):
        if getattr(module, "with_noise", False):
            return "which fills blocks with noise, unlike DropBlock"
        return "" if getattr(module, "scale_by_keep", True) else "which does not scale, unlike DropBlock"
    rate = _rate_of(module)
    if rate and vars(module)[rate] and _mode(module, rate) is None:
        return f"whose {rate} is {vars(module)[rate]}, but which does not do what DropPath does"
    return ""


def is_block(module: nn.Module) -> bool:
    """Whether a layer is the DropBlock of a known package. Goes by the class name, so as to import no package."""
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
    """The attribute that holds the rate of a layer that drops branches; None for any other layer. Goes by the names of
    the class and of its attributes."""
    if isinstance(module, Keyed) or not _BRANCHES.fullmatch(type(module).__name__):
        return None
    if [*module.parameters(), *module.buffers(), *module.children()]:
        return None
    rates = [name for name in RATES if name in vars(module)]
    return rates[0] if len(rates) == 1 and isinstance(vars(module)[rates[0]] or 0.0, float) else None


def _mode(module: nn.Module, rate: str) -> str | None:
    """The mode of `DropPath` that does what a layer does, found by running it on 64 examples at p = 0.5: in "example"
    mode each example is zeroed or doubled by itself, in "batch" mode all together. None if it does anything else.
    Restores torch's generators."""
    tried = copy.copy(module)
    vars(tried)[rate] = 0.5
    X = torch.ones(64, 2, 3, device="cpu")
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        try:
            forward = type(tried).forward
            first, second, kept = (forward(tried.train(mode), X) for mode in (True, True, False))
            once = [first, second, *(forward(tried.train(), X) for _ in range(62))]
        except Exception:  # it takes other inputs, so it is not DropPath
            return None
    if not all(isinstance(Y, torch.Tensor) and Y.shape == X.shape for Y in (*once, kept)) or not torch.equal(kept, X):
        return None
    values = torch.stack([Y[:, 0, 0] for Y in once])
    if not all(torch.equal(Y, Y[:, :1, :1].expand_as(Y)) for Y in once) or set(values.unique().tolist()) != {0.0, 2.0}:
        return None
    if torch.equal(values, values[:, :1].expand_as(values)):
        return "batch"
    return "example" if not torch.equal(first, second) else None
