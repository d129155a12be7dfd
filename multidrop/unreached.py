"""What drops in a model and is no dropout layer, or none that its framework finds: read off the code of its layers, for
the report of a conversion."""

from __future__ import annotations

import dis
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType
from typing import Any, NamedTuple


class Unreached(NamedTuple):
    """What drops and is no layer, or none that could be replaced: where it is, and what."""

    path: str
    what: str


_DROPS = re.compile(r"\w*[dD]ropout\w*|scaled_dot_product_attention|multi_head_attention_forward")
_FRAMEWORKS = {"torch", "keras", "tensorflow", "mxnet", "ndarray", "symbol"}  # the last two are of MXNet's operators
_GUESSED = re.compile(  # where only a call tells what a name stands for, as with Gluon's F
    r"(?:F|nd|sym)\.Dropout|(?:F|functional|nn|experimental|ops|random|nd|sym|npx)"
    r"\.(?:[a-z_]*dropout\w*|scaled_dot_product_attention|multi_head_attention_forward)"
)


def unreached(layer: object, method: str, dropouts: tuple[type, ...], own: str) -> Iterator[str]:
    """What drops in a layer's own code and is no layer, as far as its attributes and its code tell.

    Args:
        layer: any layer but a dropout.
        method: the name of that which the framework calls.
        dropouts: the types of dropout layers, whose rate alone may be used.
        own: the framework's package; of its own layers, which have no calls to find, only attributes are looked at.
    """
    kind, methods = type(layer).__name__, list(_methods(type(layer), own))
    reads = list(_reads(type(layer), method, methods))
    # A framework's layer either has a layer that drops, or does it itself.
    attributes_tell = type(layer).__module__.startswith(own) and not any(
        isinstance(value, dropouts) for value in (vars(layer) | vars(layer).get("_modules", {})).values()
    )
    for name, value in vars(layer).items():
        if "dropout" in name.lower() and isinstance(value, float) and value > 0.0:
            readers = [reader for reader, names in reads if names[:2] == ("self", name)]
            if readers or not reads or attributes_tell:
                yield f"{kind}.{name} = {value}, which its {(*readers, method)[0]} hands to a function"
    found = [(name, call) for name, function in methods for call in calls(function, dropouts if name == method else ())]
    for name, call in dict.fromkeys(found):
        yield f"{kind}.{name} calls {call}"
    owned = [(reader, names[1:]) for reader, names in reads if names[0] == "self" and len(names) == 3]
    rates = [(reader, name) for reader, (name, rate) in owned if rate in ("p", "rate", "_rate")]
    for reader, name in dict.fromkeys(rates):
        if isinstance(getattr(layer, name, None), dropouts):
            yield f"{kind}.{reader} reads the rate of {name}, and hands it to a function"


def calls(function: Any, layers: tuple[type, ...] = ()) -> Iterator[str]:
    """The frameworks' functions that drop which a function's code names, or which it is itself.

    Args:
        function: any callable.
        layers: dropout layers, which count as well, but in code that asks what is an instance of them.
    """
    function = function.func if isinstance(function, partial) else inspect.unwrap(function)
    if _drops(function):
        yield function.__name__
    if not isinstance(function, FunctionType):
        return
    code, outer = function.__code__, {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty
            outer[name] = cell.cell_contents
    layers = () if "isinstance" in code.co_names else layers
    for names, local in _names(code):
        if len(names) > 1 and not _DROPS.fullmatch(names[-1]):
            continue
        value = None if local else outer.get(names[0], function.__globals__.get(names[0]))
        for name in names[1:]:
            value = getattr(value, name, None)
        built = isinstance(value, type) and issubclass(value, layers) and _of_framework(value)
        if built or _drops(value) or (value is None and _GUESSED.fullmatch(".".join(names[-2:]))):
            yield names[-1]


def unregistered(
    layers: Collection[tuple[str, Any]],
    parts: Callable[[Any], Iterable[tuple[str, Any]]],
    base: type,
    dropouts: tuple[type, ...],
    ours: type | tuple[type, ...],
) -> Iterator[Unreached]:
    """The dropout layers that others hold in plain lists, tuples and dicts, where their framework does not find them.

    Args:
        layers: those that it finds in a model, by path.
        parts: gives a layer and all within it, by path.
        base: the type of all layers.
        dropouts: the types of dropout layers.
        ours: those of them that are this library's.
    """
    reached = {id(layer) for _, layer in layers}
    for path, layer in layers:
        for place, held in _held(vars(layer), base):
            for inner, part in parts(held) if id(held) not in reached else ():
                if isinstance(part, dropouts) and not isinstance(part, ours) and id(part) not in reached:
                    reached.add(id(part))
                    where = f"{type(layer).__name__}{place}.{inner}".rstrip(".")
                    yield Unreached(path, f"{where}, a {type(part).__name__} that is not registered as a layer of it")


def _held(holder: Any, base: type, place: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What there is of a type in lists, tuples and dicts, however deep, and where; a layer's attributes are a dict."""
    above += (id(holder),)
    for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
        where = f"{place}[{key!r}]" if place else f".{key}"
        if isinstance(value, base):
            yield where, value
        elif isinstance(value, list | tuple | dict) and id(value) not in above:
            yield from _held(value, base, where, above)


def _methods(kind: type, own: str) -> Iterator[tuple[str, FunctionType]]:
    """The methods that a class and its bases define, but for the framework's; one that is overridden, where what
    overrides it calls it."""
    overridden: set[str] = set()
    for base in kind.__mro__:
        for name, value in () if base.__module__.startswith(own) else vars(base).items():
            function = inspect.unwrap(getattr(value, "__func__", value))
            if name not in overridden and isinstance(function, FunctionType):
                yield name, function
                if "super" not in function.__code__.co_names:
                    overridden.add(name)


def _reads(kind: type, method: str, methods: list[tuple[str, FunctionType]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The dotted names that a method reads, and those that the methods read to which it leads, each with its reader."""
    inherited: Any = getattr(kind, method, None)
    inherited = inspect.unwrap(inherited)
    if method not in dict(methods) and isinstance(inherited, FunctionType):
        methods = [*methods, (method, inherited)]
    running = [method]
    for reader in running:  # which grows on the way
        for names, _ in (read for name, function in methods if name == reader for read in _names(function.__code__)):
            yield reader, names
            if names[0] == "self" and len(names) > 1 and names[1] not in running:
                running.append(names[1])


def _names(code: CodeType) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The dotted names that code reads, and whether they begin with a variable of its own."""
    names: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname == "EXTENDED_ARG":  # it belongs to the next
            continue
        if names and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            names += (step.argval,)
            continue
        if names:
            yield names, names[0] in code.co_varnames + code.co_cellvars
        names = ()
        if step.opname.startswith(("LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")):
            names = (step.argval[-1] if isinstance(step.argval, tuple) else step.argval,)  # one may load two
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _drops(value: Any) -> bool:
    named = _DROPS.fullmatch(str(getattr(value, "__name__", ""))) is not None
    return named and not isinstance(value, type) and _of_framework(value)


def _of_framework(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in _FRAMEWORKS
