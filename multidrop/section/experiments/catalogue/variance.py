"""Exercise 3: the variance of each hidden layer's activations over time, with dropout and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import multidrop as md

from ...history import Epoch, History
from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..plots import COLORS
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

LAYERS = ("dropout1", "dropout2")
SEEN = [
    Measure(f"training {layer}", Text(f"layer {i}, training mode", f"{i}. katman, eğitim kipi"), 3)
    for i, layer in enumerate(LAYERS, start=1)
]
QUIET = [
    Measure(f"evaluation {layer}", Text(f"layer {i}, evaluation mode", f"{i}. katman, değerlendirme kipi"), 3)
    for i, layer in enumerate(LAYERS, start=1)
]
RATIO = [
    Measure(f"ratio {layer}", Text(f"layer {i}, ratio", f"{i}. katman, oran"), 3)
    for i, layer in enumerate(LAYERS, start=1)
]
EXPECTED = [
    Measure(f"expected {layer}", Text(f"layer {i}, predicted ratio", f"{i}. katman, öngörülen oran"), 3)
    for i, layer in enumerate(LAYERS, start=1)
]

PLAIN = Setting("plain", Text("without dropout", "hattan düşürme olmadan"), {"p": [0.0, 0.0]})
DROPOUT = Setting("dropout", Text("with dropout", "hattan düşürmeyle"), {"p": [0.2, 0.5]})


def settings(scale: Scale) -> Sequence[Setting]:
    return PLAIN, DROPOUT


def run(setting: Setting, lab: Lab) -> Measurements:
    """Records, on fixed test images, what each hidden layer passes on: in training mode after ReLU and dropout, and in
    evaluation mode after ReLU alone."""
    p, hidden, every = setting["p"], lab.scale["hidden"], lab.scale["every"]
    net = md.Net(784, 10, hidden, hidden, dropout1=p[0], dropout2=p[1], seed=lab.seed, dtype=lab.dtype)
    X = lab.inputs(lab.test_set[0][: lab.scale["recorded"]])
    seen, quiet = (md.RecordActivations(X, LAYERS, training=training) for training in (True, False))

    def record(net: Any, history: History, epoch: Epoch) -> None:
        if epoch.epoch % every == 0:
            seen(net, history, epoch)
            quiet(net, history, epoch)

    seen.record(net)
    quiet.record(net)
    lab.train(net, callbacks=[record])
    found: dict[str, Any] = {"epochs": seen.epochs}
    for layer, rate in zip(LAYERS, p, strict=True):
        after, before = np.array(seen.variances[layer]), np.array(quiet.variances[layer])
        mean = np.array(quiet.means[layer])
        expected = ((before + mean**2) / (1 - rate) - mean**2) / before
        for name, values in (
            ("training", after),
            ("evaluation", before),
            ("ratio", after / before),
            ("expected", expected),
        ):
            found[f"{name} {layer}"], found[f"{name}s {layer}"] = values[-1], values.tolist()
    return found


def contrasts(result: Result) -> Sequence[Contrast]:
    compared = [difference(measure, DROPOUT, PLAIN) for measure in (*QUIET, *SEEN)]
    return *compared, *(excess(i) for i in range(len(LAYERS)))


def excess(i: int) -> Contrast:
    """The ratio that was measured with dropout less the predicted one, in a layer."""
    label = Text(f"layer {i + 1}: ratio − predicted ratio", f"{i + 1}. katman: oran − öngörülen oran")
    terms = ((1.0, DROPOUT.name, RATIO[i].name), (-1.0, DROPOUT.name, EXPECTED[i].name))
    return Contrast(f"excess {LAYERS[i]}", label, terms)


def plot(figure: Figure, result: Result, words: Words) -> None:
    epochs = result.values(PLAIN, "epochs")[0]
    lines = (
        (PLAIN, "evaluations", "-", words("without dropout", "hattan düşürme olmadan")),
        (DROPOUT, "trainings", "--", words("dropout, training mode", "hattan düşürme, eğitim kipi")),
        (DROPOUT, "evaluations", "-.", words("dropout, evaluation mode", "hattan düşürme, değerlendirme kipi")),
    )
    for i, (panel, layer) in enumerate(zip(figure.subplots(1, 2, sharey=True), LAYERS, strict=True), start=1):
        for color, (setting, name, line, label) in zip(COLORS, lines, strict=False):
            mean, low, high = result.curve(setting, f"{name} {layer}")
            panel.plot(epochs, mean, line, color=color, label=label)
            panel.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        panel.set_title(words(f"hidden layer {i}", f"{i}. gizli katman"), fontsize="medium")
        panel.set_xlabel(words("epoch", "dönem"))
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[0].set_ylabel(words("variance of the activations", "etkinleştirmelerin varyansı"))
    figure.axes[0].legend(loc="upper right")


def answer(result: Result, words: Words) -> str:
    epochs = words.count(result.facts.scale["epochs"])
    starts = words.items([words.small(result.curve(PLAIN, f"evaluations {layer}")[0][0]) for layer in LAYERS])
    tops = words.items([_top(result, layer, words) for layer in LAYERS])
    plain, dropped = (
        words.items([words.mean(result.mean(setting, each), each) for each in QUIET]) for setting in (PLAIN, DROPOUT)
    )
    seen, ratios, expected = (
        words.items([words.mean(result.mean(DROPOUT, each), each) for each in measures])
        for measures in (SEEN, RATIO, EXPECTED)
    )
    changes = [words.outcome(result, difference(each, DROPOUT, PLAIN)) for each in QUIET]
    excesses = [words.outcome(result, excess(i)) for i in range(len(LAYERS))]
    text = words(
        f"Before training, the activations of the two hidden layers have variances of {starts} in evaluation mode. "
        f"After {epochs} epochs these are {plain} without dropout, and {dropped} with it; without dropout their "
        f"means over the seeds were at most {tops}. Dropout − none: in layer 1 {changes[0]}; in layer 2 "
        f"{changes[1]}. In training mode the next layer sees the activations after dropout, with variances of "
        f"{seen}: {ratios} times those in evaluation mode. The scaling by 1/(1 − p) predicts (E[h²]/(1 − p) − "
        f"E[h]²)/Var h from the activations h in evaluation mode, that is {expected} times. Measured − predicted: in "
        f"layer 1 {excesses[0]}; in layer 2 {excesses[1]}.",
        f"Eğitimden önce iki gizli katmandaki etkinleştirmelerin varyansı, değerlendirme kipinde {starts}. {epochs} "
        f"dönem sonra hattan düşürme olmadan {plain}, hattan düşürmeyle {dropped}; hattan düşürme olmadan tohumlar "
        f"üzerinden ortalamaları en çok {tops}. Hattan düşürmenin etkisi: 1. katmanda {changes[0]}; 2. katmanda "
        f"{changes[1]}. Eğitim kipinde sonraki katman, etkinleştirmeleri hattan düşürmeden sonra görür; varyansları "
        f"{seen}, yani değerlendirme kipindekinin {ratios} katı. Değerlendirme kipindeki h etkinleştirmeleriyle, "
        f"1/(1 − p) çarpanından beklenen oran (E[h²]/(1 − p) − E[h]²)/Var h, yani {expected}. Ölçülen − öngörülen: "
        f"1. katmanda {excesses[0]}; 2. katmanda {excesses[1]}.",
    )
    if not result.test(excess(1)).found:
        return text
    return text + words(
        " The prediction for layer 2 leaves out that its own inputs are noisy in training mode, because of the "
        "dropout in layer 1.",
        " 2. katmanın öngörüsü, 1. katmandaki hattan düşürme yüzünden eğitim kipinde kendi girdilerinin de "
        "gürültülü olduğunu hesaba katmaz.",
    )


def _top(result: Result, layer: str, words: Words) -> str:
    """The largest mean over seeds without dropout, and its epoch."""
    means = result.curve(PLAIN, f"evaluations {layer}")[0]
    at = int(means.argmax())
    value, epoch = words.small(means[at]), words.count(int(result.values(PLAIN, "epochs")[0][at]))
    return words(f"{value} (epoch {epoch})", f"{value} ({epoch}. dönem)")


_SIZES = {"images": 1000, "recorded": 500, "hidden": 256, "epochs": 150, "every": 5, "lr": 0.1}
EXPERIMENT = Experiment(
    name="variance",
    exercise=3,
    title=Text("The variance of the activations", "Etkinleştirmelerin varyansı"),
    question=Text(
        "How does the variance of each hidden layer's activations develop in training, with dropout and without?",
        "Her gizli katmandaki etkinleştirmelerin varyansı, hattan düşürmeyle ve hattan düşürme olmadan, eğitim "
        "boyunca nasıl değişir?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {**_SIZES, "images": 200, "tests": 200, "recorded": 100, "hidden": 16, "epochs": 2, "every": 1},
    },
    settings=settings,
    run=run,
    measures=(*QUIET, *SEEN, *RATIO, *EXPECTED),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 3.8),
)
