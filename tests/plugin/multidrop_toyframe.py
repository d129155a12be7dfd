"""A third party's backend: all that the contract asks for, from outside of the library.

Its nets are the NumPy backend's, for what this shows is how a backend is found and how tensors find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from multidrop_numpy import (
    Dropout,
    Net,
    Probe,
    Trainer,
    concise_net,
    convert,
    draw_key,
    drawing,
    get_state,
    layer,
    restore,
    set_state,
)
from toyframe import ToyTensor
from toyframe import __version__ as version

from multidrop import checks, masks
from multidrop.family import Member, checked, host
from multidrop.keys import Key, as_key, call_key

name = "toyframe"
types = (ToyTensor,)


def tensor(data: Any, dtype: str | None = None) -> ToyTensor:
    return data if isinstance(data, ToyTensor) else ToyTensor(np.asarray(data, dtype).ravel().tolist())


def to_numpy(tensor: ToyTensor) -> np.ndarray:
    return np.array(tensor.values)


def dropout_layer(
    X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> ToyTensor:
    p = checks.probability("dropout", dropout)
    key = (call_key(name) or draw_key()) if key is None else as_key(key)
    return ToyTensor(masks.dropout(to_numpy(tensor(X)), p, key, start, checks.axes(axes, 1)).tolist())


def relu_dropout(X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0) -> ToyTensor:
    return dropout_layer(masks.relu(to_numpy(tensor(X))), dropout, key, start=start)


def apply(member: Member, X: Any, key: int | Key | None = None, *, start: int = 0, learned: Any = None) -> ToyTensor:
    array = to_numpy(tensor(X))
    start = checked(member, learned).check(array.shape, start)
    key = (call_key(name) or draw_key()) if key is None else as_key(key)
    return ToyTensor(host.apply(member, array, key, start, learned=learned).tolist())


__all__ = [
    "Dropout",
    "Net",
    "Probe",
    "Trainer",
    "apply",
    "concise_net",
    "convert",
    "draw_key",
    "drawing",
    "dropout_layer",
    "get_state",
    "layer",
    "name",
    "relu_dropout",
    "restore",
    "set_state",
    "tensor",
    "to_numpy",
    "types",
    "version",
]
