"""A progress bar for many runs of a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from .. import checks


@contextmanager
def shown(progress: bool | Callable[[int, int], object] | None, total: int) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each run.

    Args:
        progress: whether to show a bar on standard error; None for yes where that is a terminal and Rich is installed;
            or a function of the number of runs that are done, and of all.
        total: the number of all runs.

    Raises:
        TypeError: for another `progress`.
        ImportError: for True, where Rich is not installed.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress: expected True, False, None or a function; got {checks.shown(progress)}")
    if progress is None:
        progress = sys.stderr.isatty() and find_spec("rich") is not None
    if not callable(progress) and progress:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("samples", total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if callable(progress):
            progress(done, total)

    yield advance
