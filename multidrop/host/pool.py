"""A pool of threads that share the work of one call. Any number of threads may call at the same time, and a forked
child starts its own pool."""

from __future__ import annotations

import atexit
import os
from _thread import start_new_thread
from contextlib import suppress
from queue import Empty, SimpleQueue

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


class _Pool:
    """The threads that help the calling thread: at most `count`, started when they are needed.

    A signal handler may end a caller by an exception between any two steps. So a caller holds no lock, and each of its
    steps is one C function, which leaves nothing half-done; `Thread.start`, `Event` and `Semaphore` run Python code
    instead. The threads themselves run no signal handler, so they do the counting.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._jobs: SimpleQueue[tuple[npt.NDArray[np.int64], int] | None] = SimpleQueue()
        self._places: SimpleQueue[None] = SimpleQueue()  # an item for each thread that may still begin
        for _ in range(count):
            self._places.put(None)

    @property
    def running(self) -> int:
        """How many threads have begun and not ended."""
        return self.count - self._places.qsize()

    def help(self, job: npt.NDArray[np.int64], address: int, wanted: int) -> None:
        """Gives a job to `wanted` threads, at most `count`. A job that is never opened, or done already, is harmless;
        its memory is kept until all of them have seen it."""
        running = self.running
        try:
            for _ in range(wanted - running):
                start_new_thread(self._run, ())
        except RuntimeError:  # the system's limit is reached, or the interpreter exits
            wanted = min(wanted, running)
        for _ in range(wanted):
            self._jobs.put((job, address))

    def _run(self) -> None:
        """Works on jobs, in a thread of its own."""
        try:
            self._places.get_nowait()
        except Empty:  # callers at the same time, or one that was ended, started more threads than there are places
            return
        try:
            help_with = library().function("help")
            while (job := self._jobs.get()) is not None:
                help_with(job[1])
                del job  # or an idle thread would keep its memory
            self._jobs.put(None)  # for the next thread
        finally:
            self._places.put(None)

    def end(self) -> None:
        """Ends the threads, and waits for them. Later calls have no help.

        Raises:
            Empty: if a thread has not ended after ten seconds.
        """
        count, self.count = self.count, 0
        self._jobs.put(None)
        for _ in range(count):
            self._places.get(timeout=10)


# The pool, once it is needed. In a dictionary, because `setdefault` and `clear` are one step each.
_pools: dict[str, _Pool] = {}


def _pool() -> _Pool:
    return _pools.get("pool") or _pools.setdefault("pool", _Pool(num_threads() - 1))


@atexit.register
def _end() -> None:
    """Ends the threads before the interpreter frees what they use. Calls of later exit handlers have no help."""
    with suppress(Empty):  # a thread that Python cuts off is better than an exit that never comes
        _pools.setdefault("pool", _Pool(0)).end()


if hasattr(os, "register_at_fork"):  # the parent's threads do not exist in a child
    os.register_at_fork(after_in_child=_pools.clear)


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
    if size >= 2 * grain and (count := _pool().count):
        _pool().help(job, address, min(count, (size - 1) // grain))
    code.function("share")(address)


def workers() -> int:
    """The number of threads that may work on one call, including the calling thread."""
    return 1 + _pool().count
