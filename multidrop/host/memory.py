"""Reuses the memory of large results.

Fresh memory costs more time than the kernel needs to fill it, because the system clears each page. A freed block is
reused without clearing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 1 << 22  # bytes; from this size on, reused memory is faster than a framework's allocator
MOST_IN_LARGE_PAGES = 1 << 27  # bytes
LEAST_LIMIT, MOST_LIMIT = 1 << 28, 1 << 30  # bytes
ALIGNMENT = 64  # bytes; TensorFlow aborts the process when it uses a buffer with less alignment


def _limit() -> int:
    """The most bytes to keep: a sixteenth of the machine's memory, at least LEAST_LIMIT and at most MOST_LIMIT."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # the system does not report its memory
        memory = 0
    return min(max(LEAST_LIMIT, memory // 16), MOST_LIMIT)


LIMIT = _limit()

_free: deque[npt.NDArray[np.uint8]] = deque()  # the free blocks, the most recently freed last


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Like `numpy.empty`, aligned to 64 bytes; large arrays reuse memory. The memory is freed when the array and all
    its views are gone.

    Args:
        shape: the array's shape.
        dtype: its type.

    Returns:
        A C-contiguous array with arbitrary values.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size < LARGE:
        room = np.empty(size + ALIGNMENT, np.uint8)
        return np.ndarray(shape, dtype, room, -address_of(room) % ALIGNMENT)
    return np.ndarray(shape, dtype, np.asarray(_Lease(_block(size), size)))


def release_memory() -> None:
    """Returns the kept memory to the system: at most a sixteenth of the machine's memory, or 256 MB if that is more."""
    _free.clear()


class _Lease:
    """Owns a block while a NumPy array refers to it, and frees the block when the array is gone."""

    def __init__(self, block: npt.NDArray[np.uint8], size: int) -> None:
        self._block = block
        address = address_of(block)
        self.__array_interface__ = {
            "data": (address + -address % ALIGNMENT, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self, free: deque[npt.NDArray[np.uint8]] = _free, limit: int = LIMIT) -> None:
        # The garbage collector may call this in any thread, in the middle of another call to this module: so there is
        # no lock, only atomic deque operations. It also runs at exit, when the module's names may be gone: so `free`
        # and `limit` are defaults.
        free.append(self._block)
        while sum(block.size for block in tuple(free)) > limit:
            try:
                free.popleft()
            except IndexError:
                break


def _block(size: int) -> npt.NDArray[np.uint8]:
    """Takes a free block of at least `size` bytes and at most twice as many, or allocates a new one."""
    for _ in range(len(_free)):
        try:
            block = _free.pop()
        except IndexError:  # another thread took it
            break
        if size <= block.size - ALIGNMENT <= 2 * size:
            return block
        _free.appendleft(block)
    return np.empty(size + ALIGNMENT, np.uint8)  # NumPy requests huge pages for it


def _large_pages() -> Any:
    """The C function `madvise`; None if the system has no MADV_HUGEPAGE."""
    return getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_HUGEPAGE") else None


_advise = _large_pages()


def prefer_large_pages(address: int, size: int) -> None:
    """Advises the system to use large pages for memory that is not mapped yet. Frameworks do not: a result of 64 MiB
    then takes 16,384 page faults, which cost more time than the computation.

    Does nothing above 128 MiB. A virtual machine returns large pages that were free for two seconds to its host, and
    getting them back is slowest of all; results of this size take a part of the two seconds themselves.

    Args:
        address: the start of the memory. Pages that lie only partly in the range are left out.
        size: its size in bytes.
    """
    if _advise is None or size > MOST_IN_LARGE_PAGES:
        return
    begin, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end:  # the result is ignored: a system without large pages rejects the advice, which is harmless
        _advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_HUGEPAGE)


def address_of(array: npt.NDArray[Any]) -> int:
    """The address of an array's first element; faster than `array.ctypes.data`."""
    return array.__array_interface__["data"][0]
