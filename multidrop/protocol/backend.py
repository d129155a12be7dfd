"""What every backend has, and the optional parts of functions, layers and models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from ..family import Member
from ..spec.keys import Key
from . import probe
from .types import Model, Tensor


class Backend(Protocol):
    """The eight attributes that every backend has."""

    @property
    def name(self) -> str:
        """The backend's name, that of its entry point: the framework's import name."""
        ...

    @property
    def version(self) -> str:
        """The framework's version."""
        ...

    @property
    def types(self) -> tuple[type, ...]:
        """The types of the framework's tensors and models: what is an instance of one belongs to this backend."""
        ...

    def tensor(self, data: npt.ArrayLike, dtype: str | None = None) -> Tensor:
        """A tensor of host data; without a dtype, of the type that the framework gives such data."""
        ...

    def to_numpy(self, tensor: Tensor) -> npt.NDArray[Any]:
        """A tensor's values on the host; bfloat16 comes as float32."""
        ...

    def draw_key(self) -> Key:
        """A key drawn from the framework's own generator, and so governed by the framework's own seed."""
        ...

    def apply(self, member: Member, X: Tensor, key: int | Key | None = None, *, start: int = 0) -> Tensor:
        """`multidrop.apply` for the framework's tensors (and for what `tensor` takes), differentiable."""
        ...

    def layer(self, member: Member, *, seed: int | Key | None = None) -> Model:
        """A layer in the framework's own terms, which applies the member in training mode and passes its input on in
        evaluation mode. With a seed, or after `manual_seed`, the n-th call in training mode, from 0, has the call
        `first.call + n` of the layer's key; without, the framework's generator draws a key for each."""
        ...


class Fused(Protocol):
    """Optional: dropout in one pass over memory, and its layer. Without it the library uses `apply` and `layer`."""

    def dropout_layer(self, X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0,
                      axes: int | Sequence[int] = ()) -> Tensor:  # fmt: skip
        """`multidrop.dropout_layer`, for what `apply` takes."""
        ...

    def relu_dropout(self, X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Tensor:
        """`multidrop.relu_dropout`, likewise."""
        ...

    def Dropout(self, p: float = 0.5, *, seed: int | Key | None = None) -> Model:
        """`multidrop.Dropout`; only the first argument, by position, and `seed`, by name, are common to all."""
        ...


class Learning(Protocol):
    """Optional: members with a parameter that is learned."""

    def apply(self, member: Member, X: Tensor, key: int | Key | None = None, *, start: int = 0,
              learned: Tensor | None = None) -> Tensor:  # fmt: skip
        """`Backend.apply`, differentiable with respect to `learned` too."""
        ...


class Loss(Protocol):
    """Optional: the loss of a net that is run twice, with two masks."""

    def r_drop(self, logits1: Tensor, logits2: Tensor, labels: Tensor, alpha: float = 1.0) -> Tensor:
        """`multidrop.r_drop`; `multidrop.loss.r_drop_of` has its formula."""
        ...


class Conversion(Protocol):
    """Optional: this library's layers in models that are there already, and the masks that layers use."""

    def convert(self, model: Model, key_of: Callable[[str], Key | None]) -> tuple[Any, Any]:
        """`multidrop.convert`: replaces layers in place, each keyed by what `key_of` gives for its path; what was
        replaced, and what was not reached, as `multidrop.conversion` has them."""
        ...

    def restore(self, model: Model, paths: Collection[str] | None = None) -> int:
        """`multidrop.restore`, of the layers at those paths, or of all."""
        ...

    def drawing(self, layer: Model, shape: tuple[int, ...] | None = None) -> Any:
        """How a dropout layer draws, as a `multidrop.view.Drawing`; TypeError for what is none."""
        ...


class Comparison(Protocol):
    """Optional: two models side by side. `multidrop.compare` needs `Conversion` besides."""

    def Probe(self, model: Model) -> probe.Probe:
        """What runs a model for `multidrop.compare`, and where it has what `Auditing` asks for, `multidrop.audit`."""
        ...
