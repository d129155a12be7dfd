"""A framework whose installation is broken, in the way that MXNet's is on a new NumPy."""

raise AttributeError("module 'numpy' has no attribute 'bool'")
