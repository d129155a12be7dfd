"""Large calls that an exception ends at each step of the thread pool's Python code in turn: `python stepped.py`.

A signal handler's exception comes between two bytecode instructions. After each exception the next call must be right,
with as many threads as before. Prints how many calls were ended.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from types import CodeType, FrameType
from typing import Any

import numpy as np

import multidrop as md
from multidrop import host
from multidrop.host import pool

THREADS = 3  # for a call, including the caller
LIMIT = 30  # seconds for two calls; then the process ends, and shows where each thread was


class Interrupted(BaseException):
    """Raised at a step."""


class At:
    """Traces a thread, and raises `Interrupted` before the instruction number `step` of a function and of all that it
    calls. Some of these are steps at which no signal handler runs."""

    def __init__(self, function: CodeType, step: int) -> None:
        self.function, self.left, self.inside = function, step, False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        outermost = frame.f_code is self.function
        self.inside |= outermost
        if not self.inside:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if not self.left:
                raise Interrupted
            self.left -= 1
        elif event == "return" and outermost:
            self.inside = False
        return self


def threads() -> int:
    """The number of threads, however they were started."""
    return len(sys._current_frames())


def main() -> None:
    x, key = np.ones(THREADS * host.GRAIN, np.float32), md.Key(7)
    expected = host.dropout(x, 0.2, key).tobytes()
    ended = 0
    for fresh in (False, True):
        step = 0
        while True:
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            if fresh:
                pool._end()
                pool._pools.clear()
            sys.settrace(At(pool.share.__code__, step))
            try:
                host.dropout(x, 0.2, key)
            except Interrupted:
                ended += 1
            else:
                break
            finally:
                sys.settrace(None)
            for _ in range(2):
                assert host.dropout(x, 0.2, key).tobytes() == expected, step
            assert len(pool._pools) == 1
            while threads() != THREADS:  # those that were one too many are about to end
                pass
            step += 1
    print(ended)


if __name__ == "__main__":
    os.environ[pool.VARIABLE] = str(THREADS)
    main()
