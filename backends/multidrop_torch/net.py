"""The net of the section "Dropout" of *Dive into Deep Learning*, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from multidrop.protocol import State
from multidrop.section.architecture import Architecture, check_state
from multidrop.spec.keys import Key
from multidrop.streams import seeds_for

from .functional import NAME, draw_key
from .layers import Dropout
from .position import key_at


class Net(nn.Module):
    """Two hidden layers with ReLU and dropout; maps X of shape (n, …), num_inputs elements an example, to logits of
    shape (n, num_outputs).

    Args and errors are those of `multidrop.Net`; `is_training` is the mode at the start, `train()` and `eval()`
    switch it.
    """

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        architecture = Architecture(num_inputs, num_outputs, num_hiddens1, num_hiddens2, dropout1, dropout2, dtype)
        self.num_inputs = architecture.num_inputs
        self.lin1, self.lin2, self.lin3 = _linear_layers(architecture)
        seeds = seeds_for(NAME, seed)
        weights = architecture.initial_weights(seeds.next("weights") or draw_key())
        self.dropout1 = Dropout(architecture.dropout1, seed=seeds.next("dropout"))
        self.dropout2 = Dropout(architecture.dropout2, seed=seeds.next("dropout"))
        _set_weights(self, weights)
        self.train(is_training)

    def forward(self, X: Tensor) -> Tensor:
        H1 = self.dropout1.after_relu(self.lin1(X.reshape(-1, self.num_inputs)))
        H2 = self.dropout2.after_relu(self.lin2(H1))
        return self.lin3(H2)


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
) -> nn.Sequential:
    """The same net as an `nn.Sequential`. Args and errors are those of `multidrop.concise_net`."""
    architecture = Architecture(num_inputs, num_outputs, num_hiddens1, num_hiddens2, dropout1, dropout2, dtype)
    seeds = seeds_for(NAME, seed)
    weights = architecture.initial_weights(seeds.next("weights") or draw_key())
    lin1, lin2, lin3 = _linear_layers(architecture)
    net = nn.Sequential(
        nn.Flatten(),
        lin1,
        nn.ReLU(),
        Dropout(architecture.dropout1, seed=seeds.next("dropout")),
        lin2,
        nn.ReLU(),
        Dropout(architecture.dropout2, seed=seeds.next("dropout")),
        lin3,
    )
    _set_weights(net, weights)
    return net


def _linear_layers(architecture: Architecture) -> list[nn.Linear]:
    dtype = getattr(torch, architecture.dtype)
    return [nn.utils.skip_init(nn.Linear, *sizes, dtype=dtype) for sizes in architecture.layers]


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
    streams = {name: key_at(stream) for name, stream in _streams(net).items()}
    state = {name: np.array(weight.cpu().numpy(), order="C") for name, weight in _weights(net).items()}
    return state | {name: np.array([key.seed, key.call], np.uint64) for name, key in streams.items()}


def set_state(net: nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Sets a net's weights and mask streams from `state`.

    Raises:
        ValueError: where names or shapes are not the net's.
    """
    streams = _streams(net)
    shapes = {name: tuple(weight.shape) for name, weight in _weights(net).items()}
    check_state(state, shapes | dict.fromkeys(streams, (2,)))
    _set_weights(net, state)
    for name, stream in streams.items():
        stream.copy_(torch.from_numpy(state[name].astype(np.uint64).view(np.int64)))
