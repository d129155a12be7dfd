"""Dropout in evaluation mode: `mc_dropout`, with which each run of a model is a sample."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

from .. import checks
from ..comparison.parts import tensors_in
from ..comparison.probes import probe_of
from ..conversion import shown_path
from ..protocol import Model, Sampling
from ..spec.keys import Key, as_key
from .one_mask import one_mask

SHARED, OWN = "shared", "own"


def mc_dropout(model: Model, seed: int | Key = 0, *, masks: str = SHARED, allow_unreached: bool = False) -> MonteCarlo:
    """Makes a model drop in evaluation mode, within a `with` block. Each run of the model is a sample:

        with md.mc_dropout(model, seed=0) as mc:
            outputs = [model(X) for _ in range(50)]  # samples 0, 1, 2, …
            mc.sample(7)
            again = model(X)  # sample 7, the same numbers as before

    Every layer of this library's dropout family is on. Everything else is in evaluation mode: batch norm uses its
    statistics and leaves them unchanged. The layers' own streams and the framework's generators are not used. Within
    the block the model runs eagerly; where it was compiled or hybridized, its program is left unused. At the end, or
    after an error, the model is as it was. The block is for runs of your own: `predict`, `mc_predict` and `mc_samples`
    run the model too, so call them outside.

    The n-th call of a dropout layer in a run, from 0, has the key `Key(seed).fold_in(n)` with call k for sample k, in
    every framework.

    Source: Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep
    learning", ICML 2016, section 4.

    Args:
        model: a `torch.nn.Module`, a Keras model, a Gluon block, a NumPy `Layer` or an `md.Net`, with dropout layers of
            this library; `md.convert` replaces a framework's own.
        seed: an integer or a `Key`: names the samples.
        masks: "shared": a sample is one thinned network. Its masks are drawn for one example, and all examples share
            them, whatever the size of the batch. "own": each example has a mask of its own, determined by its index
            (see `MonteCarlo.sample`).
        allow_unreached: whether a run may leave out some of the dropout layers, as a model does that uses a part of
            itself for some inputs.

    Raises:
        TypeError: if `model` is not a model of a known framework.
        ValueError: if it has no dropout layer of this library, or for a bad argument; at a run, if a dropout layer is
            not called, or is called in training mode.
        BackendError: if the backend cannot watch a model.
    """
    return MonteCarlo(model, seed, masks, allow_unreached)


class MonteCarlo:
    """What `mc_dropout` gives: chooses the sample of the next run.

    Attributes:
        current: the number of the sample that ran last; None before the first run.
    """

    def __init__(self, model: Model, seed: int | Key = 0, masks: str = SHARED, allow_unreached: bool = False) -> None:
        self._key = as_key(seed, "seed")
        self._own = checks.choice("masks", masks, (SHARED, OWN)) == OWN
        self._allow_unreached = checks.flag("allow_unreached", allow_unreached)
        self._backend: Any
        self._backend, self.probe = probe_of(model, Sampling, "md.mc_dropout")
        self._shown = checks.shown(model)
        self._noises = self.probe.dropouts()
        if not self._noises:
            raise ValueError(
                f"model: expected one with dropout layers of multidrop; got {self._shown}, which has none: "
                "md.convert(model) replaces a framework's own, and md.audit(model, X) names everything random"
            )
        self._keys: list[Key] = []
        self._running: list[str] = []
        self._reached: set[str] = set()
        self._examples: int | None = None
        self._next = self._start = 0
        self.current: int | None = None
        self._stack: ExitStack | None = None

    def sample(self, number: int, start: int = 0) -> MonteCarlo:
        """Makes the next run the sample of that number; the run after it is the next sample.

        Args:
            number: k, an integer in [0, 2^64).
            start: the index of the batch's first example, where each example has its own masks: the masks of an
                example are then those that it has in one large batch.

        Returns:
            This object.

        Raises:
            ValueError: for a bad number or start.
        """
        self._next, self._start = checks.word64("number", number), checks.word64("start", start)
        return self

    def __enter__(self) -> MonteCarlo:
        if self._stack is not None:  # entered twice, the model would be watched for ever
            raise RuntimeError("md.mc_dropout: expected its block to end before it begins again; got one within itself")
        with ExitStack() as stack:
            stack.enter_context(self.probe.evaluating())
            stack.enter_context(self.probe.watch(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        stack, self._stack = self._stack, None
        assert stack is not None  # it was entered
        stack.close()

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Called before a layer runs: see `multidrop.comparison.watch.Watcher`."""
        if path == "" or not self._running:  # a run begins, of the model or of a part of it
            self._running.clear()
            self._reached.clear()
            self._calls, self.current, self._next = 0, self._next, self._next + 1
            first = next(tensors_in((args, kwargs), self.probe.tensors), None)
            shape: Any = () if first is None or self.probe.symbolic(first) else first.shape
            self._examples = shape[0] if len(shape) else None
        self._running.append(path)
        if path in self._noises and self.probe.trains(path, kwargs):
            raise ValueError(
                f"model: expected a call in evaluation mode within md.mc_dropout; got one of {shown_path(path)} in "
                "training mode"
            )
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Called after a layer has run: see `multidrop.comparison.watch.Watcher`."""
        while self._running.pop() != path:
            pass  # a layer within raised an exception, which this one caught
        if path in self._noises:
            output = self._thinned(path, output)
        if path == "" and not self._allow_unreached and (missing := [*self._noises.keys() - self._reached]):
            names = ", ".join(sorted(map(shown_path, missing)))
            raise ValueError(
                f"model: expected a run that calls each dropout layer; got one of {self._shown} that leaves out "
                f"{names}: if a compiled or fused part of the model computes in its place, give the model as it was "
                "before; if the model does not use the layer here, pass allow_unreached=True"
            )
        return output

    def _thinned(self, path: str, X: Any) -> Any:
        """The output of a dropout layer for X, what it passed on in evaluation mode."""
        if self.probe.symbolic(X):
            raise ValueError(
                f"model: expected one that runs eagerly; got {self._shown}, which traces {shown_path(path)}: call the "
                "model itself, outside of compiled functions"
            )
        self._reached.add(path)
        layer, shape = self._noises[path], tuple(X.shape)
        if self._calls == len(self._keys):
            self._keys.append(self._key.fold_in(self._calls))
        key = Key(self._keys[self._calls].seed, self.current or 0)
        self._calls += 1
        member, start = layer._noise(shape), 0
        if not (layer.drops_weights or member.of_weights or not shape):
            start = self._first(path, member.batch_axis, shape)
            if not self._own:
                member, start = one_mask(member, len(shape)), 0
        learned = {} if layer._learned is None else {"learned": layer._learned}
        return self._backend.apply(member, X, key, start=start, **learned)

    def _first(self, path: str, axis: int, shape: tuple[int, ...]) -> int:
        """The index of the first element of a layer's input among those of all examples.

        Raises:
            ValueError: where the examples do not lie along the first axis, or the member's own.
        """
        size, examples = shape[axis], self._examples
        if not examples or size == 1 < examples:  # what it drops is the same for all examples
            return 0
        if size % examples:
            raise ValueError(
                f"model: expected an input of {shown_path(path)} with the batch's {examples} examples along axis "
                f"{axis}; got the shape {shape}"
            )
        if self._own and axis and self._start:
            raise ValueError(
                f"start: expected 0, for {shown_path(path)} has the examples along axis {axis}; got {self._start}"
            )
        return self._start * (size // examples) * math.prod(shape[1:])
