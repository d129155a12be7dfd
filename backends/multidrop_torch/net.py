"""The net of the section "Dropout" of *Dive into Deep Learning*, from scratch and concisely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from multidrop import checks
from multidrop.protocol import State
from multidrop.section.architecture import Architecture, NetArchitecture, PerceptronArchitecture, takes
from multidrop.section.state import in_order, keys_in, state_of

from .functional import NAME, draw_key
from .keyed import Keyed
from .layers import Dropout
from .member_layers import layer
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
        self.lin1, self.lin2, self.lin3 = _linear_layers(architecture.perceptron)
        weights, (_, key1, key2) = architecture.perceptron.start(NAME, draw_key)
        self.dropout1 = Dropout(architecture.dropout1, seed=key1)
        self.dropout2 = Dropout(architecture.dropout2, seed=key2)
        _set_weights(self, weights)
        self.train(architecture.is_training)

    def forward(self, X: Tensor) -> Tensor:
        H1 = self.dropout1.after_relu(self.lin1(X.reshape(-1, self.num_inputs)))
        H2 = self.dropout2.after_relu(self.lin2(H1))
        return self.lin3(H2)


@takes(PerceptronArchitecture)
def perceptron(architecture: PerceptronArchitecture) -> nn.Sequential:
    """A perceptron of any depth, as an `nn.Sequential`. Errors are those of `multidrop.perceptron`."""
    weights, keys = architecture.start(NAME, draw_key)
    net = nn.Sequential(nn.Flatten())
    pairs = zip(_linear_layers(architecture), architecture.noise_layers(keys, layer), strict=True)
    for number, (linear, (before, within)) in enumerate(pairs):
        if number:
            net.append(nn.ReLU())
        if before is not None:
            net.append(before)
        net.append(linear if within is None else DroppedLinear(linear, within))
    net.to(getattr(torch, architecture.dtype))  # what the noise learns, too
    _set_weights(net, weights)
    return net


@takes(Architecture)
def concise_net(architecture: Architecture) -> nn.Sequential:
    """`perceptron` with two hidden layers. Errors are those of `multidrop.concise_net`."""
    return perceptron(**vars(architecture.perceptron))


class DroppedLinear(nn.Linear):
    """A linear layer that computes with dropped weights in training mode. The mask is drawn for W of shape (inputs,
    outputs), as in every framework; torch holds W transposed.

    Args:
        linear: the layer whose weights it takes.
        dropout: the layer that drops them.
    """

    def __init__(self, linear: nn.Linear, dropout: nn.Module) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.dropout(self.weight.T).T, self.bias)


def _linear_layers(architecture: PerceptronArchitecture) -> list[nn.Linear]:
    dtype = getattr(torch, architecture.dtype)
    return [nn.utils.skip_init(nn.Linear, *sizes, dtype=dtype) for sizes in architecture.layers]


def _parts(net: nn.Module) -> tuple[list[Any], dict[int, Any]]:
    """The linear layers, and the layers of noise by number."""
    if isinstance(net, Net):
        return [net.lin1, net.lin2, net.lin3], {1: net.dropout1, 2: net.dropout2}
    found = in_order(net.children(), nn.Linear, Keyed, (nn.Flatten, nn.ReLU))
    if found is None:
        raise ValueError(f"net: expected Net, or a sequence of linear layers, ReLU and noise; got {checks.shown(net)}")
    return found


def _weights(net: nn.Module) -> dict[str, Tensor]:
    """Views of the weights by their common names; writing to one writes to the net. torch's linear layers hold W
    transposed."""
    linear, noise = _parts(net)
    weights = {}
    for number, each in enumerate(linear, start=1):
        weights[f"W{number}"] = each.weight.detach().T
        weights[f"b{number}"] = each.bias.detach()
    for number, each in noise.items():
        weights |= {f"{name}{number}": w.detach() for name, w in each.named_parameters()}
    return weights


def _set_weights(net: nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _weights(net).items():
        weight.copy_(torch.from_numpy(state[name]))


def _streams(net: nn.Module) -> dict[str, Tensor]:
    return {f"dropout{i}": layer.stream for i, layer in _parts(net)[1].items() if layer.stream is not None}


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
