"""Streams and seeds: decide which key comes next.

A `Stream` gives one key per call. `manual_seed` gives a key to every layer, net and data loader built afterwards.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable

from .spec.keys import Key, as_key

# Held while a position is read and advanced, here and in the backends. Refer to it as `streams.lock`, because a forked
# child replaces it. All streams share it: a stream with its own lock could not be copied, and would deadlock in a child
# that was forked while another thread held the lock.
lock = threading.Lock()


class Stream:
    """A key and a counter: each `next()` gives a new key. Threads may share a stream. A copy, and a forked process,
    continues independently from the stream's position.

    Args:
        key: the first key that `next()` gives. An int means `Key(int)`.

    Raises:
        ValueError: if it is neither a key nor an integer in [0, 2^64).
    """

    def __init__(self, key: int | Key) -> None:
        self._key = as_key(key)

    @property
    def key(self) -> Key:
        """The key that `next()` will give. Setting it moves the stream to that position."""
        return self._key

    @key.setter
    def key(self, key: int | Key) -> None:
        key = as_key(key)
        with lock:
            self._key = key

    def next(self) -> Key:
        """Returns the stream's current key, and advances the stream by one call (from 2^64 − 1 to 0)."""
        with lock:
            key = self._key
            self._key = Key.of_words(key.seed, (key.call + 1) % 2**64)
        return key

    def __repr__(self) -> str:
        return f"Stream({self._key})"


class Seeds:
    """Derives a key for every part that is built: the n-th part of a kind always gets the same key.

    Args:
        root: the key that all of them are derived from. None leaves every part to its framework's own generator.
    """

    def __init__(self, root: Key | None) -> None:
        self.root = root
        self._built: Counter[str] = Counter()

    def next(self, kind: str) -> Key | None:
        """Returns the key of the next part of `kind` ("dropout", "weights", "batches")."""
        if self.root is None:
            return None
        with lock:
            number = self._built[kind]
            self._built[kind] += 1
        return self.root.fold_in(kind).fold_in(number)


class _ManualSeed:
    """The state that `manual_seed` sets. Each framework has its own counters, so that the n-th layer built in each has
    the same key, however a program mixes frameworks."""

    def __init__(self) -> None:
        self.root: Key | None = None
        self.seeds: dict[str, Seeds] = {}
        self.calls: dict[str, Stream] = {}
        self.listeners: list[Callable[[Key | None], None]] = []
        self.forks = 0  # the number of children that this process has forked since
        self.process: Key | None = None  # distinguishes a forked process from all others

    def restart(self, root: Key | None, process: Key | None = None) -> None:
        """Resets all counters, and derives keys from `root`."""
        self.root, self.process, self.forks = root, process, 0
        self.seeds.clear()
        self.calls.clear()


_manual = _ManualSeed()


def manual_seed(seed: int | None) -> None:
    """Seeds everything that is built from here on, in every framework and every thread.

    The n-th dropout layer, net and data loader that is built afterwards has the same key in every framework, and so
    has the n-th `dropout_layer` call without a key. Layers that were built before keep their keys.

    The n-th process forked afterwards (from 1) derives its keys from `root.fold_in("fork").fold_in(n)`, so that workers
    repeat neither each other's keys nor their parent's.

    Args:
        seed: integer in [0, 2^64), or None to follow each framework's own generator again, as at the start.

    Raises:
        ValueError: if `seed` is neither.
    """
    root = None if seed is None else Key(seed)
    with lock:
        _manual.restart(root)
        listeners = list(_manual.listeners)
    for listener in listeners:
        listener(root)


def seeds_for(framework: str, seed: int | Key | None = None) -> Seeds:
    """The source of keys for the parts of a net or a loader: its own `seed`, else `manual_seed`, else the framework's
    own generator."""
    if seed is not None:
        return Seeds(as_key(seed, "seed"))
    with lock:
        return _manual.seeds.setdefault(framework, Seeds(_manual.root))


def layer_key(framework: str, seed: int | Key | None = None) -> Key | None:
    """Returns the key of a new dropout layer, or None if the layer is to follow the framework's own generator."""
    return seeds_for(framework).next("dropout") if seed is None else as_key(seed, "seed")


def call_key(framework: str) -> Key | None:
    """Returns the key of a `dropout_layer` call without a key, or None if `manual_seed` is not in force."""
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
    """Calls `listener` with the root key now, after each `manual_seed`, and in each forked child. A backend whose
    traced programs hold the position of calls without a key uses it to reset that position."""
    with lock:
        _manual.listeners.append(listener)
        root = _manual.root
    listener(root)


def in_this_process(key: Key) -> Key:
    """Makes a generator's key unique per process, because forked children inherit the same generator state. Returns
    `key` unchanged in a process that was not forked, and in a child that has called `manual_seed`."""
    # XOR with a constant keeps a uniform number uniform, and costs a hundredth of a Philox call.
    return key if _manual.process is None else Key(key.seed ^ _manual.process.seed)


# For each thread that forks now, by its identifier: the child's number, and the parent's `root` and `process`.
_forking: dict[int, tuple[int, Key | None, Key | None]] = {}


def _before_fork() -> None:
    # The lock is not held during the fork. A signal handler may end the function that would release it by an exception,
    # which Python discards there. No child finds a stream half-way through an update: each is one assignment.
    with lock:
        _manual.forks += 1
        _forking[threading.get_ident()] = _manual.forks, _manual.root, _manual.process


def _after_fork_in_parent() -> None:
    _forking.pop(threading.get_ident(), None)


def _after_fork_in_child() -> None:
    global lock
    lock = threading.Lock()  # another thread may hold the old one
    # A signal handler's exception may have ended `_before_fork`: then any number that no other child has.
    unnumbered = 2**32 + os.getpid(), _manual.root, _manual.process
    number, root, process = _forking.get(threading.get_ident(), unnumbered)
    _forking.clear()
    _manual.restart(None if root is None else _forked(root, number), _forked(process or Key(0), number))
    if root is not None:
        for listener in _manual.listeners:
            listener(_manual.root)


def _forked(key: Key, number: int) -> Key:
    return key.fold_in("fork").fold_in(number)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
