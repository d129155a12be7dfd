"""One file that holds a training run: weights, mask streams, order of the batches and history.

It is a safetensors file (no pickle, nothing in it is executed) that any backend reads. It is replaced in one step, so
that a run which dies at any moment leaves either the last checkpoint or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .protocol import State

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read, or gone on from. What was there before is still there."""


def save(path: str | Path, state: State, facts: Mapping[str, Any]) -> None:
    """Writes a checkpoint in the place of the one before, all or nothing.

    Args:
        path: the file.
        state: arrays by name.
        facts: whatever else, as JSON can hold it.

    Raises:
        CheckpointError: where it cannot be written, as on a full disk; the file before it is untouched.
    """
    from safetensors.numpy import save as serialize

    content = json.dumps({"format": FORMAT, "digest": _digest(state), **facts})
    data = serialize({name: np.ascontiguousarray(array) for name, array in state.items()}, {"multidrop": content})
    path = Path(path)
    temporary = None
    try:
        # In the same folder, for only there can a file take another's place in one step.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        kept = "the one before it is kept" if path.exists() else "there was none before it"
        raise CheckpointError(f"{path}: the checkpoint could not be written ({error}); {kept}") from error


def load(path: str | Path) -> tuple[State, dict[str, Any]]:
    """The state and the facts that `save` wrote.

    Raises:
        CheckpointError: where the file cannot be read, is truncated or altered, or is no checkpoint of this library.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {error}") from error
    if "multidrop" not in metadata:
        raise CheckpointError(f"{path}: expected a checkpoint of multidrop; got another safetensors file")
    facts = json.loads(metadata["multidrop"])
    if facts.pop("format") != FORMAT:
        raise CheckpointError(f"{path}: written by another version of multidrop, in a format that this one lacks")
    if facts.pop("digest") != _digest(state):
        raise CheckpointError(f"{path}: altered since it was written: its contents do not match its digest")
    return state, facts


def _digest(state: State) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Has the new name outlive a power cut too, where the system can open a folder (Windows cannot)."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
