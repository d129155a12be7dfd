"""Threads for loops that release the GIL. Callers may come from any number of threads, and a forked child starts
threads of its own."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from .. import checks

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
                self.executor = ThreadPoolExecutor(max(count, 1), "multidrop")  # threads come as they are needed
                self.count = count
        return self.count


_helpers = _Helpers()


def share(work: Callable[[int, int], None], size: int, grain: int) -> None:
    """Calls `work(first, last)` for consecutive parts of range(size), in this thread and in others.

    Args:
        work: does a part, and releases the GIL as it does. Parts do not overlap and come in no order.
        size: how much there is.
        grain: the size of a part; less than two of them are done here and now.
    """
    if size < 2 * grain or not (count := _helpers.start()):
        work(0, size)
        return
    # Taken one by one, so that a thread whose core is busy with something else takes fewer.
    parts = deque(range(0, size, grain))

    def drain() -> None:
        while True:
            try:
                first = parts.popleft()
            except IndexError:
                return
            work(first, min(first + grain, size))

    futures: list[Future[None]] = []
    with suppress(RuntimeError):  # at the program's end, when no thread is started any more
        futures.extend(_helpers.executor.submit(drain) for _ in range(count))
    drain()
    for future in futures:
        if not future.cancel():  # one that has not begun, behind another caller's, is not waited for
            future.result()


def _after_fork() -> None:
    """The parent's threads do not exist in the child, where its lock may even be held."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
