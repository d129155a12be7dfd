"""Programs and models whose dropout is compared on a GPU: a compiled chain, a transformer, the section's net.

Each function returns the calls to time: without dropout ("none"), with multidrop's, and with torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from multidrop_torch import Dropout, Net
from multidrop_torch.gpu import pointwise
from torch import Tensor, nn

from multidrop import Key

Call = Callable[[], Any]

BLOCKS, WIDTH, HEADS, BATCH, TOKENS, WORDS = 6, 768, 12, 16, 1024, 8192
TRANSFORMER_P = 0.1
EXAMPLES = 256  # of the section's net
DESCRIBED = {
    "transformer": ("bfloat16", "transformer"),
    "section's net, captured": ("float32", "section's net, captured"),
}
KEPT = 2**20  # elements whose bytes for the backward pass are counted

compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = torch.compile


def layer(kind: str, p: float, number: int = 0) -> nn.Module:
    """A dropout layer: none, multidrop's, or torch's own."""
    if kind == "none":
        return nn.Identity()
    return nn.Dropout(p) if kind == "torch" else Dropout(p, seed=Key(11, 0).fold_in(number))


KINDS = ("none", "multidrop", "torch")
DRAWN = "multidrop, drawn"  # with masks drawn in all fused code, where multidrop reads them beside a reduction


def chain(size: int, dtype: torch.dtype, p: float, place: str, backward: bool = False) -> dict[str, Call]:
    """relu(x + b) → dropout → · c, compiled, forward, or with the gradient of x."""
    torch.compiler.reset()  # which compiles a function eight times, and then runs it as it is
    width = min(size, 1024)
    X = torch.randn(size // width, width, dtype=dtype, device=place, requires_grad=backward)
    b, c = (torch.randn(width, dtype=dtype, device=place) for _ in range(2))
    dY = torch.randn_like(X)

    def call(kind: str) -> Call:
        drop = layer(kind, p).to(place)
        run = compiled(lambda X: drop(torch.relu(X + b)) * c)
        return (lambda: torch.autograd.grad(run(X), X, dY)) if backward else (lambda: run(X))

    return {kind: call(kind) for kind in KINDS}


class Block(nn.Module):
    """A block of a transformer, with dropout after the attention and the feed-forward net."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop1, self.drop2 = layer(kind, TRANSFORMER_P, 2 * number), layer(kind, TRANSFORMER_P, 2 * number + 1)

    def forward(self, X: Tensor) -> Tensor:
        q, k, v = (each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.qkv(self.norm1(X)).chunk(3, dim=-1))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        X = X + self.drop1(self.out(attended.transpose(1, 2).flatten(2)))
        return X + self.drop2(self.narrow(nn.functional.gelu(self.wide(self.norm2(X)))))


def transformer(place: str) -> dict[str, Call]:
    """A training step, compiled: forward, backward, and the optimiser."""
    tokens = torch.randint(WORDS, (BATCH, TOKENS), device=place)

    def call(kind: str) -> Call:
        torch.manual_seed(0)
        blocks = [Block(kind, number) for number in range(BLOCKS)]
        net = nn.Sequential(nn.Embedding(WORDS, WIDTH), *blocks, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS))
        net = net.to(place, torch.bfloat16)
        run = compiled(lambda: nn.functional.cross_entropy(net(tokens).flatten(0, 1), tokens.flatten()))
        optimizer = torch.optim.SGD(net.parameters(), 1e-3)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            run().backward()
            optimizer.step()

        if kind == DRAWN:
            with _drawn_everywhere():
                step()  # which compiles it
        return step

    return {kind: call(kind) for kind in (*KINDS, DRAWN)}


@contextmanager
def _drawn_everywhere() -> Iterator[None]:
    """Has compiled programs draw masks wherever they are fused. Caches do not see it."""
    before, pointwise.SMALL = pointwise.SMALL, 2**62
    try:
        with torch.compiler.config.patch(force_disable_caches=True):
            yield
    finally:
        pointwise.SMALL = before


class OwnNet(nn.Module):
    """The section's net with torch's dropout, or none."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.lin1, self.lin2, self.lin3 = nn.Linear(784, 256), nn.Linear(256, 256), nn.Linear(256, 10)
        self.dropout1, self.dropout2 = layer(kind, 0.2), layer(kind, 0.5)

    def forward(self, X: Tensor) -> Tensor:
        H1 = self.dropout1(torch.relu(self.lin1(X.flatten(1))))
        return self.lin3(self.dropout2(torch.relu(self.lin2(H1))))


def captured_net(place: str) -> dict[str, Call]:
    """A training step of the section's net, replayed from a CUDA graph."""
    X, y = torch.randn(EXAMPLES, 1, 28, 28, device=place), torch.randint(10, (EXAMPLES,), device=place)

    def call(kind: str) -> Call:
        net = (Net(seed=1) if kind == "multidrop" else OwnNet(kind)).to(place)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(net(X), y).backward()
            optimizer.step()

        return _captured(step, place)

    return {kind: call(kind) for kind in KINDS}


def _captured(step: Call, place: str) -> Call:
    """A step as a CUDA graph; where there is no GPU, as it is."""
    if place != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


WAYS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "eager": lambda run: run,
    "compiled": lambda run: compiled(run),
}
"""How a dropout is called whose bytes are counted."""


def kept_bytes(way: str, p: float, place: str) -> dict[str, float]:
    """Bytes that the backward pass of multidrop's dropout and of torch's keeps for each element of the input, but for
    the input itself."""

    def count(kind: str) -> float:
        drop, kept = layer(kind, p).to(place), dict[int, int]()
        X = torch.randn(KEPT // 64, 64, device=place, requires_grad=True)

        def pack(Y: Tensor) -> Tensor:
            kept[Y.data_ptr()] = Y.nbytes
            return Y

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda Y: Y):
            WAYS[way](lambda X: drop(X * 2.0))(X)  # after a product, which keeps nothing
        kept.pop(X.data_ptr(), None)
        return sum(kept.values()) / X.numel()

    return {kind: count(kind) for kind in ("multidrop", "torch")}
