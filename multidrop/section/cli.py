"""The command line: `multidrop train`, `multidrop demo` and `multidrop backends`."""

from __future__ import annotations

import io
import os
import sys
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from .experiments.cli import experiment
from .figure import SEED
from .results import DEFAULT
from .terminal import FAILED, INTERRUPTED, USAGE, complain

app = typer.Typer(
    name="multidrop",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# The parser's exception: click's ClickException, or that of the copy of click inside newer versions of Typer.
_BadUsage: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"multidrop {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Dropout whose masks are the same, bit for bit, in every framework."""


@app.command()
def train(
    backend: Annotated[
        str,
        typer.Option(
            help="The backend to train in, or all that are installed, side by side.",
            metavar="NAME|all",
            show_default="MULTIDROP_BACKEND, else numpy",
        ),
    ] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 10,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.5,
    batch_size: Annotated[int, typer.Option(help="Examples per batch.")] = 256,
    dropout: Annotated[
        tuple[float, float], typer.Option(help="Dropout probabilities of the two hidden layers.", metavar="P1 P2")
    ] = (0.2, 0.5),
    hidden: Annotated[tuple[int, int], typer.Option(help="Units of the two hidden layers.", metavar="N1 N2")] = (
        256,
        256,
    ),
    concise: Annotated[bool, typer.Option("--concise", help="Build the net from the framework's own layers.")] = False,
    dtype: Annotated[str, typer.Option(help="Type of weights and data.", metavar="float32|float64")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and masks.")] = 0,
    data: Annotated[
        str,
        typer.Option(
            help="Fashion-MNIST: the full set, the mini set that comes with multidrop, full if it can be found or "
            "downloaded (auto), or the folder of its four files.",
            metavar="auto|full|mini|DIR",
        ),
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="Where to train: the framework's own choice if not given.", metavar="cpu|cuda|mps|…")
    ] = "",
    weight_decay: Annotated[float, typer.Option(help="λ of the penalty λ/2·‖w‖².")] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for history.json, history.csv and curves.png. The default is a new folder in each run.",
            metavar="DIR",
            show_default="multidrop-out, multidrop-out-2, …",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of an earlier run in the folder.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to save the run to after each epoch.", metavar="FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the checkpoint, or start it if there is none.")
    ] = False,
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
    commands.train(backend, options, out, overwrite)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the figure dropout.png.", metavar="DIR")] = DEFAULT,
    seed: Annotated[
        int, typer.Option(help="Seed of the masks. The default drops h2 and h5, as the section's figure does.")
    ] = SEED,
    p: Annotated[float, typer.Option("--p", help="Probability that a hidden unit is dropped.")] = 0.5,
) -> None:
    """Show the section's examples in every installed backend, and draw a net before and after dropout."""
    from . import commands

    commands.demo(out, seed, p)


@app.command()
def backends() -> None:
    """Show which backends are installed, in which version, and what to install for the rest."""
    from . import commands

    commands.backends()


app.command()(experiment)


def _command() -> Any:
    """The parser of the command line. Help names the type of each option's value; a flag has no value, but Typer would
    write `<bool>`."""
    root = typer.main.get_command(app)
    commands = [root]
    for command in commands:
        command.callback = _past_the_parser(command.callback)
        commands += getattr(command, "commands", {}).values()
        for option in command.get_params(typer.Context(command)):
            if getattr(option, "is_flag", False):
                option.metavar = ""
    return root


class _Interruption(Exception):
    """A KeyboardInterrupt in a command, whose message would be lost: newer versions of Typer catch it, and exit."""


def _past_the_parser(callback: Any) -> Any:
    @wraps(callback)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return callback(*args, **options)
        except KeyboardInterrupt as error:
            raise _Interruption(str(error)) from error

    return call


def main() -> None:
    """Runs the command line. Bad options and bad data give one line on standard error, not a traceback."""
    from ..dispatch import BackendError
    from .checkpoint import CheckpointError
    from .data import DataError
    from .experiments import RunError

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal or a pipe that lacks λ, or a path's bytes, shows a "?"
    # TensorFlow's start-up messages are noise here, unless the user has set their level. Set for child processes too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        status = _command()(standalone_mode=False)
    except _BadUsage as error:
        status = _complain(error.format_message(), USAGE)
    except (ValueError, BackendError) as error:
        status = _complain(str(error), USAGE)
    except OSError as error:
        status = _complain(_plain(error), FAILED)
    except (CheckpointError, DataError, ImportError, RunError) as error:
        status = _complain(str(error), FAILED)
    except (_Interruption, KeyboardInterrupt, typer.Abort) as error:
        status = _complain(str(error) or "interrupted", INTERRUPTED)
    sys.exit(status)


def _plain(error: OSError) -> str:
    """The message of an error of the system, without its number: "FILE: No such file or directory"."""
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _complain(message: str, status: int) -> int:
    if message:  # empty if the parser has already shown the help
        complain(message)
    return status
