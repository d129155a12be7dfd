"""Compiles the entries of a module into one object file.

    python -m multidrop.host.compiled.build MODULE LEVEL FILE

Numba compiles each entry to LLVM IR. The IR is linked with two small functions for each entry: one with a plain C
signature, and one that Python calls. Numba's own wrappers, which raise exceptions, are removed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..objects import Object
    from .entries import Entry

HOST = "host"


def build(module: str, level: str) -> bytes:
    """Compiles the entries of a module.

    Args:
        module: the name of a module with `ENTRIES`.
        level: one of `multidrop.host.objects.LEVELS`, or "host" for this processor. Numba must not have been imported
            for a different level in this process.

    Returns:
        The object file, packed by `multidrop.host.objects`.
    """
    from .. import objects

    cpu, features = objects.target(level)
    # Numba reads these variables when it is imported, or again when it compiles. Without them it generates code for
    # this processor.
    names = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    before = {name: os.environ.get(name) for name in names}
    if level != HOST:
        os.environ.update(names)
    try:
        return objects.pack(module, level, _compiled(importlib.import_module(module).ENTRIES, cpu, features))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _compiled(entries: dict[str, Entry], cpu: str, features: str) -> Object:
    from llvmlite import binding as llvm

    from ..objects import Object

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )
    linked = llvm.parse_assembly("")
    for name, entry in entries.items():
        text, native = _ir_of(entry)
        part = llvm.parse_assembly(text)
        part.link_in(llvm.parse_assembly(_wrappers(name, entry, native, part)))
        _remove_all_but(part, {name, PYTHON + name}, native, machine)
        linked.link_in(part)
    linked.verify()
    names = [prefix + name for name in entries for prefix in ("", PYTHON)]
    return Object(machine.emit_object(linked), names, sorted(_referred_to(linked)))


def _ir_of(entry: Entry) -> tuple[str, str]:
    """The LLVM IR of an entry, and the name of its function there."""
    from numba import cfunc, types

    letters = {"i": types.int64, "w": types.uint64, "d": types.float64}
    result = types.UniTuple(types.uint64, entry.words) if entry.words else types.void
    if entry.words:  # Numba's C functions cannot return tuples
        return _ir_with_result(entry, [letters[letter] for letter in entry.arguments], result)
    compiled = cfunc(types.void(*(letters[letter] for letter in entry.arguments)), error_model="numpy")(entry.function)
    return compiled.inspect_llvm(), compiled.native_name.removeprefix("cfunc.")


def _ir_with_result(entry: Entry, arguments: list[Any], result: Any) -> tuple[str, str]:
    from numba import njit

    compiled = njit(result(*arguments), error_model="numpy")(entry.function)
    (signature,) = compiled.signatures
    return compiled.inspect_llvm(signature), compiled.overloads[signature].fndesc.llvm_func_name


PYTHON = "python_"  # the prefix of a function that Python calls


def _wrappers(name: str, entry: Entry, native: str, part: Any) -> str:
    """The LLVM IR of the C function `name`, and of the function that Python calls."""
    from llvmlite import ir

    word, double, pointer, number = ir.IntType(64), ir.DoubleType(), ir.IntType(8).as_pointer(), ir.IntType(32)
    kinds = [double if letter == "d" else word for letter in entry.arguments]
    result = ir.ArrayType(word, max(entry.words, 1))
    module = ir.Module(name)

    def external(name: str, kind: Any, *arguments: Any) -> Any:
        return ir.Function(module, ir.FunctionType(kind, arguments), name)

    # Numba's calling convention: a pointer for the result, a pointer for an exception, the arguments; returns a status.
    function = external(native, number, pointer, pointer, *kinds)
    as_c = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    builder = ir.IRBuilder(as_c.append_basic_block())
    _call(builder, function, as_c.args, result, pointer)
    builder.ret_void()

    # PyObject *function(PyObject *self, PyObject *const *args, Py_ssize_t nargs), of METH_FASTCALL.
    as_python = ir.Function(module, ir.FunctionType(pointer, [pointer, pointer.as_pointer(), word]), PYTHON + name)
    builder = ir.IRBuilder(as_python.append_basic_block())
    _, given, count = as_python.args
    null = ir.Constant(pointer, None)
    with builder.if_then(builder.icmp_signed("!=", count, ir.Constant(word, len(kinds))), likely=False):
        builder.call(external("PyErr_BadArgument", number), [])
        builder.ret(null)
    converters = {
        letter: external(converter, double if letter == "d" else word, pointer)
        for letter, converter in (
            ("i", "PyLong_AsLongLong"),
            ("w", "PyLong_AsUnsignedLongLong"),
            ("d", "PyFloat_AsDouble"),
        )
    }
    values = [
        builder.call(converters[letter], [builder.load(builder.gep(given, [ir.Constant(word, place)]))])
        for place, letter in enumerate(entry.arguments)
    ]
    raised = builder.call(external("PyErr_Occurred", pointer), [])
    with builder.if_then(builder.icmp_unsigned("!=", raised, null), likely=False):
        builder.ret(null)
    if entry.words:
        words = _call(builder, function, values, result, pointer)
        made = builder.call(external("PyTuple_New", pointer, word), [ir.Constant(word, entry.words)])
        with builder.if_then(builder.icmp_unsigned("==", made, null), likely=False):
            builder.ret(null)
        to_python = external("PyLong_FromUnsignedLongLong", pointer, word)
        put = external("PyTuple_SetItem", number, pointer, word, pointer)
        for place in range(entry.words):
            item = builder.call(to_python, [builder.extract_value(words, place)])
            builder.call(put, [made, ir.Constant(word, place), item])
        builder.ret(made)
    else:
        thread = builder.call(external("PyEval_SaveThread", pointer), [])
        _call(builder, function, values, result, pointer)
        builder.call(external("PyEval_RestoreThread", ir.VoidType(), pointer), [thread])
        builder.ret(builder.call(external("PyBool_FromLong", pointer, word), [ir.Constant(word, 1)]))
    return str(module)


def _call(builder: Any, function: Any, values: Iterable[Any], result: Any, pointer: Any) -> Any:
    """Calls Numba's function, and returns the words of its result. The entries raise no exceptions."""
    room, exception = builder.alloca(result), builder.alloca(pointer)
    builder.call(function, [builder.bitcast(room, pointer), builder.bitcast(exception, pointer), *values])
    return builder.load(room)


def _remove_all_but(part: Any, names: set[str], native: str, machine: Any) -> None:
    """Inlines all calls into the functions of these names, and removes all other functions."""
    from llvmlite import binding as llvm

    for function in part.functions:
        if not function.is_declaration and function.name not in names:
            function.linkage = "internal"
            if function.name == native:
                function.add_function_attribute("alwaysinline")
    for variable in part.global_variables:
        if variable.linkage == llvm.Linkage.common:  # Numba's environments; only its own wrappers use them
            variable.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_ipsccp_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_strip_dead_prototype_pass()
    passes.run(part, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3)))


def _referred_to(module: Any) -> set[str]:
    return {
        thing.name
        for things in (module.functions, module.global_variables)
        for thing in things
        if thing.is_declaration and not thing.name.startswith("llvm.")
    } | {"memset", "memcpy", "memmove"}  # LLVM inserts calls of these


def main(arguments: list[str]) -> None:
    """Runs the command; its arguments are MODULE, LEVEL and FILE."""
    from .. import objects

    module, level, file = arguments
    _without_its_package(module)
    path = Path(file)
    if not objects.fits(path, module):  # an installer may build the same package twice
        path.write_bytes(build(module, level))


def _without_its_package(module: str) -> None:
    """Makes a module importable without running the `__init__` of its package, because that imports a framework, which
    need not be installed."""
    package = module.partition(".")[0]
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        assert spec is not None, package
        stand_in = ModuleType(package)
        stand_in.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[package] = stand_in


if __name__ == "__main__":
    main(sys.argv[1:])
