"""multidrop for TensorFlow and Keras."""

import keras
import tensorflow as tf

from .apply import apply as apply
from .comparison import Probe as Probe
from .conversion import convert as convert
from .conversion import restore as restore
from .functional import COMPOSITE, NAME
from .functional import draw_key as draw_key
from .functional import dropout_layer as dropout_layer
from .functional import keep_mask as keep_mask
from .functional import relu_dropout as relu_dropout
from .functional import tensor as tensor
from .functional import to_numpy as to_numpy
from .layers import AlphaDropout as AlphaDropout
from .layers import Dropout as Dropout
from .layers import GaussianDropout as GaussianDropout
from .layers import GaussianNoise as GaussianNoise
from .layers import SpatialDropout1D as SpatialDropout1D
from .layers import SpatialDropout2D as SpatialDropout2D
from .layers import SpatialDropout3D as SpatialDropout3D
from .layers import drawing as drawing
from .loss import r_drop as r_drop
from .member_layers import ConcreteDropout as ConcreteDropout
from .member_layers import DropBlock as DropBlock
from .member_layers import DropPath as DropPath
from .member_layers import FeatureAlphaDropout as FeatureAlphaDropout
from .member_layers import LockedDropout as LockedDropout
from .member_layers import MemberLayer as MemberLayer
from .member_layers import SpatialDropout as SpatialDropout
from .member_layers import layer as layer
from .net import Net as Net
from .net import concise_net as concise_net
from .net import get_state as get_state
from .net import set_state as set_state
from .recomputation import recompute_grad as recompute_grad
from .training import Trainer as Trainer
from .weights import DropConnect as DropConnect
from .weights import EmbeddingDropout as EmbeddingDropout

name = NAME
version = tf.__version__
# keras.Variable is no tf.Variable but holds one. A KerasTensor, which has no values, is here for Keras' error about it,
# and composite tensors, such as ragged ones, for an error with a remedy.
types = (tf.Tensor, tf.Variable, keras.Variable, keras.KerasTensor, keras.layers.Layer, *COMPOSITE)
