"""multidrop for PyTorch."""

import torch
from torch import __version__ as version

from .apply import apply
from .comparison import Probe
from .conversion import convert, restore
from .devices import devices
from .distributed import per_rank
from .functional import NAME as name
from .functional import draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy
from .keyed import drawing
from .layers import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from .loss import r_drop
from .member_layers import (
    ConcreteDropout,
    DropBlock,
    DropConnect,
    DropPath,
    EmbeddingDropout,
    GaussianDropout,
    GaussianNoise,
    LockedDropout,
    MemberLayer,
    SpatialDropout,
    layer,
)
from .net import Net, concise_net, get_state, perceptron, set_state
from .threads import one_thread
from .training import Trainer
from .weights import drop_weights

types = (torch.Tensor, torch.nn.Parameter, torch.nn.Module)

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "DropBlock",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "LockedDropout",
    "MemberLayer",
    "Net",
    "Probe",
    "SpatialDropout",
    "Trainer",
    "apply",
    "concise_net",
    "convert",
    "devices",
    "draw_key",
    "drawing",
    "drop_weights",
    "dropout_layer",
    "get_state",
    "keep_mask",
    "layer",
    "name",
    "one_thread",
    "per_rank",
    "perceptron",
    "r_drop",
    "relu_dropout",
    "restore",
    "set_state",
    "tensor",
    "to_numpy",
    "types",
    "version",
]
