"""Checks strings, flags, paths and JSON objects."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..shown import shown


def flag(name: str, value: object) -> bool:
    """Returns a bool.

    Raises:
        ValueError: if it is neither True nor False.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name}: expected True or False; got {shown(value)}")


def text(name: str, value: str) -> bytes:
    """Encodes a string as UTF-8.

    Raises:
        ValueError: if it contains an unpaired surrogate, which UTF-8 cannot encode.
    """
    try:
        return str.encode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{name}: expected a string without unpaired surrogates; got {shown(value)}") from None


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns one of `choices`.

    Raises:
        ValueError: if `value` is not one of them.
    """
    if isinstance(value, str) and value in choices:
        return choices[choices.index(value)]  # a plain str, even if `value` is of a subclass
    expected = ", ".join(map(repr, choices))
    raise ValueError(f"{name}: expected one of {expected}; got {shown(value)}")


def path(name: str, value: object, expected: str = "the path of a file, a string or a Path") -> Path:
    """Returns the path of a file, which need not exist, as a `Path`.

    Raises:
        ValueError: if it is neither a string nor a `Path`, or contains the character NUL.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{name}: expected {expected}; got {shown(value)}")
    return Path(text)


def json_object(name: str, value: Any) -> dict[str, Any]:
    """Returns a mapping as JSON would give it back: tuples become lists, and numbers that are not finite become None.

    Raises:
        ValueError: if it is not a mapping of strings to values that JSON can represent.
    """
    if isinstance(value, Mapping):
        with suppress(TypeError, RecursionError):
            return {_text(key): _of_json(item) for key, item in value.items()}
    raise ValueError(f"{name}: expected names and values that JSON can hold; got {shown(value)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _of_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(key): _of_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_of_json(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError
