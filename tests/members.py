"""The members of the family that tests go through, each with the values of its settings, and their inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from multidrop import Key, family
from multidrop.family import Member

KEY = Key(7, 3)
CLASSES = [cls for cls in family.MEMBERS.values() if cls.__module__.startswith("multidrop.")]
RATES = (0.05, 0.1, 0.2, 0.5)


def variants(cls: type[Member]) -> list[Member]:
    """A member with its defaults, and with each other value of a setting that has few."""
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(cls)}
    return [cls(), *(cls(**{name: value}) for name, values in choices.items() for value in values[1:])]


MEMBERS = [member for cls in CLASSES for member in variants(cls)]
REPRESENTATIVES = [cls() for cls in CLASSES]
all_members = pytest.mark.parametrize("member", MEMBERS, ids=repr)
one_of_each = pytest.mark.parametrize("member", REPRESENTATIVES, ids=repr)


def values(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)
