"""Where the tests of torch run: on the CPU, or with `--device cuda` on a GPU.

There torch makes all tensors on the GPU, and layers with their streams, and tests take host data there by `tensor` and
back by `array`. On a machine that has torch, Triton, NumPy and pytest alone, and multidrop as its sources, this is
one command, for `tests/conftest.py` ignores the files that need more:

    PYTHONPATH=.:backends:tests python -m pytest --device cuda
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

PLACE = "cuda" if os.environ.get("MULTIDROP_DEVICE") == "cuda" else "cpu"

FILES = (
    *("test_bits.py", "test_layers.py", "test_member_layers.py", "test_torch_layers.py", "test_resume.py"),
    *("test_gpu_choice.py", "test_gpu_functions.py", "test_gpu_launch.py", "test_gpu_layouts.py", "test_gpu_masks.py"),
    *("test_gpu_positions.py", "test_gpu_training.py"),
)
"""The files with tests of masks, layers, resuming and graphs, which alone run on a GPU. The others are about the host,
other frameworks, or programs that do not depend on the device."""


def begin(place: str = PLACE) -> None:
    """Has torch make tensors on the GPU, until `end`."""
    if place != "cpu":
        import torch

        torch.set_default_device(place)


def end(place: str = PLACE) -> None:
    """Has torch make tensors on the CPU again."""
    if place != "cpu":
        import torch

        torch.set_default_device(None)


def tensor(x: np.ndarray) -> Any:
    """An array of the host as a tensor of torch's."""
    import torch

    return torch.from_numpy(x).to(PLACE)


def array(X: Any) -> np.ndarray:
    """A tensor of torch's as an array of the host."""
    return X.detach().cpu().numpy()
