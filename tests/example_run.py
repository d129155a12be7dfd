"""A small run, to be saved by tests of files and checkpoints."""

from __future__ import annotations

import numpy as np

import multidrop as md
from multidrop.section.history import Epoch

HISTORY = md.History({"backend": "numpy"}, [Epoch(1, 1.5, 0.5, 0.625, 2.0, 30_000.0)])
STATE = {"W1": np.arange(600.0).reshape(20, 30), "b1": np.ones(30, np.float32), "dropout1": np.array([1, 2], np.uint64)}
FACTS = {"history": HISTORY.to_dict(), "batches": [7, 0]}
