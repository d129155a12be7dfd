"""Threads, copies and processes: no counter is shared, and no mask comes twice where none was asked for twice."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest

import multidrop as md

SIZE = 64


def output(backend: Any, layer: Any) -> np.ndarray:
    """What a layer makes of ones in training mode."""
    X = backend.tensor(np.ones((SIZE,), np.float32))
    if backend.name == "mxnet":
        import mxnet as mx

        with mx.autograd.record():
            return backend.to_numpy(layer(X))
    return backend.to_numpy(layer(X, training=True) if backend.name == "tensorflow" else layer(X))


def call_of(seed: int, calls: int) -> Callable[[np.ndarray], int | None]:
    """Which of the first calls of a key an output is of."""
    known = {md.keep_mask(SIZE, 0.5, md.Key(seed, call)).tobytes(): call for call in range(calls)}
    return lambda Y: known.get((Y != 0).tobytes())


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def by_eight_threads(function: Callable[[], Any], calls: int) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: function(), range(calls)))


CALLS = 600


def test_threads_that_share_a_layer(backend: Any, hasty: None) -> None:
    """Each call has a mask of its own, and none is left out."""
    layer = md.Dropout(0.5, seed=3)
    drawn = by_eight_threads(lambda: output(backend, layer), CALLS)
    assert sorted(map(call_of(3, CALLS), drawn)) == list(range(CALLS))  # type: ignore[type-var]  # None fails here


def test_threads_that_call_without_a_key(backend: Any, hasty: None) -> None:
    md.manual_seed(1)
    X = backend.tensor(np.ones((SIZE,), np.float32))
    drawn = by_eight_threads(lambda: backend.to_numpy(md.dropout_layer(X, 0.5)), CALLS)
    calls = call_of(md.Key(1).fold_in("calls").seed, CALLS)
    assert sorted(map(calls, drawn)) == list(range(CALLS))  # type: ignore[type-var]  # None fails here


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
def test_threads_that_run_one_traced_program(need: Any, xla: bool) -> None:
    """Of a layer and of calls without a key: each run has masks of its own, and none is left out."""
    need("tensorflow")
    import tensorflow as tf

    md.manual_seed(1)
    with md.use_backend("tensorflow"):
        layer = md.Dropout(0.5, seed=3)
    ones = tf.ones(SIZE)
    program = tf.function(lambda: (layer(ones, training=True), md.dropout_layer(ones, 0.5)), jit_compile=xla)
    drawn = by_eight_threads(lambda: [Y.numpy() for Y in program()], CALLS)
    for seed, outputs in zip((3, md.Key(1).fold_in("calls").seed), zip(*drawn, strict=True), strict=True):
        assert sorted(map(call_of(seed, CALLS), outputs)) == list(range(CALLS))  # type: ignore[type-var]  # None fails


def test_a_dataset_that_calls_without_a_key_in_parallel(need: Any) -> None:
    need("tensorflow")
    import tensorflow as tf

    md.manual_seed(1)
    rows = tf.data.Dataset.range(CALLS).map(lambda _: md.dropout_layer(tf.ones(SIZE), 0.5), num_parallel_calls=8)
    calls = call_of(md.Key(1).fold_in("calls").seed, CALLS)
    assert sorted(calls(row.numpy()) for row in rows) == list(range(CALLS))  # type: ignore[type-var]  # None fails


def test_threads_that_move_a_position_of_torchs(need: Any, hasty: None) -> None:
    """Without what else a layer does, in which a race is too rare to be seen."""
    need("torch")
    import torch
    from multidrop_torch.position import key_at, position_of
    from multidrop_torch.recomputation import next_key

    stream = position_of(md.Key(3, 2**63 - 5000))  # whose call changes its sign on the way
    take = torch.ops.multidrop.take
    for take_next in (lambda: next_key(stream), lambda: key_at(take(stream, True))):
        first = key_at(stream).call
        taken = by_eight_threads(lambda take_next=take_next: [take_next().call for _ in range(100)], 80)
        assert sorted(call for calls in taken for call in calls) == list(range(first, first + 8000))


def through_torch_save(module: Any) -> Any:
    import torch

    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"copy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_copy_goes_its_own_way(backend: Any, how: str, steps: int) -> None:
    """From where the layer was, with the masks that the layer would have had; neither moves the other."""
    layer = model(backend)
    for _ in range(steps):
        output(backend, layer)
    other = COPIES[how](layer)
    calls = call_of(3, 8)
    assert [calls(output(backend, other)) for _ in range(3)] == [steps, steps + 1, steps + 2]
    assert [calls(output(backend, layer)) for _ in range(2)] == [steps, steps + 1]
    third = COPIES[how](other)
    assert [calls(output(backend, x)) for x in (other, third, layer)] == [steps + 3, steps + 3, steps + 2]


def model(backend: Any) -> Any:
    """A keyed layer in what holds layers."""
    layer = md.Dropout(0.5, seed=3)
    if backend.name == "torch":
        import torch

        return torch.nn.Sequential(layer)
    if backend.name == "tensorflow":
        import keras

        return keras.Sequential([keras.layers.Input(batch_shape=(SIZE,)), layer])
    if backend.name == "mxnet":
        import mxnet as mx

        net = mx.gluon.nn.Sequential()
        net.add(layer)
        return net
    from multidrop_numpy.layers import Sequential

    return Sequential(layer)


def test_a_module_that_other_processes_get(need: Any) -> None:
    """torch shares the tensors of a module with the process that it sends it to, or that is forked after
    `share_memory`. The weights are to be shared; a counter that two processes move would give both some masks."""
    need("torch")
    from multiprocessing.reduction import ForkingPickler

    import torch
    from multidrop_torch import Dropout

    net = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE), Dropout(0.5, seed=3))
    net(torch.ones(SIZE))
    net.share_memory()
    sent = pickle.loads(ForkingPickler.dumps(net))
    for module in (net, sent):
        assert module[0].weight.is_shared()
        assert not module[1].stream.is_shared()
    for module in (net, sent, through_torch_save(net)):
        assert module.state_dict()["1.stream"].tolist()[0] == 3
        module(torch.ones(SIZE))
    assert net[1].stream.tolist() == sent[1].stream.tolist() == [3, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize(
    ("name", "way", "loader"),
    [
        ("torch", "layer", "torch"),
        ("torch", "calls", "torch"),
        ("torch", "built", "torch"),
        ("numpy", "layer", "torch"),
        ("numpy", "layer", "numpy"),
        ("numpy", "calls", "numpy"),
        ("torch", "calls", "numpy"),
        ("mxnet", "layer", "mxnet"),
        ("mxnet", "calls", "mxnet"),
    ],
)
def test_forked_workers_repeat_no_mask(name: str, way: str, loader: str, need: Any) -> None:
    """In two epochs and between them, nor those of the parent; with the same seeds all is the same again."""
    need(name)
    need(loader)
    command = [sys.executable, forked.__file__, name, way, loader]
    runs = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    masks = runs[0].stdout.split()
    assert len(masks) >= 2 * (1 + forked.ITEMS)
    assert len(set(masks)) == len(masks)
    assert runs[1].stdout.split() == masks


def test_ranks_of_torch_distributed(need: Any, tmp_path: Path) -> None:
    """Training goes on, states are saved and loaded, and ranks have the masks that docs/processes.md says."""
    need("torch")
    script = Path(__file__).with_name("ranks.py")
    processes = [subprocess.Popen([sys.executable, script, str(rank), tmp_path]) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    keys = [md.Key(5).fold_in(rank).seed for rank in range(2)]
    signed = [[[key - 2**64 if key >= 2**63 else key, 2]] for key in keys]
    for way in ("replicated", "sharded"):
        assert [first[way]["streams"], second[way]["streams"]] == signed
        assert first[way]["resumed"]
        assert second[way]["resumed"]
    assert first["unseeded"]["mask"] != second["unseeded"]["mask"]
    for way in ("replicated", "unseeded"):
        assert first[way]["total"] == second[way]["total"]
    for found in (first["distributed"], second["distributed"]):
        assert found == {"whole": dict.fromkeys(("rows", "columns", "copies"), True), "stream": [3, 1]}


def test_replicas_of_tensorflow(need: Any) -> None:
    """Drop the same positions, however a model runs, whether its layers were built as replicas or converted."""
    need("tensorflow")
    code = """
import keras, numpy as np, tensorflow as tf, multidrop as md
from multidrop_tensorflow import Dropout
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.ones((8, 16), np.float32)
for layer in (Dropout, keras.layers.Dropout):
    with strategy.scope():
        model = keras.Sequential([keras.Input((16,)), layer(0.5, seed=1, name="drop"), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    md.convert(model, seed=0)
    drop = model.get_layer("drop")
    outputs = [drop(x, training=True)]
    with strategy.scope():
        outputs.append(drop(x, training=True))
    outputs.append(tf.function(lambda: drop(x, training=True))())
    model.fit(x, np.ones((8, 1)), batch_size=8, verbose=0)
    outputs += strategy.run(lambda: drop(tf.constant(x), training=True)).values
    key = md.Key(1) if layer is Dropout else md.Key(0).fold_in("drop")
    for call, Y in zip((0, 1, 2, 4, 4), outputs, strict=True):
        assert np.array_equal(Y, 2.0 * md.keep_mask(x.shape, 0.5, md.Key(key.seed, call))), (layer, call)
    first, second = drop.stream.value.values
    assert np.array_equal(first, second)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_documentation(need: Any) -> None:
    need("torch")
    page = Path(__file__).resolve().parent.parent / "docs" / "processes.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page.name, "exec"), {"__name__": "__main__"})
