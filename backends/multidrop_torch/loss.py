"""The R-Drop loss of torch tensors."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from multidrop import checks, loss

from .functional import check_floating, tensor


def r_drop(logits1: Tensor, logits2: Tensor, labels: Tensor, alpha: float = 1.0) -> Tensor:
    """`multidrop.r_drop` of tensors, differentiable any number of times. Args and errors are those."""
    first, second, y = tensor(logits1), tensor(logits2), tensor(labels)
    check_floating(first, "logits1")
    check_floating(second, "logits2")
    checks.same_type(_name(first), _name(second), "logits2", f"logits2.to({first.dtype})")
    checks.integers(_name(y), "labels.long()", "labels")
    alpha = loss.check(first.shape, second.shape, y.shape, alpha)
    compute = torch.float64 if first.dtype == torch.float64 else torch.float32
    return loss.r_drop_of(_torch, first.to(compute), second.to(compute), y.long(), alpha)


def _name(X: Tensor) -> str:
    return str(X.dtype).removeprefix("torch.")


def _pick(X: Tensor, labels: Tensor) -> Tensor:
    try:
        return X.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    except RuntimeError:  # on a host and eagerly, for a label that names no class; to look first would cost each call
        checks.labels(labels.cpu().numpy(), X.shape[-1])
        raise


_torch = SimpleNamespace(
    exp=torch.exp, where=torch.where, sum=torch.sum, mean=torch.mean, log_softmax=torch.log_softmax, pick=_pick
)
