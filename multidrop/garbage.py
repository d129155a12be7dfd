"""Pauses the garbage collector while many long-lived objects are created."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def put_off() -> Iterator[None]:
    """Pauses the garbage collector, and moves all objects to its oldest generation afterwards.

    Creating many objects triggers full collections, which take longer than the work itself in a process with a large
    framework.
    """
    collecting = gc.isenabled()
    try:
        gc.disable()  # in here, because a signal handler may raise an exception right after it
        yield
    finally:
        if collecting:
            try:
                _age()
            finally:
                gc.enable()


def _age() -> None:
    """Moves all objects to the oldest generation."""
    if gc.get_freeze_count():  # `unfreeze` would also release objects that the program froze itself
        return
    try:
        gc.freeze()
    finally:
        gc.unfreeze()
