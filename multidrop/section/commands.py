"""The commands of the command line; `multidrop.section.cli` parses their options."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import multidrop as md

from ..dispatch import BackendError, available_backends, declared_backends, install_hint, load
from . import figure
from .devices import on_device
from .history import CURVES, History, plot, write_csv
from .progress import Display

console = Console(highlight=False)


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


def train(backend: str, options: TrainOptions, out: Path) -> None:
    """Trains in one backend, or in all that are installed, and writes the results into `out`."""
    _quiet()
    if options.resume and options.checkpoint is None:
        raise ValueError("--resume: expected --checkpoint FILE too, the file to resume from; got --resume alone")
    names = available_backends() if backend == "all" else (backend or md.get_backend(),)
    for name in names:
        # Reports a missing or broken backend, or a missing device, before hours of training, not after.
        on_device(load(name), options.device)
    out.mkdir(parents=True, exist_ok=True)
    histories = []
    for name in names:
        if len(names) > 1:
            console.print(f"[bold]{name}[/]")
        checkpoint = options.checkpoint
        if checkpoint is not None and len(names) > 1:
            checkpoint = checkpoint.with_suffix(f".{name}{checkpoint.suffix}")
        histories.append(_train_one(name, options, checkpoint))
        _write([histories[-1]], out / name if len(names) > 1 else out)
    if len(names) > 1:
        _compare(histories)
        _write(histories, out)
    last = histories[0]
    console.print(
        f"\n{', '.join(h.settings['backend'] for h in histories)}: "
        f"{last.settings['net']} net, {last.settings['dtype']}, seed {last.settings['seed']}; {last.settings['data']}",
        soft_wrap=True,
    )
    accuracies = ", ".join(f"{h.epochs[-1].test_accuracy:.4f}" for h in histories)
    console.print(f"test accuracy {accuracies} after {len(last.epochs)} epochs; results in {out}", soft_wrap=True)


def _train_one(name: str, options: TrainOptions, checkpoint: Path | None) -> History:
    with md.use_backend(name):
        # The same seed for each backend gives all of them the same weights, batches and masks.
        md.manual_seed(options.seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_iter, test_iter = md.load_data_fashion_mnist(options.batch_size, options.data, dtype=options.dtype)
        for warning in caught:
            console.print(f"[yellow]warning:[/] {warning.message}", soft_wrap=True)
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


def _write(histories: Sequence[History], folder: Path) -> None:
    """Writes history.json, history.csv and curves.png of one run, or comparison.csv and curves.png of several."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(histories) == 1:
        histories[0].to_json(folder / "history.json")
        histories[0].to_csv(folder / "history.csv")
    else:
        write_csv(folder / "comparison.csv", _comparison(histories))
    plot(histories, folder / "curves.png")


def _comparison(histories: Sequence[History]) -> list[list[Any]]:
    """The rows of comparison.csv: a header, then one row per epoch with the values of each backend and the largest
    difference between two backends. Differences of the loss are relative."""
    lines: list[list[Any]] = [["epoch"]]
    for _, label in CURVES:
        lines[0] += [f"{label} {h.settings['backend']}" for h in histories] + [f"{label} difference"]
    for epochs in zip(*(h.epochs for h in histories), strict=True):
        line: list[Any] = [epochs[0].epoch]
        for field, _ in CURVES:
            values = [getattr(epoch, field) for epoch in epochs]
            difference = max(values) - min(values)
            scale = max(map(abs, values)) if field == "train_loss" else 1.0
            line += [*values, difference / scale if scale else 0.0]
        lines.append(line)
    return lines


def _compare(histories: Sequence[History]) -> None:
    names, *lines = _comparison(histories)
    width = len(histories) + 1
    for first, (field, label) in zip(range(1, len(names), width), CURVES, strict=True):
        table = Table(title=label, title_justify="left")
        table.add_column("epoch", justify="right")
        for history in histories:
            table.add_column(history.settings["backend"], justify="right")
        table.add_column("largest relative difference" if field == "train_loss" else "largest difference",
                         justify="right")  # fmt: skip
        for line in lines:
            *values, difference = line[first : first + width]
            form = ".6f" if field == "train_loss" else ".4f"
            table.add_row(str(line[0]), *(format(value, form) for value in values), format(difference, ".1e"))
        console.print(table)


def demo(out: Path, seed: int) -> None:
    """Prints the section's examples in every installed backend and draws the figure."""
    _quiet()
    import numpy as np

    X = np.arange(16, dtype=np.float32).reshape(2, 8)
    for name in available_backends():
        try:
            backend = load(name)
        except BackendError as error:
            console.print(f"[yellow]warning:[/] {error}", soft_wrap=True)
            continue
        console.print(f"\n[bold]{name}[/] {backend.version}")
        for p in (0.0, 0.5, 1.0):
            console.print(f"dropout_layer(X, {p})", style="dim")
            console.print(str(md.dropout_layer(backend.tensor(X), p, md.Key(seed))), markup=False, soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    figure.draw_dropout(out / "dropout.png", seed)
    console.print(f"\nthe net before and after dropout: {out / 'dropout.png'}", soft_wrap=True)


def backends() -> None:
    """Prints which backends are installed, which are broken, and what to install."""
    _quiet()
    table = Table("backend", "version", "state")
    for name in declared_backends():
        version = "–"
        if name not in available_backends():
            state = f"not installed: {install_hint(name)}"
        else:
            try:
                version = load(name).version
                state = "in force" if name == md.get_backend() else "ready"
            except BackendError as error:
                state = f"broken: {error}"
        table.add_row(name, version, state)
    console.print(table)


def _quiet() -> None:
    """Hides TensorFlow's start-up messages, unless the user has set their level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
