"""Finds, checks and loads the kernel's machine code, or compiles it.

The package contains an object file for each level of the processor architecture; llvmlite loads it without Numba. If no
file fits this processor, or the file is damaged, or a source file has changed, Numba compiles the loops, and the object
file is kept in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from .. import checks, files, garbage

ENTRIES = "multidrop.host.compiled.entries"
VARIABLE = "MULTIDROP_KERNEL"
FOLDER = "objects"
HOST = "host"
KEPT = 8  # object files of a module in the cache: for other versions of the library, and other processors

# The levels of the x86-64 psABI from the highest down, and Arm's, with the features that each adds to the level below.
LEVELS = {
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
    "x86-64-v3": "avx avx2 bmi bmi2 f16c fma lzcnt movbe",
    "x86-64-v2": "cx16 popcnt sahf sse3 sse4.1 sse4.2 ssse3",
    "aarch64": "neon",
}
_MACHINES = {"x86-64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64")}


class Library:
    """The loaded machine code of one module's entries."""

    def __init__(self, engine: Any, names: Iterable[str]) -> None:
        self._engine = engine  # owns the machine code, and frees it when it is deleted
        # All addresses now: llvmlite takes a lock for each lookup, and a child that is forked while another thread
        # holds the lock would wait for it forever.
        self._addresses = {name: engine.get_function_address(name) for name in names}
        self._functions: dict[str, Callable[..., Any]] = {}

    def address(self, name: str) -> int:
        """The address of an entry's C function."""
        return self._addresses[name]

    def function(self, name: str) -> Callable[..., Any]:
        """An entry as a Python function; it takes integers and floats by position.

        The function is a C built-in, because a call through ctypes takes as long as a small dropout.
        """
        found = self._functions.get(name)
        if found is None:
            definition = _Method(name.encode(), self._addresses[f"python_{name}"], _METH_FASTCALL, None)
            _kept.append(definition)
            found = self._functions[name] = _new_function(ctypes.byref(definition), None, None)
        return found


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_FASTCALL = 0x80
_new_function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)
_kept: list[Any] = []  # references to the method definitions, which C functions point to

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # the forking thread holds the lock, and is the child's only thread
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_libraries: dict[str, Library] = {}


def library(module: str = ENTRIES) -> Library:
    """Returns the machine code of a module's entries, and loads or compiles it at the first call.

    Args:
        module: the module's name. It is imported only if it must be compiled.

    Raises:
        ValueError: if MULTIDROP_KERNEL is not a level of this processor.
    """
    found = _libraries.get(module)
    if found is None:
        with _lock, garbage.put_off():
            found = _libraries.get(module)
            if found is None:
                found = _libraries[module] = _load(module)
    return found


def _load(module: str) -> Library:
    for path in _candidates(module):
        with suppress(Unusable):
            return _open(_read(path, module))
    from .compiled.build import build

    _warn(f"{module}: no object file fits this processor and version; compiling one, which takes a while")
    packed = build(module, HOST)
    if kept := _cached(module):
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            files.write(kept, packed)
            _forget_others(kept)
        except OSError as error:
            _warn(f"{module}: the object file could not be saved, and will be compiled again: {error}")
    return _open(_unpack(packed, module))


def _warn(message: str) -> None:
    """Logs why the first call takes long. Without a logging configuration, Python prints it to standard error."""
    import logging

    logging.getLogger("multidrop").warning(message)


class Unusable(Exception):
    """Raised for an object file that is missing, damaged, stale, or refers to unknown symbols."""


def _candidates(module: str) -> Iterator[Path]:
    levels = [level for level in LEVELS if _has(level)]
    if forced := os.environ.get(VARIABLE):
        checks.choice(VARIABLE, forced, (*levels, HOST))
        levels = [level for level in levels if level == forced]
    if levels:
        yield _folder_of(module) / FOLDER / file_name(levels[0])
    if path := _cached(module):
        yield path


def levels_to_build() -> list[str]:
    """The levels of this machine's processor architecture."""
    import platform

    machine = platform.machine().lower()
    kinds = tuple(kind for kind, names in _MACHINES.items() if machine in names)
    return [level for level in LEVELS if kinds and level.startswith(kinds)]


def file_name(level: str) -> str:
    """The name of a level's object file in the folder `FOLDER` beside its module."""
    return f"{level}.o"


@cache
def _folder_of(module: str) -> Path:
    """The folder of a module, found without importing it. Its package, or that package's parent, must be imported."""
    spec = find_spec(module.rpartition(".")[0])
    assert spec is not None, module
    return Path(str(spec.origin)).parent


@cache
def _processor() -> tuple[str, dict[str, bool]]:
    """The processor's name, and its features."""
    from llvmlite import binding as llvm

    return llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


def _has(level: str) -> bool:
    """Whether this processor has all features of a level."""
    if level not in levels_to_build():
        return False
    _, has = _processor()
    return all(has.get(feature) for feature in _features(level))


def _features(level: str) -> list[str]:
    """The features of a level and of those below it."""
    kind = level.partition("-v")[0]
    return [
        feature for name, text in LEVELS.items() if name.startswith(kind) and name <= level for feature in text.split()
    ]


def target(level: str) -> tuple[str, str]:
    """LLVM's processor name and feature string for a level."""
    if level == HOST:
        cpu, has = _processor()
        return cpu, ",".join(f"{'+' if value else '-'}{name}" for name, value in sorted(has.items()))
    features = [f"+{name}" for name in _features(level)]
    if level.startswith("x86"):
        features.append("+prfchw")  # processors without it execute the instruction as a no-op
    if level == "x86-64-v4":
        features.append("-prefer-256-bit")  # LLVM would use half of each vector, for the sake of the oldest processors
    return (level if level.startswith("x86") else "generic"), ",".join(features)


# Format of an object file: a line with the digest of everything after it, a line of facts in JSON, the machine code.


class Object(NamedTuple):
    """Machine code, the names of its functions, and the names of the external functions that it calls."""

    code: bytes
    names: list[str]
    externals: list[str]


def pack(module: str, level: str, built: Object) -> bytes:
    """Packs an object file."""
    import json

    facts = {"level": level, "sources": _digest_of_sources(module), "names": built.names, "externals": built.externals}
    content = json.dumps(facts).encode() + b"\n" + built.code
    return _digest(content).encode() + b"\n" + content


def fits(path: Path, module: str) -> bool:
    """Whether `path` is an undamaged object file of the current sources."""
    try:
        _read(path, module)
    except Unusable:
        return False
    return True


def _read(path: Path, module: str) -> Object:
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise Unusable from error
    return _unpack(packed, module)


def _unpack(packed: bytes, module: str) -> Object:
    import json

    digest, _, content = packed.partition(b"\n")
    if digest != _digest(content).encode():
        raise Unusable
    line, _, code = content.partition(b"\n")
    facts = json.loads(line)
    if _digest_of_sources(module) not in ("", facts["sources"]):
        raise Unusable
    return Object(code, facts["names"], facts["externals"])


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@cache
def _digest_of_sources(module: str) -> str:
    """The digest of the machine code's sources: the module's folder, the folder of the loops, and Philox's constants.
    "" if there are no source files."""
    package = Path(__file__).parent
    folders = dict.fromkeys((package / "compiled", _folder_of(module)))
    sources = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    if not sources:  # a frozen program has none
        return ""
    sources.append(package.parent / "spec" / "philox.py")
    return _digest(b"\0".join(path.read_bytes() for path in sources))


def _open(built: Object) -> Library:
    """Loads machine code through llvmlite."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in built.externals:  # LLVM ends the process if a symbol is unresolved
        llvm.add_symbol(name, _address_of(name))
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(built.code))
    engine.finalize_object()
    return Library(engine, built.names)


def _address_of(name: str) -> int:
    """The address of a function of the Python C API or of the C library."""
    for library in (ctypes.pythonapi, ctypes.CDLL(None)):
        with suppress(AttributeError):
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    raise Unusable


def _cached(module: str) -> Path | None:
    """The path of the cached object file for this processor; None if the user has no cache folder."""
    made_of = " ".join((_digest_of_sources(module), *target(HOST), sys.platform))
    try:
        folder = files.cache_folder()
    except OSError:
        return None
    return folder / "kernel" / f"{module}-{_digest(made_of.encode())}.o"


def _forget_others(path: Path) -> None:
    """Removes all but the newest object files of a module from the cache."""
    prefix = path.name.rpartition("-")[0]
    others = sorted(path.parent.glob(f"{prefix}-*.o"), key=lambda other: other.stat().st_mtime)
    for other in others[:-KEPT]:
        other.unlink(missing_ok=True)
