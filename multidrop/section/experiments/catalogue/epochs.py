"""Exercise 2: more epochs, with dropout and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...history import Epoch, History
from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..plots import COLORS, curves
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy, last epoch", "test doğruluğu, son dönem"), 1, percent=True)
LOSS = Measure("loss", Text("test loss, last epoch", "test kaybı, son dönem"), 3)
STOPPED_ACCURACY = Measure("stopped_accuracy", Text("test accuracy, chosen epoch", "test doğruluğu, seçilen dönem"), 1,
                           percent=True)  # fmt: skip
STOPPED_LOSS = Measure("stopped_loss", Text("test loss, chosen epoch", "test kaybı, seçilen dönem"), 3)
CHOSEN = Measure("chosen", Text("chosen epoch", "seçilen dönem"), 0)
RISE = Measure("rise", Text("rise of the test loss", "test kaybının artışı"), 3)

PLAIN = Setting("plain", Text("without dropout", "hattan düşürme olmadan"), {"p1": 0.0, "p2": 0.0})
DROPOUT = Setting("dropout", Text("with dropout", "hattan düşürmeyle"), {"p1": 0.2, "p2": 0.5})


def settings(scale: Scale) -> Sequence[Setting]:
    return PLAIN, DROPOUT


def run(setting: Setting, lab: Lab) -> Measurements:
    """Tests every few epochs. The chosen epoch is the one with the least loss on validation images, so that the test
    images have no part in the choice."""
    validation: list[float] = []
    every = lab.scale["every"]

    def validate(net: Any, history: History, epoch: Epoch) -> None:
        if epoch.tested:
            validation.append(lab.score(net, *lab.validation_set)[1])

    net = lab.net((None, setting["p1"], setting["p2"]))
    tested = [epoch for epoch in lab.train(net, test_every=every, callbacks=[validate]).epochs if epoch.tested]
    last, stopped = tested[-1], tested[int(np.argmin(validation))]
    return {
        "accuracy": last.test_accuracy,
        "loss": last.test_loss,
        "stopped_accuracy": stopped.test_accuracy,
        "stopped_loss": stopped.test_loss,
        "chosen": stopped.epoch,
        "rise": last.test_loss - stopped.test_loss,
        "train": last.eval_train_accuracy,
        "accuracies": [epoch.test_accuracy for epoch in tested],
        "losses": [epoch.test_loss for epoch in tested],
        "epochs": [epoch.epoch for epoch in tested],
    }


def rise(setting: Setting) -> Contrast:
    label = Text(f"{RISE.label.en}, {setting.label.en}", f"{RISE.label.tr}, {setting.label.tr}")
    return Contrast(f"rise, {setting.name}", label, ((1.0, setting.name, RISE.name),), digits=RISE.digits)


def gain(setting: Setting) -> Contrast:
    """What the accuracy gained since the chosen epoch."""
    label = Text(f"change of the test accuracy, {setting.label.en}", f"test doğruluğundaki değişim, {setting.label.tr}")
    terms = ((1.0, setting.name, ACCURACY.name), (-1.0, setting.name, STOPPED_ACCURACY.name))
    return Contrast(f"gain, {setting.name}", label, terms, digits=ACCURACY.digits, percent=True)


def contrasts(result: Result) -> Sequence[Contrast]:
    compared = [difference(each, DROPOUT, PLAIN) for each in (ACCURACY, LOSS, STOPPED_ACCURACY, STOPPED_LOSS)]
    return *compared, *(change(setting) for change in (rise, gain) for setting in (PLAIN, DROPOUT))


def plot(figure: Figure, result: Result, words: Words) -> None:
    epochs = result.values(PLAIN, "epochs")[0]
    panels = figure.subplots(1, 2)
    labels = (words("test accuracy", "test doğruluğu"), words("test loss (nats)", "test kaybı (nat)"))
    for panel, measure, label in zip(panels, ("accuracies", "losses"), labels, strict=True):
        curves(panel, result, result.settings, measure, words, epochs)
        panel.set_xlabel(words("epoch", "dönem"))
        panel.set_ylabel(label)
    for color, setting in zip(COLORS, result.settings, strict=False):
        panels[1].plot(result.values(setting, CHOSEN), result.values(setting, STOPPED_LOSS), ".", color=color)
    chosen = words("epoch chosen on validation images", "doğrulama imgeleriyle seçilen dönem")
    panels[1].plot([], [], ".", color="0.4", label=chosen)
    panels[0].legend(loc="lower right")
    panels[1].legend(handles=panels[1].lines[-1:], loc="upper right")


def answer(result: Result, words: Words) -> str:
    scale = result.facts.scale
    epochs, images, others = (words.count(scale[name]) for name in ("epochs", "images", "validation"))
    accuracy, dropped_accuracy = (words.mean(result.mean(each, ACCURACY), ACCURACY) for each in (PLAIN, DROPOUT))
    loss, dropped_loss = (words.mean(result.mean(each, LOSS), LOSS) for each in (PLAIN, DROPOUT))
    chosen, dropped_chosen = (words.mean(result.mean(each, CHOSEN), CHOSEN) for each in (PLAIN, DROPOUT))
    of_accuracy, of_loss, stopped_accuracy, stopped_loss = (
        words.outcome(result, difference(each, DROPOUT, PLAIN))
        for each in (ACCURACY, LOSS, STOPPED_ACCURACY, STOPPED_LOSS)
    )
    rises, gains = ([words.outcome(result, change(each)) for each in (PLAIN, DROPOUT)] for change in (rise, gain))
    return words(
        f"After {epochs} epochs on {images} images the net without dropout has a test accuracy of {accuracy} and a "
        f"test loss of {loss} nats; with dropout, {dropped_accuracy} and {dropped_loss}. Dropout − none: in accuracy "
        f"{of_accuracy}; in loss {of_loss}. The epoch with the least loss on {others} other images is {chosen} "
        f"without dropout and {dropped_chosen} with it. From there to the last epoch the test loss changes as "
        f"follows: without dropout, {rises[0]}; with dropout, {rises[1]}. The accuracy: without dropout, {gains[0]}; "
        f"with dropout, {gains[1]}. {words(_overfitting(result))} Of nets that stop at their chosen epoch, dropout − "
        f"none: in accuracy {stopped_accuracy}; in loss {stopped_loss}.",
        f"{images} imgeyle {epochs} dönem eğitimden sonra hattan düşürme olmadan test doğruluğu {accuracy}, test "
        f"kaybı {loss} nat; hattan düşürmeyle {dropped_accuracy} ve {dropped_loss}. Hattan düşürmenin etkisi: "
        f"doğrulukta {of_accuracy}; kayıpta {of_loss}. Başka {others} imgede kaybın en küçük olduğu dönem, hattan "
        f"düşürme olmadan {chosen}, hattan düşürmeyle {dropped_chosen}. O dönemden sonuncuya kadar test kaybındaki "
        f"değişim: hattan düşürme olmadan {rises[0]}; hattan düşürmeyle {rises[1]}. Doğruluktaki değişim: hattan "
        f"düşürme olmadan {gains[0]}; hattan düşürmeyle {gains[1]}. {words(_overfitting(result))} Eğitim seçilen "
        f"dönemde durdurulursa hattan düşürmenin etkisi: doğrulukta {stopped_accuracy}; kayıpta {stopped_loss}.",
    )


def _overfitting(result: Result) -> Text:
    """Which nets overfit: those whose test loss was found to rise."""
    plain, dropped = (result.test(rise(each)).found and result.mean(each, RISE).mean > 0 for each in (PLAIN, DROPOUT))
    if plain and dropped:
        return Text("So both nets overfit in the loss.", "Yani kayba göre her iki ağ da aşırı öğreniyor.")
    if plain:
        return Text(
            "So the net without dropout overfits in the loss; of the one with dropout this was not found.",
            "Yani kayba göre hattan düşürme olmadan ağ aşırı öğreniyor; hattan düşürmeyle bu görülmedi.",
        )
    if dropped:
        return Text(
            "So the net with dropout overfits in the loss; of the one without this was not found.",
            "Yani kayba göre hattan düşürmeyle ağ aşırı öğreniyor; hattan düşürme olmadan bu görülmedi.",
        )
    return Text("Overfitting in the loss was not found in either net.",
                "İki ağın hiçbirinde kayba göre aşırı öğrenme görülmedi.")  # fmt: skip


_SIZES = {"images": 1000, "validation": 1000, "hidden": 256, "epochs": 400, "every": 10, "lr": 0.05}
EXPERIMENT = Experiment(
    name="epochs",
    exercise=2,
    title=Text("Training for longer", "Daha uzun eğitim"),
    question=Text(
        "What do more epochs do with dropout, and what do they do without?",
        "Dönem sayısını artırmak, hattan düşürmeyle ve hattan düşürme olmadan neyi değiştirir?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {
            **_SIZES, "images": 200, "validation": 100, "tests": 200, "hidden": 16, "epochs": 2, "every": 1,
        },
    },
    settings=settings,
    run=run,
    measures=(ACCURACY, LOSS, STOPPED_ACCURACY, STOPPED_LOSS, CHOSEN, RISE),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 3.6),
)  # fmt: skip
