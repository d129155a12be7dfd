"""The library's constructors: each builds in the backend that is set."""

from __future__ import annotations

from typing import Any

from .. import family
from ..dispatch import current, part
from ..protocol import Section
from ..spec.keys import Key
from .architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes


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


@takes(NetArchitecture)
def Net(architecture: NetArchitecture) -> Any:
    """The multilayer perceptron of the dropout section, from scratch in the current backend's terms: two hidden
    layers with ReLU, each followed by dropout in training mode.

    Raises:
        ValueError: for a size below 1, a probability outside [0, 1], a bad seed, another dtype or `is_training`.
        BackendError: where the backend has no section part.
    """
    return part(current(), Section, "Net").Net(**vars(architecture))


@takes(PerceptronArchitecture)
def perceptron(architecture: PerceptronArchitecture) -> Any:
    """A multilayer perceptron of any depth from the current framework's own parts: its `Sequential` of linear layers
    with ReLU between them and, in training mode, noise of any member of the family. One linear layer alone is a linear
    model. Built with the same seed it has the same weights and masks in every framework, and those of `Net` where the
    sizes and the noise are the same.

        md.perceptron((784, 1024, 10), (0.2, md.family.DropConnect(0.5)), seed=0)

    Raises:
        ValueError: for fewer than two sizes, a size below 1, noise that does not suit its layer, a bad seed or another
            dtype.
        BackendError: where the backend has no section part.
    """
    return part(current(), Section, "perceptron").perceptron(**vars(architecture))


@takes(Architecture)
def concise_net(architecture: Architecture) -> Any:
    """The net of `Net` from the current framework's own parts: its `Sequential` with `Dropout` layers, as `perceptron`
    builds it. Built with the same seed it has the same weights and the same masks as `Net`.

    Raises:
        ValueError, BackendError: as `Net`.
    """
    return part(current(), Section, "perceptron", "md.concise_net").perceptron(**vars(architecture.perceptron))
