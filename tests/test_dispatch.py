"""Which backend does the work, how it is found, and what is said of one that cannot be used."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import composed, dispatch, protocol
from multidrop.spec import masks
from multidrop.testing import same_bits

PLUGIN = Path(__file__).parent / "plugin"
CACHES = (dispatch._declared.cache_clear, dispatch.load.cache_clear, dispatch._owners.clear)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A third party's package on the path, as if it were installed."""
    monkeypatch.syspath_prepend(PLUGIN)
    for clear in CACHES:
        clear()
    yield
    for name in ("toyframe", "multidrop_toyframe"):
        sys.modules.pop(name, None)
    for clear in CACHES:
        clear()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_set", None)
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    import os

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_default_is_numpy() -> None:
    assert md.get_backend() == "numpy"
    assert type(md.dropout_layer([1.0, 2.0], 0.5)) is np.ndarray


def test_set_and_use(backend: Any) -> None:
    with md.use_backend("numpy"):
        md.set_backend(backend.name)
        assert md.get_backend() == backend.name
        with md.use_backend("numpy"):
            assert md.get_backend() == "numpy"
        assert md.get_backend() == backend.name
    assert md.get_backend() == backend.name  # of the fixture's own block


def test_set_backend_holds_until_set_again(backend: Any) -> None:
    def everything() -> None:
        md.set_backend(backend.name)
        seen.append(md.get_backend())

    seen: list[str] = []
    for target in (everything, lambda: seen.append(md.get_backend())):  # a thread has no block around it
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert seen == [backend.name, backend.name]


def test_use_backend_restores_after_an_exception(need: Any) -> None:
    need("torch")
    with pytest.raises(KeyError), md.use_backend("torch"):
        raise KeyError
    assert md.get_backend() == "numpy"


def test_use_backend_touches_no_other_thread(need: Any) -> None:
    need("torch")
    entered, left = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        entered.wait(10)
        seen.append(md.get_backend())
        left.set()

    thread = threading.Thread(target=other)
    thread.start()
    with md.use_backend("torch"):
        entered.set()
        left.wait(10)
    thread.join()
    assert seen == ["numpy"]


def test_use_backend_touches_no_other_task(need: Any) -> None:
    need("torch")

    async def one(name: str, seen: list[str]) -> None:
        with md.use_backend(name):
            await asyncio.sleep(0)  # the other task enters its block here
            seen.append(md.get_backend())
            await asyncio.sleep(0)
        seen.append(md.get_backend())

    async def both() -> tuple[list[str], list[str]]:
        first: list[str] = []
        second: list[str] = []
        await asyncio.gather(one("torch", first), one("numpy", second))
        return first, second

    assert asyncio.run(both()) == (["torch", "numpy"], ["numpy", "numpy"])


def test_the_environment_variable(monkeypatch: pytest.MonkeyPatch, need: Any) -> None:
    need("torch")
    monkeypatch.setenv(dispatch.VARIABLE, "torch")
    assert md.get_backend() == "torch"
    md.set_backend("numpy")
    assert md.get_backend() == "numpy"


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "pytorch")
    with pytest.raises(ValueError, match=r"MULTIDROP_BACKEND: expected one of .*'torch'.*got 'pytorch'"):
        md.get_backend()


def test_functions_go_by_the_tensor(backend: Any) -> None:
    """A tensor is computed in its own framework, whatever is set; host data goes to the one that is set."""
    X = backend.tensor(np.ones((2, 3), np.float32))
    with md.use_backend("numpy"):
        Y = md.dropout_layer(X, 0.5)
    assert type(Y) is type(X)
    for data in (np.ones(3, np.float32), np.float32(1.0), [1.0, 2.0], 3.0):
        assert isinstance(md.dropout_layer(data, 0.5), type(X))


def test_an_object_of_no_framework_is_named() -> None:
    with pytest.raises(TypeError, match=rf"^X: expected {TENSOR}; got builtins\.set"):
        md.dropout_layer({1.0}, 0.5)


TENSOR = "a tensor of one of .*numpy.*, a NumPy array, a list or a number"
MODEL = r"a model of one of [\w, ]*numpy[\w, ]*"
LAYER = "a dropout layer of multidrop"
NO_MODELS = [{1.0}, "x", 3, None, np.zeros(3), [1.0], np.ndarray]


@pytest.mark.parametrize(
    ("name", "expected", "call"),
    [
        ("X", TENSOR, lambda: md.relu_dropout({1.0}, 0.5)),
        ("logits1", TENSOR, lambda: md.r_drop({1.0}, [[1.0]], [0])),
        ("batches", TENSOR, lambda: md.compare(md.Net(), md.Net(), [({1.0}, {2.0})])),
        ("batches", TENSOR, lambda: md.train(md.Net(), [({1.0}, {2.0})], [])),
        *((("model", MODEL, lambda bad=bad: md.convert(bad))) for bad in NO_MODELS),
        *((("model", MODEL, lambda bad=bad: md.restore(bad))) for bad in NO_MODELS),
        *((("model", MODEL, lambda bad=bad: md.audit(bad))) for bad in NO_MODELS),
        *((("model_a", MODEL, lambda bad=bad: md.compare(bad, md.Net(), []))) for bad in NO_MODELS),
        *((("model_b", MODEL, lambda bad=bad: md.compare(md.Net(), bad, []))) for bad in NO_MODELS),
        *((("net", MODEL, lambda bad=bad: md.train(bad, [], []))) for bad in NO_MODELS),
        *((("layer", LAYER, lambda bad=bad: md.last_mask(bad))) for bad in NO_MODELS),
        *((("layer", LAYER, lambda bad=bad: md.mask_at(bad, 0))) for bad in NO_MODELS),
    ],
)
def test_an_error_says_what_the_argument_should_be(name: str, expected: str, call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected {expected}; got .+"):
        call()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pytorch", "torch"),
        ("PyTorch", "torch"),
        ("Torch", "torch"),
        ("TensorFlow", "tensorflow"),
        ("tensor-flow", "tensorflow"),
        ("tensorflow-cpu", "tensorflow"),
        ("tesnorflow", "tensorflow"),
        ("tf", "tensorflow"),
        ("np", "numpy"),
        ("nunpy", "numpy"),
        ("MXNet", "mxnet"),
        ("mxnet-cu112", "mxnet"),
    ],
)
def test_a_name_is_suggested(written: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"expected one of .*; got '{written}' \(str\): did you mean '{meant}'\?$"
    with pytest.raises(ValueError, match=f"^backend: {message}"):
        md.set_backend(written)
    monkeypatch.setenv(dispatch.VARIABLE, written)
    with pytest.raises(ValueError, match=f"^{dispatch.VARIABLE}: {message}"):
        md.get_backend()


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Float 64", "float64"), ("f32", "float32"), ("double", None), ("float16", None), ("float", None), ("", None)],
)
def test_every_choice_suggests(written: str, meant: str | None) -> None:
    """And none suggests another number, or one of two that are as similar."""
    with pytest.raises(ValueError, match=r"^dtype: expected one of 'float32', 'float64'; got") as caught:
        md.Net(dtype=written)
    assert str(caught.value).partition(": did you mean ")[2] == (f"{meant!r}?" if meant else "")


@pytest.mark.parametrize("bad", ["jax", "Torch", "", "t" * 10_000, None, 3, ["numpy"], {}])
def test_an_unknown_backend_is_named(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"backend: expected one of .*'numpy'.*; got "):
        md.set_backend(bad)
    with pytest.raises(ValueError, match="backend: expected one of"), md.use_backend(bad):
        pass


def test_a_third_party_backend(plugin: None) -> None:
    assert "toyframe" in md.available_backends()
    assert "toyframe" not in sys.modules
    with md.use_backend("toyframe"):
        Y = md.dropout_layer([1.0] * 64, 0.5, 0)
    assert type(Y).__name__ == "ToyTensor"
    assert [value != 0 for value in Y.values] == md.keep_mask(64, 0.5, 0).tolist()
    assert type(md.dropout_layer(Y, 0.5)) is type(Y)  # by its type, with NumPy in force


class TestTheEightAreEnough:
    """The toy brings them and nothing else; what has a faster version elsewhere is made of `apply` and `layer`."""

    X = np.resize(np.array([1.5, -0.0, np.nan, -2.0, np.inf, -np.inf, 0.0, 3.0], np.float32), (5, 6))

    @pytest.fixture
    def toy(self, plugin: None) -> Iterator[Any]:
        with md.use_backend("toyframe"):
            yield dispatch.load("toyframe")

    def test_it_brings_nothing_else(self, toy: Any) -> None:
        assert set(toy.__all__) == dispatch.required()
        assert len(toy.__all__) == 8

    @pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
    def test_functions(self, toy: Any, p: float) -> None:
        for Y, expected in (
            (md.dropout_layer(self.X, p, 3, start=5), masks.dropout(self.X, p, 3, 5)),
            (md.dropout_layer(self.X, p, 3, axes=-1), masks.dropout(self.X, p, 3, 0, (1,))),
            (md.dropout_layer(self.X, p, 3, axes=(0, 1)), masks.dropout(self.X, p, 3, 0, (0, 1))),
            (md.relu_dropout(self.X, p, 3, start=5), masks.dropout(masks.relu(self.X), p, 3, 5)),
        ):
            assert same_bits(toy.to_numpy(Y), expected)
        assert np.array_equal(toy.to_numpy(md.dropout_layer(np.ones(64), 0.5, 3)) != 0, md.keep_mask(64, 0.5, 3))

    def test_the_layer(self, toy: Any) -> None:
        layer = md.Dropout(0.3, seed=3)
        for call in range(3):
            assert same_bits(toy.to_numpy(layer(self.X)), masks.dropout(self.X, 0.3, md.Key(3, call)))

    def test_bad_arguments(self, toy: Any) -> None:
        for function in (md.dropout_layer, md.relu_dropout):
            with pytest.raises(ValueError, match=r"^dropout: expected a probability, .*; got 1.5"):
                function(self.X, 1.5)
        with pytest.raises(ValueError, match=r"^p: expected a probability"):
            md.Dropout(1.5)
        for axes, message in ((2, r"in \[-2, 2\)"), ((0, 0), "each axis once"), ("0", "expected integers")):
            with pytest.raises(ValueError, match=f"^axes: .*{message}"):
                md.dropout_layer(self.X, 0.5, axes=axes)
        with pytest.raises(ValueError, match=r"^start: expected 0 with axes, .*; got 4"):
            md.dropout_layer(self.X, 0.5, 3, axes=0, start=4)

    def test_a_part_that_is_absent_is_named(self, toy: Any) -> None:
        layer, batches = md.Dropout(0.5), [self.X]
        logit = np.zeros((), np.float32)
        for name, use, part, call in (
            ("Net", "md.Net", "Section", md.Net),
            ("perceptron", "md.perceptron", "Section", md.perceptron),
            ("perceptron", "md.concise_net", "Section", md.concise_net),
            ("Trainer", "md.train", "Section", lambda: md.train(layer, batches, batches)),
            ("convert", "md.convert", "Conversion", lambda: md.convert(layer)),
            ("restore", "md.restore", "Conversion", lambda: md.restore(layer)),
            ("drawing", "md.last_mask", "Conversion", lambda: md.last_mask(layer)),
            ("drawing", "md.mask_at", "Conversion", lambda: md.mask_at(layer, 0)),
            ("convert", "md.convert", "Conversion", lambda: md.compare(layer, md.Dropout(0.5), batches)),
            ("learned parameters", "md.apply with learned", "Learning",
             lambda: md.apply(md.family.ConcreteDropout(), self.X, learned=logit)),
            ("r_drop", "md.r_drop", "Loss", lambda: md.r_drop(self.X, self.X, logit)),
        ):  # fmt: skip
            with pytest.raises(md.BackendError) as error:
                call()
            assert str(error.value) == (
                f"backend 'toyframe' has no {name}: {use} needs a backend with the {part.lower()} part "
                f"(multidrop.protocol.{part})"
            )
            assert hasattr(protocol, part)


def test_relu_of_apply_has_the_gradient_of_its_own(need: Any) -> None:
    """Of a framework that differentiates: the same as that of the version in one pass."""
    backend = need("torch")
    import torch

    for p in (0.0, 0.3, 1.0):
        results = []
        for relu_dropout in (backend.relu_dropout, lambda X, p, key: composed.relu_dropout(backend, X, p, key, 0)):
            X = torch.linspace(-2.0, 2.0, 101).requires_grad_()
            Y = relu_dropout(X, p, 3)
            (dX,) = torch.autograd.grad(Y, X, torch.linspace(1.0, 3.0, 101))
            results.append((Y.detach().numpy(), dX.numpy()))
        for own, made in zip(*results, strict=True):
            assert same_bits(own, made)


def test_a_framework_that_is_not_installed(plugin: None) -> None:
    assert "absentframe" not in md.available_backends()
    with pytest.raises(
        md.BackendError, match="needs absentframe, which is not installed: pip install toyframe-backend"
    ):
        md.set_backend("absentframe")
    assert md.get_backend() == "numpy"


def test_a_built_in_framework_that_is_not_installed() -> None:
    code = """
import importlib.util, multidrop as md
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
assert "torch" not in md.available_backends()
try:
    md.set_backend("torch")
except ImportError as error:
    print(error)
"""
    assert python(code) == "backend 'torch' needs torch, which is not installed: pip install \"multidrop[torch]\""


def test_a_framework_that_is_broken(plugin: None) -> None:
    """It is said to be broken, not absent, and why."""
    with pytest.raises(md.BackendError, match="brokenframe is installed but fails to import: AttributeError: module"):
        md.set_backend("brokenframe")


@pytest.mark.parametrize("name", sorted(dispatch.required()))
def test_a_backend_that_lacks_something(name: str, plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import multidrop_toyframe

    monkeypatch.delattr(multidrop_toyframe, name)
    with pytest.raises(md.BackendError, match=f"multidrop_toyframe lacks {name} "):
        dispatch.load("toyframe")


def test_built_in_backends_have_every_part(backend: Any) -> None:
    assert backend.name in md.available_backends()
    for part in (protocol.Backend, protocol.Fused, protocol.Learning, protocol.Loss, protocol.Section,
                 protocol.Conversion, protocol.Comparison):  # fmt: skip
        names = {name for name in vars(part) if not name.startswith("_")}
        assert names - set(dir(backend)) == set(), part
    assert dispatch.learning(backend) is backend


LOADED = (
    "import sys; print([m for m in ('torch', 'tensorflow', 'keras', 'mxnet', 'numba', 'llvmlite') if m in sys.modules])"
)


def test_import_loads_no_framework() -> None:
    """Nor llvmlite, which is for the first mask, nor Numba, which is for none."""
    assert python(f"import multidrop as md; md.available_backends(); md.dropout_layer([1.0], 0.0); {LOADED}") == "[]"
    assert python(f"import multidrop as md; md.dropout_layer([1.0], 0.5); {LOADED}") == "['llvmlite']"


def test_that_check_can_fail(need: Any) -> None:
    need("torch")
    assert "torch" in python(f"import multidrop as md; md.set_backend('torch'); {LOADED}")


def test_numpy_data_loads_no_framework(need: Any) -> None:
    """A framework that the program imported does not make a NumPy array load its backend."""
    need("torch")
    code = "import torch, sys, multidrop as md; md.dropout_layer([1.0], 0.5); print('multidrop_torch' in sys.modules)"
    assert python(code) == "False"
