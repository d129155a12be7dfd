"""The memory of large results: reused, in large pages, and never shared between results."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

import multidrop as md
from multidrop import host
from multidrop.host import memory
from multidrop.spec import masks
from multidrop.testing import same_bits

KEY = md.Key(2**64 - 3, 2**63 + 1)


def test_memory_is_used_again() -> None:
    """When the last view of it is gone, by results that fit, and not beyond its limit."""
    memory.release_memory()
    first = memory.empty((memory.LARGE,), np.uint8)
    address, view = first.__array_interface__["data"][0], first[5:]
    assert address % memory.ALIGNMENT == 0
    del first
    assert len(memory._free) == 0
    del view
    again = memory.empty((memory.LARGE // 8,), np.float64)
    assert again.__array_interface__["data"][0] == address
    del again
    assert memory.empty((3 * memory.LARGE,), np.uint8).__array_interface__["data"][0] != address
    parts = [memory.empty((memory.LIMIT // 4,), np.uint8) for _ in range(5)]
    parts.clear()
    assert sum(block.size for block in memory._free) <= memory.LIMIT
    memory.release_memory()
    assert len(memory._free) == 0


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not show what it was told of memory")
def test_memory_of_others_comes_in_large_pages() -> None:
    """As far as the kernel can ask for them: for a large result that another allocated, and nothing beside it."""
    size, before = host.STREAMED, 5 * mmap.PAGESIZE
    region = mmap.mmap(-1, size + 2 * before, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    x, y = (
        np.random.default_rng(0).normal(size=size // 4).astype(np.float32),
        np.frombuffer(region, np.float32, size // 4, before),
    )
    address = host.address_of(y)
    host.drop(host.address_of(x), address, x.size, "float32", 0.3, KEY)
    assert same_bits(y, masks.dropout(x, 0.3, KEY))
    assert (address, address + size) in _spans_with_flag("hg")
    most, page = memory.MOST_IN_LARGE_PAGES, mmap.PAGESIZE
    untouched = mmap.mmap(-1, most + 3 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = host.address_of(np.frombuffer(untouched, np.uint8)) + page
    memory.prefer_large_pages(begin, most + page)
    assert begin not in [low for low, _ in _spans_with_flag("hg")]
    memory.prefer_large_pages(begin, most)
    assert (begin, begin + most) in _spans_with_flag("hg")


def _spans_with_flag(flag: str) -> list[tuple[int, int]]:
    """Where the parts of this process' memory begin and end that have a flag; see proc_pid_smaps(5)."""
    spans, span = [], (0, 0)
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            low, high = (int(end, 16) for end in first.split("-"))
            span = low, high
        elif first == "VmFlags:" and flag in rest:
            spans.append(span)
    return spans


def test_results_do_not_share_memory() -> None:
    x = np.ones((memory.LARGE // 4,), np.float32)
    first = host.dropout(x, 0.5, KEY)
    kept = first.copy()
    for call in range(3):
        host.dropout(x, 0.5, md.Key(1, call))
    assert np.array_equal(first, kept)
