"""The library's constructors: each builds in the backend that is set."""

from __future__ import annotations

from typing import Any

from .. import family
from ..dispatch import current, part
from ..protocol import Section
from ..spec.keys import Key


def Dropout(p: float = 0.5, *, seed: int | Key | None = None) -> Any:
    """A dropout layer in the current backend's own terms: a `torch.nn.Module`, a Keras layer, a Gluon block, or a
    layer with `forward` and `backward` in NumPy. Each training-mode forward takes the next mask of the layer's stream;
    an evaluation-mode forward passes its input on and takes none.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        seed: what keys the layer's masks: an integer or a `Key`. Without one the layer is keyed by `manual_seed`, or
            follows the framework's own generator where that was not called.

    Raises:
        ValueError: for a probability that is no number in [0, 1], or a bad seed.
    """
    backend: Any = current()
    if not hasattr(backend, "Dropout"):
        return backend.layer(family.Dropout(p), seed=seed)
    return backend.Dropout(p, seed=seed)


def Net(
    num_inputs: int = 784,
    num_outputs: int = 10,
    num_hiddens1: int = 256,
    num_hiddens2: int = 256,
    *,
    dropout1: float = 0.2,
    dropout2: float = 0.5,
    is_training: bool = True,
    seed: int | Key | None = None,
    dtype: str = "float32",
) -> Any:
    """The multilayer perceptron of the dropout section, from scratch in the current backend's terms: two hidden
    layers with ReLU, each followed by dropout in training mode.

    Args:
        num_inputs: length of a flattened example; inputs have shape (n, …) with that many elements each.
        num_outputs: number of classes; outputs are logits of shape (n, num_outputs).
        num_hiddens1: units of the first hidden layer.
        num_hiddens2: units of the second hidden layer.
        dropout1: p after the first hidden layer, in [0, 1].
        dropout2: p after the second hidden layer, in [0, 1].
        is_training: whether the net drops at all in training mode. PyTorch's and NumPy's nets start in that mode;
            in TensorFlow and MXNet the call decides (`training=True`, `autograd.record()`), and a net with False
            never drops.
        seed: keys the initial weights and the masks, as `manual_seed(seed)` before would: equal in every backend.
        dtype: "float32" or "float64", of weights and outputs.

    Raises:
        ValueError: for a size below 1, a probability outside [0, 1], a bad seed or another dtype.
        BackendError: where the backend has no section part.
    """
    return part(current(), Section, "Net").Net(
        num_inputs,
        num_outputs,
        num_hiddens1,
        num_hiddens2,
        dropout1=dropout1,
        dropout2=dropout2,
        is_training=is_training,
        seed=seed,
        dtype=dtype,
    )


def concise_net(
    num_inputs: int = 784,
    num_outputs: int = 10,
    num_hiddens1: int = 256,
    num_hiddens2: int = 256,
    *,
    dropout1: float = 0.2,
    dropout2: float = 0.5,
    seed: int | Key | None = None,
    dtype: str = "float32",
) -> Any:
    """The net of `Net` from the current framework's own parts: its `Sequential` with `Dropout` layers. Built with the
    same seed it has the same weights and the same masks as `Net`.

    Args and errors are those of `Net`.
    """
    return part(current(), Section, "concise_net").concise_net(
        num_inputs,
        num_outputs,
        num_hiddens1,
        num_hiddens2,
        dropout1=dropout1,
        dropout2=dropout2,
        seed=seed,
        dtype=dtype,
    )
