"""The state of a net: the names that its weights and mask streams have, and checks of a state that is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..protocol import State
from ..spec.keys import Key


def state_of(weights: Mapping[str, npt.NDArray], keys: Mapping[str, Key]) -> State:
    """The state of a net with those weights, whose dropout layers `dropout1`, … have those keys next, as arrays of
    uint64, the only ones. A layer that follows its framework's generator has no key, and is left out."""
    return {**weights, **{name: np.array([key.seed, key.call], np.uint64) for name, key in keys.items()}}


def keys_in(state: Mapping[str, npt.NDArray], own: Mapping[str, npt.NDArray]) -> dict[str, Key]:
    """The keys of the dropout layers in a state, which must have just the names and shapes of the net's own state.

    Raises:
        ValueError: naming the first that differs.
    """
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        raise ValueError(f"state: expected {sorted(own)}; missing {missing}, unknown {unknown}")
    for name, array in own.items():
        if state[name].shape != array.shape:
            raise ValueError(f"state: expected {name} of shape {array.shape}; got {state[name].shape}")
    return {name: Key(*map(int, state[name])) for name, array in own.items() if array.dtype == np.uint64}


def check_types(state: Mapping[str, npt.NDArray], own: Mapping[str, npt.NDArray]) -> None:
    """That a state's arrays have the types of the net's own state, of those that have the same name.

    Raises:
        ValueError: naming the first that differs.
    """
    for name in sorted(state.keys() & own.keys()):
        if state[name].dtype != own[name].dtype:
            raise ValueError(f"state: expected {name} of type {own[name].dtype}; got {state[name].dtype}")


def in_order(
    layers: Iterable[Any], linear: type, noise: type, others: tuple[type, ...]
) -> tuple[list[Any], dict[int, Any]] | None:
    """The layers of a perceptron, as `multidrop.perceptron` builds one; their state has the same names in every
    framework.

    Args:
        layers: those of the net, in the order in which they run.
        linear: the class of linear layers. One whose weights are dropped has the layer that does so as `dropout`.
        noise: the base class of the layers that draw.
        others: the classes of layers without state.

    Returns:
        The linear layers, and the noise of each by its number, from 0; None for another net.
    """
    found: list[Any] = []
    noisy: dict[int, Any] = {}
    for layer in layers:
        own = layer if isinstance(layer, noise) else getattr(layer, "dropout", None)
        if own is not None and noisy.setdefault(len(found), own) is not own:
            return None
        if isinstance(layer, linear):
            found.append(layer)
        elif own is None and not isinstance(layer, others):
            return None
    return (found, noisy) if found else None
