"""multidrop for NumPy: the embedded default, and the reference to read beside the other backends.

NumPy has no autograd: each layer's `backward` is written by hand.
"""

from numpy import __version__ as version

from .apply import apply, gradient
from .comparison import Probe
from .conversion import convert, restore
from .functional import NAME as name
from .functional import draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy
from .layers import Dropout, Flatten, Layer, Linear, ReLU, Sequential, drawing
from .loss import r_drop, r_drop_gradients
from .member_layers import (
    AlphaDropout,
    ConcreteDropout,
    DropBlock,
    DropConnect,
    DropPath,
    EmbeddingDropout,
    FeatureAlphaDropout,
    GaussianDropout,
    GaussianNoise,
    LockedDropout,
    MemberLayer,
    SpatialDropout,
    layer,
)
from .net import Net, concise_net, get_state, perceptron, set_state
from .training import Trainer

types = (Layer,)

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "DropBlock",
    "DropConnect",
    "DropPath",
    "Dropout",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "Layer",
    "Linear",
    "LockedDropout",
    "MemberLayer",
    "Net",
    "Probe",
    "ReLU",
    "Sequential",
    "SpatialDropout",
    "Trainer",
    "apply",
    "concise_net",
    "convert",
    "draw_key",
    "drawing",
    "dropout_layer",
    "get_state",
    "gradient",
    "keep_mask",
    "layer",
    "name",
    "perceptron",
    "r_drop",
    "r_drop_gradients",
    "relu_dropout",
    "restore",
    "set_state",
    "tensor",
    "to_numpy",
    "types",
    "version",
]
