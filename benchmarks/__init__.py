"""The benchmarks of multidrop: see README.md in this folder."""
