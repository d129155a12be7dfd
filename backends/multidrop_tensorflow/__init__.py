"""multidrop for TensorFlow and Keras."""

from .startup import import_tensorflow

# Must come before the first `import tensorflow` below; pyproject.toml therefore allows imports after it.
tf = import_tensorflow()

import keras

from . import saving  # noqa: F401  # watches what is saved
from .apply import apply
from .comparison import Probe
from .conversion import convert, restore
from .devices import devices
from .functional import COMPOSITE, draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy
from .functional import NAME as name
from .layers import (
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
    drawing,
)
from .loss import r_drop
from .member_layers import (
    ConcreteDropout,
    DropBlock,
    DropPath,
    FeatureAlphaDropout,
    LockedDropout,
    MemberLayer,
    SpatialDropout,
    layer,
)
from .net import Net, concise_net, get_state, perceptron, set_state
from .recomputation import recompute_grad
from .threads import one_thread
from .training import Trainer
from .weights import DropConnect, EmbeddingDropout

version = tf.__version__
# keras.Variable is no tf.Variable but holds one. A KerasTensor, which has no values, is here for Keras' error about it,
# and composite tensors, such as ragged ones, for an error with a remedy.
types = (tf.Tensor, tf.Variable, keras.Variable, keras.KerasTensor, keras.layers.Layer, *COMPOSITE)

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "DropBlock",
    "DropConnect",
    "DropPath",
    "Dropout",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "LockedDropout",
    "MemberLayer",
    "Net",
    "Probe",
    "SpatialDropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "Trainer",
    "apply",
    "concise_net",
    "convert",
    "devices",
    "draw_key",
    "drawing",
    "dropout_layer",
    "get_state",
    "keep_mask",
    "layer",
    "name",
    "one_thread",
    "perceptron",
    "r_drop",
    "recompute_grad",
    "relu_dropout",
    "restore",
    "set_state",
    "tensor",
    "to_numpy",
    "types",
    "version",
]
