"""The checkpoint file of a training run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .. import checks
from ..protocol import Model, Section
from ..spec.keys import Key
from . import checkpoint as checkpoints
from .checkpoint import CheckpointError
from .data import Batches
from .history import History
from .randomness import unkeyed
from .state import check_types


class RunFile:
    """The checkpoint file of one run."""

    def __init__(self, path: Path, section: Section, net: Model, train_iter: Any) -> None:
        if not isinstance(train_iter, Batches):
            raise CheckpointError(
                "checkpoint: expected a train_iter from load_data_fashion_mnist or md.batches, because a key "
                f"determines its order; got {type(train_iter).__name__}"
            )
        self.path, self.section, self.net, self.batches = path, section, net, train_iter

    def open(self, history: History, resume: bool) -> None:
        """Creates the file, or restores net, batches and history from it."""
        if layers := unkeyed(self.net, self.batches):
            raise CheckpointError(
                "checkpoint: expected a keyed net, so that a resumed run draws the same masks; got one in which a "
                f"generator decides: {layers}. Build layers of multidrop after manual_seed(n) or with seed=n; replace "
                "others by md.convert(net, seed=n)"
            )
        if os.path.isdir(self.path):
            raise CheckpointError(f"{self.path}: expected the path of a file; got that of a folder")
        if not os.path.exists(self.path):  # or it may not be looked at, which `save` reports
            self.save(history)
            return
        if not resume:
            raise CheckpointError(f"{self.path}: exists already; resume its run, or delete it to start a new one")
        state, facts = checkpoints.load(self.path)
        try:
            before = History.from_dict(facts.get("history"))  # type: ignore[arg-type]
            key = None if self.batches.key is None else _key(facts.get("batches"))
        except ValueError as error:
            raise CheckpointError(f"{self.path}: not a checkpoint of a run: {error}") from error
        for name, value in history.to_dict()["settings"].items():
            # A run may continue on a different backend; only the last bits of its sums may then differ.
            if name not in ("backend", "version") and before.settings.get(name) != value:
                raise CheckpointError(
                    f"{self.path}: cannot resume with different settings: {name} was {before.settings.get(name)!r}, "
                    f"now it is {value!r}"
                )
        try:
            check_types(state, self.section.get_state(self.net))
            self.section.set_state(self.net, state)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: belongs to a different net: {error}") from error
        self.batches.key, self.batches.epoch = key, len(before.epochs)
        history.epochs[:], history.notes[:] = before.epochs, before.notes

    def save(self, history: History) -> None:
        """Saves the run after an epoch."""
        key = self.batches.key
        facts = {"history": history.to_dict(), "batches": key and [key.seed, key.call]}
        checkpoints.save(self.path, self.section.get_state(self.net), facts)


def _key(words: Any) -> Key:
    """Reads the key of the batches from a checkpoint: [seed, call], or in format 1 the seed alone."""
    if isinstance(words, list) and len(words) == 2:
        return Key(*words)
    return Key(checks.word64("batches", words))
