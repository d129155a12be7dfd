"""multidrop for MXNet."""

from .numpy_names import import_mxnet

# Must come before the first `import mxnet` below; pyproject.toml therefore allows imports after it.
mx = import_mxnet()

from .apply import apply
from .comparison import Probe
from .conversion import convert, restore
from .devices import devices
from .functional import NAME as name
from .functional import draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy
from .layers import Dropout, drawing
from .loss import r_drop
from .member_layers import (
    AlphaDropout,
    ConcreteDropout,
    DropBlock,
    DropPath,
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
from .weights import DropConnect, EmbeddingDropout

types = (mx.np.ndarray, mx.nd.NDArray, mx.sym.Symbol, mx.gluon.Block, Net)
version = mx.__version__

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
