"""multidrop: dropout whose mask is a pure function of (key, call, element index), the same bit for bit in NumPy,
PyTorch, TensorFlow and MXNet."""

from typing import Any

from . import family, layers
from .builders import Dropout, Net, concise_net
from .checkpoint import CheckpointError
from .comparison import Comparison, Difference, compare
from .conversion import Report, convert, restore
from .data import Batches, DataError, load_data_fashion_mnist
from .dispatch import BackendError, available_backends, get_backend, set_backend, use_backend
from .functional import apply, dropout_layer, keep_mask, relu_dropout
from .history import History
from .keys import Key, Stream, manual_seed
from .layers import layer
from .training import train
from .view import LayerMask, last_mask, mask_at

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Batches",
    "CheckpointError",
    "Comparison",
    "DataError",
    "Difference",
    "Dropout",
    "History",
    "Key",
    "LayerMask",
    "Net",
    "Report",
    "Stream",
    "apply",
    "available_backends",
    "compare",
    "concise_net",
    "convert",
    "dropout_layer",
    "family",
    "get_backend",
    "keep_mask",
    "last_mask",
    "layer",
    "load_data_fashion_mnist",
    "manual_seed",
    "mask_at",
    "relu_dropout",
    "restore",
    "set_backend",
    "train",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    """The constructor of a layer of the member of that name: see `multidrop.layers`."""
    if name not in family.MEMBERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(layers, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *family.MEMBERS})
