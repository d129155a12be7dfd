"""Tensors of host data, host arrays of tensors, and the check that a tensor can be dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from multidrop import checks

from .on_host import NAMES

LAYOUTS = {torch.strided, torch.jagged}


def tensor(data: Any, dtype: str | None = None, name: str = "X") -> Tensor:
    """A tensor of host data: of `dtype`, or else of the type that `torch.as_tensor` gives it (which shares the memory
    of a NumPy array, unless it cannot: see `multidrop.checks.host_array`). `name` is the argument's, for errors."""
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(getattr(torch, dtype))
    return checks.host_tensor(_from_host, data, dtype, name)


def _from_host(data: Any, dtype: str | None) -> Tensor:
    if isinstance(data, np.ndarray) and data.dtype.name == "bfloat16":  # of the ml_dtypes package, unknown to torch
        data = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
    return torch.as_tensor(data, dtype=None if dtype is None else getattr(torch, dtype))


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def check_floating(X: Tensor, name: str = "X") -> None:
    """TypeError where X, the argument of that name, is no tensor of a floating type, with torch's remedy."""
    try:
        known = X.dtype in NAMES and X.layout in LAYOUTS
    except AttributeError:  # as of a list; a check of the type first would cost every call
        known = False
    if not known:
        if not isinstance(X, Tensor):
            raise checks.not_floating(checks.shown(X), f"torch.as_tensor({name})", name)
        checks.floating(str(X.dtype).removeprefix("torch."), f"{name}.float()", name)
        raise TypeError(
            f"{name}: expected a tensor of strided or jagged layout; got {X.layout}: convert it with {name}.to_dense()"
        )
