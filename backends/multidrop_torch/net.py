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

from .functional import NAME, draw_key, to_numpy
from .keyed import Keyed
from .layers import Dropout
from .member_layers import layer
from .position import key_at, move, position_of


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
    place: dict[str, Any] = {"dtype": getattr(torch, architecture.dtype), "device": torch.get_default_device()}
    return [nn.utils.skip_init(nn.Linear, *sizes, **place) for sizes in architecture.layers]


def _named(net: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights and the streams by the names that they have in a state: the common ones in a perceptron, in other
    nets those of the `state_dict`. The weights are views: writing to one writes to the net."""
    modules = net.named_modules(remove_duplicate=False)
    layers = {f"{path}.stream".lstrip("."): module for path, module in modules if isinstance(module, Keyed)}
    streams = {name: layer.stream for name, layer in layers.items() if layer.stream is not None}
    weights = {name: weight for name, weight in net.state_dict().items() if name not in streams}
    for name, weight in weights.items():
        if not isinstance(weight, Tensor):
            raise ValueError(f"net: expected tensors in its state_dict; got, as {name}, {checks.shown(weight)}")
    common = _common(net)
    return common if common is not None and len(common[0]) == len(weights) else (weights, streams)


def _common(net: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Those of a perceptron, else None. torch's linear layers hold W transposed."""
    if isinstance(net, Net):
        parts: Any = [net.lin1, net.lin2, net.lin3], {1: net.dropout1, 2: net.dropout2}
    else:
        parts = in_order(net.children(), nn.Linear, Keyed, (nn.Flatten, nn.ReLU))
    if parts is None or any(linear.bias is None for linear in parts[0]):
        return None
    weights = {}
    for number, linear in enumerate(parts[0], start=1):
        weights[f"W{number}"] = linear.weight.detach().T
        weights[f"b{number}"] = linear.bias.detach()
    for number, noise in parts[1].items():
        weights |= {f"{name}{number}": w.detach() for name, w in noise.named_parameters()}
    streams = {f"dropout{i}": noise.stream for i, noise in parts[1].items() if noise.stream is not None}
    return weights, streams


def _set_weights(net: nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, weight in _named(net)[0].items():
        weight.copy_(torch.from_numpy(state[name]))


def get_state(net: nn.Module) -> State:
    """Copies a net's weights and mask streams to the host; see `multidrop.protocol.State`. A layer that follows torch's
    generator has no stream, and is left out."""
    weights, streams = _named(net)
    return state_of(
        {name: np.array(to_numpy(weight), order="C") for name, weight in weights.items()},
        {name: key_at(stream) for name, stream in streams.items()},
    )


def set_state(net: nn.Module, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Gives a net the weights and mask streams of `state`.

    Raises:
        ValueError: if names or shapes are not the net's.
    """
    weights, streams = _named(net)
    keys = keys_in(state, get_state(net))
    for name, weight in weights.items():
        weight.copy_(torch.from_numpy(state[name]))
    for name, stream in streams.items():
        move(stream, position_of(keys[name]))
