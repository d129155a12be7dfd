"""The memory layouts that Python and the machine code share: of a job, and of the arguments of each kind of work."""

from __future__ import annotations

from struct import Struct

# The int64 words of a job. OPEN: not 0 once threads may work on it. NEXT: the next part. ACTIVE: the number of threads
# that help now. WORKERS: the number of threads that have begun. SIZE and GRAIN: the sizes of the whole and of a part.
# FUNCTION and ARGUMENTS: the addresses of the function to call and of its arguments.
OPEN, NEXT, ACTIVE, WORKERS, SIZE, GRAIN, FUNCTION, ARGUMENTS = range(8)
JOB = Struct("=8q")

# The arguments of each kind of work, 64 bits each: the address of the entry that does it, then the entry's arguments.

# scale, floor, threshold, source, target, width, start, call, seed, streamed
DROP = Struct("=qddQqqqQQQq")
# scale, floor, source, target, width, dropped
SELECT = Struct("=qddqqqq")
# select, scale, floor, source, target, width, inner, dropped, offsets, shared
ROWS = Struct("=qqddqqqqqqq")
# scale, source, target, width, output
GATE = Struct("=qdqqqq")
# threshold, start, call, seed; the entry that transposes, rows, columns; the entry that selects, scale, floor,
# source, target, width; the address of the buffer for masks, and each thread's share of it in bytes
TRANSPOSED = Struct("=qQQQQqqqqddqqqqq")
