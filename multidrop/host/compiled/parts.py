"""Work that threads share, part by part.

Once a job is open, no Python code runs until it is done: no signal handler, no exception. So the thread that opened the
job returns only after all threads have finished with the memory that they write to.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,call-arg,var-annotated"
# The types of a compiled function's arguments are Numba's to infer, and an intrinsic is called without its context.

from __future__ import annotations

import numpy as np
from numba import carray

from .instructions import add, call_address, give_way, loop, pointer
from .layout import (
    ACTIVE,
    ARGUMENTS,
    DROP,
    FUNCTION,
    GATE,
    GRAIN,
    JOB,
    NEXT,
    OPEN,
    ROWS,
    SELECT,
    SIZE,
    TRANSPOSED,
    WORKERS,
)

PATIENCE = 1000  # how many times a helping thread checks whether the job is open

_ONE, _NONE, _LESS = np.uint64(1), np.uint64(0), np.uint64(2**64 - 1)


@loop
def _words(address, layout_size):
    return carray(pointer(address, np.int64(0)), (layout_size,)), carray(
        pointer(address, np.float64(0)), (layout_size,)
    )


_JOB, _DROP, _SELECT, _ROWS, _GATE, _TRANSPOSED = (
    layout.size // 8 for layout in (JOB, DROP, SELECT, ROWS, GATE, TRANSPOSED)
)


def share(job):
    """Opens the job at an address, works on it, and waits for the helping threads."""
    add(job + 8 * OPEN, _ONE)
    _work(job)
    while add(job + 8 * ACTIVE, _NONE):
        give_way()


def help_with(job):
    """Helps with a job once it is open. Gives up after a while, because an exception may have prevented the opening."""
    for _ in range(PATIENCE):
        if add(job + 8 * OPEN, _NONE):
            # Counted before taking a part: so if no part is left and no thread is counted, all parts are done.
            add(job + 8 * ACTIVE, _ONE)
            _work(job)
            add(job + 8 * ACTIVE, _LESS)
            return
        give_way()


@loop
def _work(job):
    words, _ = _words(job, _JOB)
    size, grain = words[SIZE], words[GRAIN]
    worker = np.int64(add(job + 8 * WORKERS, _ONE))
    while True:
        # Parts are taken one by one, so that a thread on a busy core takes fewer.
        first = np.int64(add(job + 8 * NEXT, np.uint64(grain)))
        if first >= size:
            return
        call_address(words[FUNCTION], (words[ARGUMENTS], first, min(first + grain, size), worker))


# The kinds of work; each function works on the elements from `first` to `last`.


def drop_part(arguments, first, last, worker):
    words, numbers = _words(arguments, _DROP)
    at = words[6] * first
    call_address(
        words[0],
        (
            *(numbers[1], numbers[2], words[3], words[4] + at, words[5] + at, last - first, words[7] + first),
            *(words[8], words[9], words[10]),
        ),
    )


def select_part(arguments, first, last, worker):
    words, numbers = _words(arguments, _SELECT)
    at = words[5] * first
    call_address(words[0], (numbers[1], numbers[2], words[3] + at, words[4] + at, last - first, words[6] + first))


def rows_part(arguments, first, last, worker):
    words, numbers = _words(arguments, _ROWS)
    width, inner = words[6], words[7]
    at = width * inner * first
    call_address(
        words[0],
        (
            *(words[1], numbers[2], numbers[3], words[4] + at, words[5] + at, width, inner),
            *(words[8], words[9] + 8 * first, last - first, words[10]),
        ),
    )


def gate_part(arguments, first, last, worker):
    words, numbers = _words(arguments, _GATE)
    at = words[4] * first
    call_address(words[0], (numbers[1], words[2] + at, words[3] + at, last - first, words[5] + at))


def transposed_part(arguments, first, last, worker):
    words, numbers = _words(arguments, _TRANSPOSED)
    rows, columns, count = words[6], words[7], last - first
    size, offset = count * rows * columns, first * rows * columns
    keep = words[14] + worker * words[15]
    dropped = keep + words[15] // 2
    mask = (keep, keep, size, words[2] + offset, words[3], words[4], np.int64(0))
    call_address(words[0], (1.0, 0.0, words[1], *mask))
    call_address(words[5], (keep, dropped, count, rows, columns))
    at = words[13] * offset
    call_address(words[8], (numbers[9], numbers[10], words[11] + at, words[12] + at, size, dropped))
