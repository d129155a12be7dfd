"""A pool of threads that share the work of one call. Any number of threads may call at the same time, and a forked
child starts its own pool."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from .. import checks
from .memory import address_of
from .objects import library

VARIABLE = "MULTIDROP_NUM_THREADS"


def num_threads() -> int:
    """The number of threads for one call: the environment variable MULTIDROP_NUM_THREADS, else the number of cores that
    the process may use. It is read once, at the first call that is large enough for two threads.

    Raises:
        ValueError: if the variable is not an integer above 0.
    """
    text = os.environ.get(VARIABLE)
    if text:
        return checks.positive(VARIABLE, int(text) if text.isdecimal() else text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Helpers:
    """The threads that help the calling thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count: int | None = None

    def start(self) -> int:
        """Creates the pool at the first call, and returns the number of helping threads."""
        with self.lock:
            if self.count is None:
                count = num_threads() - 1
                try:
                    from concurrent.futures import ThreadPoolExecutor
                except RuntimeError:  # at interpreter exit it can no longer be imported
                    count = 0
                else:
                    self.executor = ThreadPoolExecutor(max(count, 1), "multidrop")  # starts threads when needed
                self.count = count
        return self.count


_helpers = _Helpers()


def share(kind: str, arguments: bytes, size: int, grain: int) -> None:
    """Runs a function of `compiled.parts` on consecutive parts of range(size), in this thread and the helpers.

    An exception, such as one from a signal handler, does not stop the work half-way: it is raised after all threads are
    done, or before any has begun.

    Args:
        kind: names the function `{kind}_part`. It runs without the GIL, on disjoint parts in any order.
        arguments: its arguments, packed by the layout of the same name in `compiled.layout`.
        size: the size of the whole.
        grain: the size of a part. Fewer than two parts are done in this thread alone.
    """
    code = library()
    held = np.frombuffer(arguments, np.int64)
    job = np.array((0, 0, 0, 0, size, grain, code.address(f"{kind}_part"), address_of(held)), np.int64)
    address = address_of(job)
    if size >= 2 * grain and (count := _helpers.start()):
        with suppress(RuntimeError):  # at interpreter exit no thread can be started
            for _ in range(count):
                _helpers.executor.submit(_help, job, address)
    code.function("share")(address)


def workers() -> int:
    """The number of threads that may work on one call, including the calling thread."""
    return 1 + _helpers.start()


def _help(job: npt.NDArray[np.int64], address: int) -> None:
    """Works on a job. The job may be done already; the argument `job` keeps its memory alive."""
    library().function("help")(address)


def _after_fork() -> None:
    """Replaces the pool in a forked child: the parent's threads do not exist there, and its lock may be held."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
