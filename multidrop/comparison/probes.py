"""The probe of a model, for the functions that run one and watch its layers."""

from __future__ import annotations

from typing import Any

from ..dispatch import BackendError, backend_of_model, part
from ..protocol import Backend, Comparison, Model


def probe_of(model: Model, kind: type, use: str) -> tuple[Backend, Any]:
    """The backend of a model, and a `Probe` of it.

    Args:
        model: the model.
        kind: the protocol whose methods are needed: `multidrop.protocol.Auditing` or `Sampling`.
        use: the function that needs them, for errors.

    Raises:
        TypeError: if `model` is not a model of a known framework.
        BackendError: if the backend's probe lacks one of the methods.
    """
    backend = backend_of_model(model)
    probe: Any = part(backend, Comparison, "Probe", use).Probe(model)
    if missing := sorted({name for name in dir(kind) if not name.startswith("_")} - set(dir(probe))):
        raise BackendError(
            f"backend {backend.name!r}: its Probe has no {', '.join(missing)}: {use} needs a Probe with all methods of "
            f"multidrop.protocol.{kind.__name__}"
        )
    return backend, probe
