"""The devices that nets can be on."""

from __future__ import annotations

import mxnet as mx


def devices() -> dict[str, mx.Context]:
    """The CPU, and as cuda:0, cuda:1, … what MXNet calls gpu(0), gpu(1), …. Arrays and parameters that are made within
    such a context are on that device."""
    return {"cpu": mx.cpu()} | {f"cuda:{number}": mx.gpu(number) for number in range(mx.context.num_gpus())}
