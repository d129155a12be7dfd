"""For tests of programs that use multidrop, and of backends.

    from multidrop.testing import assert_same_mask, assert_same_values

The assertions need no pytest. `multidrop.testing.plugin` is a plugin of pytest, which finds it by itself.
"""

from .bits import assert_same_mask as assert_same_mask
from .bits import assert_same_values as assert_same_values
from .bits import same_bits as same_bits
from .conformance import Conformance as Conformance
from .conformance import conformance as conformance
from .expectation import assert_expectation_preserved as assert_expectation_preserved
from .resumption import assert_resumes as assert_resumes

__all__ = [
    "Conformance",
    "assert_expectation_preserved",
    "assert_resumes",
    "assert_same_mask",
    "assert_same_values",
    "conformance",
    "same_bits",
]
