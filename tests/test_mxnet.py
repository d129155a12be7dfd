"""What is MXNet's alone: that it imports beside a NumPy that is newer than it, and changes nothing for others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md


@pytest.fixture(autouse=True)
def mxnet(need: Any) -> None:
    need("mxnet")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_mxnet_alone_does_not_import() -> None:
    """What the backend is to mend; when this fails, it may go."""
    with pytest.raises(AssertionError, match="AttributeError: module 'numpy' has no attribute"):
        python("import warnings; warnings.simplefilter('ignore'); import mxnet")


def test_mxnet_after_the_backend() -> None:
    """NumPy itself is what it was, and MXNet works, also where it looks names up as it runs."""
    code = """
import sys, numpy
removed = [name for name in ("bool", "PZERO", "product", "npv") if name not in vars(numpy)]
import multidrop as md
md.set_backend("mxnet")
import mxnet as mx
a = mx.np.array([1.0, 2.0, 3.0])
print(a[a > 1.5].tolist())  # looks up numpy.bool
print(sys.modules["numpy"] is numpy, [name for name in removed if name in vars(numpy)])
"""
    assert python(code).splitlines() == ["[2.0, 3.0]", "True []"]


def test_after_an_import_that_failed() -> None:
    """A user who ran into the error first, in an interactive session, need not start again."""
    code = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import mxnet
    except Exception as error:
        print(type(error).__name__)
import multidrop as md
md.set_backend("mxnet")
print(md.dropout_layer([1.0, 2.0], 0.0))
"""
    assert python(code).splitlines()[-1] == "[1. 2.]"


@pytest.mark.parametrize("order", [("torch", "tensorflow", "mxnet"), ("mxnet", "tensorflow", "torch")])
def test_all_frameworks_in_one_process(order: tuple[str, ...], need: Any) -> None:
    for name in order:
        need(name)
    code = f"""
import numpy as np, multidrop as md
from multidrop.dispatch import load
X = np.arange(8, dtype=np.float32)
drawn = [load(name).to_numpy(md.dropout_layer(load(name).tensor(X), 0.5, 1)).tolist() for name in {order}]
print(drawn[0] == drawn[1] == drawn[2])
"""
    assert python(code) == "True"


def test_saved_parameters_hold_the_position(tmp_path: Path) -> None:
    import mxnet as mx

    X = mx.np.ones((16, 16))

    def mask(layer: Any) -> np.ndarray:
        with mx.autograd.record():
            return layer(X).asnumpy()

    with md.use_backend("mxnet"):
        layer, other = md.Dropout(0.5, seed=3), md.Dropout(0.5, seed=4)
    mask(layer)
    layer.save_parameters(str(tmp_path / "layer"))
    other.load_parameters(str(tmp_path / "layer"))
    assert np.array_equal(mask(layer), mask(other))
    assert not np.array_equal(mask(layer), mask(md.use_backend("mxnet")(md.Dropout)(0.5, seed=3)))
