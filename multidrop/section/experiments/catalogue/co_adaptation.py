"""The claim that dropout keeps hidden units from relying on each other: the features of the first hidden layer.

Sources: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014),
section 7.1, for the features; O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
EUSIPCO 2007, for the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..plots import dots
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
FALL = Measure("fall", Text("lost without half of the units", "birimlerin yarısı olmadan kayıp"), 1, percent=True)
CORRELATION = Measure("correlation", Text("mean |correlation| of units", "birimlerin ortalama |ilinti|si"), 4)
RANK = Measure("rank", Text("effective rank", "etkin kerte"), 1)
DEAD = Measure("dead", Text("dead units", "ölü birimler"), 1, percent=True)
COMPARED = (ACCURACY, FALL, CORRELATION, RANK)
SHOWN, ROW = 16, 8  # units in the picture, of the largest norm

PLAIN = Setting("plain", Text("without dropout", "hattan düşürme olmadan"), {"p": 0.0})
DROPOUT = Setting("dropout", Text("with dropout", "hattan düşürmeyle"), {"p": 0.5})


def settings(scale: Scale) -> Sequence[Setting]:
    return PLAIN, DROPOUT


def run(setting: Setting, lab: Lab) -> Measurements:
    """Trains, and looks at the first hidden layer in evaluation mode. A random half of its units is then removed, and
    the others are doubled, so that each next unit gets the same sum in the mean; `halves` such halves are drawn."""
    net = lab.net((None, setting["p"], setting["p"]))
    lab.train(net)
    state = lab.weights(net)
    X, y = lab.test_set
    H = _relu(lab.inputs(X).reshape(len(X), -1).astype(np.float64) @ state["W1"] + state["b1"])
    accuracy = _accuracy(H, state, y)
    units, generator = H.shape[1], lab.generator("halves")
    halved = []
    for _ in range(lab.scale["halves"]):
        mask = np.zeros(units)
        mask[generator.permutation(units)[: units // 2]] = units / (units // 2)
        halved.append(_accuracy(H * mask, state, y))
    measured: dict[str, Any] = {"accuracy": accuracy, "fall": accuracy - float(np.mean(halved)), **_statistics(H)}
    if lab.seed == 0:
        norms = np.linalg.norm(state["W1"], axis=0)
        largest = np.argsort(-norms, kind="stable")[:SHOWN]
        measured["features"] = np.round(state["W1"][:, largest].T, 4)
    return measured


def _relu(X: npt.NDArray) -> npt.NDArray:
    return np.maximum(X, 0.0)


def _accuracy(H: npt.NDArray, state: dict[str, npt.NDArray], y: npt.NDArray) -> float:
    """The net's accuracy, given its first hidden layer."""
    logits = _relu(H @ state["W2"] + state["b2"]) @ state["W3"] + state["b3"]
    return float((logits.argmax(axis=1) == y).mean())


def _statistics(H: npt.NDArray) -> dict[str, float]:
    """Of activations (n, units): the mean |correlation| of two units, 0 if there are not two; the effective rank of the
    covariance, e to the entropy of its eigenvalues' shares; and the share of dead units. A unit is dead if it is the
    same for all examples; then it has no correlation with any."""
    alive = np.ptp(H, axis=0) > 0
    living, dead = H[:, alive], float(1 - alive.mean())
    if living.shape[1] < 2:
        return {"correlation": 0.0, "rank": float(living.shape[1]), "dead": dead}
    covariance = np.cov(living.T)
    deviations = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviations, deviations)
    pairs = np.abs(correlation[np.triu_indices(len(correlation), 1)])
    shares = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
    shares = shares[shares > 1e-12 * shares.max()] / shares.sum()
    rank = float(np.exp(-(shares * np.log(shares)).sum()))
    return {"correlation": float(pairs.mean()), "rank": rank, "dead": dead}


def contrasts(result: Result) -> Sequence[Contrast]:
    return [difference(each, DROPOUT, PLAIN) for each in COMPARED]


def plot(figure: Figure, result: Result, words: Words) -> None:
    pictures, numbers = figure.subfigures(2, 1, height_ratios=(2.1, 1), squeeze=False)[:, 0]
    rows = [np.array(result.runs[each.name, 0]["features"]) for each in result.settings]
    largest = max(np.abs(row).max() for row in rows)
    for part, row, setting in zip(pictures.subfigures(1, 2, squeeze=False)[0], rows, result.settings, strict=True):
        part.suptitle(words(setting.label), fontsize="medium")
        for panel, weights in zip(part.subplots(SHOWN // ROW * 2, ROW // 2).flat, row, strict=True):
            image = panel.imshow(weights.reshape(28, 28), cmap="PuOr", vmin=-largest, vmax=largest)
            panel.set_axis_off()
        part.colorbar(image, ax=part.axes, shrink=0.8, label=words("weight", "ağırlık"))
    shown = (FALL, CORRELATION, RANK)
    for panel, measure in zip(numbers.subplots(1, len(shown), sharey=True), shown, strict=True):
        dots(panel, result, result.settings, (measure,), words)
        if measure.percent:
            panel.set_xlabel(f"{words(measure.label)}\n{words('(share)', '(oran)')}")


def answer(result: Result, words: Words) -> str:
    plain, dropped = ([words.mean(result.mean(each, m), m) for m in COMPARED] for each in (PLAIN, DROPOUT))
    outcomes = [words.outcome(result, difference(each, DROPOUT, PLAIN)) for each in COMPARED]
    fall = result.test(difference(FALL, DROPOUT, PLAIN))
    if not fall.found:
        verdict = words(
            "So it was not found that units trained with dropout depend less on each other.",
            "Demek ki hattan düşürmeyle eğitilen birimlerin birbirine daha az bağlı olduğu görülmedi.",
        )
    elif fall.interval.mean < 0:
        verdict = words(
            "In this sense units trained with dropout depend less on each other; note that it is what they were "
            "trained for.",
            "Bu anlamda, hattan düşürmeyle eğitilen birimler birbirine daha az bağlıdır; ancak zaten bunun için "
            "eğitildiler.",
        )
    else:
        verdict = words(
            "In this sense units trained with dropout depend more on each other, against the claim.",
            "Bu anlamda, hattan düşürmeyle eğitilen birimler, iddianın tersine, birbirine daha çok bağlıdır.",
        )
    return words(
        "If a random half of the first hidden layer's units is removed at test time and the others are doubled, the "
        f"net without dropout, of accuracy {plain[0]}, classifies {plain[1]} fewer of the test images correctly; that "
        f"with dropout, of accuracy {dropped[0]}, {dropped[1]} fewer: {outcomes[1]}. {verdict} With dropout against "
        f"without, in the mean absolute correlation of two units: {outcomes[2]}; in the effective rank, the "
        f"number of directions over which the activations spread: {outcomes[3]}.",
        "Test zamanında ilk gizli katmanın birimlerinin rastgele yarısı çıkarılıp kalanlar ikiyle çarpılınca, hattan "
        f"düşürmesiz ağ (doğruluk {plain[0]}) test imgelerinin {plain[1]} kadarını, hattan düşürmeyle eğitilen ağ "
        f"(doğruluk {dropped[0]}) ise {dropped[1]} kadarını artık doğru sınıflandıramıyor (net): {outcomes[1]}. "
        f"{verdict} Hattan düşürmeyle eğitilen ağın ötekinden farkı, iki birimin ortalama mutlak ilintisinde: "
        f"{outcomes[2]}; etkin kertede, yani etkinleştirmelerin yayıldığı yönlerin sayısında: {outcomes[3]}.",
    )


_SIZES = {"images": 1000, "hidden": 256, "epochs": 120, "settle": 30, "lr": 0.1, "halves": 10}
_SMALL = {"images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1, "halves": 2}
EXPERIMENT = Experiment(
    name="co-adaptation",
    exercise=None,
    title=Text("Co-adaptation of hidden units", "Gizli birimlerin birlikte uyarlanması"),
    question=Text(
        "Dropout is said to keep hidden units from relying on particular others. Do units trained with it lose less if "
        "their partners are missing, and do their features differ?",
        "Hattan düşürmenin, gizli birimlerin belirli başka birimlere güvenmesini önlediği söylenir. Onunla eğitilen "
        "birimler eşleri eksilince daha az mı kaybeder, öznitelikleri farklı mıdır?",
    ),
    scales={"full": _SIZES, "mini": _SIZES, "tiny": {**_SIZES, **_SMALL}},
    settings=settings,
    run=run,
    measures=(*COMPARED, DEAD),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 6.4),
)
