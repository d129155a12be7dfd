"""The source of the machine code: loops that Numba compiles, and the C functions that are made of them.

Nothing in this folder is imported where an object file fits the processor (see `multidrop.kernel.objects`). An object is
stale as soon as a file of this folder changes.
"""
