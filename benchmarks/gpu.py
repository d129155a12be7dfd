"""Times dropout on a GPU: multidrop's kernels, torch's own dropout and a copy.

    PYTHONPATH=.:backends python benchmarks/gpu.py OUT.json [COMMIT]

COMMIT names the commit, where the tree is a copy without its repository.

It needs torch, Triton and NumPy, and takes about three minutes. Beside OUT.json it writes OUT.md, a report, and where
Matplotlib is installed OUT.png, a plot.

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
from multidrop_torch import Dropout, functional, gpu

from benchmarks import gpu_models, machine
from benchmarks.measure import Effort, interleaved, quartiles
from multidrop import Key
from multidrop.spec import masks

NONE = "no GPU: not measured"
PLACE = "cuda"
P = 0.2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = (2**24, 2**26, 2**28)
LARGE = 2**26
SMALL: tuple[tuple[int, ...], ...] = ((16,), (256, 256))
IMAGES = (64, 64, 128, 128)

EFFORT = Effort(1.2, 7, 200)
SAMPLE = 3e-3  # seconds of device time
ENQUEUED = 200  # the most calls in a sample, which the driver's queue holds without blocking
CALLS = 20  # in a sample of the host's time
HERTZ = 2.0e9  # a GPU's clock; `_sleep` takes clock cycles

Call = Callable[[], Any]
Record = dict[str, Any]


def run(out: Path, commit: str = "") -> int:
    """Measures, writes the results, prints a table, and returns the exit status. `commit` is that of
    `machine.facts`."""
    result: dict[str, Any] = {"experiment": "gpu", "machine": machine.facts("gpu", commit), "p": P, "records": []}
    if not torch.cuda.is_available():
        result["left_out"] = NONE
    else:
        result["kernels"] = gpu.ready(torch.cuda.current_device())
        check()
        result["records"] = records()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(report(result))
    if result["records"]:
        _plot(result, out.with_suffix(".png"))
    print(table(result))
    return 0


def check() -> None:
    """Checks that what is timed draws the specification's masks: by a given key, and in a layer."""
    X, layer = torch.ones(3000, device=PLACE), Dropout(P, seed=Key(7, 3)).to(PLACE)
    for name, Y, start in (("function", functional.dropout_layer(X, P, Key(7, 3), start=5), 5), ("layer", layer(X), 0)):
        if not torch.equal(Y.cpu() != 0, torch.from_numpy(masks.keep_mask(3000, P, Key(7, 3), start))):
            raise RuntimeError(f"mask: expected the specification's; got a different one from a {name} on this GPU")


def records() -> list[Record]:
    """Runs all comparisons, and returns a record for each."""
    found = []
    for name, dtype in DTYPES.items():
        for size in SIZES:
            X = torch.randn(size, dtype=dtype, device=PLACE)
            found.append(_record(name, f"2^{size.bit_length() - 1}", "forward", on_device(forward(X))))
            found.append(_record(name, f"2^{size.bit_length() - 1}", "forward + backward", on_device(both(X))))
            del X
        X = torch.randn(IMAGES, dtype=dtype, device=PLACE)
        shape = "×".join(map(str, IMAGES))
        found.append(_record(name, f"{shape}, channels last", "forward", on_device(forward(_last(X)))))
        found.append(_record(name, f"{shape}, channels", "forward", on_device(forward(X, channels=True))))
        del X
        calls = gpu_models.chain(LARGE, dtype, P, PLACE)
        found.append(_record(name, f"2^{LARGE.bit_length() - 1}", "compiled chain", on_device(calls), "none"))
        del calls
    for shape in SMALL:
        X = torch.randn(shape, device=PLACE)
        size = "×".join(map(str, shape))
        for what, calls in (("function", forward(X)), ("layer", layers(X))):
            found.append(_record("float32", size, what, on_device(calls)))
            found.append(_record("float32", size, f"{what}, host", on_host(calls)))
        found.append(_record("float32", size, "function + backward, host", on_host(both(X))))
    found += gpu_models.kept_bytes(P, PLACE)
    for what, calls in (("transformer", gpu_models.transformer), ("section's net, captured", gpu_models.captured_net)):
        found.append(_record(*gpu_models.DESCRIBED[what], "training step", on_device(calls(PLACE)), "none"))
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


def layers(X: torch.Tensor) -> dict[str, Call]:
    """Layers: keyed, and unseeded as torch's own is."""
    keyed, unseeded, own = Dropout(P, seed=1).to(PLACE), Dropout(P).to(PLACE), torch.nn.Dropout(P)
    return {
        "copy": X.clone,
        "multidrop": lambda: keyed(X),
        "multidrop, unseeded": lambda: unseeded(X),
        "torch": lambda: own(X),
    }


def _last(X: torch.Tensor) -> torch.Tensor:
    return X.to(memory_format=torch.channels_last)


def _record(dtype: str, size: str, what: str, seconds: Mapping[str, list[float]], base: str = "copy") -> Record:
    return {
        "dtype": dtype,
        "size": size,
        "what": what,
        "base": base,
        "rounds": len(seconds[base]),
        "seconds": {name: quartiles(each) for name, each in seconds.items()},
    }


def on_device(calls: Mapping[str, Call]) -> dict[str, list[float]]:
    """The seconds of GPU time of each call, one number per round."""
    host = {name: min(each) for name, each in on_host(calls, replace(EFFORT, most=3)).items()}
    repeats = {}
    for name, call in calls.items():
        once = min(_sample(call, 3, host[name]) for _ in range(3))
        repeats[name] = max(1, min(ENQUEUED, round(SAMPLE / once)))
    return interleaved(calls, lambda name: _sample(calls[name], repeats[name], host[name]), EFFORT)


def _sample(call: Call, repeats: int, host: float) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(int((1.5 * repeats * host + 2e-4) * HERTZ))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / repeats


def on_host(calls: Mapping[str, Call], effort: Effort | None = None) -> dict[str, list[float]]:
    """The seconds of host time of each call, one number per round."""
    for call in calls.values():  # compiles
        for _ in range(3):
            call()
    return interleaved(calls, lambda name: _host_sample(calls[name]), effort or EFFORT)


def _host_sample(call: Call) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    seconds = time.perf_counter() - begin
    torch.cuda.synchronize()
    return seconds / CALLS


def judged(result: dict[str, Any]) -> list[tuple[str, float, str, float]]:
    """What bounds are set for: (what, measured, "≥" or "≤", bound)."""
    rows = []
    for record in result["records"]:
        dtype, size, what = record["dtype"], record["size"], record["what"]
        place = f"{dtype}, {size}"
        if "bytes" in record:
            bound = 0.0 if what.startswith("eager") else 1 / 8
            rows.append((f"bytes kept an element, {what}", record["bytes"]["multidrop"], "≤", bound))
            continue
        times = {name: each["median"] for name, each in record["seconds"].items()}
        ours, base, brain = times["multidrop"], times[record["base"]], dtype == "bfloat16"
        faster = times["torch"] / ours
        if what == "forward" and size == "2^26":
            rows.append((f"share of a copy's speed, {place}", base / ours, "≥", 0.92 if brain else 0.97))
        elif what == "forward + backward":
            rows.append((f"speed over torch's, with backward, {place}", faster, "≥", 1.4 if brain else 1.3))
        elif what == "compiled chain":
            rows.append((f"speed over torch's, compiled chain, {place}", faster, "≥", 1.7 if brain else 1.15))
        elif what.startswith(("function", "layer")) and "backward" not in what:
            rows.append((f"time over torch's, {what}, {size}", 1 / faster, "≤", 1.2))
        elif what == "training step":
            rows.append((f"time over torch's, training step, {size}", 1 / faster, "≤", 1.0))
    return rows


def table(result: dict[str, Any]) -> str:
    """What is judged, with its bounds."""
    if "left_out" in result:
        return result["left_out"]
    lines = [f"{result['machine']['gpu']}, p = {P}; kernels: {result['kernels']}"]
    for what, measured, sign, bound in judged(result):
        held = measured >= bound if sign == "≥" else measured <= bound
        lines.append(f"{what:62}{measured:8.3f}  {sign} {bound:<6.4g} {'yes' if held else 'NO'}")
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    """The page: what is judged, and all medians in microseconds, with the share of the base's speed."""
    if "left_out" in result:
        return f"# GPU\n\n{result['left_out']}\n"
    facts = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [f"# GPU\n\n{facts['gpu']}, {versions}; {facts['date']}, {facts['commit']}; p = {P} but for the models.\n"]
    lines += ["| what | measured | bound |\n|---|--:|--:|"]
    lines += [f"| {what} | {measured:.3f} | {sign} {bound:.4g} |" for what, measured, sign, bound in judged(result)]
    lines += ["\nMedians in µs, and the share of the first one's speed.\n\n| type | size | what | |\n|---|---|---|---|"]
    for record in result["records"]:
        if "bytes" in record:
            cells = ", ".join(f"{name} {each:.4g} bytes" for name, each in record["bytes"].items())
        else:
            times = {name: each["median"] for name, each in record["seconds"].items()}
            base = times[record["base"]]
            cells = ", ".join(f"{name} {1e6 * each:.1f} ({base / each:.2f})" for name, each in times.items())
        lines.append(f"| {record['dtype']} | {record['size']} | {record['what']} | {cells} |")
    return "\n".join(lines) + "\n"


def _plot(result: dict[str, Any], path: Path) -> None:
    """Bars: for each comparison, how many times as long as torch's dropout ours takes."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: Matplotlib is not installed", file=sys.stderr)
        return
    timed = [record for record in result["records"] if "seconds" in record]
    names = [f"{record['dtype']}, {record['size']}, {record['what']}" for record in timed]
    ratios = [record["seconds"]["multidrop"]["median"] / record["seconds"]["torch"]["median"] for record in timed]
    figure = Figure(figsize=(9, 0.3 * len(timed) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(timed)), ratios, color=["C0" if ratio <= 1 else "C1" for ratio in ratios])
    axes.set_yticks(range(len(timed)), names, fontsize=7)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("time over that of torch's dropout")
    axes.set_title(str(result["machine"]["gpu"]))
    figure.savefig(path, dpi=150)


def main(arguments: list[str]) -> int:
    """Runs the command line; its arguments are OUT.json and the commit."""
    if len(arguments) not in (1, 2):
        print("usage: PYTHONPATH=.:backends python benchmarks/gpu.py OUT.json [COMMIT]", file=sys.stderr)
        return 2
    return run(Path(arguments[0]), *arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
