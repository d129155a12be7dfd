"""What runs a model and watches its layers: `Probe`, and what it may have besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from ..spec.keys import Key
from .types import Model, Tensor

if TYPE_CHECKING:
    from ..comparison.watch import Watcher

Weights = dict[tuple[str, str], npt.NDArray[Any]]
"""A model's weights or their gradients, by the layer's path and the weight's common name, in the model's own layout."""


class Watched(Protocol):
    """What each of the protocols below has of a probe: the layers of a model, and their calls."""

    def __init__(self, model: Model) -> None: ...

    @property
    def layers(self) -> Mapping[str, Model]:
        """All layers by path, the model itself by ""."""
        ...

    def watch(self, watcher: Watcher) -> AbstractContextManager[None]:
        """Reports each call of a layer to a watcher, by path."""
        ...

    def batch(self, X: npt.NDArray[Any]) -> Tensor:
        """A NumPy array as the model takes it."""
        ...


class Probe(Watched, Protocol):
    """Runs a model for `multidrop.compare` and records the inputs and outputs of its layers. It is a context manager;
    on exit the model is as before, except for its weights."""

    channels_last: bool | None
    """How the model takes images; None where it has no layer that tells."""
    dtype: str
    """The type of its weights, by name."""

    def __enter__(self) -> Probe: ...

    def __exit__(self, *_: object) -> None: ...

    def parts(self) -> list[Any]:
        """Its layers with weights, as `multidrop.comparison.parts.Part`; of a model that has run."""
        ...

    def dropouts(self) -> dict[str, Model]:
        """Its dropout layers, by path."""
        ...

    def key(self, path: str, key: Key | None) -> Key | None:
        """Sets a dropout layer's next key; None makes it follow the framework's generator. Returns its former key."""
        ...

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Any]]:
        """The output for a batch, and what went through the layers, in the order in which they ran, as
        `multidrop.comparison.parts.Point`."""
        ...

    def backward(self, dY: npt.NDArray[Any]) -> Weights:
        """The gradients of the weights, from that of the last output."""
        ...

    def read(self) -> Weights:
        """Copies of the weights, running statistics included."""
        ...

    def write(self, values: Weights) -> None:
        """Gives weights new values."""
        ...


class Auditing(Watched, Protocol):
    """The further methods of a `Probe`, which `multidrop.audit` needs."""

    model: Model
    """The model that is run."""
    tensors: tuple[type, ...]
    """The types of tensors, symbolic ones included."""
    weights: tuple[type, ...]
    """The types of tensors that hold weights, which no forward pass changes."""

    def built(self) -> bool:
        """Whether the model has all its layers and weights; if not, the first run creates them."""
        ...

    def run(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the layer at a path, in training mode."""
        ...

    def seed(self, number: int) -> None:
        """Seeds the framework's own generators."""
        ...

    def drew(self) -> bool:
        """Whether a number was drawn since `seed` from them, or from generators that are attributes of layers. May
        advance them."""
        ...

    def generators(self) -> Callable[[], None]:
        """A function that restores the current state of all these generators."""
        ...

    def state(self) -> Callable[[], None]:
        """A function that restores what a forward pass changes outside of the attributes of layers, such as running
        statistics and the positions of streams."""
        ...

    def symbolic(self, tensor: Tensor) -> bool:
        """Whether a tensor has no values, as in a trace."""
        ...

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor, with its own memory."""
        ...

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors have the same type, shape and values; NaN is equal to NaN."""
        ...

    def assign(self, tensor: Tensor, values: Tensor) -> None:
        """Writes values into a tensor, if layers of the framework write into tensors."""
        ...


class Sampling(Watched, Protocol):
    """The further methods of a `Probe`, which `multidrop.mc_dropout` needs. While a model is watched, it must call each
    dropout layer in evaluation mode too, also those of weights."""

    tensors: tuple[type, ...]
    """The types of tensors, symbolic ones included."""

    def dropouts(self) -> dict[str, Model]:
        """As a `Probe` does; each is a `multidrop.view.Drawn`."""
        ...

    def built(self) -> bool:
        """Whether the model has all its layers and weights; if not, the first run creates them."""
        ...

    def symbolic(self, tensor: Tensor) -> bool:
        """Whether a tensor has no values, as in a trace."""
        ...

    def evaluating(self) -> AbstractContextManager[None]:
        """Puts the model in evaluation mode; at the end, back in its own."""
        ...

    def evaluate(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """The model's output in evaluation mode, without a gradient."""
        ...

    def trains(self, path: str, kwargs: Mapping[str, Any]) -> bool:
        """Whether the call of the layer at a path, with these named arguments, is in training mode."""
        ...
