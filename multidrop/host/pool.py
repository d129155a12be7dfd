"""Threads that share the work of one call. Callers may come from any number of threads, and a forked child starts
threads of its own."""

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
    """How many threads work on one call: the environment variable MULTIDROP_NUM_THREADS, else the number of cores that
    the process may use. Read once, at the first call that is large enough for two.

    Raises:
        ValueError: where the variable is no integer above 0.
    """
    text = os.environ.get(VARIABLE)
    if text:
        return checks.positive(VARIABLE, int(text) if text.isdecimal() else text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Helpers:
    """The threads beside the caller's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count: int | None = None

    def start(self) -> int:
        """How many there are; starts them at the first call."""
        with self.lock:
            if self.count is None:
                count = num_threads() - 1
                try:
                    from concurrent.futures import ThreadPoolExecutor
                except RuntimeError:  # at the program's end it cannot be imported any more
                    count = 0
                else:
                    self.executor = ThreadPoolExecutor(max(count, 1), "multidrop")  # threads come as they are needed
                self.count = count
        return self.count


_helpers = _Helpers()


def share(kind: str, arguments: bytes, size: int, grain: int) -> None:
    """Does a kind of work on consecutive parts of range(size), in this thread and in others.

    No exception, such as that of a signal handler, ends it half-way: it is raised when all threads are done, or before
    any has begun.

    Args:
        kind: the name of the work, of `compiled.parts`; it releases the GIL. Parts do not overlap and come in no order.
        arguments: what it takes, in its layout of `compiled.layout`.
        size: how much there is.
        grain: the size of a part; less than two of them are done in this thread alone.
    """
    code = library()
    held = np.frombuffer(arguments, np.int64)
    job = np.array((0, 0, 0, 0, size, grain, code.address(f"{kind}_part"), address_of(held)), np.int64)
    address = address_of(job)
    if size >= 2 * grain and (count := _helpers.start()):
        with suppress(RuntimeError):  # at the program's end, when no thread is started any more
            for _ in range(count):
                _helpers.executor.submit(_help, job, address)
    code.function("share")(address)


def workers() -> int:
    """How many threads may work on one call, this one included."""
    return 1 + _helpers.start()


def _help(job: npt.NDArray[np.int64], address: int) -> None:
    """Helps with a job. It may be over by now, but `job` holds its memory."""
    library().function("help")(address)


def _after_fork() -> None:
    """The parent's threads do not exist in the child, where its lock may even be held."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
