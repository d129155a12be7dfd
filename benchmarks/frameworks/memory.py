"""The memory that a process holds."""

from __future__ import annotations

import os
from pathlib import Path


def resident() -> int:
    """Bytes of it in main memory.

    Raises:
        NotImplementedError: where the system does not tell; Linux does.
    """
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        raise NotImplementedError("the memory that a process holds is read from Linux's /proc")
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
