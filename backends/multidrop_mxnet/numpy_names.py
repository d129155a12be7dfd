"""Imports MXNet beside a NumPy that is newer than it.

MXNet 1.9.1, the last release, uses names that NumPy has removed since: `numpy.bool` (in 1.24), the financial functions,
and in NumPy 2 `PZERO`, `alltrue`, `trapz` and others. `import_mxnet` gives MXNet's modules, and no others, a stand-in
for NumPy that still has them. NumPy itself does not change.
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
    """Imports MXNet beside any NumPy, or returns the module that is imported already.

    This package calls it when it is imported, and a plain `import mxnet` works afterwards.
    """
    if "mxnet" in sys.modules:
        return sys.modules["mxnet"]
    # An import that failed leaves submodules behind, which refer to NumPy itself.
    for name in [name for name in sys.modules if _is_mxnet(name)]:
        del sys.modules[name]
    if _Finder not in map(type, sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # stays: MXNet imports some submodules later
    with warnings.catch_warnings():
        # MXNet compares versions with distutils, which warns up to Python 3.11, and from 3.12 on is setuptools' own.
        # Some of its docstrings have invalid escapes, which warn when they are first compiled.
        warnings.filterwarnings("ignore", "(The )?distutils", DeprecationWarning)
        warnings.filterwarnings("ignore", "invalid escape sequence|.* is an invalid escape sequence")
        return import_module("mxnet")


def _is_mxnet(name: str) -> bool:
    return name.partition(".")[0] == "mxnet"


class _Finder(MetaPathFinder):
    """Loads MXNet's modules by `_Loader`; leaves all others to the usual finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if _is_mxnet(name) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Gives a module an `import` statement of its own, which imports the stand-in for NumPy. A stand-in in
    `sys.modules` would also reach other threads, and other packages that MXNet is the first to import."""

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
    """NumPy, with the names that MXNet uses."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _removed(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        # MXNet only looks the name up when it is imported; a call can come from a user alone.
        raise NotImplementedError(f"NumPy has no {name} any more: use numpy_financial.{name}, on NumPy arrays")

    function.__name__ = name
    return function


def _in1d(ar1: Any, ar2: Any, **kwargs: Any) -> np.ndarray:
    return np.isin(ar1, ar2, **kwargs).reshape(-1)


def _msort(a: Any) -> np.ndarray:
    return np.sort(a, axis=0)


# If NumPy still has one of these, its own is used.
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
    | {"bool": bool, "int": int}  # Python's own: NumPy 2 has another `bool`
    | {"core": vars(np).get("_core", np.core)}  # NumPy 2 warns about `core`
)
