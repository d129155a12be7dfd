"""multidrop for TensorFlow and Keras."""

import keras
import tensorflow as tf
from tensorflow import __version__ as version

from .functional import NAME as name
from .functional import draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy
from .layers import Dropout
from .net import Net, concise_net, get_state, set_state
from .training import Trainer

# keras.Variable is no tf.Variable but holds one; a KerasTensor, which has no values, is here for the error that Keras
# gives of it.
types = (tf.Tensor, tf.Variable, keras.Variable, keras.KerasTensor, keras.layers.Layer)

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
