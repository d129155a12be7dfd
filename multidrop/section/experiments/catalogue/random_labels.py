"""The section's claim that a net fits labels that were drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..lab import CLASSES
from ..plots import curves, dots
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

TRAIN = Measure("train", Text("training accuracy", "eğitim doğruluğu"), 1, percent=True)
TEST = Measure("test", Text("test accuracy", "test doğruluğu"), 1, percent=True)
GAP = Measure("gap", Text("gap", "açık"), 1, percent=True)

PLAIN = Setting("plain", Text("without dropout", "hattan düşürme olmadan"), {"p1": 0.0, "p2": 0.0})
DROPOUT = Setting("dropout", Text("with dropout", "hattan düşürmeyle"), {"p1": 0.2, "p2": 0.5})
MEMORISED = 0.99  # the training accuracy that counts as such
CHANCE = Contrast(
    "chance",
    Text("test accuracy without dropout, against 10 %", "hattan düşürme olmadan test doğruluğu, %10'a göre"),
    ((1.0, PLAIN.name, TEST.name),),
    against=1 / CLASSES,
    digits=1,
    percent=True,
)


def settings(scale: Scale) -> Sequence[Setting]:
    return PLAIN, DROPOUT


def run(setting: Setting, lab: Lab) -> Measurements:
    X, y = lab.train_set
    X_test, y_test = lab.test_set
    labels, test_labels = (
        lab.generator(name).integers(CLASSES, size=len(true)).astype(np.uint8)
        for name, true in (("labels", y), ("test labels", y_test))
    )
    net = lab.net((None, setting["p1"], setting["p2"]))
    epochs = lab.train(net, X, labels, test=(X_test, test_labels)).epochs
    train, test = epochs[-1].eval_train_accuracy, epochs[-1].test_accuracy
    return {"train": train, "test": test, "gap": train - test, "loss": [epoch.train_loss for epoch in epochs]}


def contrasts(result: Result) -> Sequence[Contrast]:
    return CHANCE, difference(TRAIN, DROPOUT, PLAIN), difference(GAP, DROPOUT, PLAIN)


def plot(figure: Figure, result: Result, words: Words) -> None:
    losses, accuracies = figure.subplots(1, 2)
    curves(losses, result, result.settings, "loss", words)
    losses.axhline(np.log(CLASSES), color="0.4", linewidth=0.8)
    losses.set_ylim(bottom=0)
    losses.set_xlabel(words("epoch", "dönem"))
    losses.set_ylabel(words("training loss (nats)", "eğitim kaybı (nat)"))
    losses.legend(loc="upper right")
    dots(accuracies, result, result.settings, (TRAIN, TEST), words)
    accuracies.axvline(1 / CLASSES, color="0.4", linewidth=0.8)
    accuracies.set_xlim(0, 1.03)
    accuracies.set_xlabel(words("accuracy", "doğruluk"))


def answer(result: Result, words: Words) -> str:
    train, test, gap = (words.mean(result.mean(PLAIN, each), each) for each in (TRAIN, TEST, GAP))
    dropped = words.mean(result.mean(DROPOUT, TRAIN), TRAIN)
    images = words.count(result.facts.scale["images"])
    outcome, chance = words.outcome(result, CHANCE), words.number(1 / CLASSES, 0, percent=True)
    if result.mean(PLAIN, TRAIN).mean > MEMORISED:
        opening = words("Yes.", "Evet.")
        conclusion = words(
            " There is nothing to learn here, so the net has memorised.",
            " Burada öğrenilecek bir şey yok; ağ ezberlemiştir.",
        )
    else:
        opening, conclusion = words("Not in so few epochs.", "Bu kadar az dönemde öğrenemiyor."), ""
    return words(
        f"{opening} On {images} images whose labels were drawn at random, the net without dropout reaches a training "
        f"accuracy of {train}. On test images, with labels drawn in the same way, it is right in {test}, where a guess "
        f"is right in {chance}: {outcome}. Between the two accuracies lies a gap of {gap}.{conclusion} With dropout, "
        f"in the same number of epochs, the training accuracy is {dropped}.",
        f"{opening} Etiketleri rastgele çekilmiş {images} imgede, hattan düşürme olmadan eğitim doğruluğu {train} "
        f"oluyor. Etiketleri aynı biçimde çekilmiş test imgelerinde doğruluk {test}; tahminle {chance} olurdu: "
        f"{outcome}. İki doğruluk arasındaki açık {gap}.{conclusion} Hattan düşürmeyle, aynı sayıda dönemde eğitim "
        f"doğruluğu {dropped} oluyor.",
    )


_SIZES = {"images": 1000, "hidden": 256, "batch": 32, "epochs": 200, "settle": 20, "lr": 0.1}
EXPERIMENT = Experiment(
    name="random-labels",
    exercise=None,
    title=Text("Labels drawn at random", "Rastgele etiketler"),
    question=Text(
        "Can a net learn labels that have nothing to do with the images, and what does it then know about new ones?",
        "Bir ağ, imgelerle hiçbir ilgisi olmayan etiketleri öğrenebilir mi; öğrenirse yeni imgeler hakkında ne bilir?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {**_SIZES, "images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1},
    },
    settings=settings,
    run=run,
    measures=(TRAIN, TEST, GAP),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 3.4),
)
