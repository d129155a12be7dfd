"""Ends the interpreter within a call that is noted as in `fuzzed`: `python aborting.py BACKEND CALLS LOG`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fuzzed

with Path(sys.argv[3]).open("w") as fuzzed.log:
    fuzzed.scope["os"] = os
    fuzzed.run("os.abort()")
