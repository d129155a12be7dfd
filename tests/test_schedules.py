"""How p changes over the steps of training."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise
from typing import Any

import pytest

from multidrop.family import schedules


class TestSchedules:
    @pytest.mark.parametrize(
        "schedule",
        [schedules.linear(0.1, 0.5, 40), schedules.cosine(0.1, 0.5, 40), schedules.warm_up(0.5, 40),
         schedules.curriculum(0.5, 40)],
        ids=repr,
    )  # fmt: skip
    def test_from_the_begin_to_the_end(self, schedule: Any) -> None:
        ps = [schedule(step) for step in range(60)]
        assert ps[0] == schedule.begin
        assert ps[40:] == [0.5] * 20
        assert all(a < b for a, b in pairwise(ps[:41]))
        assert pickle.loads(pickle.dumps(schedule)) == schedule

    def test_formulas(self) -> None:
        assert schedules.linear(0.0, 0.4, 4)(1) == pytest.approx(0.1)
        assert schedules.cosine(0.0, 0.4, 4)(2) == pytest.approx(0.2)
        assert schedules.cosine(0.0, 0.4, 3)(1) == pytest.approx(0.1)
        assert schedules.curriculum(0.5, 100)(30) == pytest.approx(0.5 * (1 - math.exp(-3)))
        assert schedules.linear(0.5, 0.1, 4)(3) == pytest.approx(0.2)

    @pytest.mark.parametrize(
        ("name", "make"),
        [
            ("begin", lambda: schedules.linear(-0.1, 0.5, 4)),
            ("end", lambda: schedules.cosine(0.1, math.nan, 4)),
            ("steps", lambda: schedules.warm_up(0.5, 0)),
            ("rate", lambda: schedules.curriculum(0.5, 4, -1.0)),
            ("step", lambda: schedules.warm_up(0.5, 4)(-1)),
        ],
    )
    def test_bad_arguments(self, name: str, make: Any) -> None:
        with pytest.raises(ValueError, match=f"{name}: expected .*; got "):
            make()
