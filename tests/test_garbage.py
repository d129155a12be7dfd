"""Python's search for garbage is put off, and nothing else of it is changed."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

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


class Interrupted(BaseException):
    """Raised in the place of a signal handler's exception."""


def test_an_exception_of_a_signal_handler_changes_nothing() -> None:
    """Such an exception comes as a function begins or after a call."""
    frozen = gc.get_freeze_count()
    for step in itertools.count():
        left = step

        def interrupt(frame: FrameType, event: str, _: Any) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_filename == garbage.__file__:
                left -= 1
                if left < 0:
                    raise Interrupted

        sys.setprofile(interrupt)
        try:
            with garbage.put_off():
                pass
        except Interrupted:
            assert gc.isenabled(), step
            assert gc.get_freeze_count() == frozen, step
        else:
            break
        finally:
            sys.setprofile(None)
    assert step > 5


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
