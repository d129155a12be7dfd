"""What Inductor makes of a dropout on a GPU: which form it takes, its bits, and that it compiles.

The programs are made for a GPU that is not there, and run in Triton's interpreter.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_ways  # before torch: it sets Triton's variable, or skips
import pytest
import torch
from gpu_ways import KEY, P, expected, same_bits, tie, without_gpu
from multidrop_torch import Dropout, functional
from multidrop_torch.gpu import pointwise
from torch import Tensor, nn

from multidrop import Key
from multidrop.spec.masks import Mask

if not gpu_ways.CUDA:
    from gpu_programs import made

pytestmark = [
    gpu_ways.marks,
    without_gpu,
    # torch's own, when it compiles for the first time.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch"),
]
kernels_alone = gpu_ways.kernels_alone
SHAPE = (6, 40)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a dropout is decides its form, as it does for large tensors."""
    monkeypatch.setattr(pointwise, "SMALL", 0)


def chain(p: float = P, key: Key = KEY, start: int = 0, axes: tuple[int, ...] = ()) -> Callable[[Tensor], Tensor]:
    return lambda X: functional.dropout_layer(X * 2.0, p, key, start=start, axes=axes)


class TestBits:
    """Forward and gradient, in the fused code."""

    @staticmethod
    def assert_bits(shape: tuple[int, ...], mask: Mask, dtype: Any = torch.float32) -> None:
        X, dY = torch.randn(shape).to(dtype).requires_grad_(), torch.randn(shape).to(dtype)
        function, programs = made(chain(*mask))
        Y = function(X)
        (dX,) = torch.autograd.grad(Y, X, dY)
        assert same_bits(Y, expected(X.detach() * 2.0, mask))
        assert same_bits(dX, expected(dY, mask) * 2.0)
        assert programs.drawn == 2
        assert programs.read == 0

    @pytest.mark.parametrize("p", [P, 0.5, 1.0, 1 - 2**-20, tie(KEY, 70, 0), tie(KEY, 70, 1)])
    def test_probabilities(self, p: float) -> None:
        self.assert_bits(SHAPE, Mask(p, KEY))

    @pytest.mark.parametrize("start", [3, 2**32 - 5, 2**35 - 4, 2**63 - 9, 2**64 - 1000])
    def test_starts(self, start: int) -> None:
        self.assert_bits(SHAPE, Mask(P, KEY, start))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
    def test_types(self, dtype: Any) -> None:
        self.assert_bits((3, 64), Mask(0.5, KEY), dtype)

    @pytest.mark.parametrize(
        ("shape", "axes"), [((2, 3, 4, 4), (2, 3)), ((4, 6, 5), (0,)), ((5, 7), (1,)), ((5, 7), (0, 1)), ((2,), ())]
    )
    def test_shapes_and_axes(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
        self.assert_bits(shape, Mask(P, KEY, 5, axes))

    def test_more_elements_than_32_bits_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        below = pointwise.compiler.Inductor.below
        monkeypatch.setattr(
            pointwise.compiler.Inductor, "below", lambda self, size, bound: bound < 2**31 and below(self, size, bound)
        )
        self.assert_bits(SHAPE, Mask(P, KEY, 2**40))

    def test_one_element_and_none(self) -> None:
        for shape in ((), (1,), (1, 1)):
            X = torch.ones(shape)
            function, programs = made(chain())
            assert same_bits(function(X), expected(X * 2.0, Mask(P, KEY)))
            assert (programs.drawn, programs.read) == (0, 1)
        function, _ = made(chain())
        assert function(torch.ones(0, 3)).shape == (0, 3)

    def test_transposed_neighbours(self) -> None:
        """Programs of two dimensions, in which the parts of a mask have different shapes."""
        X, Z = torch.randn(64, 48), torch.randn(48, 64)
        for axes in ((), (1,), (0,)):
            function, _ = made(lambda X, Z, axes=axes: chain(axes=axes)(X) + Z.T)
            assert torch.equal(function(X, Z), expected(X * 2.0, Mask(P, KEY, 0, axes)) + Z.T)

    def test_a_layer(self) -> None:
        """By the position that a run takes."""
        X, layer = torch.randn(SHAPE, requires_grad=True), Dropout(P, seed=Key(7, 2**32))
        function, programs = made(lambda X: layer(X * 2.0))
        for call in range(2):
            mask = Mask(P, Key(7, 2**32 + call))
            Y = function(X)
            assert same_bits(Y, expected(X.detach() * 2.0, mask))
            (dX,) = torch.autograd.grad(Y, X, torch.ones(SHAPE))
            assert same_bits(dX, expected(torch.ones(SHAPE), mask) * 2.0)
        assert programs.drawn == 2

    def test_positions_on_the_host(self) -> None:
        """Of a layer that was not moved to the GPU, or a call without a key: no code there can read one."""
        X, layer = torch.randn(SHAPE, requires_grad=True), Dropout(P, seed=KEY)
        for drop in (layer, lambda X: functional.dropout_layer(X, P)):
            function, programs = made(lambda X, drop=drop: drop(X * 2.0), positions="cpu")
            Y = function(X)
            (dX,) = torch.autograd.grad(Y, X, torch.ones(SHAPE))
            assert torch.equal(Y != 0, dX != 0)
            assert (programs.drawn, programs.read) == (0, 2)


class Mixed(nn.Module):
    """A product, a chain with a dropout, and a product."""

    def __init__(self, *middle: nn.Module, width: int = 40) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.middle, self.drop = nn.Sequential(*middle), Dropout(P, seed=KEY)

    def forward(self, X: Tensor) -> Tensor:
        return self.second(self.middle(self.drop(torch.relu(self.first(X)))))


@pytest.mark.usefixtures("large")
class TestForm:
    """A mask is drawn in pointwise code, and read in code that may be fused with a reduction."""

    @staticmethod
    def forms(model: Callable[..., Tensor], *inputs: Tensor) -> tuple[int, int]:
        """How often a mask is drawn and read, in both passes; the results are those of the model itself."""
        original = copy.deepcopy(model)  # with layers that stand where these do
        function, programs = made(model)
        leaves = [X for X in inputs if X.requires_grad]
        Y = function(*inputs)
        found = torch.autograd.grad(Y, leaves, torch.ones_like(Y)) if leaves else ()
        Z = original(*inputs)
        torch.testing.assert_close(Y, Z)
        wanted = torch.autograd.grad(Z, leaves, torch.ones_like(Z)) if leaves else ()
        torch.testing.assert_close(found, wanted)
        return programs.drawn, programs.read

    def test_between_products(self) -> None:
        X = torch.randn(SHAPE, requires_grad=True)
        assert self.forms(Mixed(), X) == (2, 0)
        assert self.forms(Mixed(nn.GELU()), X) == (2, 0)

    def test_after_one_of_several_results(self) -> None:
        """A convolution's gradient comes with that of its weight."""
        W, X = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(2, 3, 6, 6, requires_grad=True)
        assert self.forms(lambda X, W: nn.functional.conv2d(chain()(X), W), X, W) == (2, 0)

    def test_before_a_reduction(self) -> None:
        X = torch.randn(SHAPE)
        assert self.forms(Mixed(nn.LayerNorm(40)), X) == (0, 1)
        assert self.forms(lambda X: chain()(X).sum(0), X) == (0, 1)

    def test_after_a_reduction(self) -> None:
        assert self.forms(lambda X: chain()(torch.softmax(X, -1)), torch.randn(SHAPE)) == (0, 1)

    def test_several_users(self) -> None:
        """What several kernels use is drawn once, and kept in memory."""

        def alone(X: Tensor, W: Tensor) -> Tensor:
            Y = functional.dropout_layer(X, P, KEY)
            return torch.relu(Y) @ W + Y

        def negated(X: Tensor, W: Tensor) -> Tensor:
            Y = -functional.dropout_layer(X, P, KEY)
            return torch.relu(Y) @ W + Y

        for function in (alone, negated):
            assert self.forms(function, torch.randn(40, 40), torch.randn(40, 40)) == (1, 0)

    def test_the_backward_pass_chooses_for_itself(self) -> None:
        """A bias' gradient is a sum."""
        X, b = torch.randn(SHAPE), torch.randn(40, requires_grad=True)
        assert self.forms(lambda X, b: chain()(X + b), X, b) == (1, 1)

    def test_in_another_order(self) -> None:
        """No thread holds neighbours of the mask's."""
        X = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
        assert self.forms(chain(), X) == (0, 1)

    def test_small_tensors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second launch costs more than to draw within a reduction."""
        monkeypatch.setattr(pointwise, "SMALL", 240)
        assert self.forms(lambda X: chain()(X).sum(0), torch.randn(12, 20)) == (1, 0)
        assert self.forms(lambda X: chain()(X).sum(0), torch.randn(241, 1)) == (0, 1)

    def test_without_assembly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On another maker's GPU, or where torch lacks the name."""
        monkeypatch.setattr(pointwise.compiler.inductor(), "assembles", False)
        assert self.forms(Mixed(), torch.randn(SHAPE)) == (0, 1)


COMPILE = """
import re

import torch
import triton
from gpu_programs import TARGET, Kernel, made
from multidrop import Key
from multidrop_torch import functional
from triton.compiler import ASTSource

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float64: "*fp64", torch.int64: "*i64"}
found = []


def compiled(self, *given, stream):
    # As Inductor does by default for so many elements.
    types = [TYPES[each.dtype] if isinstance(each, torch.Tensor) else "i32" for each in given]
    signature = dict(zip(self.kernel.arg_names, [*types, "constexpr"], strict=True))
    aligned = {(number,): [["tt.divisibility", 16]] for number in range(len(given))}
    source = ASTSource(self.kernel, signature, {"XBLOCK": 1024}, aligned)
    found.append(triton.compile(source, target=TARGET, options={"num_warps": 4}).asm)


Kernel.run = compiled
for dtype, wide in ((torch.bfloat16, 1), (torch.float32, 2), (torch.float64, 4)):
    X, b, c = (torch.ones(shape, dtype=dtype) for shape in ((2**9, 2**10), (2**10,), (2**10,)))
    function, programs = made(lambda X, b, c: functional.dropout_layer(torch.relu(X + b), 0.2, Key(7)) * c)
    function(X, b, c)
    assert (programs.drawn, programs.read) == (1, 0)
    asm = found.pop()
    assert asm["cubin"]
    ptx = asm["ptx"]
    assert ptx.count("NEXT:") == 1, ptx  # one text for the eight elements of a thread
    assert len(re.findall(r"ld.global\\S*v[24].b\\d+", ptx)) >= wide, ptx
assert not found
"""


def test_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Assembly and all: one kernel, in which a thread draws for its eight elements at once."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
