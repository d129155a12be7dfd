"""The contract of a backend: `Backend`, which it must provide, and the optional parts `Fused`,
`Learning`, `Loss`, `Section`, `Devices`, `Conversion` and `Comparison`.

A backend is a module (or any object) with the attributes of `Backend`, declared as an entry point of the group
`multidrop.backends` whose name is the name under which its framework is imported:

    [project.entry-points."multidrop.backends"]
    torch = "multidrop_torch"

`multidrop.testing.Conformance` tests one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, SupportsFloat, SupportsInt

import numpy.typing as npt

from .family import Member
from .spec.keys import Key

if TYPE_CHECKING:
    from .comparison.watch import Watcher

# A framework's own types are opaque here: the library hands them back to the backend they came from.
Tensor = Any
Model = Any

State = dict[str, npt.NDArray[Any]]
"""A net's state by name, the same names and layouts in every backend: `W1`, `b1`, … the weights, W of shape
(inputs, outputs), b of shape (outputs,); `dropout1`, … the mask streams, uint64 (seed, call of the next mask)."""


class Trainer(Protocol):
    """Minibatch SGD on softmax cross-entropy, for one net.

    Both methods return scalars that `float` and `int` convert: Python's, or the framework's own. A device can then
    compute ahead, because `multidrop.train` converts the scalars of an epoch at its end.
    """

    compiles: bool
    """Whether the first step compiles or traces the net, which takes longer than a step."""

    def step(self, X: Tensor, y: Tensor) -> tuple[SupportsFloat, SupportsInt]:
        """One step of SGD on one batch, in training mode.

        Args:
            X: examples, shape (n, …), of the net's floating type.
            y: labels, shape (n,), integers.

        Returns:
            The sum of the n losses, and how many examples were classified rightly, both from before the update.
        """
        ...

    def evaluate(self, X: Tensor, y: Tensor) -> tuple[SupportsFloat, SupportsInt]:
        """The sum of the losses of one batch, and how many examples are classified rightly, in evaluation mode."""
        ...


Pass = Callable[[npt.NDArray[Any], int], Iterator[tuple[Tensor, Tensor]]]
"""Gives the batches of one pass over a data set, from the order of the examples, int64 of shape (n,), and the number of
examples in a batch."""


class Resident(Protocol):
    """Optional: a `Trainer` that keeps a data set on its net's device."""

    def resident(self, X: npt.NDArray[Any], y: npt.NDArray[Any], values: npt.NDArray[Any] | None) -> Pass | None:
        """Copies a data set to the net's device.

        Args:
            X: examples, shape (n, …), floating, or uint8 with `values`.
            y: labels, int64 of shape (n,).
            values: floating, of shape (256,): batches hold values[x] in the place of each x.

        Returns:
            What gives the batches; None where they are better made on the host.
        """
        ...


Weights = dict[tuple[str, str], npt.NDArray[Any]]
"""A model's weights or their gradients, by the layer's path and the weight's common name, in the model's own layout."""


class Probe(Protocol):
    """Runs a model for `multidrop.compare` and records the inputs and outputs of its layers. It is a context manager;
    on exit the model is as before, except for its weights."""

    channels_last: bool | None
    """How the model takes images; None where it has no layer that tells."""
    dtype: str
    """The type of its weights, by name."""

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


class Auditing(Protocol):
    """The further methods of a `Probe`, which `multidrop.audit` needs."""

    model: Model
    """The model that is run."""
    tensors: tuple[type, ...]
    """The types of tensors, symbolic ones included."""
    weights: tuple[type, ...]
    """The types of tensors that hold weights, which no forward pass changes."""

    def __init__(self, model: Model) -> None: ...

    @property
    def layers(self) -> Mapping[str, Model]:
        """As a `Probe` has them."""
        ...

    def watch(self, watcher: Watcher) -> AbstractContextManager[None]:
        """As a `Probe` does."""
        ...

    def batch(self, X: npt.NDArray[Any]) -> Tensor:
        """As a `Probe` does."""
        ...

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


class Sampling(Protocol):
    """The further methods of a `Probe`, which `multidrop.mc_dropout` needs. While a model is watched, it must call each
    dropout layer in evaluation mode too, also those of weights."""

    tensors: tuple[type, ...]
    """The types of tensors, symbolic ones included."""

    def __init__(self, model: Model) -> None: ...

    @property
    def layers(self) -> Mapping[str, Model]:
        """As a `Probe` has them."""
        ...

    def watch(self, watcher: Watcher) -> AbstractContextManager[None]:
        """As a `Probe` does."""
        ...

    def batch(self, X: npt.NDArray[Any]) -> Tensor:
        """As a `Probe` does."""
        ...

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


class Section(Protocol):
    """Optional: the net of the dropout section, which `multidrop.train` trains."""

    def Net(self, **architecture: Any) -> Model:
        """`multidrop.Net`, with all arguments by name: the fields of
        `multidrop.section.architecture.NetArchitecture`."""
        ...

    def perceptron(self, **architecture: Any) -> Model:
        """`multidrop.perceptron`, with all arguments by name: the fields of
        `multidrop.section.architecture.PerceptronArchitecture`."""
        ...

    def get_state(self, net: Model) -> State:
        """A net's weights and mask streams, copied to the host."""
        ...

    def set_state(self, net: Model, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Gives a net the weights and mask streams of `state`; ValueError where names or shapes do not fit."""
        ...

    def Trainer(self, net: Model, lr: float, weight_decay: float = 0.0) -> Trainer:
        """What trains and evaluates `net`: w ← w − lr·(mean gradient + weight_decay·w), no decay for biases."""
        ...


class Threads(Protocol):
    """Optional: a limit on the framework's own threads. Experiments use it, because the number of threads may change
    the order of a sum. A backend whose threads the environment limits (OMP_NUM_THREADS) has none."""

    def one_thread(self) -> None:
        """Has operators of this process run in one thread each, if the framework has not started others."""
        ...


class Devices(Protocol):
    """Optional: devices besides the CPU, for the net of the section."""

    def devices(self) -> Mapping[str, AbstractContextManager[Any]]:
        """The devices that are here, "cpu" first, then such as "cuda:0": for each a context manager, within which
        nets are built on that device. `Trainer` takes batches from anywhere to where its net is."""
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

    def Probe(self, model: Model) -> Probe:
        """What runs a model for `multidrop.compare`, and where it has what `Auditing` asks for, `multidrop.audit`."""
        ...
