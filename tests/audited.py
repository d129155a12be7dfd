"""What `md.audit` finds."""

from __future__ import annotations

from typing import Any

import multidrop as md


def names(model: Any, *inputs: Any, **named: Any) -> list[str]:
    """The paths of the random layers."""
    return [path for path, _, _ in md.audit(model, *inputs, **named).random]
