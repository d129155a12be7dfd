"""multidrop: dropout whose mask is a pure function of (key, call, element index), the same bit for bit in NumPy,
PyTorch, TensorFlow and MXNet."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import moved

if TYPE_CHECKING:  # `X as X` makes a name public to type checkers
    from . import family as family
    from .auditing import Audit as Audit
    from .auditing import RandomLayer as RandomLayer
    from .auditing import audit as audit
    from .comparison import Comparison as Comparison
    from .comparison import Difference as Difference
    from .comparison import compare as compare
    from .conversion import Report as Report
    from .conversion import convert as convert
    from .conversion import restore as restore
    from .dispatch import BackendError as BackendError
    from .dispatch import available_backends as available_backends
    from .dispatch import get_backend as get_backend
    from .dispatch import set_backend as set_backend
    from .dispatch import use_backend as use_backend
    from .functional import apply as apply
    from .functional import dropout_layer as dropout_layer
    from .functional import keep_mask as keep_mask
    from .functional import relu_dropout as relu_dropout
    from .layers import layer as layer
    from .loss import r_drop as r_drop
    from .recording import RecordActivations as RecordActivations
    from .recording import activations as activations
    from .section import experiments as experiments
    from .section.builders import Dropout as Dropout
    from .section.builders import Net as Net
    from .section.builders import concise_net as concise_net
    from .section.builders import perceptron as perceptron
    from .section.checkpoint import CheckpointError as CheckpointError
    from .section.curves import plot_difference as plot_difference
    from .section.curves import plot_histories as plot_histories
    from .section.data import Batches as Batches
    from .section.data import DataError as DataError
    from .section.data import ImageSet as ImageSet
    from .section.data import batches as batches
    from .section.data import load_data_fashion_mnist as load_data_fashion_mnist
    from .section.data import load_fashion_mnist as load_fashion_mnist
    from .section.history import History as History
    from .section.training import Diverged as Diverged
    from .section.training import Interrupted as Interrupted
    from .section.training import train as train
    from .spec.keys import Key as Key
    from .streams import Stream as Stream
    from .streams import manual_seed as manual_seed
    from .uncertainty import MonteCarlo as MonteCarlo
    from .uncertainty import Prediction as Prediction
    from .uncertainty import mc_dropout as mc_dropout
    from .uncertainty import mc_predict as mc_predict
    from .uncertainty import mc_samples as mc_samples
    from .uncertainty import predict as predict
    from .uncertainty.scores import Rejection as Rejection
    from .uncertainty.scores import auroc as auroc
    from .uncertainty.scores import calibration_error as calibration_error
    from .uncertainty.scores import negative_log_likelihood as negative_log_likelihood
    from .uncertainty.scores import rejection_curve as rejection_curve
    from .view import LayerMask as LayerMask
    from .view import last_mask as last_mask
    from .view import mask_at as mask_at

__version__ = "0.1.0"

# The public names by module, which is imported when a name is first used: a program that drops a tensor waits for
# neither the course nor the comparison.
_MODULES = {
    "auditing": ("Audit", "RandomLayer", "audit"),
    "comparison": ("Comparison", "Difference", "compare"),
    "conversion": ("Report", "convert", "restore"),
    "dispatch": ("BackendError", "available_backends", "get_backend", "set_backend", "use_backend"),
    "functional": ("apply", "dropout_layer", "keep_mask", "relu_dropout"),
    "layers": ("layer",),
    "loss": ("r_drop",),
    "recording": ("RecordActivations", "activations"),
    "section.builders": ("Dropout", "Net", "concise_net", "perceptron"),
    "section.checkpoint": ("CheckpointError",),
    "section.curves": ("plot_difference", "plot_histories"),
    "section.data": (
        "Batches",
        "DataError",
        "ImageSet",
        "batches",
        "load_data_fashion_mnist",
        "load_fashion_mnist",
    ),
    "section.history": ("History",),
    "section.training": ("Diverged", "Interrupted", "train"),
    "spec.keys": ("Key",),
    "streams": ("Stream", "manual_seed"),
    "uncertainty": ("MonteCarlo", "Prediction", "mc_dropout", "mc_predict", "mc_samples", "predict"),
    "uncertainty.scores": ("Rejection", "auroc", "calibration_error", "negative_log_likelihood", "rejection_curve"),
    "view": ("LayerMask", "last_mask", "mask_at"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = {
    "checks": "checks",
    "comparison": "comparison",
    "conversion": "conversion",
    "dispatch": "dispatch",
    "experiments": "section.experiments",
    "family": "family",
    "host": "host",
    "layers": "layers",
    "protocol": "protocol",
    "spec": "spec",
    "streams": "streams",
}

moved.install()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _SUBMODULES or name in moved.MOVED:
        found = importlib.import_module(f"{__name__}.{_SUBMODULES.get(name, name)}")
    else:
        members = importlib.import_module(f"{__name__}.family").MEMBERS
        if name.startswith("_") or name not in members:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # The constructor of a layer of that member; not kept, for a program may list another member by that name.
        return getattr(importlib.import_module(f"{__name__}.layers"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBMODULES, *importlib.import_module(f"{__name__}.family").MEMBERS})


if not TYPE_CHECKING:  # type checkers understand no computed list, and go by the aliases above
    __all__ = sorted([*_HOMES, "experiments", "family"])
