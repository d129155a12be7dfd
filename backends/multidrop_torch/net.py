"""The net of the section "Dropout" of *Dive into Deep Learning*, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, keys_in, state_of, takes

from .functional import NAME, draw_key
from .layers import Dropout
from .position import key_at, position_of


class Net(nn.Module):
    """Two hidden layers with ReLU and dropout; maps X of shape (n, …), num_inputs elements an example, to logits of
    shape (n, num_outputs).

    Args and errors are those of `multidrop.Net`; `is_training` is the mode at the start, `train()` and `eval()`
    switch it.
    """

    @takes(NetArchitecture)
    def __init__(self, architecture: NetArchitecture) -> None:
        super().__init__()
        self.num_inputs = architecture.num_inputs
        self.lin1, self.lin2, self.lin3 = _linear_layers(architecture)
        weights, key1, key2 = architecture.start(NAME, draw_key)
        self.dropout1 = Dropout(architecture.dropout1, seed=key1)
        self.dropout2 = Dropout(architecture.dropout2, seed=key2)
        _set_weights(self, weights)
        self.train(architecture.is_training)

    def forward(self, X: Tensor) -> Tensor:
        H1 = self.dropout1.after_relu(self.lin1(X.reshape(-1, self.num_inputs)))
        H2 = self.dropout2.after_relu(self.lin2(H1))
        return self.lin3(H2)


@takes(Architecture)
def concise_net(architecture: Architecture) -> nn.Sequential:
    """The same net as an `nn.Sequential`. Errors are those of `multidrop.concise_net`."""
    weights, key1, key2 = architecture.start(NAME, draw_key)
    lin1, lin2, lin3 = _linear_layers(architecture)
    net = nn.Sequential(
        nn.Flatten(),
        lin1,
        nn.ReLU(),
        Dropout(architecture.dropout1, seed=key1),
        lin2,
        nn.ReLU(),
        Dropout(architecture.dropout2, seed=key2),
        lin3,
    )
    _set_weights(net, weights)
    return net


def _linear_layers(architecture: Architecture) -> list[nn.Linear]:
    place: dict[str, Any] = {"dtype": getattr(torch, architecture.dtype), "device": torch.get_default_device()}
    return [nn.utils.skip_init(nn.Linear, *sizes, **place) for sizes in architecture.layers]


def _weights(net: nn.Module) -> dict[str, Tensor]:
    """Views of the weights by their common names; writing to one writes to the net. torch's linear layers hold W
    transposed."""
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    weights = {}
    for number, layer in enumerate(linear, start=1):
        weights[f"W{number}"] = layer.weight.detach().T
        weights[f"b{number}"] = layer.bias.detach()
    return weights


def _set_weights(net: nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _weights(net).items():
        weight.copy_(torch.from_numpy(state[name]))


def _streams(net: nn.Module) -> dict[str, Tensor]:
    layers = [module for module in net.modules() if isinstance(module, Dropout)]
    return {f"dropout{i}": layer.stream for i, layer in enumerate(layers, start=1) if layer.stream is not None}


def get_state(net: nn.Module) -> State:
    """Copies a net's weights and mask streams to the host; see `multidrop.protocol.State`. A layer that follows torch's
    generator has no stream, and is left out."""
    return state_of(
        {name: np.array(weight.cpu().numpy(), order="C") for name, weight in _weights(net).items()},
        {name: key_at(stream) for name, stream in _streams(net).items()},
    )


def set_state(net: nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Sets a net's weights and mask streams from `state`.

    Raises:
        ValueError: where names or shapes are not the net's.
    """
    keys = keys_in(state, get_state(net))
    _set_weights(net, state)
    for name, stream in _streams(net).items():
        stream.copy_(position_of(keys[name]))
