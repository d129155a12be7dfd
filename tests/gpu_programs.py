"""What Inductor makes for a GPU, where there is none: its programs are made for one, and run in Triton's interpreter.

For that, import `gpu_ways` before.
"""

from __future__ import annotations

import linecache
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton.language as tl
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import detect_fake_mode
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.graph import GraphLowering
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own
    import torch._inductor.compile_fx

H100 = SimpleNamespace(
    name="NVIDIA H100",
    type="cuda",
    index=0,
    multi_processor_count=132,
    cc=90,
    major=9,
    minor=0,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    gcnArchName="",
    total_memory=80 * 2**30,
)
TARGET = GPUTarget("cuda", 90, 32)
BLOCK = 64
"""How many elements along each axis a program of the interpreter takes."""


class Made(Exception):
    """Inductor has made a program."""


class Programs:
    """The programs of a function, for the forward and the backward pass.

    Attributes:
        sources: their texts, in the order in which Inductor made them.
    """

    def __init__(self) -> None:
        self.sources: list[str] = []

    @property
    def drawn(self) -> int:
        """How many times a kernel computes a mask."""
        return sum(source.count("= tl.inline_asm_elementwise(") for source in self.sources)

    @property
    def read(self) -> int:
        """How many times bits are drawn ahead."""
        return sum(source.count("= torch.ops.multidrop.bits.default(") for source in self.sources)


def made(function: Callable[..., Any], positions: str = "cuda") -> tuple[Any, Programs]:
    """A function of tensors, compiled as for a GPU, and its programs, which it has once it has run.

    Args:
        function: the function.
        positions: where the streams and the positions are that a program is given.
    """
    programs = Programs()

    def place(X: torch.Tensor) -> str:
        return positions if (X.dtype, X.shape) == (torch.int64, (2,)) else "cuda"

    def compiler(graph: Any, example: Sequence[Any]) -> Callable[..., Any]:
        with detect_fake_mode(example) or FakeTensorMode():
            there = [
                torch.empty_strided(X.shape, X.stride(), dtype=X.dtype, device=place(X))
                if isinstance(X, torch.Tensor)
                else X
                for X in example
            ]
            for node in graph.graph.nodes:
                if "device" in node.kwargs:
                    node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
            graph.recompile()
            placed = make_fx(graph)(*there)
        texts: list[str] = []

        def save(text: str) -> None:
            texts.append(text)
            raise Made

        with suppress(Made), a_gpu(), patch.object(GraphLowering, "save_output_code", staticmethod(save)):
            try:
                torch._inductor.compile_fx.compile_fx_inner(placed, there)
            except Exception as error:  # Inductor wraps it
                if not texts:
                    raise
                raise Made from error
        programs.sources += texts
        run: Any = interpreted(texts[0])
        run._boxed_call = True  # it takes a list
        return run

    backend = aot_autograd(
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )
    torch.compiler.reset()
    return torch.compile(function, backend=backend, fullgraph=True, dynamic=False), programs


@contextmanager
def a_gpu() -> Iterator[None]:
    """torch says that it has a GPU, and Triton that it compiles for one."""
    stand_ins: dict[str, Any] = {
        "_get_device_properties": lambda *_: H100,
        "get_device_properties": lambda *_: H100,
        "get_device_capability": lambda *_: (9, 0),
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "current_stream": lambda *_: SimpleNamespace(cuda_stream=0),
        "is_current_stream_capturing": lambda: False,
        "set_device": lambda *_: None,
        "_DeviceGuard": lambda *_: ExitStack(),
        "_exchange_device": lambda *_: 0,
        "_maybe_exchange_device": lambda *_: 0,
        "_lazy_init": lambda: None,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "synchronize": lambda *_: None,
    }
    before = driver._active
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: TARGET,
            get_current_device=lambda: 0,
            get_current_stream=lambda *_: 0,
            get_active_torch_device=lambda: torch.device("cuda", 0),
            utils=SimpleNamespace(get_device_properties=lambda *_: {"max_shared_mem": 2**17}),
        )
    )
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(patch.object(torch.cuda, name, stand_in, create=True))
        stack.enter_context(patch.object(torch.version, "cuda", "12.8"))
        stack.enter_context(patch("torch._inductor.scheduler.has_triton", lambda *_: True))
        stack.enter_context(patch.object(AsyncCompile, "triton", lambda self, name, text, **_: Kernel(name, text)))
        stack.enter_context(patch.object(torch._C, "_cuda_getCurrentRawStream", lambda *_: 0, create=True))
        try:
            yield
        finally:
            driver._active = before


def interpreted(source: str) -> Callable[..., Any]:
    """A program of Inductor's for a GPU, as a function that runs on the host."""
    source = source.replace("torch._C._dynamo.guards._empty_strided_cuda", "torch._C._dynamo.guards._empty_strided_cpu")
    source = source.replace("device(type='cuda', index=0)", "torch.device('cpu')")
    module = ModuleType("program")
    with a_gpu():
        exec(compile(source, "program", "exec"), vars(module))

    def run(given: list[Any]) -> Any:
        with a_gpu():
            return module.call(list(given))  # type: ignore[attr-defined]  # by its text

    return run


class Kernel:
    """A kernel of Inductor's, launched in Triton's interpreter."""

    def __init__(self, name: str, text: str) -> None:
        # Its decorator chooses a grid and compiles. The file is for Triton, which reads the text.
        text = re.sub(r"@triton_heuristics\..*?(?=@triton\.jit)", "", text, flags=re.S)
        text = text.replace("triton_helpers.set_driver_to_gpu()", "")
        file = f"<{name} {id(self)}>"
        linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
        names: dict[str, Any] = {"__name__": name}
        exec(compile(text, file, "exec"), names)
        names["libdevice"] = names["tl_math"] = tl.math  # the interpreter has no library of NVIDIA's
        self.kernel = names[name]
        self.blocks = [each for each in ("XBLOCK", "YBLOCK", "ZBLOCK") if f"{each} : tl.constexpr" in text]
        self.inner = {"R0_BLOCK": BLOCK} if "R0_BLOCK : tl.constexpr" in text else {}

    def run(self, *given: Any, stream: int) -> None:
        sizes = [each for each in given if isinstance(each, int)]
        names = [name for name in self.kernel.arg_names if name.endswith("numel")]
        numbers = dict(zip(names, sizes[-len(names) :], strict=True))
        grid = [-(-numbers[f"{block[0].lower()}numel"] // BLOCK) for block in self.blocks]
        self.kernel[(*grid, 1, 1)[:3]](*given, **dict.fromkeys(self.blocks, BLOCK), **self.inner)
