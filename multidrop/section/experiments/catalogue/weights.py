"""Exercise 6: dropout of single weights in the place of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import multidrop as md

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..lab import BATCH
from ..plots import dots
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
LOSS = Measure("loss", Text("test loss (nats)", "test kaybı (nat)"), 3)
GAP = Measure("gap", Text("training − test accuracy", "eğitim − test doğruluğu"), 1, percent=True)
NONE = Setting("none", Text("nothing dropped", "düşürme yok"), {"member": None, "p": 0.0})
DROPOUT, DROPCONNECT = md.family.Dropout, md.family.DropConnect
NAMES = {DROPOUT: Text("activations", "etkinleştirmeler"), DROPCONNECT: Text("weights", "ağırlıklar")}


def settings(scale: Scale) -> Sequence[Setting]:
    return [NONE, *(setting(member, p) for member in NAMES for p in scale["p"])]


def setting(member: type[md.family.MaskMember], p: float) -> Setting:
    name = NAMES[member]
    label = Text.numbers(f", p = {p:g}")
    label = Text(name.en + label.en, name.tr + label.tr)
    return Setting(f"{member.__name__} {p:g}", label, {"member": member.__name__, "p": p})


def run(setting: Setting, lab: Lab) -> Measurements:
    """The second and the third linear layer get the noise: dropout on their inputs, or DropConnect on their weights."""
    member = None if setting["member"] is None else getattr(md.family, setting["member"])(setting["p"])
    last = lab.train(lab.net((None, member, member))).epochs[-1]
    gap = last.eval_train_accuracy - last.test_accuracy
    return {"accuracy": last.test_accuracy, "loss": last.test_loss, "gap": gap}


def decisions(member: type[md.family.MaskMember], scale: Scale) -> int:
    """How many random decisions a training step takes: one for each weight or each activation of the two layers."""
    batch, hidden = scale.get("batch", BATCH), scale["hidden"]
    layers = ((hidden, hidden), (hidden, 10))
    return sum(inputs * outputs if member.of_weights else batch * inputs for inputs, outputs in layers)


def contrasts(result: Result) -> Sequence[Contrast]:
    """Both against each other at each p, in accuracy and loss; and each against nothing, in accuracy."""
    return [
        *(between(measure, p) for measure in (ACCURACY, LOSS) for p in result.facts.scale["p"]),
        *(difference(ACCURACY, each, NONE) for each in result.settings[1:]),
    ]


def between(measure: Measure, p: float) -> Contrast:
    return difference(measure, setting(DROPCONNECT, p), setting(DROPOUT, p))


def plot(figure: Figure, result: Result, words: Words) -> None:
    panels = figure.subplots(1, 3, sharey=True)
    for panel, measure in zip(panels, (ACCURACY, LOSS, GAP), strict=True):
        dots(panel, result, result.settings, (measure,), words)


def answer(result: Result, words: Words) -> str:
    none = [words.mean(result.mean(NONE, each), each) for each in (ACCURACY, LOSS)]
    ps = result.facts.scale["p"]
    parts = [
        words(
            f"Without noise the test accuracy is {none[0]} and the test loss {none[1]}.",
            f"Gürültüsüz ağda test doğruluğu {none[0]}, test kaybı {none[1]}.",
        ),
        words("Dropped weights − activations, in accuracy: ", "Düşürülen ağırlıklar − etkinleştirmeler, doğrulukta: ")
        + _summary(result, [(f"p = {words.number(p, 1)}", between(ACCURACY, p)) for p in ps], words),
        words("In loss: ", "Kayıpta: ")
        + _summary(result, [(f"p = {words.number(p, 1)}", between(LOSS, p)) for p in ps], words),
        words("Each − nothing dropped, in accuracy: ", "Her biri − düşürme yok, doğrulukta: ")
        + _summary(
            result, [(words(each.label), difference(ACCURACY, each, NONE)) for each in result.settings[1:]], words
        ),
        _cost(result.facts.scale, words),
    ]
    return " ".join(parts)


def _summary(result: Result, compared: Sequence[tuple[str, Contrast]], words: Words) -> str:
    """The differences that were found, each by its name, and the size that could have been found in the others."""
    found = [f"{name}: {words.outcome(result, each)}" for name, each in compared if result.test(each).found]
    others = [each for _, each in compared if not result.test(each).found]
    if others:
        least = words.detectable(max(map(result.test, others), key=lambda test: test.detectable), others[0])
        found.append(
            words(
                f"no difference found in {len(others)} of {len(compared)} comparisons, where one of {least} would have "
                "been found in each with a probability of at least 80 %",
                f"{len(compared)} karşılaştırmanın {len(others)} tanesinde fark bulunamadı; {least} büyüklüğünde bir "
                "fark her birinde en az %80 olasılıkla bulunurdu",
            )
        )
    return "; ".join(found) + "."


def _cost(scale: Scale, words: Words) -> str:
    batch = scale.get("batch", BATCH)
    of_weights, of_activations = (words.count(decisions(each, scale)) for each in (DROPCONNECT, DROPOUT))
    for_each = words.count(batch * decisions(DROPCONNECT, scale))
    return words(
        f"A training step takes {of_weights} random decisions for the weights, however large the batch, and "
        f"{of_activations} for the activations of {batch} examples. Here all examples of a batch share one mask of the "
        f"weights; the paper's mask for each example would take {for_each}, and no matrix product of the whole batch. "
        "At test time both compute with all weights: for a given input, a layer's output is then the mean over masks, "
        "exactly in its linear part, approximately after ReLU.",
        f"Bir eğitim adımında ağırlıklar için, minigrup ne büyüklükte olursa olsun, {of_weights} rastgele karar "
        f"gerekir; {batch} örneğin etkinleştirmeleri için {of_activations}. Burada bir minigruptaki bütün örnekler "
        f"aynı ağırlık maskesini paylaşır; makaledeki gibi her örneğe ayrı maske {for_each} karar ister ve bütün "
        "minigrup tek matris çarpımıyla hesaplanamaz. Test zamanında ikisi de bütün ağırlıklarla hesaplar: verilen bir "
        "girdi için katmanın çıktısı maskeler üzerinden ortalamadır; doğrusal kısımda tam olarak, ReLU'dan sonra "
        "yaklaşık olarak.",
    )


_SIZES = {
    "images": 1000,
    "hidden": 256,
    "epochs": 110,
    "settle": 25,
    "lr": 0.1,
    "p": [0.1, 0.3, 0.5],
}
EXPERIMENT = Experiment(
    name="weights",
    exercise=6,
    title=Text("Dropping weights", "Ağırlıkları düşürmek"),
    question=Text(
        "What happens if single weights are dropped in the place of activations, and what does it cost?",
        "Etkinleştirmeler yerine tek tek ağırlıklar düşürülürse ne olur, bunun bedeli nedir?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {**_SIZES, "images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1, "p": [0.5]},
    },
    settings=settings,
    run=run,
    measures=(ACCURACY, LOSS, GAP),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(9.6, 3.6),
)
