"""The limit on torch's own threads."""

from __future__ import annotations

import torch


def one_thread() -> None:
    """Has operators of this process run in the thread that calls them."""
    torch.set_num_threads(1)
