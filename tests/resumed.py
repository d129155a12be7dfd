"""Small trainings that can be broken off: `test_resume` runs them through, and has a new process resume them.

`python resumed.py BACKEND FOLDER` goes on from what `save` left in the folder, and writes what the run comes to.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import placed
import uninstalled  # noqa: F401  # before multidrop is asked for its backends
from placed import array

import multidrop as md

BATCHES = np.random.default_rng(7).normal(size=(6, 16, 8)).astype(np.float32)
TARGETS = np.random.default_rng(8).normal(size=(6, 16, 4)).astype(np.float32)
Result = dict[str, np.ndarray]


class NumPyRun:
    """Layers with their backward by hand, SGD with momentum; saved by pickle."""

    def __init__(self, seed: int) -> None:
        from multidrop_numpy.layers import Dropout, Linear, ReLU, Sequential

        weights = np.random.default_rng(seed)
        self.net = Sequential(
            Linear(weights.normal(size=(8, 32)).astype(np.float32), np.zeros(32, np.float32)),
            ReLU(),
            Dropout(0.5, seed=seed),
            Linear(weights.normal(size=(32, 4)).astype(np.float32), np.zeros(4, np.float32)),
        )
        self.momentum: Result = {}

    def train(self, batches: Any) -> None:
        for X, Y in batches:
            self.net.backward((self.net(X) - Y) / len(X))
            for name, w, dw in self._weights():
                v = self.momentum[name] = 0.9 * self.momentum.get(name, np.zeros_like(w)) + dw
                w -= np.float32(0.01) * v

    def _weights(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        layers = enumerate(self.net.layers)
        return [(f"{i}.{n}", w, layer.gradients.get(n)) for i, layer in layers for n, w in layer.parameters.items()]

    def save(self, folder: Path) -> None:
        (folder / "run").write_bytes(pickle.dumps((self.net, self.momentum)))

    def load(self, folder: Path) -> None:
        self.net, self.momentum = pickle.loads((folder / "run").read_bytes())

    def result(self) -> Result:
        key = self.net.layers[2].stream.key
        return {name: w for name, w, _ in self._weights()} | {"stream": np.array([key.seed, key.call], np.uint64)}


class TorchRun:
    """Modules and an optimizer with momentum; saved by their state dicts."""

    def __init__(self, seed: int) -> None:
        import torch
        from multidrop_torch import Dropout, Dropout2d
        from torch import nn

        torch.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Linear(8, 32),
            Dropout(0.5, seed=seed),
            nn.Unflatten(1, (8, 2, 2)),
            Dropout2d(0.25, seed=seed + 1),
            nn.Flatten(),
            nn.Linear(32, 4),
        )
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)

    def train(self, batches: Any) -> None:
        import torch

        for X, Y in batches:
            self.optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.net(torch.tensor(X)), torch.tensor(Y)).backward()
            self.optimizer.step()

    def save(self, folder: Path) -> None:
        import torch

        torch.save({"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / "run.pt")

    def load(self, folder: Path) -> None:
        import torch

        state = torch.load(folder / "run.pt")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])

    def result(self) -> Result:
        return {name: array(value).copy() for name, value in self.net.state_dict().items()}


class KerasRun:
    """A compiled model and `fit`; saved with its optimizer as a `.keras` file."""

    def __init__(self, seed: int) -> None:
        import keras
        from multidrop_tensorflow import Dropout, SpatialDropout1D

        keras.utils.set_random_seed(seed)
        self.model = keras.Sequential(
            [
                keras.layers.Input((8,)),
                keras.layers.Dense(32, activation="relu"),
                Dropout(0.5, seed=seed),
                keras.layers.Reshape((4, 8)),
                SpatialDropout1D(0.25, seed=seed + 1),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
            ]
        )
        self.model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")

    def train(self, batches: Any) -> None:
        X, Y = (np.concatenate(part) for part in zip(*batches, strict=True))
        self.model.fit(X, Y, batch_size=16, shuffle=False, verbose=0)

    def save(self, folder: Path) -> None:
        self.model.save(folder / "run.keras")

    def load(self, folder: Path) -> None:
        import keras

        self.model = keras.models.load_model(folder / "run.keras")

    def result(self) -> Result:
        weights = {f"{i}.{weight.name}": np.array(weight) for i, weight in enumerate(self.model.weights)}
        return weights | {f"optimizer.{i}": np.array(v) for i, v in enumerate(self.model.optimizer.variables)}


class GluonRun:
    """A hybridized net and a trainer with momentum; saved by `save_parameters` and `save_states`."""

    def __init__(self, seed: int) -> None:
        import mxnet as mx
        from multidrop_mxnet import Dropout

        mx.random.seed(seed)
        self.net = mx.gluon.nn.HybridSequential()
        self.net.add(
            mx.gluon.nn.Dense(32, in_units=8, activation="relu"),
            Dropout(0.5, seed=seed),
            mx.gluon.nn.Dense(32, in_units=32, activation="relu"),
            Dropout(0.25, axes=(0,), seed=seed + 1),
            mx.gluon.nn.Dense(4, in_units=32),
        )
        self.net.initialize(mx.init.Normal(0.1))
        self.net.hybridize()
        self.trainer = mx.gluon.Trainer(self.net.collect_params(), "sgd", {"learning_rate": 0.01, "momentum": 0.9})

    def train(self, batches: Any) -> None:
        import mxnet as mx

        for X, Y in batches:
            with mx.autograd.record():
                L = mx.gluon.loss.L2Loss()(self.net(mx.nd.array(X)), mx.nd.array(Y))
            L.backward()
            self.trainer.step(len(X))

    def save(self, folder: Path) -> None:
        self.net.save_parameters(str(folder / "run.params"))
        self.trainer.save_states(str(folder / "run.states"))

    def load(self, folder: Path) -> None:
        self.net.load_parameters(str(folder / "run.params"))
        self.trainer.load_states(str(folder / "run.states"))

    def result(self) -> Result:
        return {name: p.data().asnumpy() for name, p in self.net._collect_params_with_prefix().items()}


RUNS = {"numpy": NumPyRun, "torch": TorchRun, "tensorflow": KerasRun, "mxnet": GluonRun}


def run_of(backend: str, seed: int) -> Any:
    """A run at its start."""
    md.set_backend(backend)  # before MXNet is imported
    return RUNS[backend](seed)


def steps(first: int, last: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of some steps."""
    return list(zip(BATCHES[first:last], TARGETS[first:last], strict=True))


if __name__ == "__main__":
    backend, folder = sys.argv[1], Path(sys.argv[2])
    placed.begin()
    run = run_of(backend, seed=99)  # of other weights and masks, which `load` has to replace
    run.load(folder)
    run.train(steps(3, 6))
    np.savez(folder / "result.npz", **run.result())
