"""`python -m multidrop`, the same as `multidrop`."""

from .cli import main

main()
