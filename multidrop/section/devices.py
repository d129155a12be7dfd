"""The devices that a net can be trained on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..protocol import Backend


def on_device(backend: Backend, device: str = "") -> AbstractContextManager[Any]:
    """A context manager: nets that are built within it are on a device.

    Args:
        backend: the backend that builds the nets.
        device: "cpu", or a kind and a number such as "cuda:1"; the number of "cuda" is 0. "" is the framework's own
            choice.

    Raises:
        ValueError: if the backend has no such device here.
    """
    if not device:
        return nullcontext()
    find = getattr(backend, "devices", None)  # the optional part `Devices`
    here: dict[str, AbstractContextManager[Any]] = find() if find else {"cpu": nullcontext()}
    for name in (device, f"{device}:0"):
        if name in here:
            return here[name]
    raise ValueError(f"device: expected {' or '.join(here)}, where {backend.name} can train here; got {device!r}")
