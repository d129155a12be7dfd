"""Predictions for many examples, in batches: `predict`, `mc_predict` and `mc_samples`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import checks
from ..comparison.probes import probe_of
from ..protocol import Model, Sampling
from ..spec.keys import Key
from .bar import shown
from .prediction import LOGITS, OUTPUTS, VALUES, Array, Prediction, Running, read
from .sampling import SHARED, MonteCarlo


def mc_predict(
    model: Model,
    X: Any,
    samples: int = 50,
    seed: int | Key = 0,
    *,
    batch_size: int = 256,
    masks: str = SHARED,
    outputs: str = LOGITS,
    allow_unreached: bool = False,
    progress: bool | Callable[[int, int], object] | None = None,
) -> Prediction:
    """Predicts with uncertainty, by dropout at test time: runs `samples` thinned networks on X, and returns the
    statistics of their outputs. Dropout is on, everything else is in evaluation mode; see `mc_dropout`.

    Sample k is the same thinned network for every example and in every framework, whatever the batch size.

    Source: Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep
    learning", ICML 2016, section 4.

    Args:
        model: a model of any framework, with dropout layers of this library.
        X: examples along the first axis, as a NumPy array or a tensor of the model's framework; a tuple for a model of
            several inputs, a mapping for one that takes them by name.
        samples: how many samples to draw.
        seed: an integer or a `Key`: names the samples, 0 to samples − 1.
        batch_size: how many examples the model gets at once.
        masks: "shared" for masks that all examples of a sample share, "own" for masks of each example's own.
        outputs: what the model returns: "logits" of shape (n, …, classes), "probabilities" of that shape, or "values"
            of any shape (n, …), which have no entropy.
        allow_unreached: as for `mc_dropout`.
        progress: whether to show a bar on standard error; by default where that is a terminal. Or a function, which is
            called with the number of runs that are done, and of all.

    Returns:
        The mean, variance, entropy, expected entropy and mutual information.

    Raises:
        TypeError: if `model` is not a model of a known framework, or X has an unknown type.
        ValueError: for a bad argument, outputs that are not of the kind that was named, and as `mc_dropout`.
    """
    samples = checks.positive("samples", samples)
    runs = _Runs(model, X, batch_size, outputs)
    running: list[Running] = []
    with runs.sampler(seed, masks, allow_unreached) as mc, shown(progress, samples * len(runs.batches)) as advance:
        for start, batch in runs.batches:
            running.append(found := Running(runs.outputs))
            for number in range(samples):
                mc.sample(number, start)
                found.add(runs.run(batch))
                advance()
    mean, variance = (np.concatenate([getattr(each, name) for each in running]) for name in ("mean", "variance"))
    expected = None if outputs == VALUES else np.concatenate([each.expected_entropy for each in running])
    return Prediction(mean, variance, samples, outputs, expected)


def mc_samples(
    model: Model,
    X: Any,
    samples: int = 50,
    seed: int | Key = 0,
    *,
    batch_size: int = 256,
    masks: str = SHARED,
    outputs: str = LOGITS,
    allow_unreached: bool = False,
) -> Iterator[Array]:
    """The samples of `mc_predict` one by one; each is computed when it is asked for. Between two samples, the model is
    as usual. Args and errors are those of `mc_predict`.

    Returns:
        An iterator over the samples: the probabilities, (n, …, classes), or the values; float64.
    """
    samples = checks.positive("samples", samples)
    runs = _Runs(model, X, batch_size, outputs)
    mc = runs.sampler(seed, masks, allow_unreached)

    def sample(number: int) -> Array:
        found = []
        with mc:
            for start, batch in runs.batches:
                mc.sample(number, start)
                found.append(runs.run(batch))
        return np.concatenate(found)

    return map(sample, range(samples))


def predict(model: Model, X: Any, *, batch_size: int = 256, outputs: str = LOGITS) -> Array:
    """Predicts in evaluation mode, with nothing dropped: what `mc_predict` has samples of.

    Args:
        model: a model of any framework.
        X: as for `mc_predict`.
        batch_size: how many examples the model gets at once.
        outputs: what the model returns, as for `mc_predict`.

    Returns:
        The probabilities, (n, …, classes); for "values" what the model returns. A NumPy array, float64.

    Raises:
        TypeError: if `model` is not a model of a known framework, or X has an unknown type.
        ValueError: for a bad argument, or outputs that are not of the kind that was named.
    """
    runs = _Runs(model, X, batch_size, outputs)
    with runs.probe.evaluating():
        return np.concatenate([runs.run(batch) for _, batch in runs.batches])


class _Runs:
    """Runs a model on X in batches."""

    def __init__(self, model: Model, X: Any, batch_size: int, outputs: str) -> None:
        self.outputs = checks.choice("outputs", outputs, OUTPUTS)
        self._model = model
        self.backend, self.probe = probe_of(model, Sampling, "md.predict")
        self.batches = list(self._batches(X, checks.positive("batch_size", batch_size)))

    def sampler(self, seed: int | Key, masks: str, allow_unreached: bool) -> MonteCarlo:
        """What makes the runs samples, within its context."""
        if not self.probe.built():
            with self.probe.evaluating():
                self.run(self.batches[0][1])  # the first run creates layers or weights
        mc = MonteCarlo(self._model, seed, masks, allow_unreached)
        self.probe = mc.probe
        return mc

    def run(self, batch: Any) -> Array:
        """The output for a batch, as `outputs` says.

        Raises:
            ValueError: if the output has not one entry for each example.
        """
        given = [self._tensor(value) for value in (batch.values() if isinstance(batch, Mapping) else batch)]
        named = dict(zip(batch, given, strict=True)) if isinstance(batch, Mapping) else {}
        output = self.backend.to_numpy(self.probe.evaluate(*([] if named else given), **named))
        if output.ndim == 0 or len(output) != len(given[0]):
            raise ValueError(
                f"model: expected an output for each of {len(given[0])} examples along the first axis; got the shape "
                f"{output.shape}"
            )
        return read(output, self.outputs)

    def _tensor(self, value: Any) -> Any:
        return self.probe.batch(np.array(value, order="C")) if isinstance(value, np.ndarray) else value

    def _batches(self, X: Any, size: int) -> Iterator[tuple[int, Any]]:
        """The index of the first example of each batch, and the batch: a tuple or mapping of parts of X."""
        inputs = X if isinstance(X, (tuple, Mapping)) else (X,)
        values = [*inputs.values()] if isinstance(inputs, Mapping) else [*inputs]
        values = [np.asarray(value) if isinstance(value, list) else value for value in values]
        for value in values:
            if not isinstance(value, (np.ndarray, *self.probe.tensors)):
                raise TypeError(
                    f"X: expected a NumPy array or a tensor of the model's framework, {self.backend.name}; "
                    f"got {checks.shown(value)}"
                )
        sizes = {tuple(value.shape)[:1] for value in values}
        if len(sizes) != 1 or sizes == {()}:
            raise ValueError(f"X: expected examples along the first axis; got {checks.shown(X)}")
        ((n,),) = sizes
        for start in range(0, max(n, 1), size):
            parts = [value[start : start + size] for value in values]
            yield start, dict(zip(inputs, parts, strict=True)) if isinstance(inputs, Mapping) else tuple(parts)
