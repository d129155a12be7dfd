"""The command `multidrop experiment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def experiment(
    name: Annotated[str, typer.Argument(help="An experiment, all of them, or list.", metavar="NAME|all|list")],
    data: Annotated[
        str, typer.Option(help="Fashion-MNIST: full, mini, auto or its folder.", metavar="auto|full|mini|DIR")
    ] = "auto",
    seeds: Annotated[int, typer.Option(help="Runs of each setting, at least 2.")] = 5,
    backend: Annotated[str, typer.Option(help="A backend's name.", metavar="NAME")] = "",
    dtype: Annotated[str, typer.Option(help="float32 or float64.", metavar="TYPE")] = "float32",
    jobs: Annotated[int | None, typer.Option(help="Runs at a time.  [default: the number of cores]")] = None,
    engine: Annotated[str, typer.Option(help="What computes the runs.", metavar="joblib|dask|ray")] = "joblib",
    address: Annotated[
        str | None, typer.Option(help="Of a Dask scheduler or a Ray cluster; without one, a local one starts.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and the finished runs.")] = Path(
        "multidrop-out/experiments"
    ),
    lang: Annotated[str, typer.Option(help="Language of the report.", metavar="en|tr|both")] = "both",
) -> None:
    """Run the section's claims and exercises as experiments, with several seeds, and report the answers.

    A sweep that was interrupted goes on where it was.
    """
    from . import commands

    if name == "list":
        commands.show()
    else:
        options = {"data": data, "seeds": seeds, "backend": backend or None, "dtype": dtype, "jobs": jobs,
                   "engine": engine, "address": address}  # fmt: skip
        commands.run(name, options, out, lang)
