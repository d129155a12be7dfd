"""Reads the memory of a process."""

from __future__ import annotations

import os
from pathlib import Path


def resident() -> int:
    """The resident memory of this process in bytes.

    Raises:
        NotImplementedError: on systems other than Linux.
    """
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        raise NotImplementedError("memory: expected Linux's /proc/self/statm; got a system without it")
    return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
