"""Claims of the pages in docs/ on models whose layers are replaced and put back, and on the frameworks' own layers."""

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
            with pytest.raises(TypeError, match=r"multidrop\.restore\(model\)"):
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

    def test_a_dropped_nan(self, torch: Any) -> None:
        """Becomes 0; torch's own layer multiplies, which leaves it."""
        from multidrop_torch import Dropout

        X = torch.full((64,), torch.nan)
        assert bool(torch.nn.Dropout(0.5)(X).isnan().all())
        assert np.array_equal(Dropout(0.5, seed=1)(X) == 0, ~md.keep_mask((64,), 0.5, 1))

    def test_the_state_of_torchs_generator_resumes_unseeded_layers(self, torch: Any) -> None:
        from multidrop_torch import Dropout

        layer, X = Dropout(0.5), torch.ones(64)
        state = torch.get_rng_state()
        masks = [layer(X), layer(X)]
        torch.set_rng_state(state)
        assert all(torch.equal(layer(X), mask) for mask in masks)


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


class TestGluon:
    @pytest.fixture(autouse=True)
    def backend(self, need: Any) -> Any:
        return need("mxnet")

    def test_a_dropped_nan(self, backend: Any) -> None:
        """Becomes 0; MXNet's own layer multiplies, which leaves it, and at p = 1 gives NaN for every number."""
        import mxnet as mx

        X, ones = mx.nd.full((64,), np.nan), mx.nd.ones((64,))
        own, ours = mx.gluon.nn.Dropout, backend.Dropout
        with mx.autograd.record():
            assert np.isnan(own(0.5)(X).asnumpy()).all()
            assert np.isnan(own(1.0)(ones).asnumpy()).all()
            assert np.array_equal(ours(0.5, seed=1)(X).asnumpy() == 0, ~md.keep_mask((64,), 0.5, 1))
            assert not ours(1.0, seed=1)(ones).asnumpy().any()

    def test_own_layers_make_sparse_arrays_dense(self) -> None:
        import mxnet as mx

        X = mx.nd.ones((4, 5)).tostype("csr")
        with mx.autograd.record():
            assert mx.gluon.nn.Dropout(0.5)(X).stype == "default"

    @pytest.mark.parametrize("own", [True, False])
    def test_a_hybridized_net_keeps_its_rate(self, backend: Any, own: bool) -> None:
        """Until it is hybridized again."""
        import mxnet as mx

        net, X = mx.gluon.nn.HybridSequential(), mx.nd.ones((64,))
        net.add(mx.gluon.nn.Dropout(0.5) if own else backend.Dropout(0.5, seed=1))
        net.hybridize()

        def drops() -> bool:
            with mx.autograd.record():
                return not net(X).asnumpy().all()

        assert drops()
        setattr(net[0], "_rate" if own else "rate", 0.0)
        assert drops()
        net.hybridize()
        assert not drops()

    def test_the_gradient_of_a_maximum_in_evaluation_mode(self) -> None:
        """Of MXNet's own pooling is right in float64. In float32 it reads memory that nothing has written."""
        import mxnet as mx

        X = mx.nd.array([[[[1.0, 2.0], [4.0, 3.0]]]], dtype="float64")
        X.attach_grad()
        with mx.autograd.record(train_mode=False):
            Y = mx.gluon.nn.MaxPool2D(2)(X)
        Y.backward()
        assert X.grad.asnumpy().ravel().tolist() == [0, 0, 1, 0]


def test_defaults_of_normalization(need: Any) -> None:
    """Differ between the frameworks."""
    for name in ("torch", "tensorflow", "mxnet"):
        need(name)
    import keras
    import mxnet as mx
    import torch

    batch, layer = torch.nn.BatchNorm1d(1), torch.nn.LayerNorm(1)
    assert (batch.eps, batch.momentum, layer.eps) == (1e-5, 0.1, 1e-5)
    batch, layer = keras.layers.BatchNormalization(), keras.layers.LayerNormalization()
    assert (batch.epsilon, batch.momentum, layer.epsilon) == (1e-3, 0.99, 1e-3)
    batch, layer = mx.gluon.nn.BatchNorm()._kwargs, mx.gluon.nn.LayerNorm()._kwargs
    assert (batch["eps"], batch["momentum"], layer["eps"]) == (1e-5, 0.9, 1e-5)
