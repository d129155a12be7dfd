"""Nets on other devices: which are there, nets that are built on one, and batches that follow the net."""

from __future__ import annotations

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
