"""Whether a run can be resumed with the same masks."""

from __future__ import annotations

from ..auditing import audit
from ..dispatch import backend_of
from ..protocol import Model
from .data import Batches


def unkeyed(net: Model, batches: Batches) -> str:
    """The random layers of a net whose numbers no key decides, as an error shows them; "" where there are none, or the
    backend has nothing to find them by."""
    if not hasattr(backend_of(net, "net"), "Probe"):
        return ""
    X, _ = batches.examples(batches.order(batches.epoch)[: batches.batch_size])
    found = audit(net, batches.backend.to_numpy(X)).random
    return ", ".join(f"{path or 'the net itself'} ({kind})" for path, kind, _ in found)
