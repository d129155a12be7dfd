"""Checks strings, flags, paths and JSON objects."""

from __future__ import annotations

import difflib
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
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


def string(name: str, value: object) -> str:
    """Returns a string that UTF-8 can encode.

    Raises:
        ValueError: if it is not a string, or contains an unpaired surrogate.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a string; got {shown(value)}")
    text(name, value)
    return value


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns one of `choices`.

    Raises:
        ValueError: if `value` is not one of them. The message suggests a similar one.
    """
    if isinstance(value, str) and value in choices:
        return choices[choices.index(value)]  # a plain str, even if `value` is of a subclass
    expected = ", ".join(map(repr, choices))
    raise ValueError(f"{name}: expected one of {expected}; got {shown(value)}{suggestion(value, choices)}")


def suggestion(value: object, choices: Iterable[str]) -> str:
    """The end of an error about a value that is not one of `choices`: ": did you mean 'torch'?", or "" if no choice,
    or more than one, is similar."""
    found = _similar(value, tuple(choices)) if isinstance(value, str) and len(value) <= 100 else None
    return f": did you mean {found!r}?" if found else ""


def _similar(value: str, choices: tuple[str, ...]) -> str | None:
    """The choice that a user meant: in other capitals or with signs, part of a longer name ("pytorch"), misspelled,
    or shortened ("np")."""
    word = _letters(value)
    plain = {choice: _letters(choice) for choice in choices}
    # float16 looks like float64, but nobody who writes it means float64.
    plain = {choice: text for choice, text in plain.items() if _same(_digits(text), _digits(word))}
    likeness = {text: difflib.SequenceMatcher(None, word, text).ratio() for text in plain.values()}
    nearest = max([0.6, *likeness.values()])  # difflib's own limit
    ways: tuple[Callable[[str], bool], ...] = (
        lambda text: text == word,
        lambda text: len(text) > 2 and text in word,
        lambda text: likeness[text] == nearest,
        lambda text: len(word) > 1 and text[:1] == word[0] and _within(word, text),
    )
    for way in ways:
        found = [choice for choice, text in plain.items() if way(text)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _same(digits: str, others: str) -> bool:
    return not digits or not others or digits == others


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isdigit())


def _within(word: str, text: str) -> bool:
    """Whether `text` has all letters of `word`, in this order."""
    rest = iter(text)
    return all(letter in rest for letter in word)


def path(name: str, value: object, expected: str = "a path, a string or a Path") -> Path:
    """Returns the path of a file or a folder, which need not exist, as a `Path`.

    Raises:
        ValueError: if it is neither a string nor a `Path`, or contains the character NUL.
    """
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str) or "\0" in given:
        raise ValueError(f"{name}: expected {expected}; got {shown(value)}")
    return Path(given)


def file_path(name: str, value: object) -> Path:
    """Returns the path of a file, which need not exist, as a `Path`.

    Raises:
        ValueError: if it is neither a string nor a `Path`, contains the character NUL, or ends in no name, as "" and
            "/" do.
    """
    expected = "the path of a file, a string or a Path"
    found = path(name, value, expected)
    if not found.name:
        raise ValueError(f"{name}: expected {expected}; got {shown(value)}")
    return found


def json_object(name: str, value: Any) -> dict[str, Any]:
    """Returns a mapping as JSON would give it back: tuples become lists, and numbers that are not finite become None.

    Raises:
        ValueError: if it is not a mapping of strings to values that JSON can represent.
    """
    if isinstance(value, Mapping):
        with suppress(TypeError, OverflowError, RecursionError):  # OverflowError: a fraction beyond all floats
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
