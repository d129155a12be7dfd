"""Former module names, which go on working: `import multidrop.masks` imports `multidrop.spec.masks`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "architecture": "section.architecture",
    "builders": "section.builders",
    "checkpoint": "section.checkpoint",
    "cli": "section.cli",
    "commands": "section.commands",
    "data": "section.data",
    "figure": "section.figure",
    "history": "section.history",
    "kernel": "host",
    "keys": "streams",
    "masks": "spec.masks",
    "philox": "spec.philox",
    "progress": "section.progress",
    "training": "section.training",
}
_PACKAGE = __name__.rpartition(".")[0]


class _Finder:
    """An import finder that maps former names, also of submodules, to the present module object."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self
        return ModuleSpec(fullname, loader) if self._home(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._home(spec.name))
        spec.loader_state = module.__spec__  # which the import system is about to replace by `spec`
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state

    @staticmethod
    def _home(fullname: str) -> str:
        """The present name, or "" if the module was not moved."""
        package, _, rest = fullname.partition(".")
        first, dot, inner = rest.partition(".")
        return f"{_PACKAGE}.{MOVED[first]}{dot}{inner}" if package == _PACKAGE and first in MOVED else ""


def install() -> None:
    """Installs the finder, before all others: they would find a submodule by its former name too, and load it twice."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
