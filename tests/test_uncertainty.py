"""Dropout at test time: samples equal their definition in every framework, and leave nothing behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import uncertain
from members import all_members, values
from uncertain import NETS, X, numpy_net

import multidrop as md
from multidrop import family
from multidrop.comparison.probes import probe_of
from multidrop.family import Member, oracle
from multidrop.protocol import Sampling
from multidrop.testing import same_bits

IMAGES = np.random.default_rng(0).random((5, 1, 28, 28))
nets = pytest.mark.parametrize("build", ["Net", "concise_net"])


def key_of(seed: int, layer: int, sample: int) -> md.Key:
    """The key of the n-th dropout of a sample, by the definition."""
    return md.Key(md.Key(seed).fold_in(layer).seed, sample)


def section_net(build: str, **settings: Any) -> Any:
    """The section's net, whose weights are large enough for samples that differ."""
    md.manual_seed(0)
    net = getattr(md, build)(dtype="float64", **settings)
    backend: Any = md.dispatch.current()
    state = backend.get_state(net)
    backend.set_state(net, {name: v * 20 if name[0] == "W" else v for name, v in state.items()})
    return net


def states(model: Any) -> list[Any]:
    """All that a run might change: weights, running statistics, positions and modes."""
    backend, probe = probe_of(model, Sampling, "")
    found = [probe.read()[name] for name in sorted(probe.read())]
    found += [getattr(layer, "training", None) for layer in probe.layers.values()]
    return [*found, *(backend.drawing(layer, (1, 8)).next for layer in probe.dropouts().values())]


def equal(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@nets
@pytest.mark.parametrize("masks", ["shared", "own"])
def test_the_samples_of_the_sections_net(backend: Any, build: str, masks: str) -> None:
    net = section_net(build)
    before = backend.get_state(net)
    p = md.mc_predict(net, IMAGES, 3, seed=7, masks=masks, outputs="values")
    w, n, expected = before, 1 if masks == "shared" else len(IMAGES), []
    for k in range(3):
        H = IMAGES.reshape(len(IMAGES), -1)
        for layer, rate in enumerate((0.2, 0.5), start=1):
            H = np.maximum(H @ w[f"W{layer}"] + w[f"b{layer}"], 0.0)
            H = H * md.keep_mask((n, 256), rate, key_of(7, layer - 1, k)) / (1.0 - rate)
        expected.append(H @ w["W3"] + w["b3"])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(p.mean, np.mean(expected, axis=0), atol=1e-12 * scale)
    np.testing.assert_allclose(p.variance, np.var(expected, axis=0), atol=1e-12 * scale**2)
    assert p.variance.min() > 0.0
    after = backend.get_state(net)
    assert equal([before[name] for name in before], [after[name] for name in before])


def apart(member: Member, x: np.ndarray, axis: int, key: md.Key) -> np.ndarray:
    """A member on each example alone: with one mask for all."""
    each = [oracle.apply(member, part, key) for part in np.split(x, x.shape[axis], axis)]
    return np.concatenate(each, axis)


@all_members
def test_each_member(backend: Any, member: Member) -> None:
    """Bit for bit, in batches of two: a layer by itself is a model. With masks shared, all examples get what one alone
    gets; with their own, what the whole batch gets."""
    layer = md.layer(member, seed=3)
    if backend.name == "mxnet":
        layer.initialize()
    shape = list(member.example_shape)
    shape[0] = shape[member.batch_axis] = 5  # of a model that swaps the first axes, but for the batches
    x = values(tuple(shape))
    size = 5 if member.of_weights or member.batch_axis else 2
    for k, (shared, own) in enumerate(
        zip(*(md.mc_samples(layer, x, 2, 9, masks=m, batch_size=size, outputs="values") for m in ("shared", "own")),
            strict=True)
    ):  # fmt: skip
        whole_batch = oracle.apply(member, x, key_of(9, 0, k))
        alone = whole_batch if member.of_weights else apart(member, x, member.batch_axis, key_of(9, 0, k))
        for found, expected in ((shared, alone), (own, whole_batch)):
            if member.learns:  # its logit is float32 in some frameworks
                np.testing.assert_allclose(found, expected, rtol=1e-5)
            else:
                assert same_bits(found, expected.astype(np.float64))
    assert backend.drawing(layer, x.shape).next == md.Key(3) if isinstance(member, family.MaskMember) else True


@pytest.mark.parametrize("name", NETS)
def test_converted_nets(need: Any, name: str) -> None:
    """The same samples in each framework; batch norm, modes, positions and generators stay as they are."""
    need(name)
    net = NETS[name]()
    md.convert(net, seed=0)
    before, probe = states(net), probe_of(net, Sampling, "")[1]
    probe.seed(5)
    logits = np.stack(list(md.mc_samples(net, X, 4, seed=2, batch_size=3, outputs="values")))
    np.testing.assert_allclose(logits, uncertain.samples(2, 4), rtol=1e-12)
    assert not probe.drew()
    assert equal(before, states(net))
    p = md.mc_predict(net, probe.batch(X), 4, seed=2, batch_size=3)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(p.mean, probabilities.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(p.variance, probabilities.var(axis=0), rtol=1e-10)
    each = -(probabilities * np.log(probabilities)).sum(axis=-1)
    np.testing.assert_allclose(p.expected_entropy, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(p.entropy, -(p.mean * np.log(p.mean)).sum(axis=-1), rtol=1e-12)
    assert np.abs(p.entropy - p.mutual_information - p.expected_entropy).max() < 1e-12
    assert p.mutual_information.min() > 0.0
    assert equal(before, states(net))


@pytest.mark.parametrize("name", NETS)
def test_models_that_run_compiled(need: Any, name: str) -> None:
    """They run as they were written, and are compiled again afterwards."""
    need(name)
    net = NETS[name]()
    md.convert(net, seed=0)
    if name == "torch":
        import torch

        torch.compiler.reset()
        net(torch.tensor(X))  # advances the stream and the statistics, as the program would
        net.eval()
        models = [torch.compile(net, backend="eager"), torch.nn.Sequential(torch.compile(net, backend="eager"))]
        with torch.no_grad():  # so that the program would serve the samples' calls
            for model in models:
                model(torch.tensor(X))
    elif name == "tensorflow":
        import keras
        import tensorflow as tf

        class Compiled(keras.Model):
            def __init__(self) -> None:
                super().__init__(dtype="float64")
                self.net = net
                self.run = tf.function(lambda x: net(x))

            @tf.function
            def call(self, x: Any) -> Any:
                return self.run(x)

        models = [Compiled()]
        models[0](X)
    else:
        import mxnet as mx

        net.hybridize()
        net(mx.nd.array(X, dtype="float64"))
        models = [net]
    expected = list(md.mc_samples(net, X, 3, outputs="values"))
    for model in models:
        found = list(md.mc_samples(model, X, 3, outputs="values"))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert np.ptp(found, axis=0).min() > 0.0
    if name == "tensorflow":
        assert not tf.config.functions_run_eagerly()
    elif name == "mxnet":
        from multidrop_mxnet import internals

        assert internals.is_active(net)


@pytest.mark.parametrize("name", NETS)
def test_own_loops(need: Any, name: str) -> None:
    """Each call is a sample; a sample can be chosen. Afterwards, the model drops nothing."""
    need(name)
    net = NETS[name]()
    md.convert(net, seed=0)
    backend, probe = probe_of(net, Sampling, "")
    before, x, expected = states(net), probe.batch(X), uncertain.samples(4, 3)
    with md.mc_dropout(net, seed=4) as mc:
        assert mc.current is None
        run = lambda x: backend.to_numpy(net.eval()(x).detach() if name == "torch" else net(x))  # noqa: E731
        for k in (0, 1):
            np.testing.assert_allclose(run(x), expected[k], rtol=1e-12)
            assert mc.current == k
        for k in (2, 0):
            np.testing.assert_allclose(run(x), expected[k], rtol=1e-12)
            mc.sample(0)
        np.testing.assert_allclose(run(x[2:3]), expected[0][2:3], rtol=1e-12)
    assert equal(before, states(net))
    still = md.predict(net, X, outputs="values")
    np.testing.assert_allclose(md.predict(net, x, outputs="values", batch_size=2), still, rtol=1e-12)
    with probe.evaluating():
        np.testing.assert_allclose(backend.to_numpy(probe.evaluate(x)), still, rtol=1e-12)
    np.testing.assert_allclose(md.predict(net, X), np.exp(still) / np.exp(still).sum(axis=1, keepdims=True), rtol=1e-12)
    assert np.abs(still - expected[0]).max() > 0.1


@nets
def test_an_error_leaves_nothing_behind(backend: Any, build: str) -> None:
    """It comes at the second dropout of the second run; then all is as before."""
    net = section_net(build)
    before, (_, probe) = states(net), probe_of(net, Sampling, "")
    expected = md.mc_predict(net, IMAGES, 2)
    second, calls = list(probe.dropouts())[-1], []

    class Failing(md.MonteCarlo):
        def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
            calls.append(path)
            if calls.count(second) == 2:
                raise ZeroDivisionError("as if the layer failed")
            return super().leave(path, args, output)

    with Failing(net) as mc:
        probe.evaluate(probe.batch(IMAGES))
        with pytest.raises(ZeroDivisionError):
            probe.evaluate(probe.batch(IMAGES))
    assert mc.current == 1
    assert equal(before, states(net))
    assert np.array_equal(md.mc_predict(net, IMAGES, 2).mean, expected.mean)
    with md.mc_dropout(net) as mc:  # within the block, an error ends its sample alone
        with pytest.raises(Exception):  # noqa: B017, PT011  # each framework's own
            probe.evaluate(probe.batch(IMAGES[:, :, :5]))
        probe.evaluate(probe.batch(IMAGES))
        assert mc.current == 1


@pytest.mark.parametrize("outer", [1, 2])
def test_a_block_within_itself(outer: int) -> None:
    """An error, after which the model drops nothing."""
    net = numpy_net()
    expected = md.predict(net, X)
    mc = md.mc_dropout(net)
    for _ in range(outer):  # one block after another is none within itself
        with mc:
            assert not np.array_equal(net(X), expected)
            with pytest.raises(RuntimeError, match=r"^md\.mc_dropout: expected its block to end before"), mc:
                pass
        assert np.array_equal(md.predict(net, X), expected)


@pytest.mark.parametrize("name", ["torch", "tensorflow", "mxnet"])
def test_dropped_weights(need: Any, name: str) -> None:
    """One mask of the weights, of the weights' shape, in both kinds of masks and any batch."""
    backend = need(name)
    w = uncertain.W1.astype("float32")
    if name == "torch":
        import torch

        layer = torch.nn.Linear(6, 8)
        layer.load_state_dict({"weight": torch.tensor(w.T), "bias": torch.zeros(8)})
        model = backend.drop_weights(layer, family.Dropout(0.5), seed=1)  # of any member
    elif name == "tensorflow":
        import keras

        layer = keras.layers.Dense(8)
        model = backend.DropConnect(layer, 0.5, seed=1)
        model(X.astype("float32"))
        layer.set_weights([w, np.zeros(8)])
    else:
        import mxnet as mx

        layer = mx.gluon.nn.Dense(8, in_units=6, use_bias=False)
        model = backend.DropConnect(layer, 0.5, seed=1)
        model.initialize()
        layer.weight.set_data(mx.nd.array(w.T))
    transposed = name != "tensorflow"
    keep = md.keep_mask((8, 6) if transposed else (6, 8), 0.5, key_of(3, 0, 0))
    expected = X @ (w * (keep.T if transposed else keep) * 2.0)
    for masks in ("shared", "own"):
        x = X.astype("float32")
        (found,) = md.mc_samples(model, x, 1, 3, masks=masks, batch_size=3, outputs="values")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(md.predict(model, x, outputs="values"), X @ w, rtol=1e-4, atol=1e-5)


def training(net: Any, probe: Any) -> Any:
    """The net in training mode."""
    if hasattr(net, "train"):
        net.train()
    return lambda X: probe.run("", (X,), {})


class TestErrors:
    def test_no_layers_of_this_library(self, backend: Any) -> None:
        net = md.layers.layer(family.Dropout(0.5)) if backend.name == "numpy" else NETS[backend.name]()
        if backend.name == "numpy":
            net = backend.Sequential()
        for use in (md.mc_dropout, lambda net: md.mc_predict(net, X), lambda net: md.mc_samples(net, X)):
            with pytest.raises(ValueError, match=r"^model: expected one with dropout layers .* md\.convert\(model\)"):
                use(net)

    def test_a_layer_that_is_not_reached(self) -> None:
        import multidrop_numpy as backend

        class Half(backend.Sequential):
            def forward(self, X: Any) -> Any:
                return self.layers[0](X)

        net = Half(backend.Dropout(0.5, seed=0), backend.Dropout(0.5, seed=0))
        with pytest.raises(
            ValueError, match=r"^model: expected a run that calls each dropout layer; .* that leaves out 1:"
        ):
            md.mc_predict(net, X)
        assert md.mc_predict(net, X, outputs="values", allow_unreached=True).variance.max() > 0.0

    @nets
    def test_training_mode(self, backend: Any, build: str) -> None:
        """No mask is taken for it twice."""
        net = section_net(build)
        probe = probe_of(net, Sampling, "")[1]
        with (
            md.mc_dropout(net),
            pytest.raises(ValueError, match=r"expected a call in evaluation mode within md\.mc_dropout"),
        ):
            training(net, probe)(probe.batch(IMAGES))

    @pytest.mark.parametrize("name", ["tensorflow", "mxnet"])
    def test_a_traced_call(self, need: Any, name: str) -> None:
        """Its program would hold one mask for ever."""
        need(name)
        net = NETS[name]()
        md.convert(net, seed=0)
        if name == "tensorflow":
            import tensorflow as tf

            trace = lambda: tf.function(net).get_concrete_function(tf.constant(X))  # noqa: E731
        else:
            import mxnet as mx

            trace = lambda: net(mx.sym.var("X"))  # noqa: E731
        with md.mc_dropout(net), pytest.raises(ValueError, match="expected one that runs eagerly"):
            trace()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"samples": 0}, "samples: "),
            ({"seed": -1}, "seed: "),
            ({"batch_size": 0}, "batch_size: "),
            ({"masks": "each"}, "masks: "),
            ({"outputs": "logit"}, "outputs: "),
            ({"allow_unreached": 1}, "allow_unreached: "),
            ({"X": np.float64(3.0)}, "X: expected a NumPy array"),
            ({"X": np.array(3.0)}, "X: expected examples along the first axis"),
            ({"X": (X, X[:2])}, "X: expected examples along the first axis"),
            ({"X": ()}, "X: expected examples along the first axis"),
            ({"X": "abc"}, "X: expected a NumPy array or a tensor of the model's framework, numpy; got 'abc'"),
            ({"progress": "bar"}, "progress: expected True, False, None or a function; got 'bar'"),
            ({"outputs": "probabilities"}, 'outputs: expected "logits"'),
            ({"model": X}, "model: expected a model of one of "),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            md.mc_predict(**({"model": numpy_net(), "X": X} | arguments))

    def test_outputs_without_classes(self) -> None:
        import multidrop_numpy as backend

        one = backend.Sequential(backend.Dropout(0.5, seed=0), backend.Linear(np.ones((6, 1)), np.zeros(1)))
        with pytest.raises(
            ValueError, match=r'^outputs: expected "values" for a model with an output of shape \(7, 1\)'
        ):
            md.mc_predict(one, X)

        class Sum(backend.Layer):
            def forward(self, X: Any) -> Any:
                return X.sum(axis=0)

        whole = backend.Sequential(backend.Dropout(0.5, seed=0), Sum())
        with pytest.raises(ValueError, match=r"^model: expected an output for each of 7 examples"):
            md.mc_predict(whole, X, outputs="values")

    def test_examples_along_another_axis(self) -> None:
        """In a layer whose input is not a whole number of rows for each example, the batch cannot be found."""
        import multidrop_numpy as backend

        class Swapped(backend.Sequential):
            def forward(self, X: Any) -> Any:
                return super().forward(X.T).T

        net = Swapped(backend.Dropout(0.5, seed=0))
        with pytest.raises(
            ValueError, match=r"^model: expected an input of .* with the batch's 7 examples along axis 0"
        ):
            md.mc_predict(net, X, outputs="values")
