"""Python's search for garbage is put off, and nothing else of it is changed."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from multidrop import garbage


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def objects() -> list[list[int]]:
    return [[number] for number in range(200_000)]


def searches() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def test_no_search_is_made_then_or_for_it_afterwards() -> None:
    before = searches()
    with garbage.put_off():
        kept = objects()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_count()[1:] == (0, 0)
    assert searches() == before
    del kept


def test_garbage_is_found_afterwards() -> None:
    class Node:
        pass

    with garbage.put_off():
        node = Node()
        node.itself = node  # type: ignore[attr-defined]  # a cycle, which needs a search
        del node
    gc.collect()
    assert not any(type(thing) is Node for thing in gc.get_objects())


def test_what_a_program_set_stays() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with garbage.put_off():
        pass
    assert gc.get_freeze_count() == frozen
    gc.disable()
    with garbage.put_off():
        pass
    assert not gc.isenabled()
