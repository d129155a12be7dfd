"""The source of the machine code: loops that Numba compiles, and the C functions made of them.

If an object file fits the processor (see `multidrop.host.objects`), only `layout` is imported. Any change to a file of
this folder makes the object files stale.
"""
