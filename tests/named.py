"""Names of tests' parameters."""

from __future__ import annotations

import re

from multidrop import checks


def named(value: object) -> str:
    """The same in every process that spreads the tests, which an object's address is not."""
    return re.sub(r" at 0x[0-9a-f]+", "", checks.shown(value))
