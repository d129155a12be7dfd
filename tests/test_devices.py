"""Nets on other devices: which are there, nets that are built on one, and batches that follow the net."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.section.devices import on_device


class TestChoice:
    def test_every_backend_has_the_cpu(self, backend: Any) -> None:
        with on_device(backend, "cpu"):
            net = md.Net(num_inputs=4, seed=0)
        with on_device(backend):
            other = md.Net(num_inputs=4, seed=0)
        first, second = backend.get_state(net), backend.get_state(other)
        assert all(np.array_equal(values, second[name]) for name, values in first.items())

    @pytest.mark.parametrize("device", ["cuda:99", "gpu of mine", "cpu:", ":0", "meta"])
    def test_a_device_that_is_not_here_is_named(self, backend: Any, device: str) -> None:
        with pytest.raises(ValueError, match=f"device: expected cpu.* {backend.name} can train here; got '{device}'"):
            on_device(backend, device)

    def test_a_backend_without_this_part_has_the_cpu_alone(self) -> None:
        class Toy:
            name = "toy"

        with on_device(Toy(), "cpu"):
            pass
        with pytest.raises(ValueError, match="device: expected cpu, where toy can train here; got 'cuda'"):
            on_device(Toy(), "cuda")

    def test_the_number_of_a_device_is_0_if_it_is_not_given(self) -> None:
        class Toy:
            name = "toy"
            devices = staticmethod(lambda: {"cpu": "host", "cuda:0": "first", "cuda:1": "second"})

        names = ("cpu", "cuda", "cuda:0", "cuda:1")
        assert [on_device(Toy(), name) for name in names] == ["host", "first", "first", "second"]
        with pytest.raises(
            ValueError, match="expected cpu or cuda:0 or cuda:1, where toy can train here; got 'cuda:2'"
        ):
            on_device(Toy(), "cuda:2")


class TestTorch:
    """Nets on a device, as torch's own layers are: built within a `torch.device`, or moved by `to`."""

    @pytest.fixture(autouse=True)
    def torch(self, torch_backend: None) -> Any:
        import torch

        return torch

    @pytest.mark.parametrize("build", [md.Net, md.concise_net])
    def test_built_within(self, torch: Any, build: Any) -> None:
        with torch.device("meta"):
            net = build(num_inputs=4, seed=0)
        assert {p.device.type for p in net.parameters()} == {"meta"}
        assert {p.device.type for p in build(num_inputs=4, seed=0).parameters()} == {"cpu"}

    @pytest.mark.parametrize("seed", [3, None])
    def test_a_stream_is_where_its_layer_is_built(self, torch: Any, seed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a GPU too, which is only named here."""
        from multidrop_torch import Dropout, MemberLayer
        from multidrop_torch.keyed import Keyed

        moved: list[Any] = []
        monkeypatch.setattr(Keyed, "_move", lambda layer, place: moved.append(place))
        monkeypatch.setattr(torch, "get_default_device", lambda: torch.device("cuda:1"))
        Dropout(0.5, seed=seed), MemberLayer(md.family.DropPath(0.5), seed=seed)
        assert moved == [torch.device("cuda:1")] * 2

    def test_a_device_without_a_kernel(self, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Gets a mask that the host draws: here a tensor only says that it is neither on the CPU nor on a GPU."""
        from multidrop_torch import draw, on_host

        from multidrop.spec import masks
        from multidrop.spec.masks import Mask

        class Elsewhere(torch.Tensor):
            is_cpu = is_cuda = False

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("the kernel of the CPU was called")

        for name in ("drop", "drop_", "relu_gradient"):
            monkeypatch.setattr(on_host, name, refuse)
        x = np.linspace(-1.0, 1.0, 120, dtype=np.float32).reshape(4, 5, 6)
        X = torch.from_numpy(x.copy()).as_subclass(Elsewhere)
        for mask in (Mask(0.3, md.Key(7, 3), 5), Mask(0.3, md.Key(7, 3), 0, (2,))):
            whole = masks.dropout(x, *mask)
            assert np.array_equal(draw.drop(X, mask).numpy(), whole)
            assert np.array_equal(draw.drop_(X.clone().as_subclass(Elsewhere), mask).numpy(), whole)
            Y = draw.drop(X, mask, True)
            assert np.array_equal(Y.numpy(), masks.dropout(masks.relu(x), *mask))
            gradient = np.where(Y.numpy() == 0, np.float32(0), x * np.float32(masks.scale(0.3, "float32")))
            assert np.array_equal(draw.relu_gradient(X, Y, 0.3).numpy(), gradient)

    def test_the_page_runs(self) -> None:
        page = (Path(__file__).parents[1] / "docs" / "devices.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        exec(compile(code, "docs/devices.md", "exec"), {"__name__": "page"})

    def test_batches_go_to_the_net(self, torch: Any) -> None:
        """From anywhere, in training and in evaluation: the meta device stands for one that is not the host's."""
        from multidrop_torch import Trainer

        X, y = torch.ones(6, 4), torch.arange(6)
        for seed in (3, None):
            with torch.device("meta"):
                trainer = Trainer(md.Net(num_inputs=4, seed=seed), 0.5)
            for found in (trainer.step(X, y), trainer.evaluate(X, y), trainer.step(X.to("meta"), y)):
                assert [value.device.type for value in found] == ["meta", "meta"]

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("kind", [np.uint8, np.float64])
    def test_data_on_a_device(self, torch: Any, dtype: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give the batches of the host, bit for bit, in the same order: a device that stands for another is the CPU,
        and each number of a byte is among the data."""
        from multidrop_torch import Trainer, training

        images = np.arange(256 * 5, dtype=np.uint32).reshape(256, 5).astype(np.uint8).astype(kind) / kind(3)
        images = images.astype(kind)
        labels = np.arange(256) % 10
        here, there = (md.batches(images, labels, 100, seed=5, dtype=dtype) for _ in range(2))
        trainer = Trainer(md.Net(num_inputs=5, seed=0), 0.5)
        assert here.kept(trainer) is None
        monkeypatch.setattr(trainer, "resident", lambda *data: training.kept_on(torch.device("cpu"), *data))
        made = there.kept(trainer)
        for _ in range(2):
            for first, second in zip(here, there.by(made), strict=True):
                assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))
        assert there.epoch == 2

    def test_training_by_data_on_a_device(self, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is training by batches of the host, in every bit; each data set is copied once."""
        from multidrop_torch import Trainer, training

        copies: list[Any] = []

        def resident(trainer: Any, *data: Any) -> Any:
            copies.append(data)
            return training.kept_on(torch.device("cpu"), *data)

        losses = []
        for kept in (False, True):
            if kept:
                monkeypatch.setattr(Trainer, "resident", resident)
            md.manual_seed(1)
            batches = md.load_data_fashion_mnist(500, "mini")
            history = md.train(md.Net(), *batches, num_epochs=2, train_accuracy=True)
            losses.append([(epoch.train_loss, epoch.test_loss, epoch.eval_train_loss) for epoch in history.epochs])
        assert losses[0] == losses[1]
        assert len(copies) == 2
        assert {data[0].shape for data in copies} == {(6000, 1, 28, 28), (1000, 1, 28, 28)}

    def test_data_sets_that_share_their_images(self, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep their own labels on the device."""
        from multidrop_torch import Trainer, training

        X = np.random.default_rng(0).random((64, 4), np.float32)
        losses = []
        for kept in (False, True):
            if kept:
                resident = lambda trainer, *data: training.kept_on(torch.device("cpu"), *data)  # noqa: E731
                monkeypatch.setattr(Trainer, "resident", resident)
            md.manual_seed(1)
            batches = [md.batches(X, np.full(64, label), 16) for label in (0, 1)]
            history = md.train(md.Net(num_inputs=4, num_outputs=2), *batches, num_epochs=1)
            losses.append((history.epochs[0].train_loss, history.epochs[0].test_loss))
        assert losses[0] == losses[1]

    def test_data_that_is_too_large_stays_on_the_host(self, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from multidrop.section.data import minibatches

        batches = md.batches(np.zeros((8, 4), np.uint8), np.zeros(8, int), 4)
        monkeypatch.setattr(minibatches, "LARGEST", 31)

        assert batches.kept(None) is None  # whom it does not ask

    def test_a_state_goes_to_the_net(self, torch: Any) -> None:
        """Streams too, of which a GPU's are counted on from there."""
        import multidrop_torch
        from multidrop_torch import net as net_module

        net, state = md.Net(num_inputs=4, seed=0), multidrop_torch.get_state(md.Net(num_inputs=4, seed=1))
        told: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(net_module, "move", lambda stream, position: told.append(position.tolist()))
            multidrop_torch.set_state(net, state)
        assert told == [state[name].view(np.int64).tolist() for name in ("dropout1", "dropout2")]


class TestMXNet:
    """Contexts of the CPU stand for those of GPUs."""

    @pytest.fixture(autouse=True)
    def mxnet(self, need: Any) -> Any:
        need("mxnet")
        with md.use_backend("mxnet"):
            import mxnet

            yield mxnet

    @pytest.mark.parametrize("build", [md.Net, md.concise_net])
    def test_built_within(self, mxnet: Any, build: Any) -> None:
        with mxnet.cpu(1):
            net = build(num_inputs=4, seed=0)
        params = net.params if build is md.Net else [param.data() for param in net.collect_params().values()]
        assert {str(param.ctx) for param in params} == {"cpu(1)"}

    @pytest.mark.parametrize("build", [md.Net, md.concise_net])
    def test_batches_go_to_the_net(self, mxnet: Any, build: Any) -> None:
        """And a run in a context is that of another, as is one that changes its context between two epochs."""
        from multidrop_mxnet import get_state, set_state

        states = []
        for places in ((0, 0), (1, 1), (0, 1)):
            batches = md.load_data_fashion_mnist(500, "mini", seed=5)
            state = None
            for place in places:
                with mxnet.cpu(place):
                    net = build(seed=1)
                if state is not None:
                    set_state(net, state)
                md.train(net, *batches, num_epochs=1)
                state = get_state(net)
            states.append(state)
        for state in states[1:]:
            assert all(np.array_equal(values, states[0][name]) for name, values in state.items())


class TestTensorFlow:
    def test_a_step_runs_where_the_weights_are(self, need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is a GPU, which TensorFlow would choose: here it is only said to be there."""
        need("tensorflow")
        import tensorflow as tf
        from multidrop_tensorflow import Trainer

        places: list[str] = []
        device = tf.device
        monkeypatch.setattr(tf, "device", lambda name: (places.append(name), device(name))[1])
        X, y = tf.ones((6, 4)), tf.range(6)
        with md.use_backend("tensorflow"):
            trainer = Trainer(md.Net(num_inputs=4, seed=0), 0.5)
        trainer.step(X, y)
        assert places == []
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a GPU"])
        trainer.step(X, y), trainer.evaluate(X, y)
        assert len(places) == 2
        assert all(place.endswith("/device:CPU:0") for place in places)
