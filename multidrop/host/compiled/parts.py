"""Work that threads share, part by part.

Once a job is open, nothing of Python's runs in between: no signal handler, no exception. So whoever opened it does not
return before all threads are done with the memory that they write into.
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

PATIENCE = 1000  # times that a thread that is to help looks whether the job is open

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
    """Opens the job at an address, works on it, and waits for those who help."""
    add(job + 8 * OPEN, _ONE)
    _work(job)
    while add(job + 8 * ACTIVE, _NONE):
        give_way()


def help_with(job):
    """Works on a job as well. One that is not opened soon was given up by an exception."""
    for _ in range(PATIENCE):
        if add(job + 8 * OPEN, _NONE):
            # Counted before a part is taken: who finds none left, and nobody counted, knows that all are done.
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
        # Taken one by one, so that a thread whose core is busy with something else takes fewer.
        first = np.int64(add(job + 8 * NEXT, np.uint64(grain)))
        if first >= size:
            return
        call_address(words[FUNCTION], (words[ARGUMENTS], first, min(first + grain, size), worker))


# Below: the kinds of work, each on the parts from `first` to `last`.


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
