"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from multidrop import checks
from multidrop.section.terminal import plain_console

from . import frameworks, machine, report
from .experiments.memory import PARTS as MEMORY_PARTS
from .workers import Job, cores, perform

HERE = Path(__file__).parent
COMMITTED = HERE / "results"
RESULTS = Path("benchmark-results")
"""The default folder. The committed results change only if their folder is named: `--out benchmarks/results`."""

READMES = {"en": HERE.parent / "README.md", "tr": HERE.parent / "README.tr.md"}

BUSY = 0.3  # a load average, in processes

app = typer.Typer(
    name="python -m benchmarks",
    help="multidrop against each framework's own dropout, the section's formula and a plain copy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Quick = Annotated[bool, typer.Option("--quick", help="Small sizes and few rounds, to check that everything runs.")]
Out = Annotated[
    Path, typer.Option(help="Folder for the results. It replaces results of the same experiment there.", metavar="DIR")
]
Device = Annotated[str, typer.Option(help="Where to measure.", metavar="cpu|gpu")]
Only = Annotated[
    list[str] | None,
    typer.Option("--framework", help="A framework to measure; may be repeated. The default is all.", metavar="NAME"),
]


@app.command()
def sizes(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu", framework: Only = None) -> None:
    """Time forward, and forward with backward, from 16 elements to 2^26."""
    _run(["sizes"], quick, out, device, framework)


@app.command()
def settings(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu", framework: Only = None) -> None:
    """Vary p, types, layouts, numbers of threads, and the ways to call a dropout."""
    _run(["settings"], quick, out, device, framework)


@app.command()
def relu(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu", framework: Only = None) -> None:
    """Time ReLU and dropout in one pass, and one after the other."""
    _run(["relu"], quick, out, device, framework)


@app.command()
def memory(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu", framework: Only = None) -> None:
    """Measure the bytes kept for the backward pass."""
    _run(["memory"], quick, out, device, framework)


@app.command()
def training(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu", framework: Only = None) -> None:
    """Time the section's training run, end to end."""
    _run(["training"], quick, out, device, framework)


@app.command()
def startup(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu") -> None:
    """Time the import, and the first call in a fresh process."""
    _run(["startup"], quick, out, device, None)


@app.command()
def gpu(
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE")] = RESULTS / "gpu.json",
    commit: Annotated[str, typer.Option(help="The commit, where this tree is a copy without its repository.")] = "",
) -> None:
    """Time the GPU kernels against torch's own dropout and a copy, on the device and on the host."""
    from .gpu import run  # imports torch

    out.parent.mkdir(parents=True, exist_ok=True)
    sys.exit(run(out, commit))


@app.command(name="all")
def all_(quick: Quick = False, out: Out = RESULTS, device: Device = "cpu", framework: Only = None) -> None:
    """Run all experiments but `gpu`."""
    _run(list(report.EXPERIMENTS), quick, out, device, framework)


@app.command()
def readme(
    results: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")] = COMMITTED,
    english: Annotated[Path, typer.Option(help="The English page.", metavar="FILE")] = READMES["en"],
    turkish: Annotated[Path, typer.Option(help="The Turkish page.", metavar="FILE")] = READMES["tr"],
) -> None:
    """Write the table of results between the marks of the README, in both languages."""
    for language, path in (("en", english), ("tr", turkish)):
        try:
            report.write_readme(path, language, results)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


def _run(experiments: list[str], quick: bool, out: Path, device: str, chosen: list[str] | None) -> None:
    """Runs experiments, and writes each result as soon as it is complete."""
    try:
        only = [checks.choice("--framework", name, frameworks.NAMES) for name in chosen or ()]
        checks.choice("--device", device, ("cpu", "gpu"))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    names = [name for name in frameworks.NAMES if not only or name in only]
    console, failed = plain_console(stderr=True), False
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    facts = machine.facts(device)
    if facts["load"] > BUSY:
        console.print(
            f"The machine is busy (load {facts['load']:.1f}). This slows frameworks whose threads wait for each other "
            "more than the rest. Measure on a quiet machine.",
            style="yellow",
            soft_wrap=True,
        )
    with Progress(*columns, console=console) as progress:
        for experiment in experiments:
            console.print(f"{experiment}: {_expected(experiment, quick, len(names))}", soft_wrap=True)
            begin = time.perf_counter()
            result: dict[str, Any] = {"experiment": experiment, "quick": quick, "machine": facts}
            result |= (
                _startup(progress, quick)
                if experiment == "startup"
                else _measure(progress, experiment, names, device, quick)
            )
            result["duration"] = time.perf_counter() - begin
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{experiment}.json").write_text(json.dumps(result, indent=1) + "\n")
            report.write(out)
            for line in result["failures"]:
                console.print(line, style="red")
            for name, reason in result["left_out"].items():
                console.print(f"left out: {name}: {reason}")
            failed = failed or bool(result["failures"])
            took = report.duration(result["duration"])
            console.print(f"{experiment}: took {took}; written to {out / experiment}.json", soft_wrap=True)
    console.print(f"report: {out / report.PAGE}", soft_wrap=True)
    sys.exit(1 if failed else 0)


def _expected(experiment: str, quick: bool, count: int) -> str:
    """How long an experiment takes, as far as the committed results know."""
    last = report.read(COMMITTED).get(experiment, {})
    if quick:
        return "a quick check"
    if "duration" not in last:
        return "how long it takes is not known; a bar for each framework shows the time left"
    of = f"{count} of {len(frameworks.NAMES)} frameworks; all took"
    return f"{of} {report.duration(last['duration'])} on {last['machine']['processor']}"


def _measure(progress: Progress, experiment: str, names: list[str], device: str, quick: bool) -> dict[str, Any]:
    """Runs an experiment in each framework."""
    result: dict[str, Any] = {"records": [], "failures": [], "left_out": {}}
    for name in names:
        for job in _jobs(experiment, name, device, quick):
            outcome = perform(job, *_shown(progress, f"{experiment}: {name}"))
            result["records"] += outcome.records
            result["failures"] += outcome.failures
            if outcome.left_out:
                result["left_out"][name] = outcome.left_out
    return result


def _jobs(experiment: str, framework: str, device: str, quick: bool) -> list[Job]:
    """The processes of an experiment in a framework. `settings` has three: with all cores, with one thread, and with
    the framework's own choice. `memory` has one for each candidate."""
    threads = [*sorted({1, cores()}), None] if experiment == "settings" else [cores()]
    parts = MEMORY_PARTS if experiment == "memory" else ("",)
    return [Job(experiment, framework, device, count, quick, part) for count in threads for part in parts]


def _startup(progress: Progress, quick: bool) -> dict[str, Any]:
    from .experiments import startup

    records, failures = startup.run(quick, *_shown(progress, "startup"))
    return {"records": records, "failures": failures, "left_out": {}}


def _shown(progress: Progress, name: str) -> tuple[Callable[[int], None], Callable[[str], None]]:
    """Adds a progress bar. Returns a function to set its number of steps, and one to call when a step begins."""
    task, begun = progress.add_task(name, total=None), 0

    def total(count: int) -> None:
        progress.update(task, total=count)

    def advance(label: str) -> None:
        nonlocal begun
        begun += 1
        progress.update(task, description=label, completed=begun)

    return total, advance


def main() -> None:
    """Runs the command line."""
    app()
