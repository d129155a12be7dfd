"""Calls the public functions with good, odd and bad arguments, for `test_fuzz`: `python fuzzed.py BACKEND CALLS LOG`.

Each call is Python text, which is written to LOG before it runs, so that a crash of the interpreter shows what did it.
A call with no argument that is bad must give the bits of the oracle, `multidrop.spec.masks`. Any other must raise a
ValueError or a TypeError of the one form, `name: expected ...; got ...`, and take no mask. One exception: a MemoryError
for a mask beyond all memory.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from arguments import (
    BAD,
    LAYOUTS,
    NAMES,
    OTHERS,
    SHAPES,
    SIZES,
    array,
    bad,
    bad_integers,
    keys,
    probabilities,
    seeds,
    starts,
    words,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from modes import DTYPES

import multidrop as md
from multidrop import dispatch, family
from multidrop.family import oracle
from multidrop.spec import masks
from multidrop.spec.keys import as_key
from multidrop.testing import same_bits, vectors

warnings.simplefilter("error")
# Keras puts lines of its own around an error in a layer, and escapes that make it bold.
ERROR = re.compile(r"(?s)(Exception encountered when calling .*\x1b\[1m)?\w+: .*expected .*; (got|it gave) .+")

MEMBER_SHAPES = [(6,), (4, 3), (2, 3, 5), (2, 3, 4, 5), (2, 2, 3, 2, 3), (0, 3), (2, 0, 4), ()]

backend: Any = None  # the one under test
log: Any = None  # the file of the last call
scope: dict[str, Any] = {}  # what the texts name


def own(array: Any) -> Any:
    """A tensor of the framework under test."""
    return backend.tensor(np.array(array))


def laid(dtype: str, shape: tuple[int, ...], layout: str) -> Any:
    """`array`, or for the layout "tensor" a tensor of its values."""
    return own(array(dtype, shape, "C")) if layout == "tensor" else array(dtype, shape, layout)


def run(text: str) -> Any:
    """What a call gives; the call is noted first."""
    log.seek(0)
    log.truncate()
    log.write(text)
    log.flush()
    return eval(text, scope)


def outcome(text: str, good: bool, memory: bool = False) -> Any:
    """What a call gives that is good; None of a bad one, after a look at its error."""
    try:
        result = run(text)
    except Exception as error:
        expected = isinstance(error, ValueError | TypeError) and not good and ERROR.match(str(error))
        if (expected and len(str(error)) < 1000) or (memory and isinstance(error, MemoryError)):
            return None
        raise AssertionError(f"{text}: {type(error).__name__}: {error}") from error
    assert good, f"{text}: took what is bad, and gave {type(result).__name__}"
    return result


def recording() -> Any:
    """Where a layer is in training mode."""
    if backend.name != "mxnet":
        return nullcontext()
    import mxnet as mx

    return mx.autograd.record()


def forward(layer: Any, X: Any) -> Any:
    """A layer's output in training mode."""
    with recording():
        return layer(X, training=True) if backend.name == "tensorflow" else layer(X)


def sized(layer: Any, name: str, value: Any) -> Any:
    """The layer with that attribute changed."""
    setattr(layer, name, value)
    return layer


def host(Y: Any, dtype: Any) -> np.ndarray:
    return np.asarray(backend.to_numpy(Y)).astype(dtype)


def check_position(root: int, call: int) -> None:
    """That the next call without a key is the one of that number after `manual_seed(root)`."""
    X = np.ones(64, np.float32)
    Y = backend.to_numpy(backend.dropout_layer(own(X), 0.5))
    assert same_bits(Y, masks.dropout(X, 0.5, md.Key(md.Key(root).fold_in("calls").seed, call))), "the stream moved"


@st.composite
def axes_of(draw: Any, ndim: int, plain: tuple[int, ...]) -> tuple[str, Any]:
    """Axes of an array of so many dimensions."""
    texts = [(repr(plain), plain), (repr([*plain]), plain), ("()", ()), (f"np.array({[*plain]}, int)", plain)]
    if plain:
        texts += [(repr(tuple(axis - ndim for axis in plain)), plain), (str((*plain, plain[0])), BAD)]
    wrong = ["(0.5,)", "'0'", "b'\\0'", f"{ndim}", f"({-ndim - 1},)", "{0}", "{0: 0}", "(True,)", "1.0", "(None,)"]
    return draw(st.sampled_from([*texts, *texts, *((text, BAD) for text in wrong)]))


@st.composite
def dropouts(draw: Any) -> None:
    """Calls of `dropout_layer` and `relu_dropout`."""
    shape, plain = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from([*DTYPES, *DTYPES, *OTHERS]))
    layout = draw(st.sampled_from(LAYOUTS))
    relu = draw(st.booleans())
    p, key, start = draw(probabilities), draw(st.one_of(st.just(("None", None)), keys)), draw(starts)
    axes = ("()", ()) if relu else draw(st.one_of(st.just(("()", ())), axes_of(len(shape), plain)))
    good = dtype in DTYPES and layout != "masked"
    if key[0] == "None":
        key = ("None", None)
    if backend.name == "mxnet":  # which has no bfloat16, and numbers dimensions by 31 bits
        good = good and dtype != "bfloat16" and max(shape, default=0) < 2**31
    if layout in ("list", "tensor") and not good:
        layout = "C"
    if math.prod(shape) == 0 and layout == "list":  # which has no place for the other dimensions
        layout = "C"
    x = f"array({dtype!r}, {shape}, {layout!r})"
    values = [p, key, start, axes]
    good = good and all(value is not BAD for _, value in values)
    if good:
        drawn = math.prod(masks.drawn_shape(shape, axes[1]))
        good = start[1] + drawn <= 2**64
    out = ""
    if backend.name == "numpy" and draw(st.booleans()):
        text, fits = draw(st.sampled_from([
            (f"np.empty({shape}, DTYPES.get({dtype!r}, 'f4'))", layout not in ("swapped", "list")),
            (f"np.empty({(*shape, 2)}, 'f4')", False),
            (f"np.ma.array(np.empty({shape}, 'f4'))", False),
            (f"array({dtype!r}, {shape}, 'read-only')", False),
            ("[0.0]", False),
            ("5", False),
        ]))  # fmt: skip
        if text.startswith("np.empty(") and layout in ("swapped", "list"):
            return
        out, good = f", out={text}", good and fits
    function = "relu_dropout" if relu else "dropout_layer"
    module = "backend" if out else draw(st.sampled_from(["md", "backend"]))
    rest = "" if relu else f", axes={axes[0]}"
    md.manual_seed(3)
    Y = outcome(f"{module}.{function}({x}, {p[0]}, {key[0]}, start={start[0]}{rest}{out})", good)
    check_position(3, int(Y is not None and key[1] is None))
    if Y is None:
        return
    X = np.asarray(array(dtype, shape, "C"))
    if layout == "list":
        X = X.astype(np.asarray(backend.to_numpy(Y)).dtype)
    if relu:
        X = masks.relu(X)
    used = md.Key(3).fold_in("calls") if key[1] is None else key[1]
    expected = masks.dropout(X, p[1], used, start[1], axes[1])
    assert same_bits(host(Y, X.dtype), expected), f"{x}, {p}, {key}, {start}, {axes}: {Y}, expected {expected}"


@st.composite
def members(draw: Any) -> None:
    """Calls of `apply`, with any member of the family and any of its settings."""
    cls = draw(st.sampled_from([cls for cls in family.MEMBERS.values() if cls.__module__.startswith("multidrop.")]))
    first, *others = dataclasses.fields(cls)
    value, key = draw(probabilities), draw(st.one_of(st.just(("None", None)), keys))
    shape, dtype = draw(st.sampled_from(MEMBER_SHAPES)), draw(st.sampled_from([*DTYPES, *DTYPES, "int32", "bool"]))
    examples = [count * math.prod(shape[1:]) for count in (1, 5, 2**33)]  # where any member may begin
    start = draw(st.one_of(st.sampled_from([(str(number), number) for number in examples]), starts))
    settings, given = [value[0]], {first.name: value[1]}
    for field in others:
        choices = field.metadata["choices"] or (1, 2, 3)
        chosen = draw(st.sampled_from([*choices, *choices, *choices, *choices, "some", -1]))
        settings.append(f"{field.name}={chosen!r}")
        given[field.name] = chosen
    key = ("None", None) if key[0] == "None" else key
    good = dtype in DTYPES and not (backend.name == "mxnet" and dtype == "bfloat16")
    good = good and all(given is not BAD for given in (value[1], key[1], start[1]))
    try:
        member = cls(**given)
        member.check(shape, start[1])
    except (ValueError, TypeError):
        good = False
    x = f"array({dtype!r}, {shape}, {draw(st.sampled_from(['C', 'tensor'])) if good else 'C'!r})"
    text = f"md.apply(md.family.{cls.__name__}({', '.join(settings)}), {x}, {key[0]}, start={start[0]})"
    md.manual_seed(3)
    Y = outcome(text, good)
    check_position(3, int(Y is not None and key[1] is None))
    if Y is None:
        return
    X = np.asarray(array(dtype, shape, "C"))
    used = md.Key(3).fold_in("calls") if key[1] is None else as_key(key[1])
    expected, got = oracle.apply(member, X, used, start[1]), host(Y, X.dtype)
    reals = vectors.draws_reals(member) and backend.name in ("torch", "tensorflow")
    bound = vectors.BOUNDS[dtype] if reals else 0.0
    assert got.shape == expected.shape, text
    assert not vectors.differing(got, expected, bound).any(), f"{text}: {Y}, expected {expected}"


@st.composite
def keep_masks(draw: Any) -> None:
    sizes, p, key, start = (
        draw(st.sampled_from([*SIZES, ("2**62", "no memory")])),
        draw(probabilities),
        draw(keys),
        draw(starts),
    )
    good = all(value is not BAD for _, value in (sizes, p, key, start))
    if good:
        good = start[1] + (2**62 if sizes[1] == "no memory" else math.prod(sizes[1])) <= 2**64
    keep = outcome(f"md.keep_mask({sizes[0]}, {p[0]}, {key[0]}, start={start[0]})", good, sizes[1] == "no memory")
    if keep is not None:
        assert np.array_equal(keep, masks.keep_mask(sizes[1], p[1], key[1], start[1]))


@st.composite
def words_and_keys(draw: Any) -> None:
    """Calls of `Key`, `fold_in`, `Stream` and `manual_seed`."""
    (seed, a), (call, b) = draw(words), draw(words)
    key = outcome(f"md.Key({seed}, {call})", a is not BAD and b is not BAD)
    assert key is None or (type(key.seed), type(key.call), key.seed, key.call) == (int, int, a, b)
    data, value = draw(st.one_of(words, st.text(max_size=5).map(lambda s: (repr(s), s)), st.just(("'\\udc80'", BAD))))
    if data == "'0'":  # which a name may be
        value = "0"
    derived = outcome(f"md.Key(1).fold_in({data})", value is not BAD)
    assert derived is None or derived == md.Key(1).fold_in(value)
    stream = outcome(f"md.Stream({seed})", a is not BAD)
    assert stream is None or stream.next() == md.Key(a)
    root = draw(seeds)
    md.manual_seed(3)
    outcome(f"md.manual_seed({root[0]}) or True", root[1] is not BAD)
    check_position(3 if root[1] is BAD else root[1], 0)


@st.composite
def layers(draw: Any) -> None:
    """Layers, one that is changed later, and their masks."""
    p, seed = draw(probabilities), draw(seeds)
    layer = outcome(f"md.Dropout({p[0]}, seed={seed[0]})", p[1] is not BAD and seed[1] is not BAD)
    if layer is not None:
        X = np.arange(-32, 32, dtype=np.float32)
        Y = run(f"forward(md.Dropout({p[0]}, seed={seed[0]}), own(np.arange(-32, 32, dtype='f4')))")
        assert same_bits(host(Y, np.float32), masks.dropout(X, p[1], seed[1])), (p, seed)
    name = "rate" if backend.name in ("tensorflow", "mxnet") else "p"
    layer = sized(md.Dropout(0.5, seed=1), name, run(p[0]))
    scope["layer"] = layer
    Y = outcome("forward(layer, own(np.ones(64, 'f4')))  # " + p[0], p[1] is not BAD)
    setattr(layer, name, 0.5)
    assert backend.drawing(layer).next == md.Key(1, int(Y is not None)), "the layer's stream moved"
    setattr(layer, name, run(p[0]))
    call, shape = draw(words), draw(st.sampled_from(SIZES))
    shape = ("64", (64,)) if shape[0] == "None" else shape
    good = call[1] is not BAD and shape[1] is not BAD and p[1] is not BAD
    mask = outcome(f"md.mask_at(layer, {call[0]}, {shape[0]})  # {p[0]}", good)
    if mask is not None:
        assert (mask.p, type(mask.p)) == (p[1], float)
        assert np.array_equal(mask.keep(), masks.keep_mask(shape[1], p[1], md.Key(1, call[1])))


@st.composite
def settings_of_others(draw: Any) -> None:
    """Nets, loaders, training, and what single backends have."""
    size = draw(
        st.one_of(st.sampled_from([("3", 3), ("np.int8(4)", 4), ("Index()", 9), ("own(np.int64(2))", 2)]), bad_integers)
    )
    if size[0] == "2**64":
        size = ("2**62", BAD)  # units of 784 inputs
    p, dtype = (
        draw(probabilities),
        draw(st.sampled_from([("'float32'", 1), ("'float64'", 1), ("'float16'", BAD), ("5", BAD)])),
    )
    good = size[1] is not BAD and p[1] is not BAD and dtype[1] is not BAD
    outcome(f"md.Net(num_hiddens1={size[0]}, dropout1={p[0]}, dtype={dtype[0]}, seed=1)", good)
    outcome(f"md.concise_net(4, 2, {size[0]}, 3, dropout2={p[0]}, dtype={dtype[0]}, seed=1)", good)
    batches = outcome(f"md.load_data_fashion_mnist({size[0]}, 'mini', seed=1, dtype={dtype[0]})",
                      (size[1] is not BAD or size[0] == "2**62") and dtype[1] is not BAD)  # fmt: skip
    assert batches is None or type(batches[0].batch_size) is int
    rate = draw(bad)
    for name in ("lr", "weight_decay", "num_epochs"):
        outcome(f"md.train(md.Net(4, 2, 3, 3), [], [], {name}={rate[0]})", False)
    if backend.name == "tensorflow":
        fits = [("(None, 1)", 1), ("[1, np.int64(4)]", 1), ("np.array([2, 1])", 1), ("None", 1)]
        wrong = ["{1}", "'1'", "()", "(0, 1)", "(1.5,)", "(True,)", "b'1'", "5", "{1: 1}", "(-1,)", "Raising()"]
        noise = draw(st.sampled_from([*fits, *((text, BAD) for text in wrong)]))
        outcome(f"backend.Dropout(0.5, noise_shape={noise[0]})", noise[1] is not BAD)
    if backend.name in ("numpy", "mxnet"):
        axes = draw(axes_of(2, (1,)))
        if axes[0] not in ("2", "(-3,)"):  # which another number of dimensions may have
            outcome(f"backend.Dropout(0.5, axes={axes[0]})", axes[1] is not BAD)


calls = st.one_of(
    dropouts(),
    dropouts(),
    dropouts(),
    members(),
    members(),
    keep_masks(),
    words_and_keys(),
    layers(),
    settings_of_others(),
)


def main(name: str, count: int, path: Path) -> None:
    """Makes so many calls, the same each time."""
    global backend, log
    md.set_backend(name)
    backend = dispatch.load(name)
    scope.update(NAMES, backend=backend, own=own, array=laid, forward=forward)
    md.load_data_fashion_mnist(8, "mini")
    check = settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # of a call there is little to shrink
        suppress_health_check=list(HealthCheck),
    )
    made = 0

    @check
    @given(calls)
    def each(_: None) -> None:
        nonlocal made
        made += 1

    with path.open("w") as log:
        each()
    print(f"{name}: {made} groups of calls")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
