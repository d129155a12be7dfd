"""Ends processes that save checkpoints, for `test_writers`, and prints what it found as JSON. To be run as
`python killed.py FOLDER SIGNAL COUNT`: at each step of a write, and then COUNT times at a random moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from multidrop.section import checkpoint

SIZE = 500_000
STEPS = [(name, place) for name in ("open", "fchmod", "write", "fsync", "replace") for place in ("before", "after")]


def save(path: Path, n: int) -> None:
    """Writes a checkpoint whose weights are all `n`."""
    checkpoint.save(path, {"W1": np.full(SIZE, float(n))}, {"n": n})


def is_whole(path: Path) -> bool:
    """Whether weights and facts are those of one checkpoint."""
    state, facts = checkpoint.load(path)
    return bool((state["W1"] == facts["n"]).all()) and state["W1"].shape == (SIZE,)


def end_at(name: str, place: str, number: int) -> None:
    """Has this process send itself a signal at a call of a function of `os`; a write is then half done."""
    real: Callable[..., Any] = getattr(os, name)

    def ended(*arguments: Any) -> Any:
        setattr(os, name, real)
        if place == "before":
            os.kill(os.getpid(), number)
        result = real(arguments[0], arguments[1][: SIZE // 2]) if name == "write" else real(*arguments)
        os.kill(os.getpid(), number)
        return result

    setattr(os, name, ended)


def write_until_ended(path: Path, saved: int, number: int, step: tuple[str, str] | None) -> None:
    """What a forked child does."""
    try:
        for n in range(1, 3 if step else sys.maxsize):  # a step that does not come is seen by the status
            save(path, n)
            if n == 1:
                if step is not None:
                    end_at(*step, number)
                os.write(saved, b"1")
    except KeyboardInterrupt:
        os._exit(0)
    finally:
        os._exit(1)


def moments(count: int) -> Iterator[tuple[tuple[str, str] | None, float]]:
    """Where a child ends itself, or when it is ended, in seconds after its first checkpoint."""
    yield from ((step, 0.0) for step in STEPS)
    yield from ((None, wait) for wait in np.random.default_rng(0).uniform(0, 0.03, count))


def main(folder: Path, number: int, count: int) -> dict[str, Any]:
    path = folder / "run"
    found: dict[str, Any] = {"ended": 0, "whole": 0, "left": 0, "left after the next": 0, "statuses": []}
    for step, wait in moments(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            write_until_ended(path, writer, number, step)
        os.close(writer)
        os.read(reader, 1)
        if step is None:
            time.sleep(wait)  # not for something to happen: to choose the moment
            os.kill(child, number)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        found["ended"] += 1
        found["statuses"] = sorted({*found["statuses"], os.waitstatus_to_exitcode(status)})
        found["whole"] += is_whole(path)
        found["left"] += len(os.listdir(folder)) - 1
        save(path, 0)
        found["left after the next"] += len(os.listdir(folder)) - 1
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), signal.Signals[sys.argv[2]], int(sys.argv[3]))))
