"""Keys, streams and seeds: where a mask's randomness comes from.

A `Key` is a value: the same key gives the same mask, anywhere. A `Stream` hands out one key a call. `manual_seed`
gives every layer, net and data loader that is built afterwards a key of its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .checks import text, word64
from .philox import philox4x32, split64

# The second counter word of a mask stays below 2^29 or above 2^31 for every element index below 2^64, so keys
# derived with this bit set never meet the words of a mask.
_DERIVE = 1 << 30
_FROM_INT, _FROM_STR = _DERIVE, _DERIVE + 2


@dataclass(frozen=True, slots=True)
class Key:
    """A point in the space of masks: `seed` names a stream of masks, `call` one mask of it.

    Args:
        seed: integer in [0, 2^64).
        call: integer in [0, 2^64).

    Raises:
        ValueError: where either is out of range or no integer.
    """

    seed: int
    call: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", word64("seed", self.seed))
        object.__setattr__(self, "call", word64("call", self.call))

    @classmethod
    def of_words(cls, seed: int, call: int) -> Key:
        """`Key(seed, call)` of two integers that are known to be in range, in a quarter of the time."""
        key = object.__new__(cls)
        _set_seed(key, seed)
        _set_call(key, call)
        return key

    def fold_in(self, data: int | str) -> Key:
        """An independent key, derived from this one and `data`.

        Args:
            data: an integer in [0, 2^64) or a string, such as a layer's number or name; `1` and `"1"` differ.

        Returns:
            A key at call 0. Seed, call and data enter Philox as separate words, so that no two combinations meet
            by addition; the 64 bits of the result collide as random numbers do.

        Raises:
            ValueError: where `data` is neither, or holds half of a surrogate pair, which has no encoding.
        """
        if isinstance(data, str):
            tag = _FROM_STR
            number = int.from_bytes(hashlib.blake2b(text("data", data), digest_size=8).digest(), "little")
        else:
            tag = _FROM_INT
            number = word64("data", data)
        low, high = split64(number)
        seed = _first64((low, tag, *split64(self.call)), self.seed)
        return Key(_first64((high, tag + 1, 0, 0), seed))


_set_seed, _set_call = (getattr(Key, name).__set__ for name in ("seed", "call"))  # past the class' own __setattr__


def _first64(counter: tuple[int, int, int, int], seed: int) -> int:
    low, high, _, _ = philox4x32(counter, seed)
    return int(low[0]) | int(high[0]) << 32


# Held while a position is read and moved on, here and in the backends (as `keys.lock`, for a forked child has another).
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


def as_key(value: int | Key, name: str = "key") -> Key:
    """`value` as a key: itself, or `Key(value)`.

    Raises:
        ValueError: where it is neither a key nor an integer in [0, 2^64).
    """
    return value if isinstance(value, Key) else Key(word64(name, value))
