"""What Keras adds to the layers of the family: models that are saved whole, policies, and layers of its own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from members import all_members, one_of_each, values

import multidrop as md
from multidrop import Key, family
from multidrop.family import Member
from multidrop.testing import same_bits

SEED = 7


class TestKeras:
    @pytest.fixture(autouse=True)
    def ours(self, need: Any) -> Any:
        return need("tensorflow")

    @all_members
    def test_a_model_is_saved_whole(self, ours: Any, member: Member, tmp_path: Path) -> None:
        """Of symbolic inputs, with the layer's settings and where it is."""
        import keras

        inputs = keras.Input(batch_shape=member.example_shape)
        outputs = ours.layer(member, seed=SEED)(inputs)
        assert outputs.shape == member.example_shape
        model, x = keras.Model(inputs, outputs), values(member.example_shape)
        model(x, training=True)
        model.save(tmp_path / "model.keras")
        other = keras.saving.load_model(tmp_path / "model.keras")
        for _ in range(2):
            assert same_bits(model(x, training=True).numpy(), other(x, training=True).numpy())
        assert other.layers[-1].get_config() == model.layers[-1].get_config()

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
    @one_of_each
    def test_types(self, ours: Any, member: Member, policy: str) -> None:
        """A layer computes in its policy's type, as all of Keras' do."""
        import tensorflow as tf

        layer = ours.MemberLayer(member, seed=SEED, dtype=policy)
        X = tf.constant(values(member.example_shape))
        Y = layer(X, training=True)
        assert Y.dtype == layer.compute_dtype
        expected = md.apply(member, tf.cast(X, layer.compute_dtype), Key(SEED))
        assert same_bits(Y.numpy(), expected.numpy())

    @pytest.mark.parametrize(
        ("name", "settings", "member"),
        [
            ("DropPath", {"rate": 0.3, "mode": "batch"}, family.DropPath(0.3, "batch")),
            ("DropBlock", {"rate": 0.3, "block_size": 2}, family.DropBlock(0.3, 2, "channels_last")),
            ("DropBlock", {"data_format": "channels_first"}, family.DropBlock()),
            ("LockedDropout", {"rate": 0.3}, family.LockedDropout(0.3, True)),
            ("ConcreteDropout", {"rate": 0.3, "temperature": 0.2}, family.ConcreteDropout(0.3, 0.2)),
        ],
    )
    def test_named_layers(self, ours: Any, name: str, settings: dict[str, Any], member: Member) -> None:
        kind = getattr(ours, name)
        layer = kind(**settings, seed=SEED)
        assert layer.member == member
        configuration = layer.get_config()
        assert settings.items() <= configuration.items()
        again = kind.from_config(configuration)
        assert (again.member, again.get_config()) == (member, configuration)
        with pytest.raises(ValueError, match="rate: expected a probability"):
            kind(rate=1.5)
        with pytest.raises(ValueError, match="seed: expected"):
            kind(seed="one")

    def test_a_member_of_a_package_that_is_not_imported(self, ours: Any) -> None:
        configuration = ours.MemberLayer(family.Dropout()).get_config()
        text = configuration["member"].replace("Dropout", "Elsewhere")
        with pytest.raises(ValueError, match="member: expected one whose class is imported; got 'Elsewhere'"):
            ours.MemberLayer.from_config({**configuration, "member": text})

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
    @pytest.mark.parametrize("xla", [None, False, True], ids=["eager", "function", "xla"])
    def test_alpha_dropout_is_the_member(self, ours: Any, dtype: str, xla: bool | None) -> None:
        """Keras' own class too, in every type: outputs and gradients."""
        import tensorflow as tf

        member, X = family.AlphaDropout(0.3), tf.cast(values((5, 7)), dtype)

        def both(X: Any, drop: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = drop(X)
            return Y, tape.gradient(Y, X, output_gradients=X)

        layer = ours.AlphaDropout(0.3, seed=SEED, dtype=dtype)
        drops = (lambda X: layer(X, training=True), lambda X: md.apply(member, X, Key(SEED)))
        runs = [lambda X, drop=drop: both(X, drop) for drop in drops]
        if xla is not None:
            runs = [tf.function(run, autograph=False, jit_compile=xla) for run in runs]
        for mine, expected in zip(*(run(X) for run in runs), strict=True):
            assert mine.dtype == dtype
            assert same_bits(mine.numpy(), expected.numpy())

    @pytest.mark.parametrize("name", ["AlphaDropout", "GaussianDropout", "GaussianNoise"])
    def test_a_number_of_dimensions_that_is_not_known(self, ours: Any, name: str) -> None:
        import tensorflow as tf

        layer, X = getattr(ours, name)(0.3, seed=SEED), tf.constant(values((4, 5)))
        run = tf.function(lambda X: layer(X, training=True), [tf.TensorSpec(None)], autograph=False)
        expected = tf.function(lambda X: md.apply(getattr(family, name)(0.3), X, Key(SEED)), autograph=False)
        assert same_bits(run(X).numpy(), expected(X).numpy())

    def test_alpha_dropout_along_axes(self, ours: Any) -> None:
        import tensorflow as tf

        layer, X = ours.AlphaDropout(0.5, noise_shape=(None, 1), seed=SEED), tf.zeros((64, 3))
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = layer(X, training=True)
        kept = md.keep_mask((64, 1), 0.5, Key(SEED))
        assert np.array_equal(Y.numpy() > 0, np.broadcast_to(kept, (64, 3)))
        assert np.array_equal(tape.gradient(Y, X).numpy() > 0, np.broadcast_to(kept, (64, 3)))

    def test_the_regularizer_of_a_weight(self, ours: Any, need: Any) -> None:
        """Is torch's, for the weight in Keras' layout; its entropy term is among the losses already."""
        need("torch")
        import multidrop_torch
        import tensorflow as tf
        import torch

        weight = values((6, 4))
        layer = ours.ConcreteDropout(0.2, regularizer=0.5, seed=SEED)
        layer(weight, training=True)
        other = multidrop_torch.ConcreteDropout(0.2, seed=SEED)
        found, W = layer.regularizer(weight, length_scale=0.3), torch.from_numpy(weight.T.copy())
        assert np.isclose(float(found), float(other.regularizer(W, length_scale=0.3).detach()))
        assert np.isclose(2.0 * sum(map(float, layer.losses)), 4 / 6 * float(layer.regularizer(weight, length_scale=0)))
        with tf.GradientTape() as tape:
            value = layer.regularizer(weight)
        other.regularizer(W).backward()
        assert np.isclose(float(tape.gradient(value, layer.logit.value)), float(other.logit.grad))
        with pytest.raises(ValueError, match="length_scale: expected"):
            layer.regularizer(weight, length_scale=-1.0)
        with pytest.raises(TypeError, match="weight: expected a tensor of type"):
            layer.regularizer(np.ones((2, 2), int))

    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize(("saved", "loaded"), [("keras", "keyed"), ("keyed", "keras"), ("keyed", "keyed")])
    def test_legacy_files(self, ours: Any, tmp_path: Path, saved: str, loaded: str, nested: bool) -> None:
        """Files of whole models in Keras' old format have no positions, so that their weights load either way."""
        import keras

        def build(home: str) -> Any:
            drop = keras.layers.Dropout(0.5) if home == "keras" else ours.Dropout(0.5, seed=SEED)
            layers = [keras.Input((4,)), keras.layers.Dense(4), drop, keras.layers.Dense(2)]
            return keras.Sequential([keras.Input((4,)), keras.Sequential(layers)] if nested else layers)

        x, first, second = values((3, 4)), build(saved), build(loaded)
        first(x, training=True)
        first.save(tmp_path / "model.h5")
        second.load_weights(tmp_path / "model.h5")
        assert same_bits(first(x).numpy(), second(x).numpy())
        if loaded == "keyed":
            assert same_bits(second(x, training=True).numpy(), build_again(first, build("keyed"), x))
        whole = keras.saving.load_model(tmp_path / "model.h5")
        assert same_bits(first(x).numpy(), whole(x).numpy())

    def test_the_layers_of_the_net_are_called(self, ours: Any) -> None:
        """So that what watches layers sees the hidden activations."""
        net, x, seen = ours.Net(8, 3, 6, 5, seed=SEED), values((4, 8)), {}
        for layer in net.layers:
            call = layer.call
            watched = lambda *inputs, call=call, name=layer.name, **options: seen.setdefault(  # noqa: E731  # a hook
                name, call(*inputs, **options)
            )
            object.__setattr__(layer, "call", watched)
        Y = net(x, training=True)
        names = [layer.name for layer in net.layers]
        assert sorted(seen) == sorted(names)
        assert [seen[layer.name].shape[1] for layer in (net.lin1, net.dropout1, net.lin2, net.dropout2)] == [6, 6, 5, 5]
        hidden = np.maximum(x @ net.lin1.kernel.numpy() + net.lin1.bias.numpy(), 0.0)
        assert np.allclose(seen[net.lin1.name], hidden, atol=1e-6)
        assert same_bits(seen[net.lin3.name].numpy(), Y.numpy())


def build_again(first: Any, keyed: Any, x: Any) -> Any:
    """What a new keyed model with the first one's weights gives in its first call."""
    for mine, other in zip(keyed.trainable_weights, first.trainable_weights, strict=True):
        mine.assign(other)
    return keyed(x, training=True).numpy()
