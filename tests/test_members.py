"""The members of the dropout family as values: settings, texts, documentation, and the specification's table."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from members import CLASSES, KEY, all_members, one_of_each

from multidrop import family
from multidrop.family import Member, oracle
from multidrop.testing import same_bits


class TestValues:
    """A member is a value."""

    @all_members
    def test_equality_text_and_copies(self, member: Member) -> None:
        again = dataclasses.replace(member)
        assert again == member
        assert hash(again) == hash(member)
        assert family.of_text(member.text) == member
        assert pickle.loads(pickle.dumps(member)).text == member.text
        assert eval(repr(member), vars(family)) == member
        with pytest.raises(dataclasses.FrozenInstanceError):
            member.p = 0.3  # type: ignore[attr-defined]  # what is tested

    @one_of_each
    def test_it_is_documented(self, member: Member) -> None:
        text = inspect.getdoc(type(member))
        assert text
        for part in ("Args:", *(f"{field.name}:" for field in dataclasses.fields(member)), "Raises:"):
            assert part in text
        assert "Source:" in text + str(type(member).__mro__[1].__doc__)  # a member that extends another has its source
        assert f"**{type(member).__name__}**" in SPECIFICATION.read_text()

    @pytest.mark.parametrize("cls", CLASSES)
    def test_bad_settings(self, cls: type[Member]) -> None:
        for field in dataclasses.fields(cls):
            for bad in (-0.5, math.nan, math.inf, None, "half", [0.5]):
                with pytest.raises(ValueError, match=rf"{field.name}: expected .*; got "):
                    cls(**{field.name: bad})


class TestList:
    def test_two_of_one_name(self) -> None:
        with pytest.raises(
            ValueError, match=r"member: expected a name that no other has; got Dropout of test_members, .*"
        ):
            type("Dropout", (Member,), {"__module__": __name__})
        assert family.MEMBERS["Dropout"] is family.Dropout

    def test_one_that_is_defined_again(self) -> None:
        first, second = (type("Again", (Member,), {"__module__": __name__}) for _ in range(2))
        text = first().text
        assert type(family.of_text(text)) is second
        third = type("Again", (Member,), {"__module__": __name__})
        assert type(family.of_text(text)) is third


SPECIFICATION = Path(__file__).parent.parent / "docs" / "specification.md"


def vectors() -> Iterator[tuple[Member, tuple[int, ...], str]]:
    """Of the specification's table: a member, a shape, and what it gives of ones."""
    rows = re.findall(r"^\| `(\w+\(.*?\))` \| `(\(.*?\))` \| `(.*?)` \|$", SPECIFICATION.read_text(), re.MULTILINE)
    for text, shape, expected in rows:
        yield eval(text, vars(family)), eval(shape), expected


def outputs(member: Member, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """What a member gives of ones, float32."""
    return oracle.apply(member, np.ones(shape or member.example_shape, np.float32), KEY)


def shown(y: np.ndarray) -> str:
    """Numbers in row-major order, as the specification's table has them."""
    return " ".join(str(v).removesuffix(".0") for v in y.ravel())


def test_the_page_on_the_family_runs() -> None:
    """And the member that it writes is one in every framework."""
    blocks = re.findall(r"```python\n(.*?)```", (SPECIFICATION.parent / "family.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": __name__}  # which `dataclass` looks up
    for block in blocks:
        if "torch" not in block:  # which test_packaging runs, where torch is
            exec(block, names)
    assert np.isin(names["Y"], (-1.0, 1.0)).all()
    assert abs((names["Y"] == -1.0).mean() - 0.3) < 5.0 * math.sqrt(0.3 * 0.7 / names["Y"].size)


class TestSpecification:
    def test_each_member_has_a_vector(self) -> None:
        lacking = [cls() for cls in CLASSES if cls not in {type(member) for member, _, _ in vectors()}]
        rows = [f"| `{each}` | `{each.example_shape}` | `{shown(outputs(each))}` |" for each in lacking]
        assert not lacking, "\n".join(["the specification's table lacks:", *rows])

    @pytest.mark.parametrize(("member", "shape", "expected"), list(vectors()), ids=repr)
    def test_vectors(self, member: Member, shape: tuple[int, ...], expected: str) -> None:
        y = outputs(member, shape)
        wanted = np.array([float(number) for number in expected.split()], np.float32)
        assert same_bits(y.ravel(), wanted), shown(y)
