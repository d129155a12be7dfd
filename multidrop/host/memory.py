"""Memory for large results, kept between them.

Fresh memory costs more than what the kernel computes into it: the system clears each page before it hands it over.
A block that was given back is handed out again as it is.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 1 << 22  # bytes, from which on memory is better taken from here than from a framework's allocator
MOST_IN_LARGE_PAGES = 1 << 27  # bytes
LEAST_LIMIT, MOST_LIMIT = 1 << 28, 1 << 30  # bytes
ALIGNMENT = 64  # bytes; TensorFlow stops the process at the first use of a buffer that is less aligned


def _limit() -> int:
    """How many bytes are kept at most: a sixteenth of the machine's memory, within limits."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        memory = 0
    return min(max(LEAST_LIMIT, memory // 16), MOST_LIMIT)


LIMIT = _limit()

_free: deque[npt.NDArray[np.uint8]] = deque()  # the block given back last comes last


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`numpy.empty`, aligned to 64 bytes, in memory that was used before where that is large. It is given back when
    the array and all views of it are gone.

    Args:
        shape: the array's shape.
        dtype: its type.

    Returns:
        A C-contiguous array of any values.
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
    """Gives the memory that is kept, at most a sixteenth of the machine's, back to the system."""
    _free.clear()


class _Lease:
    """A part of a block, for NumPy to hold on to; the block is free again when it lets go."""

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
        # At exit too, when a module's names may be gone; in any thread and at any point of another call here, as the
        # garbage collector will have it: hence no lock, and nothing but what a deque does at once.
        free.append(self._block)
        while sum(block.size for block in tuple(free)) > limit:
            try:
                free.popleft()
            except IndexError:
                break


def _block(size: int) -> npt.NDArray[np.uint8]:
    """A free block that holds `size` bytes and is not twice as large, or a new one."""
    for _ in range(len(_free)):
        try:
            block = _free.pop()
        except IndexError:  # another thread took it
            break
        if size <= block.size - ALIGNMENT <= 2 * size:
            return block
        _free.appendleft(block)
    return np.empty(size + ALIGNMENT, np.uint8)  # for which NumPy asks for huge pages


def _large_pages() -> Any:
    """The system's function that is told how memory will be used, where there is something to tell."""
    return getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_HUGEPAGE") else None


_advise = _large_pages()


def prefer_large_pages(address: int, size: int) -> None:
    """Tells the system that memory which is not there yet may come in large pages. A framework asks for none, and gets
    a result of 64 MiB in 16,384 pages, which together take longer to come than the result to be computed.

    Not so for more than 128 MiB. A virtual machine gives large pages that were free for two seconds back to its host,
    from where they come slowest of all; and so large a result takes a part of those two seconds itself.

    Args:
        address: where it begins; what holds no whole page is left out.
        size: how long it is, in bytes.
    """
    if _advise is None or size > MOST_IN_LARGE_PAGES:
        return
    begin, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end:  # advice that is not taken, as where the system has no such pages, changes nothing
        _advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_HUGEPAGE)


def address_of(array: npt.NDArray[Any]) -> int:
    """Where an array's first element lies; in less time than `array.ctypes.data` takes."""
    return array.__array_interface__["data"][0]
