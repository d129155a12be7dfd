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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

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
    measured = torch.cuda.is_available()
    result: dict[str, Any] = {"experiment": "gpu", "machine": machine.facts("gpu", commit), "p": P}
    if measured:
        result["kernels"] = gpu.ready(torch.cuda.current_device())
        check()
    else:
        result["left_out"] = NONE
    result["records"] = records(measured)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(report(result))
    if measured:
        _plot(result, out.with_suffix(".png"))
    print(table(result))
    return 0


def check() -> None:
    """Checks that what is timed draws the specification's masks: by a given key, and in a layer."""
    X, layer = torch.ones(3000, device=PLACE), Dropout(P, seed=Key(7, 3)).to(PLACE)
    for name, Y, start in (("function", functional.dropout_layer(X, P, Key(7, 3), start=5), 5), ("layer", layer(X), 0)):
        if not torch.equal(Y.cpu() != 0, torch.from_numpy(masks.keep_mask(3000, P, Key(7, 3), start))):
            raise RuntimeError(f"mask: expected the specification's; got a different one from a {name} on this GPU")


@dataclass(frozen=True)
class Comparison:
    """Calls that are timed together.

    Args:
        dtype, size, what: name it.
        calls: makes the calls, by name; their tensors exist while they are timed, and no longer.
        base: the call that the others are compared with.
        host: whether the host's time is measured, and not the GPU's.
    """

    dtype: str
    size: str
    what: str
    calls: Callable[[], Mapping[str, Call]]
    base: str = "copy"
    host: bool = False

    @property
    def names(self) -> Record:
        """What a record of it begins with."""
        return {"dtype": self.dtype, "size": self.size, "what": self.what, "base": self.base}

    def measured(self) -> Record:
        seconds = (on_host if self.host else on_device)(self.calls())
        times = {name: quartiles(each) for name, each in seconds.items()}
        return {**self.names, "rounds": len(seconds[self.base]), "seconds": times}


def comparisons() -> Iterator[Comparison]:
    """All that is timed, in its order."""

    def random(shape: int | tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, device=PLACE)

    for name, dtype in DTYPES.items():
        for size in SIZES:
            place, large = f"2^{size.bit_length() - 1}", partial(random, size, dtype)
            yield Comparison(name, place, "forward", lambda large=large: forward(large()))
            yield Comparison(name, place, "forward + backward", lambda large=large: both(large()))
        images, shape = partial(random, IMAGES, dtype), "×".join(map(str, IMAGES))
        yield Comparison(name, f"{shape}, channels last", "forward", lambda images=images: forward(_last(images())))
        yield Comparison(name, f"{shape}, channels", "forward", lambda images=images: forward(images(), channels=True))
        chain, place = partial(gpu_models.chain, LARGE, dtype, P, PLACE), f"2^{LARGE.bit_length() - 1}"
        yield Comparison(name, place, "compiled chain", chain, "none")
        yield Comparison(name, place, "compiled chain + backward", partial(chain, backward=True), "none")
    for shape in SMALL:
        place, small = "×".join(map(str, shape)), partial(random, shape)
        for what, kind in (("function", forward), ("layer", layers)):
            calls = lambda kind=kind, small=small: kind(small())  # noqa: E731  # two comparisons take it
            yield Comparison("float32", place, what, calls)
            yield Comparison("float32", place, f"{what}, host", calls, host=True)
        yield Comparison("float32", place, "function + backward, host", lambda small=small: both(small()), host=True)
    for model, step in (("transformer", gpu_models.transformer), ("section's net, captured", gpu_models.captured_net)):
        yield Comparison(*gpu_models.DESCRIBED[model], "training step", partial(step, PLACE), "none")


def records(measured: bool) -> list[Record]:
    """A record for each comparison, and for the bytes kept; their names alone where nothing is measured."""
    timed = [each.measured() if measured else each.names for each in comparisons()]
    kept: list[Record] = [{"dtype": "float32", "size": f"{gpu_models.KEPT}", "what": way} for way in gpu_models.WAYS]
    for record in kept if measured else ():
        record["bytes"] = gpu_models.kept_bytes(record["what"], P, PLACE)
    return timed + kept


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


Judged: TypeAlias = tuple[str, float | None, str, float]
"""What is judged, its measure (None where it was not measured), "≥" or "≤", and the bound."""


def judged(result: dict[str, Any]) -> list[Judged]:
    """What bounds are set for."""
    return [row for record in result["records"] if (row := _judged(record)) is not None]


def _judged(record: Record) -> Judged | None:
    what, brain = record["what"], record["dtype"] == "bfloat16"
    place = f"{record['dtype']}, {record['size']}"
    if what in gpu_models.WAYS:
        kept = record["bytes"]["multidrop"] if "bytes" in record else None
        return f"bytes kept an element, {what}", kept, "≤", 0.0 if what == "eager" else 1 / 8
    share = faster = slower = None
    if "seconds" in record:
        times = {name: each["median"] for name, each in record["seconds"].items()}
        share, faster = times[record["base"]] / times["multidrop"], times["torch"] / times["multidrop"]
        slower = 1 / faster
    if what == "forward":
        bound = 0.92 if brain else 0.97
        return (f"share of a copy's speed, {place}", share, "≥", bound) if record["size"] == "2^26" else None
    if what == "forward + backward":
        return f"speed over torch's, with backward, {place}", faster, "≥", 1.4 if brain else 1.3
    if what == "compiled chain":
        return f"speed over torch's, compiled chain, {place}", faster, "≥", 1.7 if brain else 1.15
    if what == "training step":
        return f"time over torch's, training step, {record['size']}", slower, "≤", 1.0
    if "backward" in what:
        return None
    return f"time over torch's, {what}, {record['size']}", slower, "≤", 1.2


def _shown(measured: float | None) -> str:
    return "–" if measured is None else f"{measured:.3f}"


def table(result: dict[str, Any]) -> str:
    """What is judged, with its bounds."""
    facts, left_out = result["machine"], result.get("left_out")
    lines = [left_out or f"{facts['gpu']}, p = {P}; kernels: {result['kernels']}"]
    for what, measured, sign, bound in judged(result):
        held = "not measured"
        if measured is not None:
            held = "yes" if (measured >= bound if sign == "≥" else measured <= bound) else "NO"
        lines.append(f"{what:62}{_shown(measured):>8}  {sign} {bound:<6.4g} {held}")
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    """The page: what is judged, and all medians in microseconds, with the share of the base's speed."""
    facts = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    about = f"{result.get('left_out') or facts['gpu']}, {versions}; {facts['date']}, {facts['commit']}"
    lines = [f"# GPU\n\n{about}; p = {P} but for the models.\n"]
    lines += ["| what | measured | bound |\n|---|--:|--:|"]
    lines += [f"| {what} | {_shown(measured)} | {sign} {bound:.4g} |" for what, measured, sign, bound in judged(result)]
    if "left_out" in result:
        return "\n".join(lines) + "\n"
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
