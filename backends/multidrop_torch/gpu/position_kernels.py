"""How Triton kernels get the key of a mask, in one of four ways, which their constant `FROM` tells:

0. from the arguments `seed` and `call`;
1. from `position`, the address of both as int64 in the GPU's memory, so that the host need not know them;
2. from `position`, which is a layer's stream: the kernel copies it to `kept` and moves it on by one call;
3. from the arguments, where the host knows the position of a layer's stream: the kernel writes the next call there.

Triton reads the annotations, so this module has no `from __future__ import annotations`.
"""

import triton
import triton.language as tl


@triton.jit
def key_of(position, seed, call, FROM: tl.constexpr):
    """Seed and call as uint64, from the arguments or from memory."""
    if FROM == 1 or FROM == 2:
        seed = tl.load(position)
        call = tl.load(position + 1)
    return seed.to(tl.uint64), call.to(tl.uint64)


@triton.jit
def move_on(position, kept, done, seed, call):
    """Moves a stream on by one call, in the last program to come here: by then all have read it. `done` counts them; it
    is 0 before and after."""
    tl.debug_barrier()  # every thread of this program has read the position
    last = tl.num_programs(0).to(tl.int64) - 1
    number = last
    if last > 0:
        number = tl.atomic_add(done, 1)
    if number == last:
        tl.store(kept, seed.to(tl.int64))
        tl.store(kept + 1, call.to(tl.int64))
        tl.store(position + 1, (call + 1).to(tl.int64))
        tl.store(done, 0)


@triton.jit
def count_on(position, seed, call):
    """Writes that the call after this one is a stream's next, in the first program: no program reads it there."""
    if tl.program_id(0) == 0:
        tl.store(position, seed.to(tl.int64))
        tl.store(position + 1, (call + 1).to(tl.int64))


@triton.jit(do_not_specialize=["position", "kept"])
def take(position, kept):
    """Copies a stream's position to `kept`, and moves the stream on by one call. One program."""
    seed, call = key_of(position, 0, 0, 1)
    tl.debug_barrier()
    tl.store(kept, seed.to(tl.int64))
    tl.store(kept + 1, call.to(tl.int64))
    tl.store(position + 1, (call + 1).to(tl.int64))
