"""The statistics of samples: `Prediction`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import checks, html

Array = npt.NDArray[np.float64]

LOGITS, PROBABILITIES, VALUES = OUTPUTS = ("logits", "probabilities", "values")


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The statistics of a model's samples, over all thinned networks; all arrays float64, and read-only.

    Source: Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep
    learning", ICML 2016; the mutual information is that of N. Houlsby et al., "Bayesian active learning for
    classification and preference learning", arXiv:1112.5745 (2011), equation 2.

    Attributes:
        mean: the mean of the samples, (n, classes): probabilities; or values, (n, …).
        variance: the variance of the samples, of the same shape: their mean squared distance from the mean.
        samples: how many samples there were.
        outputs: what the model returned: "logits", "probabilities" or "values".
    """

    mean: Array
    variance: Array
    samples: int
    outputs: str
    _expected_entropy: Array | None = None

    def __post_init__(self) -> None:
        for array in (self.mean, self.variance, self._expected_entropy):
            if array is not None:
                array.setflags(write=False)

    @property
    def entropy(self) -> Array:
        """The entropy of the mean, in nats, (n,): all uncertainty about an example's class."""
        self._entropies("entropy")
        return entropies(self.mean)

    @property
    def expected_entropy(self) -> Array:
        """The mean of the samples' entropies, in nats, (n,): the uncertainty of each thinned network itself."""
        return self._entropies("expected_entropy")

    @property
    def mutual_information(self) -> Array:
        """`entropy` − `expected_entropy`, in nats, (n,): by how much the thinned networks disagree."""
        expected = self._entropies("mutual_information")
        return entropies(self.mean) - expected

    @property
    def classes(self) -> npt.NDArray[np.intp]:
        """The most probable class of each example, (n,)."""
        self._entropies("classes")
        return self.mean.argmax(axis=-1)

    def _entropies(self, name: str) -> Array:
        if self._expected_entropy is None:
            raise ValueError(f'{name}: expected samples of class probabilities; got outputs="{self.outputs}"')
        return self._expected_entropy

    def _rows(self) -> list[tuple[str, Array]]:
        """What is shown, by name; nothing without examples."""
        if not self.mean.size:
            return []
        if self._expected_entropy is None:
            return [("standard deviation", np.sqrt(self.variance))]
        names = ("entropy", "expected_entropy", "mutual_information")
        rows = [(f"{name.replace('_', ' ')} (nats)", getattr(self, name)) for name in names]
        return [("largest probability", self.mean.max(axis=-1)), *rows]

    def _title(self) -> str:
        n, *rest = self.mean.shape
        what = "values" if self._expected_entropy is None else "classes"
        shape = " × ".join(map(str, rest)) or "1"
        return f"examples: {n}, {what}: {shape}, samples: {self.samples}"

    def __repr__(self) -> str:
        found = self._rows()
        width = max((len(name) for name, _ in found), default=0)
        lines = [
            f"  {name:{width}}  mean {values.mean():.4f}, from {values.min():.4f} to {values.max():.4f}"
            for name, values in found
        ]
        return "\n".join([f"Prediction ({self._title()})", *lines])

    def _repr_html_(self) -> str:
        rows = [
            (name, *(f"{value:.4f}" for value in (values.mean(), values.min(), values.max())))
            for name, values in self._rows()
        ]
        return html.table(("", "mean", "lowest", "highest"), rows, caption=f"Prediction ({self._title()})")


class Running:
    """The statistics of samples that come one by one, without keeping them.

    Source: B. P. Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4
    (1962), which stays exact where the variance is small beside the mean.
    """

    def __init__(self, outputs: str) -> None:
        self._has_classes, self.samples = outputs != VALUES, 0
        self.mean: Any = 0.0
        self._squares: Any = 0.0
        self.expected_entropy: Any = 0.0

    def add(self, sample: Array) -> None:
        """Adds a sample, as `read` returns it."""
        self.samples += 1
        apart = sample - self.mean
        self.mean = self.mean + apart / self.samples
        self._squares = self._squares + apart * (sample - self.mean)
        if self._has_classes:
            self.expected_entropy = self.expected_entropy + (entropies(sample) - self.expected_entropy) / self.samples

    @property
    def variance(self) -> Array:
        """The mean squared distance from the mean."""
        return self._squares / self.samples


def entropies(probabilities: Array) -> Array:
    """The entropy of probabilities along the last axis, in nats; 0·log 0 is 0."""
    positive = np.where(probabilities == 0.0, 1.0, probabilities)
    return -(probabilities * np.log(positive)).sum(axis=-1)


def softmax(logits: Array) -> Array:
    """The softmax along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def read(output: npt.NDArray[Any], outputs: str) -> Array:
    """A model's output as a sample: probabilities along the last axis, or values; float64.

    Raises:
        ValueError: for classes without a last axis for them, or numbers that are no probabilities.
    """
    values = np.asarray(output, dtype=np.float64)
    if outputs == VALUES:
        return values
    if values.ndim < 2 or values.shape[-1] < 2:
        raise ValueError(
            f'outputs: expected "values" for a model with an output of shape {values.shape}, which has no axis of '
            f"classes; got {checks.shown(outputs)}"
        )
    if outputs == LOGITS:
        return softmax(values)
    if not ((np.abs(values.sum(axis=-1) - 1.0) <= 0.01).all() and (values >= 0.0).all()):  # NaN passes no comparison
        raise ValueError(
            'outputs: expected "logits" for a model whose outputs are no probabilities; got "probabilities"'
        )
    return values
