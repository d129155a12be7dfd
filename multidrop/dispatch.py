"""Chooses the backend: the one that a tensor belongs to, or the one that was set.

Backends are entry points, and are imported when they are first needed. A program loads no framework that it does not
use.
"""

from __future__ import annotations

import importlib.util
import inspect
import numbers
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import checks, garbage
from .protocol import Backend, Learning

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "multidrop.backends"
DEFAULT = "numpy"
VARIABLE = "MULTIDROP_BACKEND"

Part = TypeVar("Part")


class BackendError(ImportError):
    """A declared backend cannot be used: its framework is not installed or fails to import, or the backend lacks an
    optional part that a function needs."""


@cache
@garbage.put_off()
def _declared() -> dict[str, EntryPoint]:
    """The entry points by name. An editable install may list one twice, which is no conflict."""
    from importlib.metadata import entry_points  # a third of this library's import time, and needed only here

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BackendError(
                f"backend {entry.name!r} is declared twice, as {other.value!r} and as {entry.value!r}: "
                "uninstall one of the two packages"
            )
    return dict(sorted(found.items()))


def declared_backends() -> tuple[str, ...]:
    """The names of all backends, whether or not their frameworks are installed."""
    return tuple(_declared())


def available_backends() -> tuple[str, ...]:
    """The names of the backends whose frameworks are installed. It imports none, so that a broken installation is found
    only at use; `multidrop backends` imports each and reports errors."""
    return tuple(name for name in _declared() if _installed(name))


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def install_hint(name: str) -> str:
    """The command that installs a backend's framework, or, where it has no release for this system, says so."""
    distribution = _declared()[name].dist
    package = distribution.name if distribution is not None else "multidrop"
    if package != "multidrop":
        return f"pip install {package}"
    missing = _without_release(name, (distribution and distribution.requires) or [])
    if missing:
        import platform  # needed only here

        python = ".".join(platform.python_version_tuple()[:2])
        return f"{', '.join(missing)} has no release for Python {python} on {platform.system()} {platform.machine()}"
    return f'pip install "{package}[{name}]"'


def _without_release(extra: str, requires: list[str]) -> list[str]:
    """The packages of an extra that the extra `all` leaves out on this system."""
    from packaging.requirements import Requirement  # needed only here

    def packages(extra: str) -> set[str]:
        requirements = map(Requirement, requires)
        return {each.name for each in requirements if each.marker and each.marker.evaluate({"extra": extra})}

    return sorted(packages(extra) - packages("all"))


def _named(name: Any) -> str:
    """A backend's name, checked; where a user gives it, before `load`, whose cache hashes it first."""
    return checks.choice("backend", name, declared_backends())


@cache
@garbage.put_off()
def load(name: str) -> Backend:
    """The backend of that name, imported.

    Raises:
        ValueError: where no backend has that name.
        BackendError: where its framework is not installed or fails to import.
    """
    entry = _declared()[_named(name)]
    if not _installed(name):
        raise BackendError(f"backend {name!r} needs {name}, which is not installed: {install_hint(name)}")
    try:
        backend = entry.load()
    except Exception as error:  # a broken framework fails in any way it likes; MXNet's is an AttributeError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BackendError(f"backend {name!r}: {name} is installed but fails to import: {reason}") from error
    missing = sorted(required() - set(dir(backend)))
    if missing:
        raise BackendError(f"backend {name!r}: {entry.value} lacks {', '.join(missing)} (see multidrop.protocol)")
    _loaded[name] = backend
    _owners.update(dict.fromkeys(backend.types, name))
    return backend


def required() -> set[str]:
    """The names of what every backend has."""
    return {name for name in vars(Backend) if not name.startswith("_")}


def part(backend: Backend, kind: type[Part], name: str, use: str = "") -> Part:
    """Checks that a backend has an optional part.

    Args:
        backend: the backend.
        kind: the part, a protocol of `multidrop.protocol`.
        name: the attribute of the part that is needed.
        use: the function that needs it, if that is not `md.` and the same name.

    Returns:
        The backend.

    Raises:
        BackendError: if the backend lacks that attribute; it names the part and the function.
    """
    if hasattr(backend, name):
        return backend  # type: ignore[return-value]  # its attributes are looked up as they are used
    raise _lacking(backend, name, use or f"md.{name}", kind)


def learning(backend: Backend) -> Learning:
    """`part` for `learned`, an argument of `apply` that a backend need not have.

    Raises:
        BackendError: where its `apply` does not take it.
    """
    if _takes_learned(backend.name):
        return backend  # type: ignore[return-value]  # its `apply` takes the argument
    raise _lacking(backend, "learned parameters", "md.apply with learned", Learning)


def _takes_learned(name: str) -> bool:
    return "learned" in inspect.signature(load(name).apply).parameters


_takes_learned._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's tracer cannot follow `inspect`


def _lacking(backend: Backend, name: str, use: str, kind: type) -> BackendError:
    return BackendError(
        f"backend {backend.name!r} has no {name}: {use} needs a backend with the {kind.__name__.lower()} part "
        f"(multidrop.protocol.{kind.__name__})"
    )


# What `use_backend` chose, in this thread or task; and what `set_backend` chose, for the whole process.
_used: ContextVar[str | None] = ContextVar("multidrop_backend", default=None)
_set: str | None = None


def set_backend(name: str) -> None:
    """Choose the backend of constructors, and of functions that are given lists, numbers or NumPy arrays.

    It holds for the whole process; inside a `use_backend` block, until the end of that block. The framework is
    imported at once, so that what is wrong with it shows here.

    Args:
        name: one of `available_backends()`.

    Raises:
        ValueError: where no backend has that name.
        BackendError: where its framework is not installed or fails to import; it says what to install.
    """
    global _set
    load(_named(name))
    if _used.get() is None:
        _set = name
    else:
        _used.set(name)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """`set_backend` for the length of a `with` block, in this thread or asyncio task alone.

    What was chosen before is restored on exit, also after an exception.

    Args:
        name: one of `available_backends()`.

    Raises:
        ValueError: where no backend has that name.
        BackendError: where its framework is not installed or fails to import.
    """
    load(_named(name))
    before = _used.get()
    _used.set(name)
    try:
        yield
    finally:
        _used.set(before)


def get_backend() -> str:
    """The name of the backend in force: that of the innermost `use_backend` block, else of `set_backend`, else of
    the environment variable MULTIDROP_BACKEND, else "numpy"."""
    return _used.get() or _set or _from_environment()


def _from_environment() -> str:
    name = os.environ.get(VARIABLE) or DEFAULT
    return checks.choice(VARIABLE, name, declared_backends())


def current() -> Backend:
    """The backend in force, imported."""
    return load(get_backend())


_HOST = (np.ndarray, np.generic, list, tuple, numbers.Number)


# The name of the backend to which instances of the types met so far belong; None: host data, which belongs to none. A
# backend's own types are in it once that is loaded.
_owners: dict[type, str | None] = {}
_loaded: dict[str, Backend] = {}


def _owner(cls: type, name: str, expected: str) -> str | None:
    """The backend of instances of a class. `name` and `expected` are those of `backend_of`."""
    if cls not in _owners:
        _owners[cls] = _find_owner(cls, name, expected)
    return _owners[cls]


# torch's tracer then calls it, and does not follow it: in the first call of a process it imports a backend.
_owner._dynamo_marked_constant = True  # type: ignore[attr-defined]  # what the tracer looks for


def _find_owner(cls: type, name: str, expected: str) -> str | None:
    if not issubclass(cls, _HOST) or (issubclass(cls, np.ndarray) and cls is not np.ndarray):
        for framework in _declared():
            # A framework's object exists only where the framework is imported, so none is imported to look.
            if framework in sys.modules and issubclass(cls, tuple(load(framework).types)):
                return framework
    if issubclass(cls, _HOST):
        return None
    raise TypeError(f"{name}: expected {_described(expected)}; got {cls.__module__}.{cls.__qualname__}")


TENSOR = "a tensor of one of {}, a NumPy array, a list or a number"
MODEL = "a model of one of {}"


def _described(expected: str) -> str:
    return expected.format(", ".join(declared_backends()))


def backend_of(value: Any, name: str = "X", expected: str = TENSOR) -> Backend:
    """The backend that `value`, the argument of that name, belongs to: its framework's for a tensor or a model; for a
    NumPy array, a list or a number, the one that is set.

    Args:
        value: the argument.
        name: the argument's name, for the error.
        expected: what the argument should be, for the error; "{}" stands for the names of the backends.

    Raises:
        TypeError: where no backend knows its type.
    """
    owner = _owner(type(value), name, expected)
    return current() if owner is None else _loaded[owner]


def backend_of_model(model: Any, name: str = "model") -> Backend:
    """The backend of a model.

    Raises:
        TypeError: for anything else, such as host data or a tensor.
    """
    backend = backend_of(model, name, MODEL)
    if isinstance(model, tuple(backend.types)) and callable(model):  # a framework's tensors are not called
        return backend
    raise TypeError(f"{name}: expected {_described(MODEL)}; got {checks.shown(model)}")
