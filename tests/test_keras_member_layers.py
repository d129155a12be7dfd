"""What Keras adds to the layers of the family: models that are saved whole, policies, and layers of its own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
