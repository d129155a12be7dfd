"""Training on a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import gpu_ways  # before torch: it sets Triton's variable, or skips
import numpy as np
import pytest
import torch
from gpu_ways import (
    SEED,
    P,
    expected,
    kept,
    mask_of,
    on_gpu,
    same_bits,
)
from multidrop_torch import functional
from multidrop_torch.position import key_at

from multidrop import Key, host
from multidrop.spec import masks
from multidrop.spec.masks import Mask

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone
with_numba = pytest.mark.skipif(find_spec("numba") is None, reason="is about the host too, whose kernel Numba compiles")


# torch's own: it announces that its check for synchronisation is a prototype, and how it treats gradients' streams.
@pytest.mark.filterwarnings("ignore::UserWarning")
@on_gpu
class TestTraining:
    """Keyed layers on a GPU: no waiting, captured graphs, moves between devices."""

    @staticmethod
    def net(seed: Any = SEED) -> Any:
        from multidrop_torch import Dropout

        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(40, 64), Dropout(P, seed=seed), torch.nn.Linear(64, 8)).cuda()

    @staticmethod
    def step(net: Any, X: Any, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)
        net(X).square().mean().backward()
        optimizer.step()

    def test_no_synchronisation(self) -> None:
        """In training steps, in place, with a ReLU, in channels, and in large tensors; and the check can fail."""
        from multidrop_torch import AlphaDropout, Dropout, Dropout2d

        net, X = self.net(), torch.randn(16, 40, device="cuda")
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        layers = [
            Dropout(P, seed=1),
            Dropout(P, True, seed=1),
            Dropout2d(P, seed=1),
            Dropout(P),
            AlphaDropout(P, seed=1),
        ]
        for layer in layers:
            layer.cuda()
        images, large = torch.randn(4, 16, 8, 8, device="cuda"), torch.randn(2**20, device="cuda", requires_grad=True)
        last = images.to(memory_format=torch.channels_last)

        def run() -> None:
            self.step(net, X, optimizer)
            for layer in layers:
                layer(images.clone())
                layer(last.clone())
                with torch.no_grad():
                    layer(images.clone())
            layers[0](large).sum().backward()
            layers[0].after_relu(large).sum().backward()
            functional.dropout_layer(images, P)

        run()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run()
            with pytest.raises(RuntimeError, match="synchroniz"):
                layers[0].stream.tolist()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_masks_of_a_layer(self) -> None:
        """Call after call; `last_mask` and the saved position are read when they are asked for."""
        from multidrop_torch import Dropout
        from multidrop_torch.keyed import drawing  # not md.last_mask, for which multidrop must be installed

        for n in (16, 5000, 2**20):
            layer = Dropout(P, seed=Key(7, 2**63 - 1)).cuda()
            for call in (2**63 - 1, 2**63, 2**63 + 1):
                X = torch.ones(n, device="cuda", requires_grad=call == 2**63)
                Y = layer(X)
                assert torch.equal(mask_of(Y), kept((n,), Key(7, call)))
                last = drawing(layer)
                assert (last.last, last.last_p, last.shape) == (Key(7, call), P, (n,))
                if call == 2**63:
                    Y.sum().backward()
                    assert torch.equal(mask_of(X.grad), mask_of(Y))
            assert key_at(layer.state_dict()["stream"]) == Key(7, 2**63 + 2)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_data_on_the_gpu(self, dtype: str) -> None:
        """Has the values of the host, bit for bit, of each byte."""
        from multidrop_torch import training

        values = np.arange(256).astype(dtype) / np.asarray(255, dtype)
        images, labels = np.arange(256, dtype=np.uint8).reshape(64, 4), np.arange(64) % 10
        order = np.random.default_rng(0).permutation(64)
        found = [*training.kept_on(torch.device("cuda"), images, labels, values)(order, 24)]
        assert [len(y) for _, y in found] == [24, 24, 16]
        X, y = (torch.cat(each) for each in zip(*found, strict=True))
        assert X.is_cuda
        assert y.is_cuda
        assert np.array_equal(X.cpu().numpy(), images[order].astype(dtype) / np.asarray(255, dtype))
        assert np.array_equal(y.cpu().numpy(), labels[order])

    @pytest.mark.parametrize("place", ["cpu", "cuda"])
    def test_no_synchronisation_in_steps_of_the_section(self, place: str) -> None:
        """Whose batches come from the host, or from data on the GPU."""
        from multidrop_torch import Net, Trainer, training

        with torch.device("cuda"):
            trainer = Trainer(Net(num_inputs=4, seed=3), 0.5)
        images, labels = np.arange(256, dtype=np.uint8).reshape(64, 4), np.arange(64) % 10
        batches = training.kept_on(torch.device(place), images, labels, np.linspace(0, 1, 256, dtype=np.float32))
        order = np.arange(64)

        def run() -> list[Any]:
            return [trainer.step(X, y) for X, y in batches(order, 24)]

        run()
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(loss.is_cuda and torch.isfinite(loss) for loss, _ in found)

    @with_numba
    def test_a_run_that_moves_by_its_states(self) -> None:
        """CPU to GPU to CPU: the masks of a run that stayed, and weights that differ by rounding alone. A net that is
        built on the GPU has its streams there, and the host counts on from a state that is set."""
        from multidrop_torch import Net, Trainer, get_state, set_state
        from multidrop_torch.gpu import positions
        from multidrop_torch.keyed import drawing

        X, y = torch.randn(48, 4), torch.arange(48) % 10
        finals, seen = [], []
        for places in (("cpu",) * 3, ("cpu", "cuda", "cpu"), ("cuda", "cpu", "cuda")):
            state, masks_of = None, []
            for place in places:
                with torch.device(place):
                    net = Net(num_inputs=4, seed=3)
                assert net.dropout1.stream.device.type == place
                if state is not None:
                    set_state(net, state)
                    assert place == "cpu" or positions.counted(net.dropout1.stream) is not None
                    set_state(net, state)  # `counted` took a call
                trainer = Trainer(net, 0.5)
                with patch.object(host, "keep_mask", masks.keep_mask):
                    for _ in range(2):
                        trainer.step(X, y)
                        masks_of += [drawing(layer).last for layer in (net.dropout1, net.dropout2)]
                state = get_state(net)
            finals.append(state)
            seen.append(masks_of)
        assert seen[0] == seen[1] == seen[2]
        for state in finals[1:]:
            for name, value in state.items():
                np.testing.assert_allclose(value, finals[0][name], rtol=1e-4, atol=1e-5, err_msg=name)

    @pytest.mark.filterwarnings("ignore")  # what torch says of a mesh of one is not what is tested
    def test_a_mesh_of_one(self, tmp_path: Any) -> None:
        """FSDP2 and tensor parallel: the masks of the layer alone, keyed and by its rank."""
        import torch.distributed as dist
        from multidrop_torch import Dropout, per_rank
        from multidrop_torch.ranks import at_place
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor
        from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module

        store = (tmp_path / "store").as_uri()
        dist.init_process_group("nccl", init_method=store, rank=0, world_size=1, device_id=torch.device("cuda", 0))
        try:
            mesh = init_device_mesh("cuda", (1,))
            ones = torch.ones(16, 64, device="cuda")
            net = fully_shard(self.net(), mesh=mesh)
            seen: list[Any] = []
            net[1].register_forward_hook(lambda layer, inputs, Y: seen.append((inputs[0].detach(), Y.detach())))
            for call in range(2):
                net(torch.randn(16, 40, device="cuda")).sum().backward()
                X, Y = seen[call]
                assert same_bits(Y, expected(X, Mask(P, Key(SEED.seed, SEED.call + call))))
            layer = per_rank(Dropout(P, seed=SEED).cuda(), mesh)
            assert torch.equal(mask_of(layer(ones)), kept((16, 64), at_place(SEED, 0)))
            for placement in (Shard(0), Shard(1), Replicate()):
                layer = Dropout(P, seed=SEED).cuda()
                X = distribute_tensor(ones, mesh, [placement]).requires_grad_()
                Y = layer(X)
                Y.sum().backward()
                for each in (Y, X.grad):
                    assert torch.equal(mask_of(each.full_tensor()), kept((16, 64), SEED))
            model = torch.nn.Sequential(torch.nn.Linear(8, 8), Dropout(P, seed=SEED)).cuda()
            model = parallelize_module(model, mesh, {"1": SequenceParallel()})
            model(torch.ones(2, 4, 8, device="cuda")).sum().backward()
            assert key_at(model[1].stream) == Key(SEED.seed, SEED.call + 1)
        finally:
            dist.destroy_process_group()

    @with_numba
    def test_from_device_to_device(self) -> None:
        """A run that moves to the GPU and back has the masks of one that stayed."""
        from multidrop_torch import Dropout

        layer = Dropout(P, seed=Key(7, 3))
        for call, place in enumerate(("cpu", "cuda", "cuda", "cpu", "cuda"), 3):
            layer.to(place)
            with patch.object(host, "keep_mask", masks.keep_mask):
                assert torch.equal(mask_of(layer(torch.ones(300, device=place))), kept((300,), Key(7, call)))

    def test_captured_steps(self) -> None:
        """Two replays draw two masks; five captured steps have the masks of five eager ones; after its state is
        restored, a graph draws them again."""
        net, X = self.net(), torch.randn(16, 40, device="cuda")
        masks_seen: list[Any] = []
        ones = torch.ones(16, 64, device="cuda")
        optimizer = torch.optim.SGD(net.parameters(), 0.1)

        def run() -> Any:
            self.step(net, X, optimizer)
            return net[1](ones)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        start = {name: value.clone() for name, value in net.state_dict().items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y = run()
        assert torch.equal(net.state_dict()["1.stream"], start["1.stream"])  # nothing ran while it was captured

        def restore() -> None:
            net.load_state_dict(start)

        for _ in range(2):
            for _ in range(5):
                graph.replay()
                masks_seen.append(mask_of(Y))
            restore()
        eager, weights = [], None
        for _ in range(5):
            eager.append(mask_of(run()))
        weights = [p.detach().clone() for p in net.parameters()]
        restore()
        for _ in range(5):
            graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(masks_seen[:5], masks_seen[5:], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(masks_seen[:5], eager, strict=True))
        assert not torch.equal(masks_seen[0], masks_seen[1])
        first = key_at(start["1.stream"].cpu())
        assert torch.equal(masks_seen[0], kept((16, 64), Key(first.seed, first.call + 1)))
        for a, b in zip(net.parameters(), weights, strict=True):
            torch.testing.assert_close(a.detach(), b)

    def test_calls_before_and_after_a_graph(self) -> None:
        """Eager calls, replays, and what is loaded go on from each other."""
        from multidrop_torch import Dropout
        from multidrop_torch.keyed import drawing

        layer, X = Dropout(P, seed=SEED).cuda(), torch.ones(3000, device="cuda")
        for call in range(2):
            assert torch.equal(mask_of(layer(X)), kept((3000,), Key(SEED.seed, SEED.call + call)))
        saved = layer.state_dict()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y = layer(X)
        for _ in range(2):
            for call in (2, 3, 4):
                if call == 3:
                    Z = layer(X)
                else:
                    graph.replay()
                    Z = Y
                assert torch.equal(mask_of(Z), kept((3000,), Key(SEED.seed, SEED.call + call)))
                assert drawing(layer).last == Key(SEED.seed, SEED.call + call)
            layer.load_state_dict(saved)

    def test_large_and_permuted_under_capture(self) -> None:
        from multidrop_torch import Dropout

        layer = Dropout(P, seed=3).cuda()
        large, last = torch.ones(2**20, device="cuda"), torch.ones(2, 16, 8, 8, device="cuda")
        last = last.to(memory_format=torch.channels_last)
        layer(large), layer(last)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y, Z = layer(large), layer(last)
        for call in (2, 4, 6):
            graph.replay()
            assert torch.equal(mask_of(Y), kept((2**20,), Key(3, call)))
            assert torch.equal(mask_of(Z), kept((2, 16, 8, 8), Key(3, call + 1)))

    def test_graphed_callables(self) -> None:
        net, X = self.net(), torch.randn(16, 40, device="cuda")
        layer = net[1]
        graphed = torch.cuda.make_graphed_callables(net, (X,))
        seen = []
        for _ in range(3):
            graphed(X).sum().backward()
            seen.append(key_at(layer.stream).call)
        assert seen == [seen[0], seen[0] + 1, seen[0] + 2]

    def test_unseeded_layers_follow_the_generator(self) -> None:
        """torch's CUDA generator, eager and captured, with the same masks in both."""
        from multidrop_torch import Dropout

        layer, X = Dropout(P).cuda(), torch.ones(3000, device="cuda")
        torch.manual_seed(5)
        eager = [mask_of(layer(X)) for _ in range(3)]
        torch.manual_seed(5)
        assert torch.equal(mask_of(layer(X)), eager[0])
        assert not torch.equal(eager[0], eager[1])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y = layer(X)
        torch.manual_seed(5)
        for number in range(3):
            graph.replay()
            assert torch.equal(mask_of(Y), eager[number])

    @pytest.mark.parametrize("seed", [None, 3])
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_activation_checkpointing(self, seed: Any, reentrant: bool) -> None:
        from torch.utils.checkpoint import checkpoint

        gradients = []
        for kept_whole in (True, False):
            net, X = self.net(seed), torch.ones(16, 40, device="cuda", requires_grad=True)
            torch.manual_seed(2)
            for _ in range(2):
                Y = net(X) if kept_whole else checkpoint(net, X, use_reentrant=reentrant)
                Y.square().sum().backward()
            gradients.append([p.grad.clone() for p in net.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)

    # torch's own, at its first compilation: it announces what it is about to change.
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch", "ignore::FutureWarning")
    @pytest.mark.parametrize("how", ["default", "reduce-overhead"])
    def test_compiled(self, how: str) -> None:
        """A compiled keyed layer has the masks of an eager one, also in CUDA graphs; an unseeded one has new ones."""
        from multidrop_torch import Dropout

        layer, free = Dropout(P, seed=3).cuda(), Dropout(P).cuda()
        run = torch.compile(lambda X: layer(X * 1.0) * 1.0, mode=None if how == "default" else how, fullgraph=True)
        for call in range(5):
            X = torch.ones(64, 32, device="cuda", requires_grad=True)
            torch.compiler.cudagraph_mark_step_begin()
            Y = run(X)
            assert torch.equal(mask_of(Y), kept((64, 32), Key(3, call)))
            Y.sum().backward()
            assert torch.equal(mask_of(X.grad), kept((64, 32), Key(3, call)))
        run = torch.compile(lambda X: free(X * 1.0) * 1.0, fullgraph=True)
        X = torch.ones(64, 32, device="cuda")
        assert not torch.equal(mask_of(run(X)), mask_of(run(X)))

    def test_autocast(self) -> None:
        net, X = self.net(Key(7)), torch.randn(16, 40, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            hidden = net[0](X)
            Y = net[1](hidden)
        assert Y.dtype == torch.bfloat16
        assert same_bits(Y, expected(hidden, Mask(P, Key(7))))
