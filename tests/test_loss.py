"""The R-Drop loss, in every framework and every way of running it, against the paper's formulas by loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import loaded, parameters
from family_ways import DTYPES

import multidrop as md
from multidrop.testing import same_bits

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")

WAYS = {
    "numpy": ("numpy",),
    "torch": ("torch-eager", "torch-compiled"),
    "tensorflow": ("tensorflow-eager", "tensorflow-function", "tensorflow-sizes", "tensorflow-xla"),
    "mxnet": ("mxnet-np", "mxnet-nd", "mxnet-hybrid"),
}
BOUNDS = {"float16": 2.0**-9, "bfloat16": 2.0**-6, "float32": 2.0**-20, "float64": 2.0**-48}
"""Of the gradients, which have the logits' type. The loss is computed in float32 at least, and has its bound."""

Array = np.ndarray
Run = Callable[[Array, Array, Array, float], tuple[Array, Array, Array]]
"""(logits, logits, labels, alpha): the loss, and its gradients, from three times the loss."""


def _numpy(name: str) -> Run:
    import multidrop_numpy as backend

    def run(a: Array, b: Array, y: Array, alpha: float) -> tuple[Array, Array, Array]:
        first, second = backend.r_drop_gradients(a, b, y, alpha)
        return md.r_drop(a, b, y, alpha), 3 * first, 3 * second

    return run


def _torch(name: str) -> Run:
    import multidrop_torch as backend
    import torch

    def run(a: Array, b: Array, y: Array, alpha: float) -> tuple[Array, Array, Array]:
        program = md.r_drop
        if name == "torch-compiled":
            torch._dynamo.reset()
            program = torch.compile(md.r_drop, fullgraph=True, backend="aot_eager")
        A, B = (backend.tensor(x).clone().requires_grad_() for x in (a, b))
        loss = program(A, B, torch.tensor(y), alpha)
        first, second = torch.autograd.grad(3 * loss, (A, B))
        return loss.detach().numpy(), backend.to_numpy(first).astype(a.dtype), backend.to_numpy(second).astype(a.dtype)

    return run


def _tensorflow(name: str) -> Run:
    import multidrop_tensorflow  # noqa: F401  # first of what TensorFlow is told
    import tensorflow as tf

    def run(a: Array, b: Array, y: Array, alpha: float) -> tuple[Array, Array, Array]:
        def program(A: Any, B: Any, Y: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch((A, B))
                loss = md.r_drop(A, B, Y, alpha)
                tripled = 3.0 * loss
            return loss, *tape.gradient(tripled, (A, B))

        tensors = tf.constant(a), tf.constant(b), tf.constant(y)
        if name == "tensorflow-sizes":
            signature = [tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in tensors]
            program = tf.function(program, signature, autograph=False)
        elif name != "tensorflow-eager":
            program = tf.function(program, autograph=False, jit_compile=name == "tensorflow-xla")
        return tuple(result.numpy() for result in program(*tensors))

    return run


def _mxnet(name: str) -> Run:
    import multidrop_mxnet  # noqa: F401  # before MXNet
    import mxnet as mx

    class Net(mx.gluon.HybridBlock):
        alpha = 1.0

        def hybrid_forward(self, F: Any, a: Any, b: Any, y: Any) -> Any:
            return md.r_drop(a, b, y, self.alpha)

    def run(a: Array, b: Array, y: Array, alpha: float) -> tuple[Array, Array, Array]:
        with mx.util.np_shape(True), mx.util.np_array(name == "mxnet-np"):
            array = mx.np.array if name == "mxnet-np" else mx.nd.array
            A, B, Y = array(a, dtype=a.dtype), array(b, dtype=b.dtype), array(y)  # labels in MXNet's default, float32
            A.attach_grad()
            B.attach_grad()
            program: Any = md.r_drop
            if name == "mxnet-hybrid":
                net = Net()
                net.alpha = alpha
                net.hybridize()
                program = lambda *arrays: net(*arrays[:3])  # noqa: E731
            with mx.autograd.record():
                loss = program(A, B, Y, alpha)
                tripled = 3.0 * loss
            tripled.backward()
            return loss.asnumpy().reshape(()), A.grad.asnumpy(), B.grad.asnumpy()

    return run


_MAKERS = {"numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow, "mxnet": _mxnet}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", parameters(metafunc.config, WAYS), indirect=True)


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Each way in turn."""
    backend, name = request.param
    loaded(request.config, backend)
    with md.use_backend(backend):
        yield _MAKERS[backend](name)


def batch(dtype: str = "float64", shape: tuple[int, ...] = (6, 5)) -> tuple[Array, Array, Array]:
    """Logits of two runs, some far from others, and labels."""
    generator = np.random.default_rng(3)
    a, b = (generator.normal(0.0, 4.0, shape).astype(DTYPES[dtype]) for _ in range(2))
    return a, b, generator.integers(0, shape[-1], shape[:-1])


def by_the_paper(a: Array, b: Array, y: Array, alpha: float) -> float:
    """Equations 2 to 4, an example and a class at a time."""
    losses = []
    for logits1, logits2, label in zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, a.shape[-1]), y.ravel(), strict=True):
        p, q = ([math.exp(z) / sum(map(math.exp, row)) for z in row] for row in (logits1.tolist(), logits2.tolist()))
        forth, back = (sum(s * math.log(s / t) for s, t in zip(*pair, strict=True)) for pair in ((p, q), (q, p)))
        losses.append(-math.log(p[label]) - math.log(q[label]) + alpha * (forth + back) / 2)
    return sum(losses) / len(losses)


class TestEveryWay:
    @pytest.mark.parametrize("alpha", [0.0, 5.0])
    def test_values_and_gradients(self, run: Run, alpha: float) -> None:
        a, b, y = batch()
        loss, first, second = run(a, b, y, alpha)
        assert (loss.shape, loss.dtype) == ((), np.float64)
        assert loss == pytest.approx(by_the_paper(a, b, y, alpha), rel=BOUNDS["float64"])
        step = 1e-5
        for changed, gradient in ((0, first), (1, second)):
            for index in ((0, 0), (2, 3), (5, y[5])):
                ends = []
                for sign in (1, -1):
                    logits = [a.copy(), b.copy()]
                    logits[changed][index] += sign * step
                    ends.append(by_the_paper(*logits, y, alpha))
                assert gradient[index] == pytest.approx(3 * (ends[0] - ends[1]) / (2 * step), abs=1e-8)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_types(self, run: Run, dtype: str, request: pytest.FixtureRequest) -> None:
        """The loss is not rounded to the logits' type, of which the gradients are."""
        if dtype == "bfloat16" and "mxnet" in request.node.name:  # which has none
            return
        a, b, y = batch(dtype)
        loss, *gradients = run(a, b, y, 2.0)
        assert loss.dtype == (np.float64 if dtype == "float64" else np.float32)
        wide = a.astype(np.float64), b.astype(np.float64)
        bound = BOUNDS["float64" if dtype == "float64" else "float32"]
        assert loss == pytest.approx(by_the_paper(*wide, y, 2.0), rel=bound)
        _, *expected = _numpy("numpy")(*wide, y, 2.0)
        for got, exact in zip(gradients, expected, strict=True):
            assert got.dtype == a.dtype
            assert np.allclose(got.astype(np.float64), exact, BOUNDS[dtype], BOUNDS[dtype])

    def test_equal_runs_do_not_diverge(self, run: Run) -> None:
        """So that alpha changes no bit, and the loss is twice the cross-entropy."""
        a, _, y = batch()
        results = [run(a, a, y, alpha) for alpha in (0.0, 7.0)]
        for with_none, with_some in zip(*results, strict=True):
            assert np.array_equal(with_none, with_some)

    def test_sequences(self, run: Run) -> None:
        """As the same examples in one row."""
        a, b, y = batch(shape=(2, 3, 5))
        loss, first, second = run(a, b, y, 1.0)
        flat = run(a.reshape(6, 5), b.reshape(6, 5), y.ravel(), 1.0)
        for got, expected in zip((loss, first, second), flat, strict=True):
            assert np.allclose(got.ravel(), expected.ravel(), BOUNDS["float64"], BOUNDS["float64"])

    def test_extreme_logits(self, run: Run) -> None:
        """Far beyond where an exponential overflows; and a class that both runs rule out, which is as if it were not
        there."""
        a, b, y = batch("float32")
        loss, *gradients = run(a * 1000, b * 1000, y, 1.0)
        for result in (loss, *gradients):
            assert np.isfinite(result).all()
        wide = np.concatenate([a, np.full((6, 1), -np.inf, np.float32)], 1)
        other = np.concatenate([b, np.full((6, 1), -np.inf, np.float32)], 1)
        loss, first, second = run(wide, other, y, 1.0)
        expected = run(a, b, y, 1.0)
        for got, wanted in zip((loss, first[:, :5], second[:, :5]), expected, strict=True):
            assert np.allclose(got, wanted, BOUNDS["float32"], BOUNDS["float32"])
        assert not first[:, 5].any()
        assert not second[:, 5].any()


class TestErrors:
    """Of each kind one, in every framework."""

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("logits1", lambda a, b, y: (a[0, 0], b, y)),
            ("logits1", lambda a, b, y: (a[:0], b[:0], y[:0])),
            ("logits2", lambda a, b, y: (a, b[:, :4], y)),
            ("logits2", lambda a, b, y: (a, b[:5], y)),
            ("labels", lambda a, b, y: (a, b, y[:5])),
            ("labels", lambda a, b, y: (a, b, y[:, None])),
            ("labels", lambda a, b, y: (a, b, y + 1 - y.min() + 4)),
            ("labels", lambda a, b, y: (a, b, y - 1 - y.min())),
        ],
    )
    def test_values(self, backend: Any, name: str, change: Any) -> None:
        a, b, y = (backend.tensor(np.asarray(x)) for x in change(*batch("float32")))
        with pytest.raises(ValueError, match=rf"{name}: expected .*; got "):
            md.r_drop(a, b, y)

    @pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf, None, "1"])
    def test_alpha(self, backend: Any, alpha: Any) -> None:
        with pytest.raises(ValueError, match="alpha: expected a finite number of at least 0; got "):
            md.r_drop(*map(backend.tensor, batch("float32")), alpha)

    def test_types(self, backend: Any) -> None:
        a, b, y = batch("float32")
        for name, arrays in (
            ("logits1", (y, b, y)),
            ("logits2", (a, y, y)),
            ("logits2", (a, b.astype("float64"), y)),
            ("labels", (a, b, y + 0.5)),
            ("labels", (a, b, y > 0)),
        ):
            tensors = [backend.tensor(x, x.dtype.name) for x in map(np.asarray, arrays)]
            with pytest.raises(TypeError, match=rf"{name}: expected .*; got .*: convert it with "):
                md.r_drop(*tensors)

    def test_labels_in_a_program(self, need: Any) -> None:
        need("tensorflow")
        import tensorflow as tf

        for jit_compile in (False, True):
            program = tf.function(md.r_drop, autograph=False, jit_compile=jit_compile)
            a, b, y = batch("float32")
            for bad in (y + 4, y - 5):
                assert np.isnan(program(tf.constant(a), tf.constant(b), tf.constant(bad)))


def test_host_data(backend: Any) -> None:
    """Goes to the backend that is set, as elsewhere."""
    a, b, y = batch("float32")
    expected = md.r_drop(*map(backend.tensor, (a, b, y)))
    assert type(md.r_drop(a.tolist(), b.tolist(), y.tolist())) is type(expected)
    got = backend.to_numpy(md.r_drop(a, b, y.tolist()))
    assert same_bits(got, np.asarray(backend.to_numpy(expected)))


def test_torch_derivatives(need: Any) -> None:
    """Of the second order too, and by examples."""
    need("torch")
    import torch

    a, b, y = map(torch.tensor, batch())
    inputs = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: md.r_drop(a, b, y, 2.0), inputs)
    assert torch.autograd.gradgradcheck(lambda a, b: md.r_drop(a, b, y, 2.0), inputs)
    each = torch.vmap(md.r_drop)(a, b, y)
    assert each.mean().item() == pytest.approx(md.r_drop(a, b, y).item())


def test_two_masks_of_a_net(backend: Any) -> None:
    """As it is used: the second run has the next mask, and the runs diverge."""
    if backend.name == "numpy":
        runs = [md.apply(md.family.Dropout(0.5), np.ones((6, 5), np.float32), md.Key(1, call)) for call in range(2)]
    else:
        layer = md.Dropout(0.5, seed=1)
        X = backend.tensor(np.ones((6, 5), np.float32))
        if backend.name == "mxnet":
            import mxnet as mx

            with mx.autograd.record():
                runs = [layer(X) for _ in range(2)]
        else:
            runs = [layer(X, training=True) if backend.name == "tensorflow" else layer(X) for _ in range(2)]
    y = backend.tensor(np.zeros(6, np.int64), "int64")
    none, some = (float(backend.to_numpy(md.r_drop(*runs, y, alpha))) for alpha in (0.0, 1.0))
    assert some > none + 0.1
