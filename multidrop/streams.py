"""Streams and seeds: which key comes next.

A `Stream` hands out one key a call. `manual_seed` gives every layer, net and data loader that is built afterwards a key
of its own.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable

from .spec.keys import Key, as_key

# Held while a position is read and moved on, here and in the backends (as `streams.lock`: a forked child has another).
# One for all of them: a stream with a lock of its own could not be copied, and in a child that was forked while another
# thread held it, never be used again.
lock = threading.Lock()


class Stream:
    """A key and a counter: each `next()` gives a key that none before it gave. Safe to share between threads; a copy,
    and a forked process, goes its own way from where the stream was.

    Args:
        key: where the stream starts; its `call` is the first call handed out. An int means `Key(int)`.

    Raises:
        ValueError: where it is neither a key nor an integer in [0, 2^64).
    """

    def __init__(self, key: int | Key) -> None:
        self._key = as_key(key)

    @property
    def key(self) -> Key:
        """The key that `next()` will give; setting it moves the stream there."""
        return self._key

    @key.setter
    def key(self, key: int | Key) -> None:
        key = as_key(key)
        with lock:
            self._key = key

    def next(self) -> Key:
        """The stream's present key; the stream moves on by one call (and from 2^64 − 1 back to 0)."""
        with lock:
            key = self._key
            self._key = Key.of_words(key.seed, (key.call + 1) % 2**64)
        return key

    def __repr__(self) -> str:
        return f"Stream({self._key})"


class Seeds:
    """Hands every part that is built a key of its own: the n-th part of a kind always gets the same one.

    Args:
        root: what all of them are derived from; None leaves every part to its framework's own generator.
    """

    def __init__(self, root: Key | None) -> None:
        self.root = root
        self._built: Counter[str] = Counter()

    def next(self, kind: str) -> Key | None:
        """The key of the next part of `kind` ("dropout", "weights", "batches")."""
        if self.root is None:
            return None
        with lock:
            number = self._built[kind]
            self._built[kind] += 1
        return self.root.fold_in(kind).fold_in(number)


class _ManualSeed:
    """What `manual_seed` set. Every framework counts for itself, so that the n-th layer that is built in each has the
    same key, however a program mixes them."""

    def __init__(self) -> None:
        self.root: Key | None = None
        self.seeds: dict[str, Seeds] = {}
        self.calls: dict[str, Stream] = {}
        self.listeners: list[Callable[[Key | None], None]] = []
        self.forks = 0  # how many there were of this process
        self.process: Key | None = None  # what tells a forked process from all others

    def restart(self, root: Key | None, process: Key | None = None) -> None:
        """Begin anew from `root`."""
        self.root, self.process, self.forks = root, process, 0
        self.seeds.clear()
        self.calls.clear()


_manual = _ManualSeed()


def manual_seed(seed: int | None) -> None:
    """Key everything that is built from here on, in every framework and every thread.

    The n-th dropout layer, net and data loader that is built afterwards has the same key in every framework, and so
    has the n-th `dropout_layer` call without a key. What was built before keeps its keys.

    A process that is forked afterwards goes on from a root of its own, `root.fold_in("fork").fold_in(n)` for the n-th
    fork (from 1), so that workers repeat neither each other's keys nor their parent's.

    Args:
        seed: integer in [0, 2^64), or None to follow each framework's own generator again (as at the start).

    Raises:
        ValueError: where `seed` is neither.
    """
    root = None if seed is None else Key(seed)
    with lock:
        _manual.restart(root)
        listeners = list(_manual.listeners)
    for listener in listeners:
        listener(root)


def seeds_for(framework: str, seed: int | Key | None = None) -> Seeds:
    """Where the parts of a net or a loader get their keys: from its own `seed`, else from `manual_seed`, else from the
    framework's own generator."""
    if seed is not None:
        return Seeds(as_key(seed, "seed"))
    with lock:
        return _manual.seeds.setdefault(framework, Seeds(_manual.root))


def layer_key(framework: str, seed: int | Key | None = None) -> Key | None:
    """The key of a new dropout layer, or None where it is to follow the framework's own generator."""
    return seeds_for(framework).next("dropout") if seed is None else as_key(seed, "seed")


def call_key(framework: str) -> Key | None:
    """The key of a `dropout_layer` call that was given none, or None where `manual_seed` is not in force."""
    with lock:
        if _manual.root is None:
            return None
        if framework not in _manual.calls:
            _manual.calls[framework] = Stream(_manual.root.fold_in("calls"))
        stream = _manual.calls[framework]
    return stream.next()


def keyless_position(framework: str, position: Key | None = None) -> Key | None:
    """Where the `dropout_layer` calls without a key stand that `call_key` counts, None before the first; given such a
    position, they go on from there."""
    with lock:
        stream = _manual.calls.get(framework)
    if stream is not None and position is not None:
        stream.key = position
    elif stream is not None:
        return stream.key
    return None


def on_manual_seed(listener: Callable[[Key | None], None]) -> None:
    """Have `listener` called with the root key now, after each `manual_seed`, and in each forked child: for a backend
    that keeps the position of keyless calls in the program it traces."""
    with lock:
        _manual.listeners.append(listener)
        root = _manual.root
    listener(root)


def in_this_process(key: Key) -> Key:
    """A key that a generator drew of whose state each forked child has a copy: `key` itself, or in a child one of this
    process' own. `manual_seed` begins anew here too: after it, a child's generator alone decides."""
    # What was drawn is uniform, which an exclusive or leaves it: no need for Philox, at 100 times the price.
    return key if _manual.process is None else Key(key.seed ^ _manual.process.seed)


def _before_fork() -> None:
    lock.acquire()  # so that no two forks have one number, and no stream is left halfway
    _manual.forks += 1


def _after_fork_in_parent() -> None:
    lock.release()


def _after_fork_in_child() -> None:
    global lock
    lock = threading.Lock()  # to release the old one is not safe on all systems where other threads waited for it
    number, root, process = _manual.forks, _manual.root, _manual.process or Key(0)
    _manual.restart(None if root is None else _forked(root, number), _forked(process, number))
    if root is not None:
        for listener in _manual.listeners:
            listener(_manual.root)


def _forked(key: Key, number: int) -> Key:
    return key.fold_in("fork").fold_in(number)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
