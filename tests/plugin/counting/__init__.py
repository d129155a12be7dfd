"""A package with machine code of its own, small enough to be compiled again and again."""
