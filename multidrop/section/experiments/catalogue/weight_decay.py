"""Exercise 5: dropout, weight decay, and both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..plots import COLORS, LINES, MARKERS
from ..statistics import Interval, interval
from ..tuning import at_the_edge, trial, tuned
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
LOSS = Measure("loss", Text("test loss (nats)", "test kaybı (nat)"), 3)
CHOSEN = (
    Measure("p", Text("p, by accuracy", "p, doğrulukla"), 2),
    Measure("decay", Text("λ, by accuracy", "λ, doğrulukla"), 4),
    Measure("p by loss", Text("p, by loss", "p, kayıpla"), 2),
    Measure("decay by loss", Text("λ, by loss", "λ, kayıpla"), 4),
)
NONE = Setting("none", Text("neither", "hiçbiri"), {"dropout": False, "decay": False})
DROPOUT = Setting("dropout", Text("dropout", "hattan düşürme"), {"dropout": True, "decay": False})
DECAY = Setting("decay", Text("weight decay", "ağırlık sönümü"), {"dropout": False, "decay": True})
BOTH = Setting("both", Text("both", "ikisi birden"), {"dropout": True, "decay": True})
ALL = (NONE, DROPOUT, DECAY, BOTH)


def settings(scale: Scale) -> Sequence[Setting]:
    return ALL


def grid(setting: Setting, scale: Scale) -> tuple[Sequence[float], Sequence[float]]:
    """The p's and the λ's that a setting chooses from."""
    return scale["p"] if setting["dropout"] else [0.0], scale["decay"] if setting["decay"] else [0.0]


def run(setting: Setting, lab: Lab) -> Measurements:
    """Trains with each p and λ of the setting. Where both are used, they are chosen together."""
    ps, decays = grid(setting, lab.scale)
    cells = list(product(ps, decays))
    best = tuned(cells, lambda cell: trial(lab, (None, cell[0], cell[0]), cell[1]))
    by_accuracy, by_loss = cells[best.by_accuracy], cells[best.by_loss]
    return {
        "accuracy": best.accuracy,
        "loss": best.loss,
        **{measure.name: value for measure, value in zip(CHOSEN, (*by_accuracy, *by_loss), strict=True)},
        "accuracies": [each.accuracy for each in best.trials],
        "losses": [each.loss for each in best.trials],
    }


def contrasts(result: Result) -> Sequence[Contrast]:
    """For accuracy and loss: what each does alone, the interaction, and both against each."""
    return [
        contrast
        for measure in (ACCURACY, LOSS)
        for contrast in (
            difference(measure, DROPOUT, NONE),
            difference(measure, DECAY, NONE),
            interaction(measure),
            difference(measure, BOTH, DROPOUT),
            difference(measure, BOTH, DECAY),
        )
    ]


def interaction(measure: Measure) -> Contrast:
    """The effect of both minus the sum of the effects of each: both − dropout − decay + neither."""
    label = Text(f"{measure.label.en}: interaction", f"{measure.label.tr}: etkileşim")
    terms = tuple((sign, each.name, measure.name) for sign, each in zip((1.0, -1.0, -1.0, 1.0), ALL, strict=True))
    return Contrast(f"{measure.name}: interaction", label, terms, digits=measure.digits, percent=measure.percent)


def plot(figure: Figure, result: Result, words: Words) -> None:
    panels = figure.subplots(2, 2)
    for column, (measure, name, sign) in enumerate(((ACCURACY, "accuracies", 1.0), (LOSS, "losses", -1.0))):
        _lines(panels[0][column], result, name, words)
        panels[0][column].set_ylabel(words(measure.label))
        _gains(panels[1][column], result, measure, sign, words)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    panels[1][0].set_xlabel(words("gain in test accuracy", "test doğruluğunda kazanç"))
    panels[1][1].set_xlabel(words("reduction of the test loss (nats)", "test kaybında azalma (nat)"))


def _lines(panel: Axes, result: Result, name: str, words: Words) -> None:
    """The whole grid: a line for each p over λ, with 95 % intervals."""
    ps, decays = ([0.0, *result.facts.scale[each]] for each in ("p", "decay"))
    cells = {
        cell: values
        for each in ALL
        for cell, values in zip(product(*grid(each, result.facts.scale)), result.values(each, name).T, strict=True)
    }
    for i, p in enumerate(ps):
        means = [interval(cells[p, decay]) for decay in decays]
        at = np.arange(len(decays)) + 0.06 * (i - (len(ps) - 1) / 2)
        panel.errorbar(at, [each.mean for each in means], [each.half for each in means], color=COLORS[i],
                       linestyle=LINES[i], marker=MARKERS[i], markersize=4, capsize=2,
                       label=f"p = {words.number(p, 1)}")  # fmt: skip
    panel.set_xticks(range(len(decays)), [words.number(each, 3) if each else "0" for each in decays])
    panel.set_xlabel(words("weight decay λ", "ağırlık sönümü λ"))


def gains(result: Result, measure: Measure, sign: float) -> dict[Text, Interval]:
    """What each setting gains over neither, and the sum of what the two gain alone."""
    none, dropout, decay, both = (sign * result.values(each, measure) for each in ALL)
    alone = {DROPOUT.label: dropout - none, DECAY.label: decay - none}
    total = {Text("sum of the two", "ikisinin toplamı"): sum(alone.values()), BOTH.label: both - none}
    values: dict[Text, Any] = {**alone, **total}
    return {label: interval(each) for label, each in values.items()}


def _gains(panel: Axes, result: Result, measure: Measure, sign: float, words: Words) -> None:
    found = gains(result, measure, sign)
    for row, (i, each) in zip(reversed(range(len(found))), enumerate(found.values()), strict=True):
        panel.errorbar(each.mean, row, xerr=each.half, fmt=MARKERS[i], color=COLORS[i], capsize=3)
    panel.set_yticks(range(len(found)), [words(each) for each in reversed(found)])
    panel.set_ylim(-0.6, len(found) - 0.4)
    panel.axvline(0.0, color="0.4", linewidth=0.8)
    panel.grid(axis="y", visible=False)


def answer(result: Result, words: Words) -> str:
    images = words.count(result.facts.scale["validation"])
    return words(
        f"Each seed chose p and λ on {images} validation images: of dropout alone, of weight decay alone, and of both "
        f"together. Accuracy: {_outcomes(result, ACCURACY, 1.0, words)} Loss: {_outcomes(result, LOSS, -1.0, words)}"
        f"{_edges(result, words)}",
        f"p ile λ'yı her tohum {images} doğrulama imgesiyle seçti: yalnız hattan düşürme için, yalnız ağırlık sönümü "
        f"için ve ikisi birden için. Doğruluk: {_outcomes(result, ACCURACY, 1.0, words)} Kayıp: "
        f"{_outcomes(result, LOSS, -1.0, words)}{_edges(result, words)}",
    )


def _edges(result: Result, words: Words) -> str:
    return at_the_edge(
        {
            f"{words(measure.label)} ({words(each.label)})": (result.values(each, measure), grid(each, scale)[column])
            for scale in [result.facts.scale]
            for each in ALL
            for measure, column in zip(CHOSEN, (0, 1, 0, 1), strict=True)
        },
        words,
    )


def _outcomes(result: Result, measure: Measure, sign: float, words: Words) -> str:
    """What was found in one measure. sign: 1 where more is better, −1 where less is."""
    means = words.items([f"{words(each.label)} {words.mean(result.mean(each, measure), measure)}" for each in ALL])
    compared = (difference(measure, DROPOUT, NONE), difference(measure, DECAY, NONE), interaction(measure))
    dropout, decay, apart = (words.outcome(result, each) for each in compared)
    verdict = words(VERDICTS[kind(result, measure, sign)])
    return words(
        f"{means}. Dropout alone, {dropout}; weight decay alone, {decay}; both minus the sum of the two effects, "
        f"{apart}. {verdict}",
        f"{means}. Yalnız hattan düşürme, {dropout}; yalnız ağırlık sönümü, {decay}; ikisi birden eksi iki etkinin "
        f"toplamı, {apart}. {verdict}",
    )


def kind(result: Result, measure: Measure, sign: float) -> str:
    """How the two go together, as far as the tests tell: a name in `VERDICTS`."""

    def found(contrast: Contrast) -> float:
        """1 for a gain that was found, −1 for a harm, else 0."""
        test = result.test(contrast)
        return float(np.sign(sign * test.interval.mean)) if test.found else 0.0

    alone = [found(difference(measure, each, NONE)) for each in (DROPOUT, DECAY)]
    more = [found(difference(measure, BOTH, each)) for each in (DROPOUT, DECAY)]
    apart = found(interaction(measure))
    if apart == 0.0:
        return "additive" if alone == [1.0, 1.0] else "unknown"
    if apart > 0.0:
        return "synergy"
    if min(more) < 0.0:
        return "cancelling"
    return "diminishing" if more == [1.0, 1.0] else "no more"


VERDICTS = {
    "unknown": Text(
        "At least one of them was not found to gain anything alone, so this does not tell whether gains add up.",
        "En az birinin tek başına bir kazancı görülmediğinden, kazançların toplanıp toplanmadığı anlaşılmıyor.",
    ),
    "additive": Text(
        "As far as these runs tell, the gains are additive.",
        "Bu koşuların gösterdiği kadarıyla kazançlar toplanıyor.",
    ),
    "synergy": Text(
        "Both together do better than the sum of their effects.",
        "İkisi birden, etkilerinin toplamından daha iyi sonuç veriyor.",
    ),
    "diminishing": Text(
        "The returns diminish: both are better than each alone, but gain less than the sum.",
        "Getiri azalıyor: ikisi birden, tek başlarına olduklarından iyi; ama kazanç toplamdan az.",
    ),
    "no more": Text(
        "The returns diminish: both gain less than the sum, and were not found to be better than each of them alone.",
        "Getiri azalıyor: kazanç toplamdan az; ikisinin birden, tek başlarına olduklarından iyi olduğu da görülmedi.",
    ),
    "cancelling": Text(
        "They cancel each other: both together are worse than one of them alone.",
        "Birbirlerini götürüyorlar: ikisi birden, birinin tek başına olduğundan kötü.",
    ),
}


_SIZES = {
    "images": 1000,
    "validation": 5000,
    "hidden": 256,
    "epochs": 110,
    "settle": 25,
    "lr": 0.1,
    "p": [0.2, 0.4, 0.6, 0.8],
    "decay": [0.001, 0.003, 0.01, 0.03],
}
EXPERIMENT = Experiment(
    name="weight-decay",
    exercise=5,
    title=Text("Dropout and weight decay", "Hattan düşürme ve ağırlık sönümü"),
    question=Text(
        "How do dropout and weight decay compare, and do their effects add up, diminish or cancel when both are used?",
        "Hattan düşürme ile ağırlık sönümünün etkileri birbirine göre nasıl; ikisi birlikte kullanılınca etkiler "
        "toplanır mı, azalır mı, birbirini götürür mü?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {
            **_SIZES, "images": 200, "validation": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1,
            "p": [0.5], "decay": [0.01],
        },
    },
    settings=settings,
    run=run,
    measures=(ACCURACY, LOSS, *CHOSEN),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 6.4),
)  # fmt: skip
