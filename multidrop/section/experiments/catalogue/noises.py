"""Exercise 7: other noise than dropout in the hidden layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import multidrop as md

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..plots import dots
from ..tuning import at_the_edge, trial, tuned
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
LOSS = Measure("loss", Text("test loss (nats)", "test kaybı (nat)"), 3)
CHOSEN = Measure("chosen", Text("strength chosen by accuracy", "doğrulukla seçilen şiddet"), 2)
CHOSEN_BY_LOSS = Measure("chosen by loss", Text("by loss", "kayıpla seçilen"), 2)
NONE = Setting("none", Text("none", "gürültü yok"), {"member": None, "strength": None})

WEIGHTS = Text("disturb weights, not activations", "etkinleştirmeleri değil, ağırlıkları bozanlar")
LEARNS = Text("learn their p, and need a term in the loss", "p'yi öğrenenler (kayba bir terim ister)")
LAYOUT = Text("need images or sequences", "imge ya da dizi isteyenler")


def unsuited(member: type[md.family.Member], units: int) -> Text | None:
    """Why a member of the family does not disturb the activations of a perceptron; None if it does."""
    if member.of_weights:
        return WEIGHTS
    if member.learns:
        return LEARNS
    try:
        member().check((1, units))
    except ValueError:
        return LAYOUT
    return None


def family(scale: Scale) -> Mapping[str, Text | None]:
    """The members of the library by name, and why they are left out; None for those that are compared."""
    own = {
        name: each for name, each in md.family.MEMBERS.items() if each.__module__.startswith(f"{md.family.__name__}.")
    }
    return {name: unsuited(own[name], scale["hidden"]) for name in sorted(own)}


def settings(scale: Scale) -> Sequence[Setting]:
    return [NONE, *(setting(name) for name, reason in family(scale).items() if reason is None)]


def setting(name: str) -> Setting:
    """A member whose first field is its strength: a p, or a standard deviation."""
    return Setting(name, Text.same(name), {"member": name, "strength": fields(md.family.MEMBERS[name])[0].name})


DROPOUT = setting("Dropout")


def run(setting: Setting, lab: Lab) -> Measurements:
    """Trains with each strength of the member. The second and third linear layers get the noise on their inputs."""
    strengths = [0.0] if setting["member"] is None else lab.scale[setting["strength"]]

    def noise(strength: float) -> Sequence[md.family.Member | None]:
        member = None if setting["member"] is None else getattr(md.family, setting["member"])(strength)
        return None, member, member

    best = tuned(strengths, lambda strength: trial(lab, noise(strength)))
    return {
        "accuracy": best.accuracy,
        "loss": best.loss,
        "chosen": strengths[best.by_accuracy],
        "chosen by loss": strengths[best.by_loss],
        "accuracies": [each.accuracy for each in best.trials],
        "losses": [each.loss for each in best.trials],
    }


def others(result: Result) -> Sequence[Setting]:
    """The members that dropout is compared with."""
    return [each for each in result.settings if each.name not in (NONE.name, DROPOUT.name)]


def contrasts(result: Result) -> Sequence[Contrast]:
    """Each member against dropout, and dropout against none."""
    return [difference(measure, a, b) for measure in (ACCURACY, LOSS)
            for a, b in [*((each, DROPOUT) for each in others(result)), (DROPOUT, NONE)]]  # fmt: skip


def plot(figure: Figure, result: Result, words: Words) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    for panel, measure in zip(panels, (ACCURACY, LOSS), strict=True):
        dots(panel, result, result.settings, (measure,), words)


def answer(result: Result, words: Words) -> str:
    return " ".join([
        _method(result, words),
        _verdict(result, ACCURACY, 1.0, words),
        _verdict(result, LOSS, -1.0, words) + _edges(result, words),
        _left_out(result, words),
    ])  # fmt: skip


def _method(result: Result, words: Words) -> str:
    none, dropout = (words.mean(result.mean(each, ACCURACY), ACCURACY) for each in (NONE, DROPOUT))
    accuracy, loss = (words.outcome(result, difference(each, DROPOUT, NONE)) for each in (ACCURACY, LOSS))
    images = words.count(result.facts.scale["validation"])
    return words(
        "Each noise disturbed the activations of both hidden layers of the same net for the same number of steps; each "
        f"seed chose its strength on {images} validation images, once for accuracy, once for loss. Without noise the "
        f"test accuracy is {none}, with dropout {dropout}: {accuracy}; in the loss, {loss}.",
        "Her gürültü aynı ağın iki gizli katmanındaki etkinleştirmeleri, aynı sayıda adım boyunca bozdu; şiddetini her "
        f"tohum {images} doğrulama imgesiyle seçti, bir kez doğruluk, bir kez kayıp için. Gürültüsüz test doğruluğu "
        f"{none}, hattan düşürmeyle {dropout}: {accuracy}; kayıpta {loss}.",
    )


def _verdict(result: Result, measure: Measure, sign: float, words: Words) -> str:
    """Which members beat dropout, and which are worse. sign: 1 where more is better, −1 where less is."""
    label = words(measure.label)
    better: list[str] = []
    worse: list[str] = []
    for each in others(result):
        contrast = difference(measure, each, DROPOUT)
        test = result.test(contrast)
        if test.found:
            side = better if sign * test.interval.mean > 0 else worse
            side.append(f"{words(each.label)} ({words.amount(test.interval.mean, contrast)})")
    if better:
        shown = words.items(better)
        text = words(
            f"Better than dropout in {label}: {shown}.", f"Hattan düşürmeyi {label} bakımından geçen: {shown}."
        )
    else:
        compared = [difference(measure, each, DROPOUT) for each in others(result)]
        least = words.detectable(max(map(result.test, compared), key=lambda test: test.detectable), compared[0])
        text = words(
            f"No other noise was found to beat dropout in {label}; an advantage of {least} would have been found for "
            "each with a probability of at least 80 %.",
            f"Hattan düşürmeyi {label} bakımından geçen başka gürültü bulunamadı; {least} büyüklüğünde bir üstünlük "
            "her birinde en az %80 olasılıkla bulunurdu.",
        )
    if worse:
        text += words(f" Worse: {words.items(worse)}.", f" Daha kötü olan: {words.items(worse)}.")
    return text


def _edges(result: Result, words: Words) -> str:
    by = ((CHOSEN, Text("accuracy", "doğruluk")), (CHOSEN_BY_LOSS, Text("loss", "kayıp")))
    return at_the_edge(
        {
            f"{words(each.label)}, {words(label)}": (result.values(each, measure), result.facts.scale[each["strength"]])
            for measure, label in by
            for each in (DROPOUT, *others(result))
        },
        words,
    )


def _left_out(result: Result, words: Words) -> str:
    reasons = family(result.facts.scale)
    shown = "; ".join(
        f"{words(reason)}: {', '.join(name for name, own in reasons.items() if own == reason)}"
        for reason in (WEIGHTS, LEARNS, LAYOUT)
        if reason in reasons.values()
    )
    biased = words.items([each.name for each in others(result) if not md.family.MEMBERS[each.name].unbiased])
    return words(
        f"{biased}, made for other nets, does not keep the mean of these activations. Left out, because they {shown}.",
        f"Başka ağlar için olan {biased} bu etkinleştirmelerin ortalamasını korumaz. Karşılaştırılmayanlar: {shown}.",
    )


_SIZES = {
    "images": 1000,
    "validation": 5000,
    "hidden": 256,
    "epochs": 100,
    "settle": 20,
    "lr": 0.1,
    "p": [0.02, 0.1, 0.3, 0.5, 0.7],
    "stddev": [0.2, 0.5, 1.0, 2.0, 4.0],
}
EXPERIMENT = Experiment(
    name="noises",
    exercise=7,
    title=Text("Other noise than dropout", "Hattan düşürmeden başka gürültüler"),
    question=Text(
        "Is there noise for the hidden layers that makes the same net better than dropout does?",
        "Aynı ağı hattan düşürmeden daha iyi yapan, gizli katmanlara verilecek başka bir gürültü var mı?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {
            **_SIZES, "images": 200, "validation": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1,
            "p": [0.5], "stddev": [0.1],
        },
    },
    settings=settings,
    run=run,
    measures=(ACCURACY, LOSS, CHOSEN, CHOSEN_BY_LOSS),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 3.4),
)  # fmt: skip
