"""The contract of a backend: `Backend`, which it must provide, and the optional parts `Fused`,
`Learning`, `Loss`, `Section`, `Devices`, `Conversion` and `Comparison`.

A backend is a module (or any object) with the attributes of `Backend`, declared as an entry point of the group
`multidrop.backends` whose name is the name under which its framework is imported:

    [project.entry-points."multidrop.backends"]
    torch = "multidrop_torch"

`multidrop.testing.Conformance` tests one.
"""

from __future__ import annotations

from .backend import Backend, Comparison, Conversion, Fused, Learning, Loss
from .probe import Auditing, Probe, Sampling, Weights
from .section import Devices, Pass, Resident, Section, State, Threads, Trainer
from .types import Model, Tensor

__all__ = [
    "Auditing",
    "Backend",
    "Comparison",
    "Conversion",
    "Devices",
    "Fused",
    "Learning",
    "Loss",
    "Model",
    "Pass",
    "Probe",
    "Resident",
    "Sampling",
    "Section",
    "State",
    "Tensor",
    "Threads",
    "Trainer",
    "Weights",
]
