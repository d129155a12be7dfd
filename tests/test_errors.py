"""Bad input gets one error everywhere, which names the argument, what was expected and what came."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from named import named

import multidrop as md
from multidrop import checks
from multidrop.checks import numeric
from multidrop.spec import masks

NOT_PROBABILITIES = [-0.1, 1.1, float("nan"), float("inf"), None, "0.5", True, [0.5], 1 + 0j, 10**400, 10**5000,
                     Fraction(10**400), Decimal("sNaN"), np.bool_(True), np.array([0.5]), np.ma.masked]  # fmt: skip


@pytest.mark.parametrize("bad", NOT_PROBABILITIES, ids=named)
def test_probabilities(backend: Any, bad: Any) -> None:
    X = backend.tensor(np.ones(4, np.float32))
    expected = r"expected a probability, a number in \[0, 1\]; got "
    with pytest.raises(ValueError, match="dropout: " + expected):
        md.dropout_layer(X, bad)
    with pytest.raises(ValueError, match="(p|rate): " + expected):
        md.Dropout(bad)
    with pytest.raises(ValueError, match="dropout1: " + expected):
        md.Net(dropout1=bad)
    with pytest.raises(ValueError, match="dropout2: " + expected):
        md.concise_net(dropout2=bad)


@pytest.mark.parametrize("bad", [-0.5, 1.5, float("nan"), None], ids=named)
def test_a_rate_that_is_changed(backend: Any, bad: Any) -> None:
    """Is checked by the next forward, which takes no mask."""
    layer, X = md.Dropout(0.5, seed=1), np.ones(64, np.float32)
    expected = masks.dropout(X, 0.5, 1)

    def forward() -> Any:
        if backend.name == "mxnet":
            import mxnet as mx

            with mx.autograd.record():
                return layer(backend.tensor(X))
        return layer(backend.tensor(X), training=True) if backend.name == "tensorflow" else layer(backend.tensor(X))

    name = "rate" if hasattr(layer, "rate") else "p"
    setattr(layer, name, bad)
    with pytest.raises(ValueError, match=name + r": expected a probability, a number in \[0, 1\]; got "):
        forward()
    setattr(layer, name, 0.5)
    assert np.array_equal(backend.to_numpy(forward()), expected)


GOOD = [0, 1, 0.25, np.float32(0.25), np.float64(0.25), np.longdouble(0.25), np.int64(1), np.array(0.25),
        Fraction(1, 4), Decimal("0.25")]  # fmt: skip


@pytest.mark.parametrize("good", GOOD, ids=named)
def test_numbers_of_all_kinds_are_probabilities(backend: Any, good: Any) -> None:
    X = np.ones(64, np.float32)
    Y = backend.to_numpy(md.dropout_layer(backend.tensor(X), good, 0))
    assert np.array_equal(Y, masks.dropout(X, float(good), 0))
    layer = md.Dropout(0.5, seed=0)
    setattr(layer, "rate" if hasattr(layer, "rate") else "p", good)
    assert type(md.mask_at(layer, 0, 4).p) is float


def test_tensors_without_dimensions_are_numbers(backend: Any) -> None:
    """As frameworks take them; others, bools and lists of one are none, though Python makes a number of them."""
    X, half = np.ones(64, np.float32), backend.tensor(np.array(0.5))
    Y = backend.to_numpy(md.dropout_layer(backend.tensor(X), half, backend.tensor(np.array(7)), start=np.array(3)))
    assert np.array_equal(Y, masks.dropout(X, 0.5, 7, 3))
    for bad in (np.array(True), np.array([0.5]), np.array([True])):
        with pytest.raises(ValueError, match="dropout: expected a probability"):
            md.dropout_layer(backend.tensor(X), backend.tensor(bad))
    for bad in (np.array(True), np.array(0.5), np.array([1])):
        with pytest.raises(ValueError, match=r"seed: expected an integer in \[0, 2\^64\); got "):
            md.Key(backend.tensor(bad))


def test_a_tensor_with_a_gradient_is_no_number(need: Any) -> None:
    need("torch")
    import torch

    with pytest.raises(ValueError, match="dropout: expected a probability"):
        md.dropout_layer(torch.ones(3), torch.tensor(0.5, requires_grad=True))


class _Index:
    """An integer by `__index__` alone."""

    def __index__(self) -> int:
        return 2**31 - 5


@pytest.mark.parametrize("start", [np.int32(2**31 - 5), _Index(), np.array(2**31 - 5, np.int32)], ids=named)
def test_a_start_of_any_type(start: Any) -> None:
    """Is used as the integer that it is: of 2^20 elements, whose indices an int32 does not hold, too."""
    for size in (8, 2**20):
        expected = masks.keep_mask(size, 0.5, 1, 2**31 - 5)
        assert np.array_equal(md.keep_mask(size, 0.5, 1, start), expected)
        assert np.array_equal(masks.keep_mask(size, 0.5, 1, start), expected)


class _Evil:
    """Raises whatever it is asked, as do some types of the caller's."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __float__ = __index__ = __len__ = __iter__ = __getitem__ = __repr__


def test_what_has_no_index_is_not_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of `operator.index` would end a program that torch 2.11 compiles."""

    def index(value: Any) -> int:
        if not hasattr(type(value), "__index__"):
            pytest.fail(f"{value} was asked for its index")
        return int(value)

    monkeypatch.setattr(numeric.operator, "index", index)
    assert checks.axes((0, -1), 4) == (0, 3)


def test_what_is_shown() -> None:
    """Is short, and quickly told, whatever the value."""
    for value, beginning in (
        (_Evil(), "<_Evil>"),
        (10**5000, "<int>"),
        (["x" * 1000] * 1000, "['xxx"),
        (np.zeros((3, 4)), "float64 of shape (3, 4) (ndarray)"),
        ("a" * 10**6, "'aaaa"),
        (np.float32, "<class 'numpy.float32'> (type)"),
    ):
        text = checks.shown(value)
        assert text.startswith(beginning)
        assert len(text) < 100
    for function in (md.Key, md.Stream, md.manual_seed, md.Key(0).fold_in):
        with pytest.raises(ValueError, match=r": expected .*; got <_Evil>"):
            function(_Evil())  # type: ignore[operator]  # functions of several types
    with pytest.raises(ValueError, match=r"shape: expected .*; got <_Evil>"):
        md.keep_mask(_Evil(), 0.5, 0)


def test_a_string_without_an_encoding() -> None:
    with pytest.raises(ValueError, match=r"data: expected a string without unpaired surrogates; got '\\udc80' \(str\)"):
        md.Key(0).fold_in("\udc80")


def test_streams_take_keys() -> None:
    stream = md.Stream(5)
    assert stream.next() == md.Key(5)
    for bad in ("5", None, 5.0):
        with pytest.raises(ValueError, match="key: expected an integer"):
            md.Stream(bad)  # type: ignore[arg-type]  # what is tested
        with pytest.raises(ValueError, match="key: expected an integer"):
            stream.key = bad
    assert stream.next() == md.Key(5, 1)


@pytest.mark.parametrize("name", ["numpy", "torch", "mxnet"])
@pytest.mark.parametrize("bad", [[[1.0, 2.0]], 3.0, None], ids=named)
def test_what_is_no_tensor(need: Any, name: str, bad: Any) -> None:
    """Is an error of layers, and of the functions in the place of torch's. (Keras looks at a layer's input itself.)"""
    backend = need(name)
    layers = {
        "numpy": ["Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"],
        "torch": ["Dropout", "AlphaDropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"],
        "mxnet": ["Dropout"],
    }
    functions = [getattr(backend, layer)(0.5) for layer in layers[name]] + [backend.Dropout(0.5).after_relu]
    if name == "torch":
        from multidrop_torch import functional

        names = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
        functions += [getattr(functional, function) for function in names]
    for function in functions:
        with pytest.raises(TypeError, match=r"X: expected a tensor of type float16, .*; got .*: convert it with "):
            function(bad)


@pytest.mark.parametrize("name", ["dropout", "dropout2d", "alpha_dropout"])
def test_arrays_are_no_tensors_to_torch(need: Any, name: str) -> None:
    need("torch")
    from multidrop_torch import functional

    with pytest.raises(TypeError, match=r"(?s)X: expected a tensor .*\(ndarray\): convert it with torch\.as_tensor"):
        getattr(functional, name)(np.ones((2, 3, 4, 5), np.float32))


def test_out_is_an_array(need: Any) -> None:
    """What is none takes no mask."""
    from multidrop_numpy import dropout_layer, relu_dropout

    need("numpy")
    X = np.ones(64, np.float32)
    md.manual_seed(0)
    first = dropout_layer(X, 0.5)
    md.manual_seed(0)
    for function in (dropout_layer, relu_dropout):
        with pytest.raises(TypeError, match=r"out: expected a NumPy array; got \[0\.0, 0\.0, .* \(list\)"):
            function(X, 0.5, out=[0.0] * 64)
    assert np.array_equal(dropout_layer(X, 0.5), first)


@pytest.mark.parametrize("bad", [5, [], ()], ids=named)
def test_reports(backend: Any, bad: Any) -> None:
    with pytest.raises(TypeError, match="report: expected what convert gave; got "):
        md.restore(md.Dropout(), bad)


def test_keys(backend: Any) -> None:
    X = backend.tensor(np.ones(4, np.float32))
    for bad in (-1, 2**64, "0", 0.5):
        with pytest.raises(ValueError, match=r"key: expected an integer in \[0, 2\^64\); got "):
            md.dropout_layer(X, 0.5, bad)
    with pytest.raises(ValueError, match="start: expected an integer"):
        md.dropout_layer(X, 0.5, 0, start=-1)


@pytest.mark.parametrize("bad", [2, -3, (0, 0), (0, -2), (0.5,), "0", None, (True,), np.zeros(2, int), b"\0", {0}],
                         ids=named)  # fmt: skip
def test_axes(backend: Any, bad: Any) -> None:
    X = backend.tensor(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"axes: expected integers in \[-2, 2\), each axis once; got "):
        md.dropout_layer(X, 0.5, 0, axes=bad)
    md.dropout_layer(X, 0.5, 0, axes=np.int64(1))


@pytest.mark.parametrize("name", ["numpy", "mxnet"])
@pytest.mark.parametrize("bad", [1.5, None, (0.5,), "0", (1, 1)], ids=named)
def test_axes_of_layers(need: Any, name: str, bad: Any) -> None:
    """Are looked at as far as can be told without X."""
    backend = need(name)
    with pytest.raises(ValueError, match="axes: expected integers, each axis once; got "):
        backend.Dropout(0.5, axes=bad)
    assert backend.Dropout(0.5, axes=np.int64(1)).axes == (1,)


NOT_SHAPES = [2.5, (2, 3.0), (2, None), "23", None, True, -1, (2, -1), {2, 3}, {2: 3}, b"23", iter([2]), range(10**12),
              np.eye(2), np.ma.array([2])]  # fmt: skip


@pytest.mark.parametrize("bad", NOT_SHAPES, ids=named)
def test_shapes(bad: Any) -> None:
    for keep_mask in (md.keep_mask, masks.keep_mask):
        with pytest.raises(ValueError, match=r"shape: expected integers of at least 0; got "):
            keep_mask(bad, 0.5, 0)
    for good in (np.int64(3), [3], np.array([3]), range(3, 4)):
        assert md.keep_mask(good, 0.5, 0).shape == (3,)


def test_a_tensor_is_a_shape(backend: Any) -> None:
    assert md.keep_mask(backend.tensor(np.array([2, 3])), 0.5, 0).shape == (2, 3)
    for bad in ([2.0, 3.0], [True, True], [[2, 3]]):
        with pytest.raises(ValueError, match="shape: expected integers of at least 0; got "):
            md.keep_mask(backend.tensor(np.array(bad)), 0.5, 0)


@pytest.mark.parametrize("bad", [(2**70,), (2**40, 2**40), (2**63, 0), 10**400, (1,) * 65], ids=named)
def test_shapes_that_no_array_has(backend: Any, bad: Any) -> None:
    for keep_mask in (md.keep_mask, masks.keep_mask, backend.keep_mask):
        with pytest.raises(ValueError, match=r"shape: expected .*; got "):
            keep_mask(bad, 0.5, 0)
    with pytest.raises(ValueError, match=r"shape: expected .*; got "):
        md.mask_at(md.Dropout(0.5, seed=0), 0, bad)


@pytest.mark.parametrize("name", ["num_inputs", "num_outputs", "num_hiddens1", "num_hiddens2"])
@pytest.mark.parametrize("bad", [0, -1, 2.5, "3", None, True, np.array(True), b"3"])
def test_sizes(backend: Any, name: str, bad: Any) -> None:
    for build in (md.Net, md.concise_net):
        with pytest.raises(ValueError, match=f"{name}: expected an integer above 0; got "):
            build(**{name: bad})


def test_dtypes(backend: Any) -> None:
    for build in (md.Net, md.concise_net):
        with pytest.raises(ValueError, match="dtype: expected one of 'float32', 'float64'; got 'float16'"):
            build(dtype="float16")


def test_a_bad_call_takes_no_mask(backend: Any) -> None:
    """What fails advances no stream."""
    X = backend.tensor(np.ones(64, np.float32))
    md.manual_seed(0)
    first = backend.to_numpy(md.dropout_layer(X, 0.5))
    md.manual_seed(0)
    with pytest.raises(ValueError, match="dropout"):
        md.dropout_layer(X, 2)
    with pytest.raises(TypeError):
        md.dropout_layer(backend.tensor(np.ones(4, "int32"), "int32"), 0.5)
    for arguments in ({"axes": 1}, {"start": -1}, {"start": 2**64 - 63}):
        with pytest.raises(ValueError, match="|".join(arguments)):
            md.dropout_layer(X, 0.5, **arguments)
    if backend.name == "numpy":
        with pytest.raises(ValueError, match="out"):
            backend.dropout_layer(X, 0.5, out=np.empty(3, np.float32))
    assert np.array_equal(backend.to_numpy(md.dropout_layer(X, 0.5)), first)


def test_sizes_beyond_all_memory(backend: Any) -> None:
    for build in (md.Net, md.concise_net):
        for bad in (2**62, 2**70, 10**5000):
            with pytest.raises(ValueError, match=r"num_hiddens1: expected .*; got "):
                build(num_hiddens1=bad)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": 10**400},
        {"lr": Fraction(10**400)},
        {"weight_decay": -(10**5000)},
        {"lr": True},
        {"num_epochs": 0},
        {"num_epochs": 1.5},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"lr": "fast"},
        {"weight_decay": -1},
    ],
    ids=named,
)
def test_training_arguments(backend: Any, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    train_iter, test_iter = md.load_data_fashion_mnist(256, "mini")
    with pytest.raises(ValueError, match=f"{name}: expected"):
        md.train(md.Net(), train_iter, test_iter, **arguments)


def test_numbers_that_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="settings: expected names and values that JSON can hold; got "):
        checks.json_object("settings", {"x": Fraction(10**400)})
