"""The command line: `multidrop train`, `multidrop demo` and `multidrop backends`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .experiments.cli import experiment

app = typer.Typer(
    name="multidrop",
    help="Dropout whose masks are the same, bit for bit, in every framework.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# The parser's exception: click's ClickException, or that of the copy of click inside newer versions of Typer.
_BadUsage: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


@app.command()
def train(
    backend: Annotated[str, typer.Option(help="A backend's name, or all that are installed.", metavar="NAME|all")] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 10,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.5,
    batch_size: Annotated[int, typer.Option(help="Examples in a batch.")] = 256,
    dropout: Annotated[
        tuple[float, float], typer.Option(help="Probability of dropping after each hidden layer.", metavar="P1 P2")
    ] = (0.2, 0.5),
    hidden: Annotated[tuple[int, int], typer.Option(help="Units of the hidden layers.", metavar="N1 N2")] = (256, 256),
    concise: Annotated[bool, typer.Option("--concise", help="The net from the framework's own layers.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float64.", metavar="TYPE")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and masks.")] = 0,
    data: Annotated[
        str, typer.Option(help="Fashion-MNIST: full, mini, auto or its folder.", metavar="auto|full|mini|DIR")
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="Where to train: the framework's own choice if not given.", metavar="cpu|cuda|mps|…")
    ] = "",
    weight_decay: Annotated[float, typer.Option(help="λ of the penalty λ/2·‖w‖².")] = 0.0,
    out: Annotated[Path, typer.Option(help="Folder for history.json, history.csv and curves.png.")] = Path(
        "multidrop-out"
    ),
    checkpoint: Annotated[
        Path | None, typer.Option(help="File that holds the run after each epoch.", metavar="FILE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint, if there is one.")] = False,
) -> None:
    """Train the section's net on Fashion-MNIST and test it after each epoch."""
    from . import commands

    options = commands.TrainOptions(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        dropout=dropout,
        hidden=hidden,
        concise=concise,
        dtype=dtype,
        seed=seed,
        data=data,
        device=device,
        weight_decay=weight_decay,
        checkpoint=checkpoint,
        resume=resume,
    )
    commands.train(backend, options, out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the figure dropout.png.")] = Path("multidrop-out"),
    seed: Annotated[int, typer.Option(help="Seed of the masks.")] = 0,
) -> None:
    """Show the section's examples in every installed backend, and draw a net before and after dropout."""
    from . import commands

    commands.demo(out, seed)


@app.command()
def backends() -> None:
    """Say which backends are installed, in which version, and what to install for the rest."""
    from . import commands

    commands.backends()


app.command()(experiment)


def main() -> None:
    """Runs the command line. Bad options and bad data give one line on standard error, not a traceback."""
    from ..dispatch import BackendError
    from .checkpoint import CheckpointError
    from .data import DataError
    from .experiments import RunError

    try:
        status = app(standalone_mode=False)
    except _BadUsage as error:
        status = _complain(error.format_message(), USAGE)
    except (ValueError, BackendError) as error:
        status = _complain(str(error), USAGE)
    except (CheckpointError, DataError, OSError, RunError) as error:
        status = _complain(str(error), FAILED)
    except (KeyboardInterrupt, typer.Abort):
        status = _complain("interrupted", INTERRUPTED)
    sys.exit(status)


def _complain(message: str, status: int) -> int:
    if message:  # empty if the parser has already shown the help
        print(f"multidrop: {' '.join(message.split())}", file=sys.stderr)
    return status
