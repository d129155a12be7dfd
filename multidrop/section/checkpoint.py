"""Saves a training run in one file: weights, mask streams, order of the batches and history.

Any backend, and any reader of safetensors files, can read the file. It contains no pickle, so reading it executes no
code. It is replaced atomically: a run that dies at any moment leaves a complete checkpoint, the old or the new one.

Format 2: the metadata have one entry, `multidrop`, a JSON object with `format`, `digest` and `facts` in this order. The
digest is the BLAKE2b digest (32 bytes, in hexadecimal) of the whole file, with the digest itself replaced by the
character 0, so that any changed byte is detected. Format 1 had a digest of the tensors only. Its files are read if that
digest is right and the facts are valid; the next checkpoint is written in format 2.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks, files
from ..protocol import State
from .needs import section_extra

FORMAT = 2

_DIGEST_BYTES = 32
_NO_DIGEST = "0" * (2 * _DIGEST_BYTES)
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
# Finds the digest in the header, a JSON text inside a JSON text. The facts cannot match, because they contain no
# unescaped quote.
_PLACE = re.compile(
    rb'"multidrop":"\{\\"format\\": %d, \\"digest\\": \\"([0-9a-f]{%d})\\", ' % (FORMAT, len(_NO_DIGEST))
)


class CheckpointError(RuntimeError):
    """Raised if a checkpoint cannot be written, read or resumed. The previous checkpoint is unchanged."""


def save(path: str | Path, state: State, facts: Mapping[str, Any]) -> None:
    """Writes or replaces a checkpoint, atomically.

    Args:
        path: the file.
        state: arrays by name.
        facts: further data that JSON can represent.

    Raises:
        ValueError: for a bad path, or if JSON cannot represent `facts`.
        CheckpointError: if the file cannot be written, as on a full disk; the previous file is unchanged.
    """
    with section_extra("a checkpoint"):
        from safetensors.numpy import save as serialize

    path = checks.file_path("path", path)
    content = json.dumps({"format": FORMAT, "digest": _NO_DIGEST, "facts": checks.json_object("facts", facts)})
    data = serialize({name: np.asarray(array, order="C") for name, array in state.items()}, {"multidrop": content})
    place = _place(data)
    if place is None:
        raise CheckpointError(f"{path}: cannot be written: this version of safetensors writes its header differently")
    digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest().encode()
    try:
        files.write(path, b"".join((data[: place[0]], digest, data[place[1] :])))
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint {error.strerror}") from error


def load(path: str | Path) -> tuple[State, dict[str, Any]]:
    """Reads the state and the facts that `save` wrote.

    Raises:
        ValueError: for a bad path.
        CheckpointError: if the file cannot be read, is truncated or altered, or is not a checkpoint of this library.
    """
    path = checks.file_path("path", path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {error.strerror}") from error
    place = _place(data)
    if place is not None and data[slice(*place)].decode() != _digest(data, place):
        raise CheckpointError(f"{path}: altered since it was written: its contents do not match its digest")
    state, content = _contents(path, data)
    if place is not None:
        return state, _object(path, content.get("facts"), "facts")
    if content.get("format") != 1:
        raise CheckpointError(
            f"{path}: altered since it was written, or in a format of a different version of multidrop: "
            f"expected format 1 or {FORMAT}; got {checks.shown(content.get('format'))}"
        )
    if content.get("digest") != _digest_1(state):
        raise CheckpointError(f"{path}: altered since it was written: its contents do not match its digest")
    return state, {name: value for name, value in content.items() if name not in ("format", "digest")}


def _header_end(data: bytes) -> int:
    return min(len(data), _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little"))


def _place(data: bytes) -> tuple[int, int] | None:
    """The start and the end of a format 2 digest within `data`; None if there is none."""
    found = _PLACE.search(data, 0, _header_end(data))
    return found and found.span(1)


def _digest(data: bytes, place: tuple[int, int]) -> str:
    view = memoryview(data)
    digest = hashlib.blake2b(view[: place[0]], digest_size=_DIGEST_BYTES)
    digest.update(_NO_DIGEST.encode())
    digest.update(view[place[1] :])
    return digest.hexdigest()


def _contents(path: Path, data: bytes) -> tuple[State, dict[str, Any]]:
    """The tensors, and the JSON object in the metadata."""
    with section_extra("a checkpoint"):
        from safetensors import SafetensorError
        from safetensors.numpy import load as deserialize

    try:
        state = deserialize(data)
        header = json.loads(data[_LENGTH_BYTES : _header_end(data)])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:  # KeyError: a type that NumPy lacks
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {error}") from error
    text = (header.get("__metadata__") or {}).get("multidrop")
    if text is None:
        raise CheckpointError(f"{path}: expected a checkpoint of multidrop; got a different safetensors file")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its facts cannot be read as JSON: {error}") from error
    return state, _object(path, content, "contents")


def _object(path: Path, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {name}: expected a JSON object; got {checks.shown(value)}")
    return value


def _digest_1(state: State) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
