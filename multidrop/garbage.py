"""Python's search for garbage, put off while many objects are made that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def put_off() -> Iterator[None]:
    """For what makes so many objects that Python would look through all of the process for garbage, and again: in one
    with a large framework each time takes longer than what is done here. Afterwards they count as looked at."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():  # else a program froze objects of its own, which are to stay so
                gc.freeze()
                gc.unfreeze()
            gc.enable()
