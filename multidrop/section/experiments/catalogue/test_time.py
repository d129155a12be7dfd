"""Exercise 4: dropout at test time: off, on once, and averaged over many samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import multidrop as md

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..lab import TEST_BATCH, score
from ..plots import COLORS, curves
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
LOSS = Measure("loss", Text("negative log-likelihood (nats)", "negatif log-olabilirlik (nat)"), 3)
CALIBRATION = Measure("calibration", Text("calibration error", "kalibrasyon hatası"), 1, percent=True)
COST = Measure("cost", Text("runs of the net", "ağın çalıştırılması"), 0)
JUDGED = (ACCURACY, LOSS, CALIBRATION)

OFF = Setting("off", Text("off", "kapalı"), {"samples": 0})
ONCE = Setting("once", Text("on, one sample", "açık, tek örneklem"), {"samples": 1})


def averaged(scale: Scale) -> Setting:
    k = scale["samples"]
    return Setting("averaged", Text(f"on, mean of {k} samples", f"açık, {k} örneklemin ortalaması"), {"samples": k})


def settings(scale: Scale) -> Sequence[Setting]:
    return OFF, ONCE, averaged(scale)


def run(setting: Setting, lab: Lab) -> Measurements:
    """Trains with dropout, and judges the predictions. Each test image has masks of its own, as it would if the layers
    were left in training mode."""
    net = lab.net((None, lab.scale["p1"], lab.scale["p2"]))
    lab.train(net)
    X, y = lab.test_set
    judged = [_judged(probabilities, y) for probabilities in _predictions(net, lab.inputs(X), setting["samples"], lab)]
    curves = {f"{each.name} by samples": [found[each.name] for found in judged] for each in JUDGED}
    return {**judged[-1], "cost": max(1, setting["samples"]), **curves}


def _predictions(net: object, X: npt.NDArray, samples: int, lab: Lab) -> Iterator[npt.NDArray[np.float64]]:
    """The probabilities with dropout off for 0 samples; else the means of 1, 2, … samples."""
    if samples == 0:
        yield md.predict(net, X, batch_size=TEST_BATCH)
        return
    mean = np.zeros(())
    drawn = md.mc_samples(net, X, samples, lab.key("test masks"), batch_size=TEST_BATCH, masks="own")
    for k, sample in enumerate(drawn, start=1):
        mean = mean + (sample - mean) / k
        yield mean


def _judged(probabilities: npt.NDArray, y: npt.NDArray) -> dict[str, float]:
    accuracy, loss = score(probabilities, y)
    return {"accuracy": accuracy, "loss": loss, "calibration": md.calibration_error(probabilities, y)}


def contrasts(result: Result) -> Sequence[Contrast]:
    """One sample, and the mean of many, against dropout that is off: in each measure."""
    many = averaged(result.facts.scale)
    return [difference(measure, each, OFF) for each in (ONCE, many) for measure in JUDGED]


def plot(figure: Figure, result: Result, words: Words) -> None:
    many = averaged(result.facts.scale)
    k = np.arange(1, many["samples"] + 1)
    for panel, measure in zip(figure.subplots(1, len(JUDGED)), JUDGED, strict=True):
        curves(panel, result, [many], f"{measure.name} by samples", words, k)
        off = result.mean(OFF, measure)
        panel.axhline(off.mean, color=COLORS[1], linestyle="--", label=words("dropout off", "hattan düşürme kapalı"))
        panel.axhspan(off.low, off.high, color=COLORS[1], alpha=0.15, linewidth=0)
        panel.lines[0].set_label(words("mean of k samples", "k örneklemin ortalaması"))
        panel.set_xscale("log")
        ticks = [tick for tick in (1, 2, 5, 10, 30, 100) if tick <= k[-1]]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel(words("samples k = runs of the net", "örneklem sayısı k = ağın çalıştırılması"))
        panel.set_title(words(measure.label), fontsize="medium")
    figure.axes[0].legend(loc="lower right", fontsize="small")


def answer(result: Result, words: Words) -> str:
    many = averaged(result.facts.scale)
    k = words.count(many["samples"])
    off, once, mean = (
        [words.mean(result.mean(each, measure), measure) for measure in JUDGED] for each in (OFF, ONCE, many)
    )
    return (
        words(
            f"With dropout off, one run of the net for each image, the test accuracy is {off[0]}, the negative "
            f"log-likelihood {off[1]} and the calibration error {off[2]}. Left on, one run gives {once[0]}, {once[1]} "
            f"and {once[2]}, and another answer each time; against off: ",
            f"Hattan düşürme kapalıyken, her imge için ağ bir kez çalıştırılınca, test doğruluğu {off[0]}, negatif "
            f"log-olabilirlik {off[1]}, kalibrasyon hatası {off[2]}. Açık bırakılırsa tek çalıştırma sırasıyla "
            f"{once[0]}, {once[1]} ve {once[2]} verir, yanıt da her seferinde değişir; kapalıya göre: ",
        )
        + _outcomes(result, ONCE, words)
        + words(
            f". The mean of {k} samples takes {k} runs and gives {mean[0]}, {mean[1]} and {mean[2]}; against off: ",
            f". {k} örneklemin ortalaması {k} çalıştırma ister ve sırasıyla {mean[0]}, {mean[1]} ve {mean[2]} verir; "
            "kapalıya göre: ",
        )
        + _outcomes(result, many, words)
        + ". "
        + _conclusion(result, many, words)
    )


def _outcomes(result: Result, setting: Setting, words: Words) -> str:
    return "; ".join(
        words(measure.label) + ", " + words.outcome(result, difference(measure, setting, OFF)) for measure in JUDGED
    )


def _conclusion(result: Result, many: Setting, words: Words) -> str:
    """What follows for use, as far as the comparisons found it."""
    accuracy = difference(ACCURACY, many, OFF)
    gain = result.test(accuracy).found and result.test(accuracy).interval.mean > 0
    better = [
        words(measure.label)
        for measure in (LOSS, CALIBRATION)
        for test in [result.test(difference(measure, many, OFF))]
        if test.found and test.interval.mean < 0
    ]
    worse = result.test(difference(ACCURACY, ONCE, OFF))
    text = words("So dropout is off at test time because ", "Demek ki hattan düşürme test zamanında kapatılır, çünkü ")
    if worse.found and worse.interval.mean < 0:
        text += words(
            "one thinned network is less accurate than the whole net",
            "seyreltilmiş tek bir ağın doğruluğu tüm ağınkinden düşüktür",
        )
    else:
        text += words("the whole net gives the same answer each time", "tüm ağ her seferinde aynı yanıtı verir")
    if gain:
        text += words(
            ", and the mean of many, which is more accurate here, costs many runs",
            "; burada doğruluğu daha yüksek olan ortalama ise çok sayıda çalıştırma ister",
        )
    else:
        text += words(
            ", and the mean of many, for many runs, was not found to be more accurate",
            "; çok sayıda çalıştırmanın ortalamasının daha yüksek doğruluk verdiği de görülmemiştir",
        )
    if better:
        shown = words.items(better)
        return text + words(
            f". What the mean does improve is the probabilities: {shown}.",
            f". Ortalamanın düzelttiği, olasılıklardır: {shown}.",
        )
    return text + "."


_SIZES = {"images": 1000, "hidden": 256, "epochs": 120, "settle": 30, "lr": 0.1, "p1": 0.2, "p2": 0.5, "samples": 100}
_SMALL = {"images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1, "samples": 5}
EXPERIMENT = Experiment(
    name="test-time",
    exercise=4,
    title=Text("dropout at test time", "test zamanında hattan düşürme"),
    question=Text(
        "Why is dropout not used at test time? What becomes of accuracy and probabilities if it is left on, for one "
        "sample or for the mean of many?",
        "Hattan düşürme test zamanında neden kullanılmaz? Açık bırakılırsa, tek örneklemde ya da birçok örneklemin "
        "ortalamasında, doğruluk ve olasılıklar ne olur?",
    ),
    scales={"full": _SIZES, "mini": _SIZES, "tiny": {**_SIZES, **_SMALL}},
    settings=settings,
    run=run,
    measures=(*JUDGED, COST),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(9.6, 3.4),
)
