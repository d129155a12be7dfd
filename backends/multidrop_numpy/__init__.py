"""multidrop for NumPy: the embedded default, and the reference to read beside the other backends.

NumPy has no autograd: each layer's `backward` is written by hand.
"""

import numpy

from .apply import apply as apply
from .apply import gradient as gradient
from .comparison import Probe as Probe
from .conversion import convert as convert
from .conversion import restore as restore
from .functional import NAME
from .functional import draw_key as draw_key
from .functional import dropout_layer as dropout_layer
from .functional import keep_mask as keep_mask
from .functional import relu_dropout as relu_dropout
from .functional import tensor as tensor
from .functional import to_numpy as to_numpy
from .layers import Dropout as Dropout
from .layers import Flatten as Flatten
from .layers import Layer as Layer
from .layers import Linear as Linear
from .layers import ReLU as ReLU
from .layers import Sequential as Sequential
from .layers import drawing as drawing
from .loss import r_drop as r_drop
from .loss import r_drop_gradients as r_drop_gradients
from .member_layers import AlphaDropout as AlphaDropout
from .member_layers import ConcreteDropout as ConcreteDropout
from .member_layers import DropBlock as DropBlock
from .member_layers import DropConnect as DropConnect
from .member_layers import DropPath as DropPath
from .member_layers import EmbeddingDropout as EmbeddingDropout
from .member_layers import FeatureAlphaDropout as FeatureAlphaDropout
from .member_layers import GaussianDropout as GaussianDropout
from .member_layers import GaussianNoise as GaussianNoise
from .member_layers import LockedDropout as LockedDropout
from .member_layers import MemberLayer as MemberLayer
from .member_layers import SpatialDropout as SpatialDropout
from .member_layers import layer as layer
from .net import Net as Net
from .net import concise_net as concise_net
from .net import get_state as get_state
from .net import set_state as set_state
from .training import Trainer as Trainer

name = NAME
version = numpy.__version__
types = (Layer,)
