"""Finds the random layers of a model by running it."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import html
from .comparison.probes import probe_of
from .comparison.trees import Trees
from .conversion import shown_path
from .protocol import Auditing, Model

__all__ = ["Audit", "RandomLayer", "audit"]

REPEATS, REPEATS_OF_BLOCKS = 1024, 64
"""How often to repeat a call that drew random numbers without effect, such as that of a branch that is dropped once in
a hundred calls. The second number is for layers that call others, because these take longer."""

ROUNDS = 8
"""The most runs of the model. It stops earlier if a run finds nothing new."""


class RandomLayer(NamedTuple):
    """A layer whose own code is random."""

    path: str
    """The layer's path in the model; empty for the model itself."""
    kind: str
    """The name of its class."""
    what: str
    """What differed between two runs with equal inputs, such as "its output"."""


@dataclass(frozen=True, repr=False)
class Audit:
    """The result of `audit`. Prints a line for each random layer, or "None found".

    Attributes:
        random: the random layers, in the order in which they ran.
        layers: how many layers ran.
        runs: how many times the model ran.
    """

    random: tuple[RandomLayer, ...]
    layers: int
    runs: int

    def __str__(self) -> str:
        ran = f"layers: {self.layers}, runs: {self.runs}"
        if not self.random:
            return f"None found ({ran}): equal inputs gave equal outputs."
        rows = [(shown_path(path), kind, what) for path, kind, what in self.random]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"  {path:{widths[0]}}  {kind:{widths[1]}}  {what}" for path, kind, what in rows]
        return "\n".join([f"random: {len(rows)} ({ran}); different for equal inputs:", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The random layers as a table, as notebooks show it."""
        if not self.random:
            return html.lines([str(self)])
        rows = [(shown_path(path), kind, what) for path, kind, what in self.random]
        caption = str(self).splitlines()[0]
        return html.table(("layer", "class", "what differs"), rows, caption=caption, texts=3)


def audit(model: Model, *inputs: Any, **named: Any) -> Audit:
    """Finds the layers of a model that are random in training mode. It finds dropout of any package, as a layer, a
    function or part of a fused operation, and draws by `bernoulli`, Python's `random` or NumPy.

    Runs the model in training mode several times, each time from the same weights and positions but with other seeds,
    and compares the inputs and outputs of each layer. A layer is random if its output changes although its inputs and
    the outputs of the layers within it are those of the first run. A keyed layer of this library is not random: it
    starts each run at the same position.

    Afterwards it restores the model (weights, buffers, positions, modes and attributes) and the generators. The state
    of MXNet's and TensorFlow's generators cannot be read: they are seeded with a number that they drew before.

    Does not find a layer that these inputs do not reach, or randomness too rare to show in a thousand repetitions of
    the layer (64 for code between other layers). Code outside of layers counts for the innermost layer that calls it.
    On a GPU, a sum in another order counts as random too.

    Args:
        model: a `torch.nn.Module`, a Keras model or layer, a Gluon block, a NumPy `Layer` or an `md.Net`.
        *inputs: the positional arguments of the model: tensors, NumPy arrays, or anything else.
        **named: the keyword arguments of the model. Keras' `training` is True by default.

    Returns:
        The random layers, with their paths.

    Raises:
        TypeError: if `model` is not a model of a known framework.
        BackendError: if its backend cannot audit a model.
        Exception: any error of the model, after the model is restored.
    """
    return _Runs(probe_of(model, Auditing, "md.audit")[1], inputs, named).result()


class _Call:
    """A call of a layer, as recorded the first time."""

    def __init__(self, path: str, inputs: Any) -> None:
        self.path, self.inputs = path, inputs
        self.output: Any = None
        self.calls: list[_Call] = []
        """The calls that the layer makes, in order."""
        self.drew = False
        """Whether the layer's own code drew random numbers."""


class _Frame:
    """A call that is running."""

    def __init__(self, call: _Call, new: bool) -> None:
        self.call, self.new = call, new
        self.ahead = [] if new else list(call.calls)
        """The recorded calls that it has not repeated yet."""


class _Runs:
    """Runs a model repeatedly and compares the calls of its layers."""

    def __init__(self, probe: Auditing, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.probe, self.trees = probe, Trees(probe)
        self.inputs = tuple(probe.batch(x) if type(x) is np.ndarray else x for x in inputs)
        self.named = {name: probe.batch(x) if type(x) is np.ndarray else x for name, x in named.items()}
        self.found: dict[str, str] = {}
        self.whole = _Call("", None)
        self.stack: list[_Frame] = []
        self.repeating = False
        self.ran: dict[str, None] = {}
        self.runs = self.seed = 0

    def result(self) -> Audit:
        probe = self.probe
        with ExitStack() as stack:
            stack.callback(probe.generators())
            stack.callback(python_generators())
            if not probe.built():
                back, forget = probe.state(), self.trees.cached(probe.layers.values())
                self._model()  # the first run creates its layers or weights
                back()
                forget()
                self.probe = probe = type(probe)(probe.model)
                self.trees = Trees(probe)
            stack.enter_context(probe.watch(self))
            self.back = self.trees.attributes(probe.layers.values())
            stack.callback(self.back)
            known = -1
            while self.runs < 2 or (known < len(self.found) + len(self.ran) and self.runs < ROUNDS):
                known = len(self.found) + len(self.ran)
                self._run()
            for call in self._quiet(self.whole):
                self._repeat(call)
        kinds = {path: type(layer).__name__ for path, layer in probe.layers.items()}
        random = tuple(RandomLayer(path, kinds[path], self.found[path]) for path in self.ran if path in self.found)
        return Audit(random, len(self.ran), self.runs)

    def _model(self) -> Any:
        return self.probe.run("", *self.trees.copied((self.inputs, self.named)))

    def _run(self) -> None:
        """Runs the model once: records new calls, and compares the others with the recorded ones."""
        self.back()
        self.stack = [frame := _Frame(self.whole, self.runs == 0)]
        self._begin()
        output = self._model()
        self._drew(self.whole)
        if self.runs == 0:
            self.whole.output = self.trees.copied(output)
        elif self.trees.differ(self.whole.output, output):  # a hook on the model may change it
            self._find(frame, "its output")
        self.runs += 1

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Called before a layer runs: see `Watcher`."""
        inputs, caller = (args, kwargs), self.stack[-1]
        call = next((call for call in caller.ahead if call.path == path), None)
        if self._within_repeated() or self.trees.symbolic(inputs):  # in a trace nothing is computed
            self.stack.append(_Frame(call or _Call(path, None), call is None))
        else:
            self._drew(caller.call)
            new = call is None
            if call is None:
                call = _Call(path, self.trees.copied(inputs))
                self.ran.setdefault(path)
                caller.call.calls.append(call)
                if not caller.new:
                    self._find(caller, f"whether it calls {path}")
            elif not self.repeating and self.trees.differ(call.inputs, inputs):
                self._find(caller, f"the input of {path}")
                args, kwargs = self.trees.replaced(inputs, call.inputs)
            self.stack.append(_Frame(call, new))
            self._begin()
        if not self.stack[-1].new:
            caller.ahead.remove(self.stack[-1].call)
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Called after a layer has run: see `Watcher`."""
        while (frame := self.stack.pop()).call.path != path:
            pass  # the layer caught an exception of a layer that it called
        call = frame.call
        if self._within_repeated():
            return output if frame.new else self.trees.copied(call.output)
        if call.inputs is None:
            return output
        self._drew(call)
        if frame.new:
            call.output = self.trees.copied(output)
        else:
            if frame.ahead and not self.repeating:
                self._find(frame, f"whether it calls {frame.ahead[0].path}")
            if self.trees.differ(call.output, output):
                self._find(frame, "its output")
                output = self.trees.replaced(output, call.output, written=args)
        self._begin()
        return output

    def _within_repeated(self) -> bool:
        """Whether the running layer is inside a repeated call, and so not compared."""
        return self.repeating and len(self.stack) > 1

    def _find(self, frame: _Frame, what: str) -> None:
        self.found.setdefault(frame.call.path, what)

    def _begin(self) -> None:
        """Seeds the generators, where a layer's own code begins or goes on after a call of another layer."""
        if self.repeating:
            return  # without a new seed, each repetition draws other numbers
        self.seed += 1
        self.drawn = _seed_python(self.seed)
        self.probe.seed(self.seed)

    def _drew(self, call: _Call) -> None:
        """Notes whether the layer's own code has drawn random numbers since `_begin`."""
        if not (call.drew or self.repeating) and (self.probe.drew() or self.drawn()):
            call.drew = True

    def _quiet(self, call: _Call) -> list[_Call]:
        """The calls, at any depth, that drew random numbers without any effect so far."""
        inner = [quiet for each in call.calls for quiet in self._quiet(each)]
        return [*inner, call] if call.drew and call.path not in self.found and call is not self.whole else inner

    def _repeat(self, call: _Call) -> None:
        """Repeats one call until it does something random. The layers within it return their recorded outputs."""
        self.repeating = True
        for _ in range(REPEATS_OF_BLOCKS if call.calls else REPEATS):
            if call.path in self.found:
                break
            self.stack = [top := _Frame(self.whole, False)]
            top.ahead = [call]
            self.probe.run(call.path, *self.trees.copied(call.inputs))
        self.repeating = False
        self.back()


def _seed_python(seed: int) -> Callable[[], bool]:
    """Seeds Python's and NumPy's generators. Returns a function that tells whether they were used since."""
    random.seed(seed)
    np.random.seed(seed)
    before = _state_of_numpy(), random.getstate()
    return lambda: (_state_of_numpy(), random.getstate()) != before


def _state_of_numpy() -> tuple[bytes, int]:
    """The part of the state of NumPy's default generator that every draw changes."""
    state: Any = np.random.get_state(legacy=False)["state"]
    return state["key"].tobytes(), state["pos"]


def python_generators() -> Callable[[], None]:
    """Returns a function that restores the current state of Python's and NumPy's generators."""
    of_python, of_numpy = random.getstate(), np.random.get_state()

    def back() -> None:
        random.setstate(of_python)
        np.random.set_state(of_numpy)

    return back
