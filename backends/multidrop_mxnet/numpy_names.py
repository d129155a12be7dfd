"""Imports MXNet beside a NumPy that is newer than it.

MXNet 1.9.1, the last release, looks up names that NumPy has since removed: `numpy.bool` (in 1.24), the financial
functions, and in NumPy 2 `PZERO`, `alltrue`, `trapz` and others. `import_mxnet` gives its modules, and nobody else, a
stand-in for NumPy that still has them. NumPy itself, and what other modules see of it, stays as it is.
"""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def import_mxnet() -> ModuleType:
    """MXNet, imported in a way that works with any NumPy; where it is imported already, as it is.

    Importing this package does it, so that afterwards a plain `import mxnet` works as well.
    """
    if "mxnet" in sys.modules:
        return sys.modules["mxnet"]
    # An import that failed leaves the submodules that it got through, which hold NumPy itself.
    for name in [name for name in sys.modules if _is_mxnet(name)]:
        del sys.modules[name]
    if _Finder not in map(type, sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # and it stays, for the submodules that MXNet imports when they are needed
    with warnings.catch_warnings():
        # MXNet compares versions by distutils, which warns until Python 3.11 and is setuptools' from 3.12 on; and some
        # of its docstrings hold invalid escapes, which warn when they are first compiled.
        warnings.filterwarnings("ignore", "(The )?distutils", DeprecationWarning)
        warnings.filterwarnings("ignore", "invalid escape sequence|.* is an invalid escape sequence")
        return import_module("mxnet")


def _is_mxnet(name: str) -> bool:
    return name.partition(".")[0] == "mxnet"


class _Finder(MetaPathFinder):
    """Has MXNet's modules loaded by `_Loader`, and leaves all others to the usual finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if _is_mxnet(name) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Gives a module an `import` statement of its own, for which NumPy is the stand-in. To put the stand-in into
    `sys.modules` for a while would give it to other threads, and to whatever else MXNet is the first to import."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = vars(builtins) | {"__import__": _import}
        super().exec_module(module)


def _import(
    name: str,
    globals: Mapping[str, object] | None = None,
    locals: Mapping[str, object] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    module = builtins.__import__(name, globals, locals, fromlist or (), level)
    return _numpy if module is np else module


class _NumPy(ModuleType):
    """NumPy with the names that MXNet expects of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _removed(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"NumPy has no {name} any more: use numpy_financial.{name}, on NumPy arrays")

    function.__name__ = name
    return function


def _in1d(ar1: Any, ar2: Any, **kwargs: Any) -> np.ndarray:
    return np.isin(ar1, ar2, **kwargs).reshape(-1)


def _msort(a: Any) -> np.ndarray:
    return np.sort(a, axis=0)


# Where NumPy still has one of these, its own is taken.
_RENAMED: dict[str, Any] = {
    "Inf": np.inf,
    "NAN": np.nan,
    "NINF": -np.inf,
    "NZERO": -0.0,
    "NaN": np.nan,
    "PINF": np.inf,
    "PZERO": 0.0,
    "alltrue": np.all,
    "compat": SimpleNamespace(basestring=str),
    "in1d": _in1d,
    "msort": _msort,
    "product": np.prod,
    "round_": np.round,
    "sometrue": np.any,
    "trapz": getattr(np, "trapezoid", None),
}
_FINANCIAL = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")

_numpy = _NumPy("numpy", np.__doc__)
vars(_numpy).update(
    {name: vars(np).get(name, value) for name, value in _RENAMED.items()}
    | {name: _removed(name) for name in _FINANCIAL}
    | {"bool": bool, "int": int}  # Python's own: NumPy 2 has a `bool` again, but another
    | {"core": vars(np).get("_core", np.core)}  # NumPy 2 warns where it is called `core`
)
