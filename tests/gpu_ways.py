"""What the tests of the kernels for GPUs share: where they run, inputs, and what the specification gives.

Without a GPU, Triton's interpreter runs the kernels on the CPU. `--device cuda` runs them on a GPU, by the public
functions; see `placed`.

A test file imports this module before torch, and takes `marks` and `kernels_alone` from it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import ptx
import pytest

from multidrop import Key, host
from multidrop.spec import masks
from multidrop.spec.masks import Mask

DEVICE = os.environ.get("MULTIDROP_DEVICE", "")
CUDA = DEVICE == "cuda"
MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
if MISSING and not DEVICE:  # a device that was asked for must be there
    pytest.skip(f"no {' and no '.join(MISSING)}, and --device was not given", allow_module_level=True)
if CUDA:
    os.environ.setdefault("COLUMNS", "400")  # pytest cuts the errors in its summary to it
else:
    os.environ["TRITON_INTERPRET"] = "1"  # which Triton reads when it is imported

import torch  # noqa: E402  # after Triton's variable is set
from multidrop_torch import draw, functional, gpu  # noqa: E402  # likewise
from multidrop_torch.gpu import kernels, launch  # noqa: E402  # likewise
from multidrop_torch.position import position_of  # noqa: E402  # likewise

# NumPy, by which the interpreter computes, warns of infinities.
marks = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")

KEYS = (Key(0), Key(7, 3), Key(2**64 - 1, 2**64 - 1), Key(2**31, 2**32), Key(2**63, 2**63))
PROBABILITIES = (1e-10, 0.1, 0.2, 0.25, 0.5, 1 / 3, 0.9, 1 - 1e-10)
STARTS = (0, 1, 7, 8, 13, 2**32 - 5, 2**32, 2**35 - 4, 2**63 - 9, 2**64 - 10_000)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
P, KEY = 0.2, Key(2**63 + 5, 2**64 - 1)
SEED = Key(7, 2**32)  # of layers

on_gpu = pytest.mark.skipif(not CUDA, reason="is about a GPU, and --device cuda was not given")
without_gpu = pytest.mark.skipif(CUDA, reason="is about the interpreter, or needs no GPU")


@pytest.fixture(autouse=True)
def kernels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, no mask comes from the host; elsewhere, Triton interprets."""
    if CUDA:
        assert gpu.ready(torch.cuda.current_device())

        def refuse(*_: Any, **__: Any) -> Any:
            raise AssertionError("the host drew a mask")

        monkeypatch.setattr(host, "keep_mask", refuse)
    else:
        from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder

        assert isinstance(kernels.linear, InterpretedFunction), "Triton was imported before `gpu_ways`"
        monkeypatch.setattr(InterpreterBuilder, "create_inline_asm", assembled)


def assembled(
    self: Any, text: str, constraints: str, values: Sequence[Any], types: Sequence[Any], pure: bool, pack: int
) -> Any:
    """What Triton's interpreter lacks: assembly. A thread gets consecutive elements."""
    from triton.runtime.interpreter import TensorHandle

    (shape,) = {value.data.shape for value in values}
    given = [each for value in values for each in value.data.reshape(-1, pack).T]
    found = ptx.run(text, constraints.count("="), given)

    def result(number: int) -> Any:
        each = np.stack(found[number * pack : (number + 1) * pack], axis=1).reshape(shape)
        type = types[number].scalar
        return TensorHandle(each.astype(np.uint32).view(np.uint32 if type.is_int_unsigned() else np.int32), type)

    return SimpleNamespace(get_result=result)


def drop(X: Any, mask: Mask, relu: bool = False) -> Any:
    return (draw if CUDA else gpu).drop(X, mask, relu)


def drop_(X: Any, mask: Mask) -> Any:
    return (draw if CUDA else gpu).drop_(X, mask)


def relu_gradient(dY: Any, Y: Any, p: float) -> Any:
    return (draw if CUDA else gpu).relu_gradient(dY, Y, p)


def keep_mask(shape: tuple[int, ...], p: float, key: Key, start: int = 0) -> np.ndarray:
    keep = functional.keep_mask(shape, p, key, start, "cuda") if CUDA else gpu._keep(shape, Mask(p, key, start), "cpu")
    assert keep.dtype == torch.bool
    return keep.cpu().numpy()


def values(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    """Numbers of all sizes, with some special ones among them, on the device."""
    generator = np.random.default_rng(seed)
    x = np.asarray(generator.normal(size=shape) * 10.0 ** generator.integers(-3, 4, size=shape))
    flat = x.reshape(-1)
    flat[::5] = np.resize([0.0, -0.0, np.nan, np.inf, -np.inf, 3e4, -1e-3, 3.0], flat[::5].shape)
    X = torch.from_numpy(x).to(dtype)
    if dtype == torch.bfloat16 and not CUDA:
        # Short enough for an exact product with 1.25 and 2, for Triton's interpreter does not round to the nearest.
        X = torch.where(X.isnan(), X, (X.view(torch.int16) & ~7).view(dtype))
    return X.to("cuda" if CUDA else "cpu")


def expected(X: Any, mask: Mask, relu: bool = False) -> Any:
    """What the oracle gives, on the host."""
    x = wide(X)
    return torch.from_numpy(masks.dropout(masks.relu(x) if relu else x, *mask)).to(X.dtype)


def wide(X: Any) -> np.ndarray:
    """A tensor as an array: bfloat16, which NumPy lacks, in float32, in which it is computed."""
    X = X.detach().cpu().resolve_neg()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()


def same_bits(Y: Any, Z: Any) -> bool:
    """Whether two tensors are equal in shape, type and every bit, but for the payload of a NaN."""
    Y, Z = (T.detach().cpu().resolve_neg() for T in (Y, Z))
    if (Y.shape, Y.dtype) != (Z.shape, Z.dtype):
        return False
    signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[Y.itemsize]
    equal = Y.contiguous().view(signed) == Z.contiguous().view(signed)
    return bool((equal | (Y.isnan() & Z.isnan())).all())


def tie(key: Key, index: int, offset: int) -> float:
    """A probability whose threshold is U(index) + offset."""
    return 1.0 - (int(masks.uniforms(1, key, index)[0]) + offset) / 2**32


def position(key: Key) -> Any:
    return position_of(key).to("cuda" if CUDA else "cpu")


def assert_bits(count: int, mask: Mask) -> None:
    """A bit for each element, from the block of the first one on."""
    skip = mask.start % 8
    found = gpu.bits(count, mask, torch.device("cuda" if CUDA else "cpu")).cpu().numpy()
    assert found.shape == (-(-(skip + count) // 8),)
    kept = np.unpackbits(found, bitorder="little")[skip : skip + count]
    assert np.array_equal(kept, masks.keep_mask(count, mask.p, mask.key, mask.start))


def forget() -> None:
    """Has every kernel compiled anew."""
    launch.program.cache_clear()
    gpu._plan.cache_clear()


def mask_of(Y: Any) -> Any:
    """Which elements of a dropout of ones were kept."""
    return (Y != 0).cpu()


def kept(shape: tuple[int, ...], key: Key, p: float = P) -> Any:
    with patch.object(host, "keep_mask", masks.keep_mask):
        return torch.from_numpy(masks.keep_mask(shape, p, key))


class Elsewhere(torch.Tensor):
    """A tensor of the host that says that it is on a GPU, which the interpreter's kernels take."""

    is_cpu, is_cuda = False, True
