"""The commands of the command line; `multidrop.section.cli` parses their options."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import typer

import multidrop as md

from .. import checks
from ..dispatch import BackendError, available_backends, declared_backends, install_hint, load
from . import figure
from .curves import is_relative
from .devices import on_device
from .history import CURVES, History
from .progress import Display
from .results import Results, comparison, resumed
from .terminal import FAILED, INTERRUPTED, aligned, complain, plain_console
from .training import Diverged

console = plain_console()

ALL = "all"


@dataclass(frozen=True)
class TrainOptions:
    """The options of one training run, as `multidrop train` names them."""

    epochs: int
    lr: float
    batch_size: int
    dropout: tuple[float, float]
    hidden: tuple[int, int]
    concise: bool
    dtype: str
    seed: int
    data: str
    device: str
    weight_decay: float
    checkpoint: Path | None
    resume: bool


def train(backend: str, options: TrainOptions, out: Path | None, overwrite: bool) -> None:
    """Trains in one backend, or in all that are installed, and writes the results."""
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume: expected --checkpoint FILE too, the file to resume from; got --resume alone")
    names = _chosen(backend or md.get_backend())
    for name in names:
        on_device(load(name), options.device)  # reports a missing device before hours of training, not after
    files = {name: _of_backend(options.checkpoint, name if len(names) > 1 else "") for name in names}
    earlier = {name: history for name, path in files.items() if options.resume and (history := resumed(path))}
    results = Results(out, overwrite, names, earlier)
    histories = []
    for name in names:
        if len(names) > 1:
            console.print(name, style="bold")
        try:
            histories.append(_train_one(name, options, files[name]))
        except (KeyboardInterrupt, Diverged) as error:
            _end(error, options, results)
        results.add(histories[-1])
    last = histories[0]
    after = f"after {counted(len(last.epochs), 'epoch')}"
    accuracies = [f"{history.epochs[-1].test_accuracy:.4f}" for history in histories]
    if len(names) > 1:
        _compare(histories)
        results.compare(histories)
        pairs = ", ".join(f"{name} {accuracy}" for name, accuracy in zip(names, accuracies, strict=True))
        accuracy = f"test accuracy {after}: {pairs}"
    else:
        accuracy = f"test accuracy {accuracies[0]} {after}"
    console.print(
        f"\n{', '.join(names)}: {last.settings['net']} net, {last.settings['dtype']}, seed {last.settings['seed']}; "
        f"{last.settings['data']}",
        soft_wrap=True,
    )
    console.print(f"{accuracy}; results in {results.folder}", soft_wrap=True)


def _chosen(backend: str) -> tuple[str, ...]:
    """The names of the backends to train in, each imported: a backend that is missing or broken is reported before
    hours of training, not after."""
    if checks.choice("backend", backend, (*declared_backends(), ALL)) != ALL:
        return (load(backend).name,)
    return tuple(name for name in declared_backends() if not _left_out(name))


def _left_out(name: str) -> bool:
    """Whether a backend cannot be used; says so, and why."""
    state = _state(name)
    if state.usable:
        return False
    console.print(f"left out: {name}: {state.text}", style="yellow", soft_wrap=True)
    return True


def _of_backend(checkpoint: Path | None, name: str) -> Path | None:
    if checkpoint is None or not name:
        return checkpoint
    checkpoint = checks.file_path("checkpoint", checkpoint)
    return checkpoint.with_suffix(f".{name}{checkpoint.suffix}")


def _end(error: BaseException, options: TrainOptions, results: Results) -> NoReturn:
    """Ends a run that was interrupted or has diverged: writes the epochs that are done, and says where they are."""
    interrupted = isinstance(error, KeyboardInterrupt)
    history = getattr(error, "history", None)
    done = len(history.epochs) if history else 0
    what = f"interrupted after {done} of {counted(options.epochs, 'epoch')}" if interrupted else str(error)
    where = f"; results in {results.add(history)}" if history and done else ""
    how = ""
    if interrupted and options.checkpoint is not None:
        how = "; to go on, run the command again with --resume"
    elif interrupted:
        how = "; a run with --checkpoint FILE can go on with --resume"
    complain(f"{what}{where}{how}")
    raise typer.Exit(INTERRUPTED if interrupted else FAILED) from error


def _train_one(name: str, options: TrainOptions, checkpoint: Path | None) -> History:
    with md.use_backend(name):
        # The same seed for each backend gives all of them the same weights, batches and masks.
        md.manual_seed(options.seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_iter, test_iter = md.load_data_fashion_mnist(options.batch_size, options.data, dtype=options.dtype)
        for warning in caught:
            console.print(f"warning: {warning.message}", style="yellow", soft_wrap=True)
        build = md.concise_net if options.concise else md.Net
        with on_device(load(name), options.device):
            net = build(
                num_hiddens1=options.hidden[0],
                num_hiddens2=options.hidden[1],
                dropout1=options.dropout[0],
                dropout2=options.dropout[1],
                dtype=options.dtype,
            )
        return md.train(
            net,
            train_iter,
            test_iter,
            options.epochs,
            options.lr,
            options.weight_decay,
            checkpoint=checkpoint,
            resume=options.resume,
            settings={
                "net": "concise" if options.concise else "from-scratch",
                "hidden": list(options.hidden),
                "dropout": list(options.dropout),
                "seed": options.seed,
            },
            display=Display(console),
        )


def _compare(histories: Sequence[History]) -> None:
    """Prints a table of each curve, with the largest difference in each epoch, and the largest of all epochs."""
    names, *lines = comparison(histories)
    width = len(histories) + 1
    largest = []
    for first, (field, label) in zip(range(1, len(names), width), CURVES, strict=True):
        relative = "relative " if is_relative(field) else ""
        backends = (history.settings["backend"] for history in histories)
        rows = [("epoch", *backends, f"largest {relative}difference")]
        for line in lines:
            *values, difference = line[first : first + width]
            form = ".6f" if relative else ".4f"
            rows.append((str(line[0]), *(format(value, form) for value in values), _small(difference)))
        console.print(f"\n{label}", style="bold")
        console.print("\n".join(aligned(rows)), soft_wrap=True)
        worst = max(line[first + width - 1] for line in lines)
        largest.append(f"{label} {_small(worst)}{' (relative)' if relative else ''}")
    console.print(f"\nlargest difference between two backends: {', '.join(largest)}", soft_wrap=True)


def _small(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def demo(out: Path, seed: int, p: float) -> None:
    """Prints the section's examples in every installed backend and draws the figure."""
    import numpy as np

    key, p = md.Key(seed), checks.probability("p", p)
    X = np.arange(16, dtype=np.float32).reshape(2, 8)
    for name in declared_backends():
        if _left_out(name):
            continue
        backend = load(name)
        console.print()
        console.print(f"{name} {backend.version}", style="bold")
        for probability in sorted({0.0, p, 1.0}):
            console.print(f"dropout_layer(X, {probability}, Key({seed}))", style="dim")
            console.print(str(md.dropout_layer(backend.tensor(X), probability, key)), soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    figure.draw_dropout(out / "dropout.png", seed, p)
    console.print(f"\nthe net before and after dropout: {out / 'dropout.png'}", soft_wrap=True)


def backends() -> None:
    """Prints which backends are installed, which are broken, and what to install."""
    states = {name: _state(name) for name in declared_backends()}
    rows = [("backend", "version", "state"), *((name, state.version, state.text) for name, state in states.items())]
    heading, *lines = aligned(rows, texts=3)
    console.print(heading, style="bold", soft_wrap=True)
    console.print("\n".join(lines), soft_wrap=True)  # so that a command to copy stays in one piece


@dataclass(frozen=True)
class _State:
    """Whether a backend can be used, its framework's version, and a description."""

    usable: bool
    version: str
    text: str


def _state(name: str) -> _State:
    if name not in available_backends():
        return _State(False, "–", f"not installed: {install_hint(name)}")
    try:
        version = load(name).version
    except BackendError as error:
        return _State(False, "–", f"broken: {error}")
    return _State(True, version, "in force" if name == md.get_backend() else "ready")


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 epoch", "2 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
