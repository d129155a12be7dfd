"""Asserts that a layer or a training step, saved and loaded, continues with the same results."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .. import checks
from .bits import assert_same_values, on_host, same_bits

METHODS = (("state_dict", "load_state_dict"), ("get_weights", "set_weights"))
"""How layers of PyTorch, and those of Keras, are saved and loaded."""


def assert_resumes(
    make: Callable[[], Callable[[Any], Any]],
    X: Any,
    *,
    calls: int = 6,
    save: Callable[[Any], Any] | None = None,
    load: Callable[[Any, Any], object] | None = None,
) -> None:
    """Asserts that a layer or a training step, saved after any call and loaded into a new one, gives the same results,
    bit for bit, as one that was never saved.

    It runs `make()` for all the calls; then, for each number of calls before the last, it runs one so far, saves it,
    loads the state into another of `make()`, and runs that to the end.

    Args:
        make: builds a new one each time, the same each time: a callable that takes X and gives a tensor, such as a
            layer in training mode, or a step that trains and gives the loss.
        X: what it is called with; any object.
        calls: how many calls there are; at least 2.
        save: takes what `make` built and gives its state; by default `state_dict()` or `get_weights()`. The state is
            copied, so that it may hold the live tensors.
        load: takes what `make` built and a state; by default `load_state_dict` or `set_weights`.

    Raises:
        AssertionError: where a result differs, naming the calls before and after the save; and where no result differs
            from the one before it, for then a layer that forgets where it was would pass as well.
        ValueError: for fewer than 2 calls, or where there is no `save` or `load` and no default fits.
    """
    calls = checks.positive("calls", calls)
    if calls < 2:
        raise ValueError(f"calls: expected an integer above 1; got {checks.shown(calls)}")
    whole = _results(make(), X, calls)
    again = _results(make(), X, calls)
    for number, (a, b) in enumerate(zip(whole, again, strict=True)):
        _same(a, b, f"make: expected the same each time it is called; got others, as of call {number} (not keyed?)")
    if all(same_bits(whole[0], result) for result in whole[1:]):
        raise AssertionError("every call has the same result: is it in training mode, and does X hold more than zeros?")
    for before in range(1, calls):
        first = make()
        _results(first, X, before)
        state = copy.deepcopy(_method(first, save, "save", 0)())
        second = make()
        _method(second, load, "load", 1)(state)
        for number, result in enumerate(_results(second, X, calls - before), before):
            _same(whole[number], result, f"saved after {before} calls and loaded, call {number} has another result")


def _results(built: Callable[[Any], Any], X: Any, calls: int) -> list[Any]:
    """Copies, for a later call may write where an earlier one's result is."""
    return [on_host(built(X), "result").copy() for _ in range(calls)]


def _same(a: Any, b: Any, what: str) -> None:
    try:
        assert_same_values(a, b)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def _method(built: Any, given: Callable[..., Any] | None, name: str, place: int) -> Callable[..., Any]:
    """What saves, or loads into, `built`."""
    if given is not None:
        return lambda *state: given(built, *state)
    for methods in METHODS:
        if hasattr(built, methods[place]):
            return getattr(built, methods[place])
    defaults = " or ".join(methods[place] for methods in METHODS)
    raise ValueError(f"{name}: expected a function, for there is no {defaults}; got None, and {checks.shown(built)}")
