"""The assembly of the kernels for GPUs, run on the host, gives the masks of the specification."""

from __future__ import annotations

from typing import Any

import numpy as np
import ptx
import pytest

from multidrop import Key
from multidrop.spec import masks

assembly = pytest.importorskip("multidrop_torch.gpu.assembly", reason="it needs torch")

KEY = Key(2**63 + 5, 2**64 - 2)


@pytest.mark.parametrize(("index", "offset"), [(3, 0), (3, 1), (20_001, 0), (20_001, 1)])
def test_settled_ties(index: int, offset: int) -> None:
    first, blocks = 2**33 - 100, 5000
    block = np.arange(first, first + blocks, dtype=np.uint64)
    half = np.uint64(2**32 - 1)
    low, high, call = block & half, block >> np.uint64(32), (KEY.call % 2**32, KEY.call >> 32)
    words = [word.astype(np.uint64) for word in masks.philox4x32((low, high, *call), KEY.seed)]
    uniforms = masks.uniforms(8 * blocks, KEY, 8 * first)
    threshold = int(uniforms[index]) + offset
    numbers = (low, high + np.uint64(2**31), *call, KEY.seed % 2**32, KEY.seed >> 32, *divmod(threshold, 2**16))
    given = words + [np.broadcast_to(np.uint64(number), block.shape) for number in numbers]
    found = np.stack(ptx.run(assembly.settled_text(), 4, given), axis=1)
    lanes = np.stack([found & np.uint64(0xFFFF), found >> np.uint64(16)], axis=2).reshape(-1)
    assert np.array_equal(lanes < threshold >> 16, uniforms < threshold)


COUNT = 4096
ORDERS = {
    "side by side": np.arange(COUNT),
    "four and four": np.arange(COUNT).reshape(-1, 8, 4).transpose(0, 2, 1).ravel(),
    "apart": np.arange(COUNT).reshape(8, -1).T.ravel(),
    "at random": np.random.default_rng(0).permutation(COUNT),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("start", [0, 2**34 + 16, 2**63 + 8, 2**64 - COUNT])
def test_bytes(start: int, wide: bool, order: Any) -> None:
    """Whichever elements a thread has, for thresholds that elements lie on, and for extreme ones."""
    uniforms = masks.uniforms(COUNT, KEY, start)
    thresholds = [int(uniforms[index]) + offset for index in (3, 2001) for offset in (0, 1)]
    each = order.reshape(-1, assembly.TOGETHER)
    key = [np.full(len(each), word, np.uint64) for word in (KEY.seed, KEY.call) for _ in range(assembly.TOGETHER)]
    for threshold in (*thresholds, 0, 1, 2**16, 2**31, 2**32 - 1, 2**32):
        text = assembly.bytes_text(*divmod(threshold, 2**16), start // 8, wide)
        found = np.stack(ptx.run(text, assembly.TOGETHER, [*each.T, *key]), axis=1)
        keep = (found >> (each & 7).astype(np.uint64)) & np.uint64(1)
        assert np.array_equal(keep != 0, uniforms[each] < threshold)


def test_a_thread_with_fewer_elements() -> None:
    """What Triton fills it up with has neither an index nor a key, and costs nothing."""
    uniforms, steps = masks.uniforms(8, KEY), list[str]()
    garbage = [np.array([number], np.uint64) for number in (5, 99, 2**31, 77)]
    key = [[np.array([word], np.uint64)] * 4 + garbage for word in (KEY.seed, KEY.call)]
    given = [*(np.array([at], np.uint64) for at in range(4, 8)), *garbage, *key[0], *key[1]]
    found = ptx.run(assembly.bytes_text(0x8000, 0), assembly.TOGETHER, given, steps)
    for at in range(4):
        assert (int(found[at][0]) >> (4 + at)) & 1 == (uniforms[4 + at] < 2**31)
    words = assembly.bytes_text(0x8000, 0).count("mul.hi.u32")
    assert sum(line.startswith("mul.hi.u32") for line in steps) == words


def test_a_block_is_drawn_once() -> None:
    """A thread whose elements share a block goes through the rounds once."""
    words = assembly.bytes_text(0x8000, 0).count("mul.hi.u32")
    for order, times in (("side by side", 1), ("four and four", 4), ("apart", 8)):
        each = ORDERS[order].reshape(-1, assembly.TOGETHER)
        key = [np.zeros(len(each), np.uint64)] * (2 * assembly.TOGETHER)
        products: list[str] = []
        ptx.run(assembly.bytes_text(0x8000, 0), assembly.TOGETHER, [*each.T, *key], products)
        assert sum(line.startswith("mul.hi.u32") for line in products) == times * words
