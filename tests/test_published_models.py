"""Models as their publishers build them get this library's layers in two lines, and train."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md


def tokens(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (n, 16))


def images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *shape)).astype(np.float32)


def test_layers_in_a_model_of_transformers(need: Any, tmp_path: Path) -> None:
    """`from_pretrained` builds it without memory, and gives what a file lacks any: a layer's position is then that of
    its seed, or the one that is in the file. A model that is converted afterwards has no position before."""
    need("torch")
    import multidrop_torch
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    class Model(PreTrainedModel):
        config_class = PreTrainedConfig
        dropout: Any = nn.Dropout

        def __init__(self, config: PreTrainedConfig) -> None:
            super().__init__(config)
            self.dense, self.drop = nn.Linear(8, 8), self.dropout(0.5)
            self.post_init()

        def forward(self, X: Any) -> Any:
            return self.drop(self.dense(X))

    class Keyed(Model):
        dropout = functools.partial(multidrop_torch.Dropout, seed=3)

    class Unseeded(Model):
        dropout = multidrop_torch.Dropout

    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    Model(PreTrainedConfig()).save_pretrained(theirs)
    model = Keyed.from_pretrained(theirs).train()
    assert model.drop.stream.tolist() == [3, 0]
    model(torch.ones(2, 8))
    model.save_pretrained(ours)
    assert torch.equal(Keyed.from_pretrained(ours, dtype=torch.bfloat16).drop.stream, torch.tensor([3, 1]))
    assert Unseeded.from_pretrained(theirs).drop.stream is None
    model = Model.from_pretrained(theirs)
    md.convert(model, seed=3)
    assert model.drop.stream.tolist() == [md.Key(3).fold_in("drop").seed, 0]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["Bert", "GPT2"])
def test_transformers(need: Any, name: str, attention: str) -> None:
    """Of Hugging Face, built from a configuration: each dropout layer by name; attention by a fused function drops as
    before, which the report says."""
    need("torch")
    import torch
    import transformers

    sizes = {"vocab_size": 100, "attn_implementation": attention}
    if name == "Bert":
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **sizes
        )
        model = transformers.BertForSequenceClassification(config)
        expected = ["bert.embeddings.dropout"]
        for layer in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
            expected += [f"{layer}.{part}.dropout" for part in ("attention.self", "attention.output", "output")]
        expected += ["dropout"]
        rates = {path for path in expected if path.endswith("self.dropout")}
        labels = torch.zeros(4, dtype=torch.long)
    else:
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, **sizes)
        model = transformers.GPT2LMHeadModel(config)
        expected = ["transformer.drop"]
        for layer in ("transformer.h.0", "transformer.h.1"):
            expected += [f"{layer}.attn.attn_dropout", f"{layer}.attn.resid_dropout", f"{layer}.mlp.dropout"]
        rates = {path for path in expected if path.endswith("attn_dropout")}
        labels = torch.from_numpy(tokens(4))
    report = md.convert(model, seed=0)
    assert [path for path, _ in report.replaced] == expected
    assert {path for path, _ in report.unreached} == {path.rpartition(".")[0] for path in rates}
    model.train()
    X = torch.from_numpy(tokens(4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for _ in range(3):
        loss = model(input_ids=X, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    calls = {path: layer.stream.tolist()[1] for path, layer in model.named_modules() if path in expected}
    assert calls == {path: 0 if path in rates else 3 for path in expected}
    assert md.restore(model) == len(expected)


def test_keras_applications(need: Any) -> None:
    """A net of Keras' with a dropout in its head, and one whose head is the user's."""
    need("tensorflow")
    import keras

    keras.utils.set_random_seed(0)
    whole = keras.applications.MobileNet(weights=None, classes=4, input_shape=(32, 32, 3))
    assert [path for path, _ in md.convert(whole, seed=0).replaced] == ["dropout"]
    body = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg")
    model = keras.Sequential([body, keras.layers.Dropout(0.3, name="head"), keras.layers.Dense(4)])
    report = md.convert(model, seed=0)
    assert [path for path, _ in report.replaced] == ["head"]
    assert report.unreached == ()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=False)  # XLA takes half a minute to compile it
    model.fit(images(8, 32, 32, 3), np.arange(8) % 4, verbose=0, batch_size=4)
    assert md.last_mask(model.get_layer("head"), (4, 1280)).key == md.Key(md.Key(0).fold_in("head").seed, 1)
    assert md.restore(model) == 1


def test_gluon_model_zoo(need: Any) -> None:
    need("mxnet")
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision

    net = vision.squeezenet1_0(classes=4)
    report = md.convert(net, seed=0)
    assert [path for path, _ in report.replaced] == ["features.13"]
    assert report.unreached == ()
    net.initialize()
    net.hybridize()
    X, y = mx.nd.array(images(2, 3, 224, 224)), mx.nd.array([1, 2])
    trainer = mx.gluon.Trainer(
        {name: param for name, param in net.collect_params().items() if param.grad_req != "null"}, "sgd"
    )
    for _ in range(2):
        with mx.autograd.record():
            loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(X), y)
        loss.backward()
        trainer.step(2)
    mx.nd.waitall()
    assert net.features[13].stream.key == md.Key(md.Key(0).fold_in("features.13").seed, 2)
    assert md.restore(net) == 1
