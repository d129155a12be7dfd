"""For tests of programs that use multidrop, and of backends.

    from multidrop.testing import assert_same_mask, assert_same_values

The assertions need no pytest. `multidrop.testing.plugin` is a plugin of pytest, which finds it by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bits import assert_same_mask as assert_same_mask
    from .bits import assert_same_values as assert_same_values
    from .bits import same_bits as same_bits
    from .contract import Conformance as Conformance
    from .contract import conformance as conformance
    from .expectation import assert_expectation_preserved as assert_expectation_preserved
    from .resumption import assert_resumes as assert_resumes

# Imported when they are used, for the plugin is in this package, and every run of pytest loads it.
_MODULES = {
    "Conformance": "contract",
    "assert_expectation_preserved": "expectation",
    "assert_resumes": "resumption",
    "assert_same_mask": "bits",
    "assert_same_values": "bits",
    "conformance": "contract",
    "same_bits": "bits",
}

__all__ = [
    "Conformance",
    "assert_expectation_preserved",
    "assert_resumes",
    "assert_same_mask",
    "assert_same_values",
    "conformance",
    "same_bits",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
