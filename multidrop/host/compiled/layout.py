"""What Python and the machine code agree on: the layout of a job, and of the arguments of each kind of work."""

from __future__ import annotations

from struct import Struct

# A job: int64 words. OPEN, from when on it may be worked on; NEXT, what is to be done next; ACTIVE, how many threads
# help; WORKERS, how many threads have begun; then what it is.
OPEN, NEXT, ACTIVE, WORKERS, SIZE, GRAIN, FUNCTION, ARGUMENTS = range(8)
JOB = Struct("=8q")

# The arguments of each kind of work, 64 bits each. First the address of the entry that does it, then what that takes.

# scale, floor, threshold, source, target, width, start, call, seed, streamed
DROP = Struct("=qddQqqqQQQq")
# scale, floor, source, target, width, dropped
SELECT = Struct("=qddqqqq")
# select, scale, floor, source, target, width, inner, dropped, offsets, shared
ROWS = Struct("=qqddqqqqqqq")
# scale, source, target, width, output
GATE = Struct("=qdqqqq")
# threshold, start, call, seed; the entry that transposes, rows, columns; the entry that selects, scale, floor,
# source, target, width; the address of room for masks, and how much of it a thread has
TRANSPOSED = Struct("=qQQQQqqqqddqqqqq")
