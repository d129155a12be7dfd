"""Keys, which name masks, and the derivation of new keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ..checks import text, word64
from .philox import philox4x32, split64

# For every element index below 2^64, the second counter word of a mask is below 2^29 or at least 2^31. So the words
# from 2^30 on that derive keys never coincide with a mask's.
_DERIVE = 1 << 30
_FROM_INT, _FROM_STR = _DERIVE, _DERIVE + 2


@dataclass(frozen=True, slots=True, init=False)
class Key:
    """Names a mask: `seed` names a stream of masks, and `call` one mask in it.

    Args:
        seed: integer in [0, 2^64).
        call: integer in [0, 2^64).

    Raises:
        ValueError: if either is not an integer in that range.
    """

    seed: int
    call: int = 0

    def __init__(self, seed: int, call: int = 0) -> None:
        object.__setattr__(self, "seed", word64("seed", seed))
        object.__setattr__(self, "call", word64("call", call))

    @classmethod
    def of_words(cls, seed: int, call: int) -> Key:
        """`Key(seed, call)` without checks, for two ints that are known to be in range. Four times as fast."""
        key = object.__new__(cls)
        _set_seed(key, seed)
        _set_call(key, call)
        return key

    def fold_in(self, data: int | str) -> Key:
        """Derives an independent key from this key and `data`.

        Args:
            data: an integer in [0, 2^64) or a string, such as a layer's number or name; `1` and `"1"` differ.

        Returns:
            A key at call 0. Seed, call and data enter Philox as separate words and are never added, so different
            combinations give different inputs. The 64-bit results collide only as often as random numbers do.

        Raises:
            ValueError: if `data` is neither, or is a string with an unpaired surrogate, which UTF-8 cannot encode.
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


# Bypass the `__setattr__` of the frozen dataclass.
_set_seed, _set_call = (getattr(Key, name).__set__ for name in ("seed", "call"))


def _first64(counter: tuple[int, int, int, int], seed: int) -> int:
    low, high, _, _ = philox4x32(counter, seed)
    return int(low[0]) | int(high[0]) << 32


def as_key(value: int | Key, name: str = "key") -> Key:
    """Returns a key unchanged, and `Key(value)` for an integer.

    Raises:
        ValueError: if `value` is neither a key nor an integer in [0, 2^64).
    """
    return value if isinstance(value, Key) else Key(word64(name, value))
