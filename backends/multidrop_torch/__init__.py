"""multidrop for PyTorch."""

import torch
from torch import __version__ as version

from .functional import NAME as name
from .functional import draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy
from .layers import Dropout
from .net import Net, concise_net, get_state, set_state
from .training import Trainer

types = (torch.Tensor, torch.nn.Parameter, torch.nn.Module)

__all__ = [
    "Dropout",
    "Net",
    "Trainer",
    "concise_net",
    "draw_key",
    "dropout_layer",
    "get_state",
    "keep_mask",
    "name",
    "relu_dropout",
    "set_state",
    "tensor",
    "to_numpy",
    "types",
    "version",
]
