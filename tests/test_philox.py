"""Philox4x32-10 against the known-answer vectors of Random123 (its file kat_vectors)."""

import pytest

from multidrop.spec.philox import philox4x32

VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), VECTORS)
def test_known_answers(counter: str, key: str, output: str) -> None:
    low, high = words(key)
    assert [int(word[0]) for word in philox4x32(words(counter), low | high << 32)] == words(output)
