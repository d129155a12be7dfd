"""`audit` names every layer that is random, nothing else, and leaves everything as it was."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md


def names(model: Any, *inputs: Any, **named: Any) -> list[str]:
    """The paths of the random layers."""
    return [path for path, _, _ in md.audit(model, *inputs, **named).random]


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("build", ["Net", "concise_net"])
def test_the_sections_net(backend: Any, build: str) -> None:
    """In every framework: both dropouts where they are unkeyed, none where they are keyed, whose positions stay."""
    with md.use_backend(backend.name):
        keyed, unkeyed = (getattr(md, build)(8, 4, 16, 16, seed=seed) for seed in (1, None))
    X = values(8, 8)
    report = md.audit(unkeyed, X)
    assert [kind for _, kind, _ in report.random] == ["Dropout"] * 2
    assert all(what == "its output" for _, _, what in report.random)
    assert str(report).startswith("random: 2 (")
    before = backend.get_state(keyed)
    report = md.audit(keyed, backend.tensor(X))
    assert report.random == ()
    assert (
        repr(report)
        == str(report)
        == f"None found (layers: {report.layers}, runs: 2): equal inputs gave equal outputs."
    )
    after = backend.get_state(keyed)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_is_no_model(backend: Any) -> None:
    for bad in ("model", None, backend.tensor(np.ones(3))):
        with pytest.raises(TypeError, match="expected a"):
            md.audit(bad)


def test_generators_of_python_and_numpy_are_put_back(backend: Any) -> None:
    with md.use_backend(backend.name):
        net = md.Net(8, 4, 6, 6)
    before = random.getstate(), np.random.get_state()[1].tolist()
    md.audit(net, values(2, 8))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_probe_that_cannot(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's, that only compares."""
    with md.use_backend(backend.name):
        net = md.Net(8, 4, 6, 6)
    monkeypatch.delattr(backend.Probe, "drew")
    with pytest.raises(md.BackendError, match=r"its Probe has no drew: md\.audit needs a Probe with"):
        md.audit(net, values(2, 8))


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> Any:
        need("torch")
        import torch

        torch.manual_seed(0)
        return torch

    def module(self, torch: Any, forward: Any, **layers: Any) -> Any:
        """A module that holds layers and runs a function of (module, X)."""

        class Module(torch.nn.Module):
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return forward(self, *args, **kwargs)

        module = Module()
        for name, layer in layers.items():
            setattr(module, name, layer)
        return module

    def test_every_random_layer_and_no_other(self, torch: Any) -> None:
        """Whatever makes it random, before, between and behind other layers."""
        from torch.nn import functional as F

        def helper(X: Any) -> Any:
            return X * torch.bernoulli(torch.full_like(X, 0.5))

        def between(module: Any, X: Any) -> Any:
            return module.second(F.dropout(module.first(X), 0.3))

        def quiet(module: Any, X: Any) -> Any:
            return X * torch.bernoulli(torch.ones_like(X))

        model = torch.nn.Sequential(
            self.module(torch, lambda module, X: helper(X)),
            torch.nn.Linear(8, 8),
            self.module(torch, between, first=torch.nn.Linear(8, 8), second=torch.nn.Dropout(0.2)),
            torch.nn.Dropout(0.0),
            self.module(torch, quiet),
            torch.nn.BatchNorm1d(8),
            self.module(torch, lambda module, X: X * random.random()),
            self.module(torch, lambda module, X: X * float(np.random.rand())),
            self.module(torch, lambda module, X: (module.drop(X), X)[1], drop=torch.nn.Dropout(0.5, inplace=True)),
            torch.nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1),
            torch.nn.RReLU(),
            torch.nn.Linear(8, 2),
        )  # fmt: skip
        expected = [
            "0",
            "2",
            "2.second",
            "6",
            "7",
            "8.drop",
            "9.self_attn",
            "9.dropout",
            "9.dropout1",
            "9.dropout2",
            "10",
        ]
        report = md.audit(model, torch.randn(4, 8))
        assert sorted(path for path, _, _ in report.random) == sorted(expected)
        assert {path: what for path, _, what in report.random}["2"] == "the input of 2.second"

    def test_what_is_seldom_random(self, torch: Any) -> None:
        """A branch that is dropped once in a hundred calls of a layer, and one in ten of a function within a layer."""
        drop = self.module(torch, lambda module, X: X * (torch.rand(1) > 0.01))
        block = self.module(
            torch, lambda module, X: module.inner(X) * (torch.rand(1) > 0.1), inner=torch.nn.Linear(4, 4)
        )
        assert names(torch.nn.Sequential(drop, block), torch.randn(1, 4)) == ["0", "1"]

    def test_layers_that_are_skipped(self, torch: Any) -> None:
        """As by LayerDrop: the layer that chooses is random, and so is what drops in the others."""
        inner = [torch.nn.Dropout(0.5) for _ in range(4)]

        def forward(module: Any, X: Any) -> Any:
            for layer in module.layers:
                if torch.rand([]) > 0.5:
                    X = layer(X)
            return X

        model = torch.nn.Sequential(self.module(torch, forward, layers=torch.nn.ModuleList(inner)))
        report = md.audit(model, torch.randn(8, 8))
        assert {path for path, _, _ in report.random} == {"0", *(f"0.layers.{n}" for n in range(4))}
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 8)) == ["0"]

    def test_inputs_and_outputs_of_all_kinds(self, torch: Any) -> None:
        @dataclasses.dataclass
        class Output:
            hidden: Any
            cache: list[Any]
            rest: Any = None

        class Cache:
            def __init__(self) -> None:
                self.keys: list[Any] = []

        def random_(module: Any, output: Any, *, scale: Any) -> Any:
            X = module.drop(output.hidden) * scale["by"][0]
            return Output(torch.nn.functional.dropout(X, 0.5), [X, None, "text"])

        def first(module: Any, X: Any, cache: Any, flag: bool) -> Any:
            cache.keys.append(X)
            assert len(cache.keys) == 1
            return Output(X, [None], flag)

        def last(module: Any, output: Any) -> Any:
            return {"a": (output.hidden, float(output.hidden.sum())), "nan": torch.tensor(float("nan"))}

        first, middle, last = (
            self.module(torch, first),
            self.module(torch, random_, drop=torch.nn.Dropout(0.5)),
            self.module(torch, last),
        )

        def forward(module: Any, X: Any, cache: Any, flag: bool) -> Any:
            return module.last(module.middle(module.first(X, cache, flag), scale={"by": [X.mean()]}))

        model = self.module(torch, forward, first=first, middle=middle, last=last)
        cache = Cache()
        assert names(model, torch.randn(4, 4), cache, flag=True) == ["middle", "middle.drop"]
        assert cache.keys == []

    def test_everything_is_as_it_was(self, torch: Any) -> None:
        """Also after an error."""

        def forward(module: Any, X: Any, fail: bool = False) -> Any:
            module.count += 1
            module.seen.append(X)
            module.table[module.count] = {"x": X}
            module.table["inner"]["more"] = X
            module.plain.add_(1)
            module.new = X
            X = module.drop(module.norm(X)) * torch.rand(4, generator=module.generator)
            if fail:
                raise RuntimeError("fails")
            return X

        norm, drop = torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
        model = self.module(torch, forward, norm=norm, drop=drop).eval()
        norm.train()
        model.count, model.seen, model.table, model.plain = 0, [], {"inner": {}}, torch.zeros(2)
        model.generator = torch.Generator().manual_seed(3)
        md.convert(model, seed=1)
        drop(torch.ones(2))
        X = torch.randn(8, 4)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        generators = torch.get_rng_state(), model.generator.get_state()
        held = [vars(layer).keys() for layer in model.modules()]
        assert names(model, X) == [""]
        with pytest.raises(RuntimeError, match="fails"):
            md.audit(model, X, fail=True)
        assert (model.count, model.seen, model.table) == (0, [], {"inner": {}})
        assert model.plain.tolist() == [0, 0]
        assert (model.training, norm.training, drop.training) == (False, True, False)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), generators[0])
        assert torch.equal(model.generator.get_state(), generators[1])
        assert [vars(layer).keys() for layer in model.modules()] == held
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())

    def test_functions_after_manual_seed(self, torch: Any) -> None:
        """Are keyed, and go on from where they were."""
        model = self.module(torch, lambda module, X: md.dropout_layer(X, 0.5))
        X = torch.ones(64)
        assert names(model, X) == [""]
        md.manual_seed(3)
        assert names(model, X) == []
        after = model(X)
        md.manual_seed(3)
        assert torch.equal(model(X), after)

    def test_hooks_that_drop(self, torch: Any) -> None:
        """Count for the layer that has them, the model too."""
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        model[0].register_forward_hook(lambda layer, args, Y: torch.nn.functional.dropout(Y, 0.5))
        model[2].register_forward_pre_hook(lambda layer, args: (torch.nn.functional.dropout(args[0], 0.5),))
        assert names(model, torch.randn(8, 4)) == ["0", "2"]
        model.register_forward_hook(lambda layer, args, Y: torch.nn.functional.dropout(Y, 0.5))
        assert names(model, torch.randn(8, 4)) == ["", "0", "2"]

    def test_gradients_within_the_model(self, torch: Any) -> None:
        def forward(module: Any, X: Any) -> Any:
            (dX,) = torch.autograd.grad(module.inner(X).sum(), X, create_graph=True)
            return dX

        inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Tanh())
        model = self.module(torch, forward, inner=inner)
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 4, requires_grad=True)) == []

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
    def test_programs_within_the_model(self, torch: Any) -> None:
        """A compiled one is run by its layers; of one that is scripted, the whole is named."""
        compiled = torch.compile(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)), backend="eager")
        scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)))
        found = names(torch.nn.Sequential(compiled, scripted), torch.randn(8, 4))
        assert found == ["0.1", "1"]

    def test_wrappers(self, torch: Any) -> None:
        """Are no layers, and keep their modes."""
        inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        model = torch.nn.DataParallel(torch.nn.Sequential(torch.compile(inner, backend="eager"))).eval()
        assert names(model, torch.randn(8, 4)) == ["0.1"]
        assert not any(module.training for module in model.modules())
        md.compare(model, copy.deepcopy(model), [values(8, 4)])
        assert not any(module.training for module in model.modules())

    def test_lazy_layers(self, torch: Any) -> None:
        model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.Dropout(0.5), torch.nn.LazyBatchNorm1d())
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 3)) == []
        assert model[1].stream.tolist()[1] == 0
        md.restore(model)
        assert names(model, torch.randn(8, 3)) == ["1"]

    def test_keyed_layers_that_are_recomputed(self, torch: Any) -> None:
        """They draw no numbers, and the recomputed call moves no stream."""
        from torch.utils.checkpoint import checkpoint

        def forward(module: Any, X: Any) -> Any:
            return checkpoint(module.inner, X, use_reentrant=False)

        inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        model = self.module(torch, forward, inner=inner)
        assert names(model, torch.randn(8, 4)) == ["inner.1"]
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 4)) == []

    def test_one_layer_at_several_places(self, torch: Any) -> None:
        drop = torch.nn.Dropout(0.5)
        model = torch.nn.Sequential(drop, torch.nn.Linear(4, 4), drop)
        assert names(model, torch.randn(8, 4)) == ["0"]
        md.convert(model, seed=0)
        assert names(model, torch.randn(8, 4)) == []

    def test_gpt2_with_fused_attention(self, torch: Any, torchvision: Any) -> None:
        """With the cache that it makes and gives back, and one that it is given."""
        import transformers

        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="sdpa", **sizes))
        X = torch.randint(0, 50, (2, 6))
        inner = [f"transformer.h.0.{name}" for name in ("attn", "attn.resid_dropout", "mlp.dropout")]
        assert names(model, input_ids=X) == ["transformer.drop", *inner]
        md.convert(model, seed=0)
        assert names(model, input_ids=X, labels=X) == inner[:1]
        cache = transformers.DynamicCache()
        assert names(model, X, past_key_values=cache, use_cache=True) == inner[:1]
        assert cache.get_seq_length() == 0

    def test_the_page(self, torch: Any) -> None:
        """The example of docs/drop-in.md prints what the page shows."""
        page = (Path(md.__file__).parents[1] / "docs" / "drop-in.md").read_text(encoding="utf-8")
        section = page.partition("## What else is random")[2]
        (code, shown), printed = re.findall(r"```(?:python|text)\n(.*?)```", section, re.DOTALL)[:2], io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        assert printed.getvalue() == shown


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self, need: Any) -> Any:
        need("tensorflow")
        import keras

        keras.utils.set_random_seed(0)
        return keras

    def test_every_random_layer_and_no_other(self, keras: Any) -> None:
        import tensorflow as tf

        def bernoulli(X: Any) -> Any:
            return X * keras.random.binomial(keras.ops.shape(X), 1.0, 0.5)

        def noisy(X: Any) -> Any:
            return X + tf.random.normal(tf.shape(X))

        def none(X: Any) -> Any:
            return tf.nn.dropout(X, 0.0)

        layers = keras.layers
        inputs = keras.Input((4, 8))
        X = layers.Dense(8, name="dense")(inputs)
        for name, function in {"bernoulli": bernoulli, "noisy": noisy, "none": none}.items():
            X = layers.Lambda(function, name=name)(X)
        X = layers.Dropout(0.5, name="drop")(X)
        X = layers.Dropout(0.0, name="idle")(layers.BatchNormalization(name="norm")(X))
        X = layers.GaussianNoise(0.5, name="noise")(layers.SpatialDropout1D(0.5, name="spatial")(X))
        X = layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5, name="rnn")(X)
        model = keras.Model(inputs, layers.Dense(2, name="head")(X))
        before, seeds = model.get_weights(), np.array(model.get_layer("drop").seed_generator.state)
        x = values(8, 4, 8)
        found = names(model, x)
        random_ = ["bernoulli", "noisy", "drop", "spatial", "noise"]
        assert found[:5] == random_
        assert [path.partition(".")[0] for path in found[5:]] == ["rnn"]
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        assert np.array_equal(model.get_layer("drop").seed_generator.state, seeds)
        md.convert(model, seed=0)
        assert [path.partition(".")[0] for path in names(model, x)] == ["bernoulli", "noisy", "rnn"]
        assert md.mask_at(model.get_layer("drop"), 0, (8, 4, 8)).key == md.Key(0).fold_in("drop")
        assert int(np.array(model.get_layer("drop").stream)[1]) == 0

    def test_layers_without_a_key(self, keras: Any) -> None:
        """Are random as Keras' own are, by their generators. These are put back, as the default one is; one that a
        layer makes during the audit is gone again."""
        from multidrop_tensorflow.internals import default_generator

        def noisy(X: Any) -> Any:
            return X + keras.random.normal(keras.ops.shape(X))

        layers = keras.layers
        late = layers.Dropout(0.0, name="late")
        model = keras.Sequential(
            [layers.Dropout(0.5, name="drop"), layers.GaussianNoise(0.5, name="noise"), late, layers.Lambda(noisy)]
        )
        md.convert(model)
        model(values(8, 4))
        late.rate = 0.5
        keras.random.normal((1,))
        generators = [model.get_layer(name).seed_generator for name in ("drop", "noise")] + [default_generator()]
        before = [np.array(generator.state) for generator in generators]
        variables = len(model.variables)
        assert names(model, values(8, 4)) == ["drop", "noise", "late", model.layers[-1].name]
        for generator, state in zip(generators, before, strict=True):
            assert np.array_equal(generator.state, state)
        assert late.seed_generator is None
        assert len(model.variables) == variables

    @pytest.mark.parametrize("traced", [False, True])
    def test_functions_after_manual_seed(self, keras: Any, traced: bool) -> None:
        """Are a stream of their own, which stays where it is; once a program is traced, in variables."""
        import tensorflow as tf

        md.manual_seed(3)
        try:
            if traced:
                tf.function(lambda X: md.dropout_layer(X, 0.5))(tf.ones(4))
            model = keras.Sequential([keras.layers.Lambda(lambda X: md.dropout_layer(X, 0.5), name="function")])
            first = model(np.ones((8, 8), np.float32)).numpy()
            assert names(model, values(8, 8)) == []
            second = md.dropout_layer(tf.ones((8, 8)), 0.5).numpy()
        finally:
            md.manual_seed(None)
        for call, Y in enumerate((first, second), start=int(traced)):
            key = md.Key(3).fold_in("calls")
            assert np.array_equal(Y, 2.0 * md.keep_mask((8, 8), 0.5, md.Key(key.seed, key.call + call)))

    def test_a_model_that_is_not_built(self, keras: Any) -> None:
        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name="attention")
                self.drop = keras.layers.Dropout(0.5, name="drop")

            def call(self, X: Any, training: bool = False) -> Any:
                return {"y": self.drop(self.attention(X, X, training=training), training=training)}

        model = Net()
        md.convert(model, seed=0)
        report = md.audit(model, values(2, 3, 4))
        (path, kind, _) = report.random[0]
        assert (len(report.random), path.partition(".")[0], kind) == (1, "attention", "Dropout")
        md.convert(model, seed=0)
        assert names(model, values(2, 3, 4)) == []

    def test_an_error_leaves_no_trace(self, keras: Any) -> None:
        def fails(X: Any) -> Any:
            raise ValueError("fails")

        model = keras.Sequential([keras.layers.Dropout(0.5, name="drop", seed=3), keras.layers.Identity(name="last")])
        model(values(2, 3))
        model.get_layer("last").call = fails
        with pytest.raises(ValueError, match="fails"):
            md.audit(model, values(2, 3))
        assert "call" not in vars(model.get_layer("drop"))
        assert model.get_layer("last").call is fails


class TestGluon:
    @pytest.fixture(autouse=True)
    def mxnet(self, need: Any) -> Any:
        need("mxnet")
        import mxnet

        mxnet.random.seed(0)
        return mxnet

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_every_random_layer_and_no_other(self, mxnet: Any, hybridized: bool) -> None:
        nn, rnn = mxnet.gluon.nn, mxnet.gluon.rnn
        net = nn.HybridSequential()
        net.add(nn.Dense(8, flatten=False), nn.HybridLambda(lambda F, X: F.Dropout(X, p=0.3)))
        net.add(nn.BatchNorm(), nn.Dropout(0.5), nn.Dropout(0.0))
        net.add(
            rnn.LSTM(4, 2, layout="NTC"),
            nn.HybridLambda(lambda F, X: F.broadcast_mul(X, F.random.uniform(shape=(1, 1, 1)) > 0.02)),
        )
        net.initialize()
        if hybridized:
            net.hybridize()
        X = mxnet.nd.array(values(8, 3, 5))
        assert names(net, X) == ["1", "3", "6"]
        before = {name: param.data().asnumpy() for name, param in net.collect_params().items()}
        md.convert(net, seed=0)
        assert names(net, X) == ["1", "6"]
        assert net[3].stream.key == md.Key(0).fold_in("3")
        after = {name: param.data().asnumpy() for name, param in net.collect_params().items()}
        assert all(np.array_equal(value, after[name]) for name, value in before.items())
        assert all(block._active == hybridized for block in (net, net[3]))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_recurrent_layer_that_drops_between_its_layers(self, mxnet: Any, dtype: str) -> None:
        """MXNet's fused operator drops for float64. For float32 on a CPU it is oneDNN's, which drops nothing."""
        net = mxnet.gluon.nn.Sequential()
        net.add(
            mxnet.gluon.nn.Dense(6, flatten=False), mxnet.gluon.rnn.LSTM(4, 2, dropout=0.5, layout="NTC", dtype=dtype)
        )
        net.cast(dtype)
        net.initialize()
        X = mxnet.nd.array(values(4, 3, 5), dtype=dtype)
        with mxnet.autograd.record():
            first, second = (net(X).asnumpy() for _ in range(2))
        assert names(net, X) == ([] if np.array_equal(first, second) else ["1"])
        assert dtype == "float32" or not np.array_equal(first, second)

    def test_cells_that_keep_their_mask(self, mxnet: Any) -> None:
        """The first call draws it; each run begins without one, and so does what comes afterwards."""
        rnn = mxnet.gluon.rnn
        cell = mxnet.gluon.contrib.rnn.VariationalDropoutCell(rnn.LSTMCell(4), drop_inputs=0.5)
        cell.initialize()
        X = mxnet.nd.array(values(8, 5))
        assert names(cell, X, cell.begin_state(batch_size=8, func=mxnet.nd.zeros)) == [""]
        assert cell.drop_inputs_mask is None


class TestNumPy:
    def test_every_random_layer_and_no_other(self) -> None:
        from multidrop_numpy import Dropout, Layer, ReLU, Sequential

        class Noisy(Layer):
            def forward(self, X: Any) -> Any:
                return X + np.random.rand()

        model = Sequential(Dropout(0.5), ReLU(), Noisy(), Dropout(0.5, seed=1), Dropout(0.0))
        assert names(model, values(8, 4)) == ["0", "2"]
        model.eval()
        md.audit(model, values(8, 4))
        assert not any(layer.training for layer in model.children())
        assert model.layers[3].stream.key == md.Key(1)
