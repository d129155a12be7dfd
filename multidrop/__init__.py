"""multidrop: dropout whose mask is a pure function of (key, call, element index), the same bit for bit in NumPy,
PyTorch, TensorFlow and MXNet."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import moved

if TYPE_CHECKING:
    from . import family
    from .auditing import Audit, RandomLayer, audit
    from .comparison import Comparison, Difference, compare
    from .conversion import Report, convert, restore
    from .dispatch import BackendError, available_backends, get_backend, set_backend, use_backend
    from .functional import apply, dropout_layer, keep_mask, relu_dropout
    from .layers import layer
    from .loss import r_drop
    from .recording import RecordActivations, activations
    from .section import experiments
    from .section.builders import Dropout, Net, concise_net, perceptron
    from .section.checkpoint import CheckpointError
    from .section.curves import plot_difference, plot_histories
    from .section.data import (
        Batches,
        DataError,
        ImageSet,
        load_data_fashion_mnist,
        load_fashion_mnist,
    )
    from .section.data.minibatches import batches
    from .section.history import History
    from .section.training import Diverged, Interrupted, train
    from .spec.keys import Key
    from .streams import Stream, manual_seed
    from .uncertainty import MonteCarlo, Prediction, mc_dropout, mc_predict, mc_samples, predict
    from .uncertainty.scores import Rejection, auroc, calibration_error, negative_log_likelihood, rejection_curve
    from .view import LayerMask, last_mask, mask_at

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
    return sorted({*globals(), *__all__, *importlib.import_module(f"{__name__}.family").MEMBERS})


__all__ = [
    "Audit",
    "BackendError",
    "Batches",
    "CheckpointError",
    "Comparison",
    "DataError",
    "Difference",
    "Diverged",
    "Dropout",
    "History",
    "ImageSet",
    "Interrupted",
    "Key",
    "LayerMask",
    "MonteCarlo",
    "Net",
    "Prediction",
    "RandomLayer",
    "RecordActivations",
    "Rejection",
    "Report",
    "Stream",
    "activations",
    "apply",
    "audit",
    "auroc",
    "available_backends",
    "batches",
    "calibration_error",
    "compare",
    "concise_net",
    "convert",
    "dropout_layer",
    "experiments",
    "family",
    "get_backend",
    "keep_mask",
    "last_mask",
    "layer",
    "load_data_fashion_mnist",
    "load_fashion_mnist",
    "manual_seed",
    "mask_at",
    "mc_dropout",
    "mc_predict",
    "mc_samples",
    "negative_log_likelihood",
    "perceptron",
    "plot_difference",
    "plot_histories",
    "predict",
    "r_drop",
    "rejection_curve",
    "relu_dropout",
    "restore",
    "set_backend",
    "train",
    "use_backend",
]
