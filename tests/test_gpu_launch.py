"""How the kernels for GPUs are compiled and launched."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_ways  # before torch: it sets Triton's variable, or skips
import pytest
import torch
from gpu_ways import (
    without_gpu,
)
from multidrop_torch.gpu import launch

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone


@without_gpu
class TestLaunch:
    """What Triton's C function is given, by a stand-in for a compiled kernel."""

    @pytest.fixture
    def launched(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        monkeypatch.setattr(launch, "raw_stream", lambda index: 1000 + index)
        return []

    @staticmethod
    def kernel(launched: list[Any], **options: Any) -> Any:
        common = {
            "launch": lambda *arguments: launched.append(arguments),
            "launch_cooperative_grid": False,
            "launch_pdl": False,
            "global_scratch_size": 0,
            "profile_scratch_size": 0,
            "arg_annotations": ("annotations",),
            "kernel_signature": b"signature",
        }
        return SimpleNamespace(run=SimpleNamespace(**common | options), function=77, packed_metadata=(4, 1, 0))

    def test_arguments(self, launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        X, Y = torch.ones(3), torch.ones(3)
        begin, given = (5, 1, 1, 1002, 77, False, False), (X.data_ptr(), Y.data_ptr(), 7, 8, 128, True)
        metadata, hooks, scratch = (4, 1, 0), (None, None, None), (None, None)
        for versions, rest in (
            (launch.SPREAD, (*scratch, metadata, *hooks, *given)),
            (launch.TOGETHER, (metadata, *hooks, *scratch, ("annotations",), b"signature", given)),
        ):
            for version in versions:
                monkeypatch.setattr("triton.__version__", f"{version}1")
                direct: Any = launch._directly(self.kernel(launched), 2, (128, True))
                direct(5, (X, Y), 7, 8)
                assert launched.pop() == (*begin, *rest)

    def test_the_installed_version(self) -> None:
        """Triton's own launcher passes what is passed here: if not, look at what has changed there."""
        from triton import __version__ as version
        from triton.backends.nvidia.driver import CudaLauncher

        source = " ".join(inspect.getsource(CudaLauncher.__call__).split())
        options = "self.launch_cooperative_grid, self.launch_pdl, "
        if version.startswith(launch.SPREAD):
            rest = "global_scratch, profile_scratch, *args"
        else:
            assert version.startswith(launch.TOGETHER), f"Triton {version} is not known: small calls take longer"
            rest = (
                "kernel_metadata, launch_metadata, launch_enter_hook, launch_exit_hook, global_scratch, "
                "profile_scratch, self.arg_annotations, self.kernel_signature, "
            )
        assert f"self.launch(gridX, gridY, gridZ, stream, function, {options}{rest}" in source

    def test_unknown_versions(self, launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Another version of Triton may take other arguments: its own launcher is slower, and right."""
        for options in ({"global_scratch_size": 8}, {"profile_scratch_size": 8}, {"gsan_enabled": True}):
            assert launch._directly(self.kernel(launched, **options), 0, ()) is None
        monkeypatch.setattr("triton.__version__", "3.99.0")
        assert launch._directly(self.kernel(launched), 0, ()) is None


COMPILE = """
import re
from types import SimpleNamespace

import torch
from multidrop import Key
from multidrop.spec.masks import Mask
from multidrop_torch import gpu
from multidrop_torch.gpu import launch, positions
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

# A driver of a GPU that is not there: what is compiled is real, and what is launched is noted.
target, launched = GPUTarget("cuda", 90, 32), []
utils = SimpleNamespace(
    get_device_properties=lambda index: {"max_shared_mem": 2**17},
    load_binary=lambda *_: ("module", "function", 64, 0, 1024),
)
stand_in = SimpleNamespace(
    get_current_target=lambda: target,
    get_current_device=lambda: 0,
    get_current_stream=lambda index: 0,
    launcher_cls=lambda source, metadata: lambda *arguments: launched.append((source, arguments)),
    utils=utils,
)
driver.set_active(stand_in)

def holds(name, types, constants, warps, *instructions):
    kernel = launch.compiled("kernels", name, types, -1, constants, warps)
    ptx = kernel.asm["ptx"]
    for instruction in instructions:
        assert instruction in ptx, (instruction, ptx)
    assert not re.search(r"\\bfma\\b|\\.ftz", ptx), ptx
    assert not any(kernel.src.attrs.values()), kernel.src.attrs  # nothing hangs on the arguments' values
    return ptx

def typed(dtype, count, *more):
    return (dtype,) * count + more

blocks, size, wide = (gpu.BLOCKS,), (gpu.SIZE,), ("ld.global.v4.b32", "st.global.v4.b32")
tile = (gpu.TILE_COLUMNS, gpu.TILE_BLOCKS)
place = (torch.int64,) * 3
single, brain, half, double = torch.float32, torch.bfloat16, torch.float16, torch.float64
# FROM, KEEP, RELU, DOUBLE, TIES, SKIPS, ALIGNED
for source in (0, 1, 2, 3):
    holds("linear", typed(single, 2, *place), (*blocks, source, False, False, False, True, False, True), 2,
          "mul.rn.f32", *wide)
holds("linear", typed(brain, 2, *place), (*blocks, 0, False, True, False, True, False, True), 2, "cvt.rn.bf16.f32",
      *wide)
holds("linear", typed(half, 2, *place), (*blocks, 0, False, False, False, False, False, True), 2, "cvt.rn.f16.f32",
      *wide)
holds("linear", typed(double, 2, *place), (*blocks, 0, False, False, True, True, False, True), 2, "mul.rn.f64",
      "st.global.v2.b64")
holds("linear", typed(single, 2, *place), (*blocks, 0, False, False, False, True, True, False), 2, "mul.rn.f32")
holds("linear", typed(torch.uint8, 2, *place), (*blocks, 0, True, False, False, True, False, True), 2,
      "st.global.v4.b32")
# ROW, DIMS, WIDE, SHARED, RELU, DOUBLE, ALIGNED
holds("permuted", typed(single, 2, torch.uint8), (*size, 1, 5, False, False, False, False, True), 4, "mul.rn.f32",
      *wide)
holds("permuted", typed(brain, 2, torch.uint8), (*size, 8, 2, True, True, True, False, True), 4, "cvt.rn.bf16.f32",
      *wide)
for dtype in (single, brain):
    ptx = holds("linear", typed(dtype, 2, *place), (*blocks, 0, False, False, False, 2, False, True), 2, *wide)
    assert "bra NONE" in ptx
assert "bar.sync" not in ptx  # no thread waits for another
holds("plane", (torch.uint8, torch.int64), (*size, 1, 2), 4, "bra NONE")
holds("tile", typed(single, 2, torch.int64), (*tile, 1, False, False, 2, True), 4, "bra NONE")
holds("gate", typed(brain, 3), (*size, False, True), 4, "cvt.rn.bf16.f32", *wide)
holds("plane", (torch.uint8, torch.int64), (*size, 1, True), 4)
ptx = holds("tile", typed(single, 2, torch.int64), (*tile, 1, False, False, False, True), 4, "mul.rn.f32", *wide)
products = len(re.findall("mul.hi.u32|mul.wide.u32", ptx))  # two a round: no block is drawn by two threads
assert products <= 20 * tile[0] * tile[1] // 128, products
X, key = torch.ones(10, 16), Key(2**64 - 1, 2**63)
Y = gpu.drop(X, Mask(0.2, key, 2**64 - 200))
gpu.drop_(X.T, Mask(0.2, key))
gpu.drop_(X.view(8, 20).T, Mask(0.2, key))
gpu.relu_gradient(X, X, 0.2)
gpu.keep_mask((5,), 0.5, key, 3, torch.device("cpu"))
stream = torch.zeros(2, dtype=torch.int64)
gpu.take(stream)
gpu.take_and_drop(X, 0.2, 0, (), stream)
positions.follow(stream, Key(2**64 - 1, 2**64 - 2))
gpu.take(stream)
gpu.take_and_drop(X, 0.2, 0, (), stream)
names = [source.fn.__name__ for source, _ in launched]
assert names == ["linear", "plane", "permuted", "tile", "gate", "linear", "take", "linear", "take", "linear"], names
for source, arguments in launched:
    given = arguments[-len(source.signature) :]
    for (name, type), value in zip(source.signature.items(), given, strict=True):
        if type.startswith("*"):
            assert isinstance(value, torch.Tensor), (name, value)
        elif type != "constexpr":
            low, high = {"u64": (0, 2**64), "i64": (-(2**63), 2**63), "i32": (-(2**31), 2**31)}[type]
            assert low <= value < high, (name, value)
    constants = [value for type, value in zip(source.signature.values(), given) if type == "constexpr"]
    assert constants == list(source.constants.values()), (constants, source.constants)
_, arguments = launched[0]
assert arguments[:3] == (1, 1, 1), arguments
assert arguments[-21:-10] == (X, Y, Y, Y, Y, 160, 0, 2**61 - 25, key.seed, key.call, 52428), arguments
"""


@without_gpu
def test_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Triton's compiler takes more care with types than its interpreter. Loads and stores have 16 bytes, products and
    conversions round to the nearest, nothing is fused, and denormals stay."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
