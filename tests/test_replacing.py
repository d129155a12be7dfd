"""Claims of docs/drop-in.md and docs/processes.md on models whose dropout layers are replaced, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> Any:
        need("torch")
        import torch

        return torch

    def model(self, torch: Any) -> Any:
        return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    @pytest.mark.parametrize("seed", [3, None])
    def test_scripted_and_symbolically_traced(self, torch: Any, seed: int | None) -> None:
        """It is an error with these layers, and works once torch's own are back."""
        model = self.model(torch)
        md.convert(model, seed=seed)
        readers = (torch.jit.script, torch.fx.symbolic_trace)
        for read in readers:
            with pytest.raises(Exception):  # noqa: B017, PT011  # torch.jit and torch.fx raise different types
                read(model)
        md.restore(model)
        X = torch.ones(2, 4)
        for read in readers:
            assert torch.equal(read(model.eval())(X), model(X))

    def test_a_state_with_streams_loads_into_torchs_own_layers(self, torch: Any) -> None:
        model = self.model(torch)
        md.convert(model, seed=3)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        assert list(state) == ["0.weight", "0.bias", "1.stream"]
        md.restore(model)
        with pytest.raises(RuntimeError, match=r"1\.stream"):
            model.load_state_dict(state)
        assert model.load_state_dict(state, strict=False).unexpected_keys == ["1.stream"]

    @pytest.mark.filterwarnings("ignore:.*quantiz.*:DeprecationWarning", "ignore:.*quantiz.*:UserWarning")
    def test_quantized_tensors(self, torch: Any) -> None:
        """Are an error in evaluation mode too, where torch's own layer passes them through."""
        from multidrop_torch import Dropout

        X = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
        assert torch.nn.Dropout(0.5).eval()(X) is X
        for layer in (Dropout(0.5, seed=1), Dropout(0.5)):
            with pytest.raises(TypeError, match=r"X: expected a tensor of type float16, .*; got quint8"):
                layer.eval()(X)

    def test_the_state_of_torchs_generator_resumes_unseeded_layers(self, torch: Any) -> None:
        from multidrop_torch import Dropout

        layer, X = Dropout(0.5), torch.ones(64)
        state = torch.get_rng_state()
        masks = [layer(X), layer(X)]
        torch.set_rng_state(state)
        assert all(torch.equal(layer(X), mask) for mask in masks)

    def test_a_state_holds_the_counter_itself(self, torch: Any) -> None:
        """As it holds the weights themselves, and not copies."""
        from multidrop_torch import Dropout

        layer = Dropout(0.5, seed=2)
        state = layer.state_dict()
        layer(torch.ones(4))
        assert state["stream"].tolist() == [2, 1]


class TestKeras:
    @pytest.fixture(autouse=True)
    def tensorflow(self, need: Any) -> None:
        need("tensorflow")

    def test_weights_with_a_stream_load_once_the_model_is_restored(self, tmp_path: Path) -> None:
        import keras

        def model() -> Any:
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)])

        converted, own, x = model(), model(), np.ones((2, 4), np.float32)
        file = tmp_path / "model.weights.h5"
        md.convert(converted, seed=3)
        converted.save_weights(file)
        with pytest.raises(ValueError, match="could not be loaded"):
            own.load_weights(file)
        md.restore(converted)
        converted.save_weights(file)
        own.load_weights(file)
        assert np.array_equal(own(x), converted(x))

    def test_keras_own_layer_recomputed_by_tensorflow(self) -> None:
        """Drops by a different mask than at first, which multidrop's layers refuse to do."""
        import keras
        import tensorflow as tf

        layer, X = keras.layers.Dropout(0.5), tf.ones((4, 64))
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = tf.recompute_grad(lambda X: layer(X, training=True))(X)
        assert not np.array_equal(Y, tape.gradient(Y, X))
