"""Exercise 4: dropout at test time: off, on once, and averaged over many samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import multidrop as md

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..lab import TEST_BATCH, score
from ..plots import COLORS
from ..statistics import interval
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
    """The differences of the mean of k samples to dropout that is off, seed by seed."""
    many = averaged(result.facts.scale)
    k = np.arange(1, many["samples"] + 1)
    for panel, measure in zip(figure.subplots(1, len(JUDGED)), JUDGED, strict=True):
        unit = 100 if measure.percent else 1
        off = result.values(OFF, measure)[:, None]
        differences = unit * (result.values(many, f"{measure.name} by samples") - off)
        intervals = [interval(column) for column in differences.T]
        panel.axhline(0.0, color=COLORS[1], linestyle="--", label=words("dropout off", "hattan düşürme kapalı"))
        panel.plot(
            k,
            [each.mean for each in intervals],
            color=COLORS[0],
            label=words("mean of k samples", "k örneklemin ortalaması"),
        )
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        panel.fill_between(k, low, high, color=COLORS[0], alpha=0.2, linewidth=0)
        panel.set_xscale("log")
        ticks = [tick for tick in (1, 2, 5, 10, 30, 100) if tick <= k[-1]]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel(words("samples k = runs of the net", "örneklem sayısı k = ağın çalıştırılması"))
        points = words(" (points)", " (puan)") if measure.percent else ""
        panel.set_title(f"{words(measure.label)}{points}", fontsize="medium")
    figure.axes[0].set_ylabel(words("difference to dropout off", "kapalıya göre fark"))
    figure.legend(handles=figure.axes[0].lines, loc="outside upper center", ncols=2, frameon=False)


def answer(result: Result, words: Words) -> str:
    many = averaged(result.facts.scale)
    k = words.count(many["samples"])
    off = words.items([f"{words(each.label)} {words.mean(result.mean(OFF, each), each)}" for each in JUDGED])
    return words(
        f"With dropout off: {off} (by how much the probability of the predicted class and its accuracy differ); "
        f"against that, the mean of {k} samples has {_outcomes(result, many, words)}. "
        f"One sample, which is another thinned network each time, has {_outcomes(result, ONCE, words)}. "
        f"{_conclusion(result, many, words)}",
        f"Hattan düşürme kapalıyken: {off} (tahmin edilen sınıfın olasılığıyla doğruluğu arasındaki fark); "
        f"buna göre {k} örneklemin ortalamasında {_outcomes(result, many, words)}. "
        f"Her seferinde başka bir seyreltilmiş ağ olan tek örneklemde {_outcomes(result, ONCE, words)}. "
        f"{_conclusion(result, many, words)}",
    )


def _outcomes(result: Result, setting: Setting, words: Words) -> str:
    """The outcomes against dropout that is off, each with the setting's mean."""
    found = []
    for measure in JUDGED:
        mean = words.mean(result.mean(setting, measure), measure)
        text = words(f"a {words(measure.label)} of {mean}, ", f"{words(measure.label)} {mean}, ")
        found.append(text + words.outcome(result, difference(measure, setting, OFF)))
    return "; ".join(found)


def _changed(result: Result, setting: Setting, sign: float, words: Words) -> str:
    """The measures in which a setting was found better (sign 1) or worse (sign −1) than dropout that is off."""
    found = []
    for measure in JUDGED:
        test = result.test(difference(measure, setting, OFF))
        good = 1.0 if measure is ACCURACY else -1.0
        if test.found and sign * good * test.interval.mean > 0:
            found.append(words(measure.label))
    return words.items(found) if found else ""


def _conclusion(result: Result, many: Setting, words: Words) -> str:
    """What follows for use, as far as the comparisons found it."""
    k = words.count(many["samples"])
    better, worse = (_changed(result, many, sign, words) for sign in (1.0, -1.0))
    once = _changed(result, ONCE, -1.0, words)
    if better and worse:
        mean = words(
            f"is better in {better}, but worse in {worse}",
            f"{better} bakımından daha iyi, ama {worse} bakımından daha kötüdür",
        )
    elif better:
        mean = words(f"is better in {better}", f"{better} bakımından daha iyidir")
    elif worse:
        mean = words(f"is worse in {worse}", f"{worse} bakımından daha kötüdür")
    else:
        mean = words("was not found to be better or worse", "daha iyi ya da daha kötü bulunmamıştır")
    use = (
        words(
            f"dropout stays on only where that is worth {k} runs",
            f"hattan düşürme ancak buna {k} çalıştırma değiyorsa açık bırakılır",
        )
        if better
        else words("dropout is off at test time", "hattan düşürme test zamanında kapatılır")
    )
    single = (
        words(f"one sample is worse in {once}", f"tek örneklem {once} bakımından daha kötüdür")
        if once
        else words("one sample brings another answer each time", "tek örneklem her seferinde başka bir yanıt verir")
    )
    return words(
        f"The mean takes {k} runs of the net, dropout off takes one; the mean {mean}, so {use}; {single}.",
        f"Ortalama için ağ {k} kez, hattan düşürme kapalıyken bir kez çalışır; ortalama {mean}, bu yüzden "
        f"{use}; {single}.",
    )


_SIZES = {"images": 1000, "hidden": 256, "epochs": 120, "settle": 30, "lr": 0.1, "p1": 0.2, "p2": 0.5, "samples": 100}
_SMALL = {"images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1, "samples": 5}
EXPERIMENT = Experiment(
    name="test-time",
    exercise=4,
    title=Text("Dropout at test time", "Test zamanında hattan düşürme"),
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
