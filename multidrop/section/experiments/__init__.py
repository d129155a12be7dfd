"""The section's claims and exercises as experiments, with several seeds, intervals, plots and answers in numbers.

import multidrop as md

result = md.experiments.run("bishop", data="mini")
print(result.answer())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import Result
    from .runs import RunError
    from .sweep import run, run_all

__all__ = ["Result", "RunError", "names", "run", "run_all"]

_HOMES = {"Result": "result", "RunError": "runs", "run": "sweep", "run_all": "sweep"}


def names() -> tuple[str, ...]:
    """The names of the experiments: the exercises in their order, then the claims of the text."""
    from .experiment import catalogue

    return tuple(catalogue())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
