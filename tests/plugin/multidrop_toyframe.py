"""A third party's backend: the eight attributes of the contract, from outside of the library."""

from __future__ import annotations

from typing import Any

import numpy as np
from toyframe import ToyTensor
from toyframe import __version__ as version

from multidrop import checks
from multidrop.family import Member, checked, oracle
from multidrop.spec.keys import Key, as_key
from multidrop.streams import Stream, call_key, layer_key

name = "toyframe"


def tensor(data: Any, dtype: str | None = None) -> ToyTensor:
    def convert(data: Any, dtype: str | None) -> ToyTensor:
        array = np.asarray(data, dtype)
        return ToyTensor(array.ravel().tolist(), array.shape, array.dtype.name)

    return data if isinstance(data, ToyTensor) else checks.host_tensor(convert, data, dtype)


def to_numpy(tensor: ToyTensor) -> np.ndarray:
    return np.array(tensor.values, tensor.dtype).reshape(tensor.shape)


def draw_key() -> Key:
    return Key(int(np.random.randint(2**63)))


def apply(member: Member, X: Any, key: int | Key | None = None, *, start: int = 0) -> ToyTensor:
    X = tensor(X)
    checks.floating(X.dtype, 'tensor(X, "float32")')
    start = checked(member).check(X.shape, start)
    key = (call_key(name) or draw_key()) if key is None else as_key(key)
    return tensor(oracle.apply(member, to_numpy(X), key, start))


class ToyLayer:
    training = True

    def __init__(self, member: Member, key: Key | None) -> None:
        self.member, self.stream = member, None if key is None else Stream(key)

    def __call__(self, X: Any) -> ToyTensor:
        X = tensor(X)
        if not self.training:
            return X
        self.member.check(X.shape)
        return apply(self.member, X, draw_key() if self.stream is None else self.stream.next())


def layer(member: Member, *, seed: int | Key | None = None) -> ToyLayer:
    return ToyLayer(checked(member), layer_key(name, seed))


types = (ToyTensor, ToyLayer)

__all__ = ["apply", "draw_key", "layer", "name", "tensor", "to_numpy", "types", "version"]
