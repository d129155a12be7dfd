"""The source of the machine code: loops that Numba compiles, and the C functions that are made of them.

Where an object file fits the processor (see `multidrop.host.objects`), only `layout` is imported. An object file is
stale as soon as a file of this folder changes.
"""
