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
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():  # `unfreeze` would also release objects that the program froze itself
                gc.freeze()
                gc.unfreeze()
            gc.enable()
