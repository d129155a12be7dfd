"""A counter."""

from __future__ import annotations

import numpy as np

from multidrop.host.compiled.entries import Entry
from multidrop.host.compiled.instructions import add

STEP = np.uint64(1)


def count(address):  # type: ignore[no-untyped-def]  # the types are those of the entry
    """What the word at an address holds, which becomes more by a step."""
    return add(address, STEP), STEP


ENTRIES = {"count": Entry(count, "i", words=2)}
