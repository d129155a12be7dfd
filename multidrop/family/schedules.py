"""Schedules of p over the steps of training. Each is a function of the step:

    p = schedules.curriculum(0.5, steps=10_000)
    Y = md.apply(md.family.Dropout(p(step)), X, key)

Schedules with equal settings are equal. A program that is traced or compiled holds a p that is a Python number as a
constant; `VariableDropout` reads p from a tensor in each run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import checks


@dataclass(frozen=True)
class _Schedule:
    begin: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", checks.probability("begin", self.begin))
        object.__setattr__(self, "end", checks.probability("end", self.end))
        object.__setattr__(self, "steps", checks.positive("steps", self.steps))

    def __call__(self, step: int) -> float:
        """p at a step, counted from 0. From step `steps` on it is `end`.

        Raises:
            ValueError: if the step is no integer in [0, 2^64).
        """
        done = min(checks.word64("step", step) / self.steps, 1.0)
        part = 1.0 if done == 1.0 else self._part(done)
        return self.end * part + self.begin * (1.0 - part)

    def _part(self, done: float) -> float:
        """The fraction of the way from `begin` to `end`, for the fraction of `steps` that is done."""
        raise NotImplementedError(f"{type(self).__name__}._part")  # each schedule's own


@dataclass(frozen=True)
class linear(_Schedule):
    """Changes p from `begin` to `end` by the same amount in each of `steps` steps.

    Args:
        begin: p at step 0, in [0, 1].
        end: p from step `steps` on, in [0, 1].
        steps: how many, above 0.

    Raises:
        ValueError: for a bad probability or number of steps.
    """

    def _part(self, done: float) -> float:
        return done


@dataclass(frozen=True)
class cosine(_Schedule):
    """Changes p from `begin` to `end` along half a cosine, slowly at both ends. Source: I. Loshchilov and F. Hutter,
    "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5. Args and errors are those
    of `linear`."""

    def _part(self, done: float) -> float:
        return 0.5 - 0.5 * math.cos(math.pi * done)


@dataclass(frozen=True)
class _Exponential(_Schedule):
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rate", checks.at_least_zero("rate", self.rate))

    def _part(self, done: float) -> float:
        return 1.0 - math.exp(-self.rate * done)


def warm_up(p: float, steps: int) -> linear:
    """Raises p from 0 at step 0, linearly, to `p` at step `steps`. Args and errors are those of `linear`."""
    return linear(0.0, p, steps)


def curriculum(p: float, steps: int, rate: float = 10.0) -> _Exponential:
    """Raises p from 0, fast at first: p·(1 − exp(−rate·step/steps)), and p from step `steps` on.

    Source: P. Morerio et al., "Curriculum dropout", ICCV 2017, equation 2, whose γ is rate/steps, by default as its
    section 3.2 advises, 10/steps.

    Args:
        p: in [0, 1].
        steps: how many, above 0.
        rate: how fast, at least 0.

    Raises:
        ValueError: for a bad probability, number of steps or rate.
    """
    return _Exponential(0.0, p, steps, rate)
