"""Times dropout on a GPU: multidrop's kernels, torch's own dropout and a copy.

    PYTHONPATH=.:backends python benchmarks/gpu.py OUT.json

Needs torch, Triton and NumPy, and takes one to two minutes.

Times are medians of interleaved rounds. Device times are measured by CUDA events around calls that are enqueued while
the GPU is kept busy, so that they exclude the host. Host times are those of the calls alone; a call returns before the
GPU is done.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from multidrop_torch import Dropout, device, functional

from benchmarks import machine
from benchmarks.measure import Effort, interleaved, quartiles
from multidrop import Key
from multidrop.spec import masks

NONE = "no GPU: not measured"
PLACE = "cuda"
P = 0.2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = (2**24, 2**26, 2**28)
SMALL: tuple[tuple[int, ...], ...] = ((16,), (256, 256))
IMAGES = (64, 64, 128, 128)

EFFORT = Effort(1.5, 7, 200)
SAMPLE = 3e-3  # seconds of device time
ENQUEUED = 200  # the most calls in a sample, which the driver's queue holds without blocking
HERTZ = 2.0e9  # a GPU's clock; `_sleep` takes clock cycles

Call = Callable[[], Any]


def run(out: Path) -> int:
    """Measures, writes `out`, prints a table, and returns the exit status."""
    result: dict[str, Any] = {"experiment": "gpu", "machine": machine.facts("gpu"), "p": P, "records": []}
    if not torch.cuda.is_available():
        result["left_out"] = NONE
    else:
        result["kernels"] = device.ready(torch.cuda.current_device())
        check()
        result["records"] = records()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return 0


def check() -> None:
    """Checks that the timed function draws the specification's mask."""
    Y = functional.dropout_layer(torch.ones(3000, device=PLACE), P, Key(7, 3), start=5)
    if not torch.equal(Y.cpu() != 0, torch.from_numpy(masks.keep_mask(3000, P, Key(7, 3), 5))):
        raise RuntimeError("mask: expected the specification's; got a different one from multidrop on this GPU")


def records() -> list[dict[str, Any]]:
    """Runs all comparisons, and returns a record for each."""
    found = []
    for name, dtype in DTYPES.items():
        for size in SIZES:
            X = torch.randn(size, dtype=dtype, device=PLACE)
            found.append(_record(name, f"2^{size.bit_length() - 1}", "forward", _device(forward(X))))
            found.append(_record(name, f"2^{size.bit_length() - 1}", "forward + backward", _device(both(X))))
            del X
        X = torch.randn(IMAGES, dtype=dtype, device=PLACE)
        shape = "×".join(map(str, IMAGES))
        found.append(_record(name, f"{shape}, channels last", "forward", _device(forward(_last(X)))))
        found.append(_record(name, f"{shape}, channels", "forward", _device(forward(X, channels=True))))
        del X
    for shape in SMALL:
        X = torch.randn(shape, device=PLACE)
        calls = forward(X) | {"multidrop, layer": _layer(X)}
        size = "×".join(map(str, shape))
        found.append(_record("float32", size, "forward", _device(calls)))
        found.append(_record("float32", size, "forward, host", _host(calls)))
        found.append(_record("float32", size, "forward + backward, host", _host(both(X))))
    return found


def forward(X: torch.Tensor, channels: bool = False) -> dict[str, Call]:
    """The forward calls: a copy, multidrop's dropout and torch's, of elements or of whole channels."""
    counter = itertools.count()
    axes = (2, 3) if channels else ()
    own = torch.nn.functional.dropout2d if channels else torch.nn.functional.dropout
    return {
        "copy": X.clone,
        "multidrop": lambda: functional.dropout_layer(X, P, Key(1, next(counter)), axes=axes),
        "torch": lambda: own(X, P),
    }


def both(X: torch.Tensor) -> dict[str, Call]:
    """The calls with forward and backward. The copy's backward is a second copy."""
    dY, counter = torch.randn_like(X), itertools.count()
    leaf = X.detach().requires_grad_()
    grad = torch.autograd.grad
    return {
        "copy": lambda: (X.clone(), dY.clone()),
        "multidrop": lambda: grad(functional.dropout_layer(leaf, P, Key(1, next(counter))), leaf, dY),
        "torch": lambda: grad(torch.nn.functional.dropout(leaf, P), leaf, dY),
    }


def _last(X: torch.Tensor) -> torch.Tensor:
    return X.to(memory_format=torch.channels_last)


def _layer(X: torch.Tensor) -> Call:
    layer = Dropout(P, seed=1).to(PLACE)
    return lambda: layer(X)


def _record(dtype: str, size: str, what: str, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "size": size,
        "what": what,
        "rounds": len(seconds["copy"]),
        "seconds": {name: quartiles(each) for name, each in seconds.items()},
    }


def _device(calls: Mapping[str, Call]) -> dict[str, list[float]]:
    """The seconds of GPU time of each call, one number per round."""
    host = {name: min(each) for name, each in _host(calls, replace(EFFORT, most=3)).items()}
    repeats = {}
    for name, call in calls.items():
        once = min(_on_device(call, 3, host[name]) for _ in range(3))
        repeats[name] = max(1, min(ENQUEUED, round(SAMPLE / once)))
    return interleaved(calls, lambda name: _on_device(calls[name], repeats[name], host[name]), EFFORT)


def _on_device(call: Call, repeats: int, host: float) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(int((1.5 * repeats * host + 2e-4) * HERTZ))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / repeats


def _host(calls: Mapping[str, Call], effort: Effort = EFFORT) -> dict[str, list[float]]:
    """The seconds of host time of each call, one number per round."""
    for call in calls.values():  # compiles
        for _ in range(3):
            call()
    return interleaved(calls, lambda name: _on_host(calls[name]), effort)


def _on_host(call: Call, repeats: int = 20) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    seconds = time.perf_counter() - begin
    torch.cuda.synchronize()
    return seconds / repeats


def table(result: dict[str, Any]) -> str:
    """Formats the medians in microseconds, with each call's speed as a share of the copy's."""
    if "left_out" in result:
        return result["left_out"]
    lines = [f"{result['machine']['gpu']}, p = {P}; µs (share of the copy's speed); kernels: {result['kernels']}"]
    for record in result["records"]:
        medians = {name: each["median"] for name, each in record["seconds"].items()}
        cells = [f"{name} {1e6 * each:.1f} ({medians['copy'] / each:.2f})" for name, each in medians.items()]
        lines.append(f"{record['dtype']:9}{record['size']:30}{record['what']:26}{'  '.join(cells)}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Runs the command line; its argument is OUT.json."""
    if len(arguments) != 1:
        print("usage: PYTHONPATH=.:backends python benchmarks/gpu.py OUT.json", file=sys.stderr)
        return 2
    return run(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
