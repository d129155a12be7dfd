"""Writes multidrop/testing/vectors.json from the oracle, `multidrop.family.oracle`.

python tools/make_vectors.py
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from multidrop import Key, checks, family, files
from multidrop.family import Member, oracle
from multidrop.spec import masks
from multidrop.testing import vectors

DTYPES = {"float16": np.float16, "bfloat16": bfloat16, "float32": np.float32, "float64": np.float64}
KEYS = (Key(0), Key(2**63 + 7, 2**32 + 3))  # no word of the second is 0
FIRSTS = (0, 5, 2**35 - 1)  # indices along the first axis; from element 2^35 on, the counter's second word is not 0
SHAPES = {"DropBlock": (2, 2, 5, 6)}
ROW = (5, 7)
P = 0.3  # the low half of its threshold is not 0, so that ties need plane 1


def members(cls: type[Member]) -> Iterator[Member]:
    """The class's members to test: p = 0.3, short blocks, and each choice of every setting with choices."""
    names = {field.name: field.metadata["choices"] for field in dataclasses.fields(cls)}
    given: dict[str, Any] = {"p": P} if "p" in names else {}
    given |= {"block_size": 3} if "block_size" in names else {}
    yield cls(**given)
    for name, values in names.items():
        for value in values[1:]:
            yield cls(**{**given, name: value})


def starts(member: Member, shape: tuple[int, ...]) -> Iterator[int]:
    """The indices at which parts start: a whole example if the member's elements share decisions, else any element."""
    shares = member.axes(len(shape)) or member.margin(len(shape))
    return (first * (math.prod(shape[1:]) if shares else 1) for first in FIRSTS)


def tie(key: Key, p: float) -> int:
    """The first index whose uniform ties with the threshold in its high 16 bits."""
    threshold, low = masks.threshold(p), 0
    while True:
        high = masks.uniforms(2**20, key, low) >> np.uint32(16)
        ties = np.flatnonzero(high == threshold >> 16)
        if ties.size:
            return low + int(ties[0])
        low += 2**20


def settings() -> Iterator[tuple[Member, tuple[int, ...], Key, int]]:
    """The member, shape, key and start of each case."""
    for name in sorted(vars(family)):
        cls = getattr(family, name)
        if not (isinstance(cls, type) and name in family.MEMBERS):
            continue
        for member in members(cls):
            grouped = member.axes(len(cls.example_shape)) or member.margin(len(cls.example_shape))
            shape = SHAPES.get(name, cls.example_shape if grouped else ROW)
            for key in KEYS:
                for start in starts(member, shape):
                    yield member, shape, key, start
    for p in (0.5, 1.0):
        yield family.Dropout(p), ROW, KEYS[1], 3
    for key in KEYS:
        yield family.Dropout(P), ROW, key, tie(key, P)


def case(member: Member, shape: tuple[int, ...], key: Key, start: int) -> dict[str, Any]:
    """One case of the file, with its outputs."""
    x = vectors.inputs(shape)
    return {
        "member": type(member).__name__,
        "settings": dataclasses.asdict(member),
        "shape": shape,
        "key": [str(key.seed), str(key.call)],
        "start": str(start),
        "exact": not vectors.draws_reals(member),
        "outputs": {
            name: vectors.digits(oracle.apply(member, x.astype(dtype), key, start)) for name, dtype in DTYPES.items()
        },
    }


def text() -> str:
    """The content of the file, with one case per line."""
    head = {"specification": masks.VERSION, "about": vectors.ABOUT, "bounds": vectors.BOUNDS}
    lines = ",\n".join(json.dumps(case(*each)) for each in settings())
    return json.dumps(head)[:-1] + f', "cases": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    assert set(DTYPES) == set(checks.FLOATING)
    files.write(vectors.FILE, text().encode())
    print(f"{vectors.FILE}: {vectors.FILE.stat().st_size} bytes, {len(vectors.cases())} cases")
