"""PyTorch, eager and under `torch.compile`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import multidrop_torch
import torch
from torch import Tensor
from torch.nn import functional as F

import multidrop as md

from ..section import on_torch as section
from . import APART, COPY, EAGER, FUSED, NONE, OURS, OWN, OWN_PAIR, P1, P2, SECTION, Candidate, Case, inputs
from .memory import resident

COMPILED = "torch.compile"

Drop = Callable[[Tensor], Tensor]


class Measured:
    """See `Framework`."""

    name = "torch"
    modes = (EAGER, COMPILED)
    dtypes = ("float16", "bfloat16", "float32", "float64")
    layouts = ("contiguous", "channels-last")

    def __init__(self, device: str) -> None:
        if device == "gpu" and not torch.cuda.is_available():
            raise ImportError("this torch has no GPU")
        self.device = "cuda" if device == "gpu" else "cpu"
        torch._dynamo.config.recompile_limit = 64  # beyond the limit a function silently runs eagerly
        md.manual_seed(0)

    def candidates(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        return self._builders(case, self._compiled(case.p) if case.mode == COMPILED else self._eager(case.p))

    def rectified(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        drops: dict[str, Drop] = {
            FUSED: lambda X: md.relu_dropout(X, case.p),
            APART: lambda X: md.dropout_layer(torch.relu(X), case.p),
            OWN_PAIR: lambda X: F.dropout(torch.relu(X), case.p),
        }
        if case.mode == COMPILED:
            drops = {who: torch.compile(drop) for who, drop in drops.items()}
        return self._builders(case, drops)

    def _builders(self, case: Case, drops: dict[str, Drop]) -> dict[str, Callable[[], Candidate]]:
        X, dY = self._inputs(case)
        leaf = X.detach().clone().requires_grad_()

        def candidate(who: str) -> Candidate:
            drop = drops[who]
            if who == COPY:
                return Candidate(lambda: drop(X), lambda: (drop(X), drop(dY)))
            return Candidate(lambda: drop(X), lambda: _both(drop, leaf, dY))

        return {who: functools.partial(candidate, who) for who in drops}

    def _eager(self, p: float) -> dict[str, Drop]:
        return {
            OURS: lambda X: md.dropout_layer(X, p),
            OWN: lambda X: F.dropout(X, p),
            SECTION: lambda X: section.dropout_layer(X, p),
            COPY: torch.clone,
        }

    @functools.cache  # noqa: B019  # compiled once for all sizes, as in a program; a process has only one `Measured`
    def _compiled(self, p: float) -> dict[str, Drop]:
        eager = self._eager(p)
        layer = multidrop_torch.Dropout(p, seed=0).to(self.device)  # compiled programs usually consist of layers
        drops: dict[str, Drop] = {**eager, OURS: layer, OWN: torch.nn.Dropout(p)}
        return {who: torch.compile(drop) for who, drop in drops.items()}

    def ways(self, case: Case) -> dict[str, Callable[[], Any]]:
        (X, _), p, key, function = self._inputs(case), case.p, md.Key(0), md.dropout_layer
        layer, own = multidrop_torch.Dropout(p, seed=0).to(self.device), torch.nn.Dropout(p)
        md.manual_seed(None)
        unseeded = multidrop_torch.Dropout(p)
        md.manual_seed(0)
        return {
            "framework: nn.Dropout": lambda: own(X),
            "framework: F.dropout": lambda: F.dropout(X, p),
            "multidrop: the layer, seeded": lambda: layer(X),
            "multidrop: the layer, by torch's generator": lambda: unseeded(X),
            "multidrop: the function, with a key": lambda: function(X, p, key),
            "multidrop: the function, after manual_seed": lambda: function(X, p),
        }

    def chain(self, who: str, depth: int, case: Case) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        X, dY = self._inputs(case)
        leaf, drop = X.requires_grad_(), self._eager(case.p)[who]

        def forward() -> Tensor:
            Y = leaf
            for _ in range(depth):
                Y = drop(Y)
            return Y

        return forward, lambda Y: torch.autograd.grad(Y, leaf, dY)

    def nets(self) -> dict[str, Callable[[], Any]]:
        def net(dropout: Callable[[float], torch.nn.Module]) -> torch.nn.Module:
            return section.Net(dropout, P1, P2)

        return {
            OURS: lambda: md.Net(seed=0),
            APART: lambda: net(functools.partial(multidrop_torch.Dropout, seed=0)),
            OWN: lambda: net(torch.nn.Dropout),
            SECTION: lambda: net(section.Formula),
            NONE: lambda: net(torch.nn.Identity),
        }

    def train_as_in_section(self, net: Any, train_iter: Any, test_iter: Any, epochs: int, lr: float) -> float:
        return section.train(net, train_iter, test_iter, epochs, lr)

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.device == "cpu" else torch.device(self.device)

    def accounted(self, who: str, case: Case) -> int | None:
        X, _ = self._inputs(case)
        leaf, drop = X.requires_grad_(), self._eager(case.p)[who]
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            drop(leaf)
        saved.pop(leaf.untyped_storage().data_ptr(), None)  # the program keeps the input anyway
        return sum(saved.values())

    def in_use(self) -> int:
        return torch.cuda.memory_allocated() if self.device == "cuda" else resident()

    def synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def to_numpy(self, tensor: Tensor) -> Any:
        return tensor.detach().double().cpu().numpy()

    def _inputs(self, case: Case) -> tuple[Tensor, Tensor]:
        layout = torch.channels_last if case.layout == "channels-last" else torch.contiguous_format
        dtype = getattr(torch, case.dtype)
        # Copied to torch's own memory, which has a larger alignment than NumPy's.
        X, dY = (torch.tensor(x, dtype=dtype).to(self.device, memory_format=layout) for x in inputs(case))
        return X, dY


def _both(drop: Drop, leaf: Tensor, dY: Tensor) -> tuple[Tensor, Tensor]:
    Y = drop(leaf)
    return Y, torch.autograd.grad(Y, leaf, dY)[0]
