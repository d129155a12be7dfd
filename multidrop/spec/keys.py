"""Keys: a point in the space of masks, and what is derived from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ..checks import text, word64
from .philox import philox4x32, split64

# The second counter word of a mask stays below 2^29 or above 2^31 for every element index below 2^64, so keys
# derived with this bit set never meet the words of a mask.
_DERIVE = 1 << 30
_FROM_INT, _FROM_STR = _DERIVE, _DERIVE + 2


@dataclass(frozen=True, slots=True)
class Key:
    """A point in the space of masks: `seed` names a stream of masks, `call` one mask of it.

    Args:
        seed: integer in [0, 2^64).
        call: integer in [0, 2^64).

    Raises:
        ValueError: where either is out of range or no integer.
    """

    seed: int
    call: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", word64("seed", self.seed))
        object.__setattr__(self, "call", word64("call", self.call))

    @classmethod
    def of_words(cls, seed: int, call: int) -> Key:
        """`Key(seed, call)` of two integers that are known to be in range, in a quarter of the time."""
        key = object.__new__(cls)
        _set_seed(key, seed)
        _set_call(key, call)
        return key

    def fold_in(self, data: int | str) -> Key:
        """An independent key, derived from this one and `data`.

        Args:
            data: an integer in [0, 2^64) or a string, such as a layer's number or name; `1` and `"1"` differ.

        Returns:
            A key at call 0. Seed, call and data enter Philox as separate words, so that no two combinations meet
            by addition; the 64 bits of the result collide as random numbers do.

        Raises:
            ValueError: where `data` is neither, or holds half of a surrogate pair, which has no encoding.
        """
        if isinstance(data, str):
            tag = _FROM_STR
            number = int.from_bytes(hashlib.blake2b(text("data", data), digest_size=8).digest(), "little")
        else:
            tag = _FROM_INT
            number = word64("data", data)
        low, high = split64(number)
        seed = _first64((low, tag, *split64(self.call)), self.seed)
        return Key(_first64((high, tag + 1, 0, 0), seed))


_set_seed, _set_call = (getattr(Key, name).__set__ for name in ("seed", "call"))  # past the class' own __setattr__


def _first64(counter: tuple[int, int, int, int], seed: int) -> int:
    low, high, _, _ = philox4x32(counter, seed)
    return int(low[0]) | int(high[0]) << 32


def as_key(value: int | Key, name: str = "key") -> Key:
    """`value` as a key: itself, or `Key(value)`.

    Raises:
        ValueError: where it is neither a key nor an integer in [0, 2^64).
    """
    return value if isinstance(value, Key) else Key(word64(name, value))
