"""multidrop for MXNet."""

from .numpy_names import import_mxnet

# ruff: noqa: E402  # this must come before the first `import mxnet` below
mx = import_mxnet()

from .apply import apply as apply
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
from .layers import drawing as drawing
from .loss import r_drop as r_drop
from .member_layers import AlphaDropout as AlphaDropout
from .member_layers import ConcreteDropout as ConcreteDropout
from .member_layers import DropBlock as DropBlock
from .member_layers import DropPath as DropPath
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
from .weights import DropConnect as DropConnect
from .weights import EmbeddingDropout as EmbeddingDropout

name = NAME
types = (mx.np.ndarray, mx.nd.NDArray, mx.sym.Symbol, mx.gluon.Block, Net)
version = mx.__version__
