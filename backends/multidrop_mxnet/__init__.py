"""multidrop for MXNet."""

from .numpy_names import import_mxnet

# Must come before the first `import mxnet` below; hence the exceptions from E402.
mx = import_mxnet()

from .apply import apply  # noqa: E402  # after MXNet
from .comparison import Probe  # noqa: E402  # after MXNet
from .conversion import convert, restore  # noqa: E402  # after MXNet
from .functional import NAME as name  # noqa: E402  # after MXNet
from .functional import draw_key, dropout_layer, keep_mask, relu_dropout, tensor, to_numpy  # noqa: E402  # after MXNet
from .layers import Dropout, drawing  # noqa: E402  # after MXNet
from .loss import r_drop  # noqa: E402  # after MXNet
from .member_layers import (  # noqa: E402  # after MXNet
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
from .net import Net, concise_net, get_state, set_state  # noqa: E402  # after MXNet
from .training import Trainer  # noqa: E402  # after MXNet
from .weight_layers import DropConnect, EmbeddingDropout  # noqa: E402  # after MXNet

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
    "draw_key",
    "drawing",
    "dropout_layer",
    "get_state",
    "keep_mask",
    "layer",
    "name",
    "r_drop",
    "relu_dropout",
    "restore",
    "set_state",
    "tensor",
    "to_numpy",
    "types",
    "version",
]
