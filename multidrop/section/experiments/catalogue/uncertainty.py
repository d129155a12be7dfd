"""Uncertainty by dropout at test time: does a net know which images are not like those that it learned?

Sources: Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep
learning", ICML 2016, for the rotated images; N. Houlsby et al., "Bayesian active learning for classification and
preference learning", arXiv:1112.5745 (2011), for the mutual information; D. Hendrycks and K. Gimpel, "A baseline for
detecting misclassified and out-of-distribution examples in neural networks", ICLR 2017, for the AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

import multidrop as md

from ....uncertainty.prediction import entropies
from ...needs import section_extra
from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..lab import TEST_BATCH
from ..plots import COLORS, MARKERS, curves
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

KEPT, ANGLE, GOAL = 0.8, 90, 0.9
FRACTIONS = np.arange(1, 21) / 20  # of the images that are kept, in the plot

NOISE = Measure("noise", Text("AUROC, noise", "AUROC, gürültü"), 3)
ROTATED = Measure("rotated", Text(f"AUROC, rotated by {ANGLE}°", f"AUROC, {ANGLE}° döndürülmüş"), 3)
ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
_SHARE = round(100 * KEPT)
SURE = Measure("sure", Text(f"accuracy, {_SHARE} % kept", f"doğruluk, %{_SHARE} tutulunca"), 1, percent=True)
CALIBRATION = Measure("calibration", Text("calibration error", "kalibrasyon hatası"), 1, percent=True)

PLAIN = Setting("plain", Text("entropy, dropout off", "entropi, hattan düşürme kapalı"), {"score": "plain"})
ENTROPY = Setting("entropy", Text("entropy of the mean", "ortalamanın entropisi"), {"score": "entropy"})
MUTUAL = Setting("mutual", Text("mutual information", "karşılıklı bilgi"), {"score": "mutual_information"})
SCORES = (PLAIN, ENTROPY, MUTUAL)


class Judged(NamedTuple):
    """Images as the net sees them: probabilities (n, 10), and how uncertain each prediction is, (n,), in nats."""

    probabilities: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]


def settings(scale: Scale) -> Sequence[Setting]:
    return SCORES


def run(setting: Setting, lab: Lab) -> Measurements:
    """Trains with dropout in all layers, and scores test images, rotated test images, and uniform noise. The sizes were
    chosen by the AUROC of noise for the first seeds; therefore this experiment has seeds of its own."""
    lab = replace(lab, seed=lab.key("uncertainty").seed)
    net = lab.net(lab.scale["p"])
    lab.train(net)
    X, y = lab.test_set
    images = X / 255.0
    clothes = judged(net, images, setting, lab)
    noise = judged(net, lab.generator("noise").random(images.shape), setting, lab)
    by_angle = {angle: judged(net, rotated(images, angle), setting, lab) for angle in lab.scale["angles"]}
    aurocs = {angle: md.auroc(clothes.uncertainty, each.uncertainty) for angle, each in by_angle.items()}
    kept = md.rejection_curve(clothes.probabilities, y, clothes.uncertainty).accuracy
    return {
        "noise": md.auroc(clothes.uncertainty, noise.uncertainty),
        "rotated": aurocs[ANGLE],
        "accuracy": kept[-1],
        "sure": kept[_place(KEPT, len(y))],
        "calibration": md.calibration_error(clothes.probabilities, y),
        "auroc by angle": list(aurocs.values()),
        "accuracy by kept": [kept[_place(fraction, len(y))] for fraction in FRACTIONS],
    }


def judged(net: object, images: npt.NDArray, setting: Setting, lab: Lab) -> Judged:
    """The probabilities and the score of images (n, 28, 28) with grey values from 0 to 1."""
    X = images[:, None].astype(lab.dtype)
    if setting["score"] == PLAIN["score"]:
        p = md.predict(net, X, batch_size=TEST_BATCH)
        return Judged(p, entropies(p))
    key = lab.key("samples")
    found = md.mc_predict(net, X, lab.scale["samples"], key, batch_size=TEST_BATCH, progress=False)
    return Judged(found.mean, getattr(found, setting["score"]))


def rotated(images: npt.NDArray, angle: float) -> npt.NDArray:
    """Images (n, 28, 28) rotated by an angle in degrees about their centre, linearly interpolated; 0 outside."""
    with section_extra("an experiment"):
        from scipy.ndimage import rotate

    turned: npt.NDArray = rotate(images, angle, axes=(2, 1), reshape=False, order=1)
    return turned


def _place(fraction: float, n: int) -> int:
    """The place of a kept fraction in a rejection curve of n examples."""
    return max(1, round(fraction * n)) - 1


def contrasts(result: Result) -> Sequence[Contrast]:
    """Both scores of the samples against that without; and the mean of the samples against dropout that is off."""
    scored = [difference(measure, each, PLAIN) for measure in (NOISE, ROTATED, SURE) for each in (ENTROPY, MUTUAL)]
    return [*scored, *(difference(measure, ENTROPY, PLAIN) for measure in (ACCURACY, CALIBRATION))]


def plot(figure: Figure, result: Result, words: Words) -> None:
    noise, angles, kept = figure.subplots(1, 3)
    for i, setting in enumerate(SCORES):
        values, mean = result.values(setting, NOISE), result.mean(setting, NOISE)
        noise.plot(values, np.full(len(values), -i), ".", color=COLORS[i], alpha=0.5)
        noise.errorbar(mean.mean, -i, xerr=mean.half, fmt=MARKERS[i], color=COLORS[i], capsize=3)
    noise.set_yticks([])
    noise.set_ylim(0.6 - len(SCORES), 0.6)
    noise.set_xlabel(words(NOISE.label))
    curves(angles, result, SCORES, "auroc by angle", words, result.facts.scale["angles"])
    angles.set_xticks(result.facts.scale["angles"])
    angles.set_xlabel(words("rotation (degrees)", "döndürme (derece)"))
    angles.set_ylabel(words("AUROC, rotated images", "AUROC, döndürülmüş imgeler"))
    angles.axhline(0.5, color="grey", linewidth=1)
    curves(kept, result, SCORES, "accuracy by kept", words, FRACTIONS)
    kept.set_xlabel(words("share kept, the most certain", "tutulan en kesin pay"))
    kept.set_ylabel(words(ACCURACY.label))
    figure.legend(handles=angles.lines[: len(SCORES)], loc="outside upper center", ncols=len(SCORES), frameon=False)


def answer(result: Result, words: Words) -> str:
    return " ".join((_noise(result, words), _rotated(result, words), _kept(result, words), _calibration(result, words)))


def _noise(result: Result, words: Words) -> str:
    plain, entropy, mutual = (words.mean(result.mean(each, NOISE), NOISE) for each in SCORES)
    outcome = words.outcome(result, difference(NOISE, MUTUAL, PLAIN))
    reaching = [words(each.label) for each in SCORES if result.mean(each, NOISE).mean > GOAL]
    goal = words.number(GOAL, 1)
    reached = (
        words(
            f"above {goal} in the mean lies: {words.items(reaching)}",
            f"ortalaması {goal} üstünde olan: {words.items(reaching)}",
        )
        if reaching
        else words(f"no score reaches {goal} in the mean", f"hiçbir ölçünün ortalaması {goal} üstünde değil")
    )
    return words(
        "An image of noise has a higher score than a test image with a probability (AUROC) of "
        f"{plain} by the entropy with dropout off, {entropy} by the entropy of the samples' mean, and {mutual} by the "
        f"mutual information, which is how much the samples disagree; {reached}. "
        f"Mutual information against entropy with dropout off: {outcome}. "
        f"{_verdict(result, words)}",
        "Bir gürültü imgesinin bir test imgesinden daha belirsiz görünme olasılığı (AUROC), hattan düşürme kapalıyken "
        f"entropiye göre {plain}, örneklemlerin ortalamasının entropisine göre {entropy}, karşılıklı bilgiye "
        f"(örneklemlerin ne kadar ayrıştığına) göre {mutual}; {reached}. "
        f"Karşılıklı bilgi ile hattan düşürme kapalıyken entropi arasında: {outcome}. "
        f"{_verdict(result, words)}",
    )


def _verdict(result: Result, words: Words) -> str:
    test = result.test(difference(NOISE, MUTUAL, PLAIN))
    if not test.found:
        return words(
            "So it was not found that the samples' disagreement tells noise from clothes better.",
            "Demek ki örneklemler arasındaki uyuşmazlığın gürültüyü giysiden daha iyi ayırdığı görülmedi.",
        )
    if test.interval.mean < 0:
        return words(
            "So the samples' disagreement tells noise from clothes worse, against the claim.",
            "Demek ki örneklemler arasındaki uyuşmazlık, beklenenin tersine, gürültüyü giysiden daha kötü ayırıyor.",
        )
    return words(
        "So the samples' disagreement tells noise from clothes better.",
        "Demek ki örneklemler arasındaki uyuşmazlık gürültüyü giysiden daha iyi ayırıyor.",
    )


def _rotated(result: Result, words: Words) -> str:
    plain, entropy, mutual = (words.mean(result.mean(each, ROTATED), ROTATED) for each in SCORES)
    outcome = words.outcome(result, difference(ROTATED, MUTUAL, PLAIN))
    return words(
        f"Images rotated by {ANGLE}°, in the same order: {plain}, {entropy} and {mutual}; mutual information against "
        f"entropy with dropout off, {outcome}.",
        f"{ANGLE}° döndürülmüş imgelerde, aynı sırayla: {plain}, {entropy} ve {mutual}; karşılıklı bilgi ile hattan "
        f"düşürme kapalıyken entropi arasında {outcome}.",
    )


def _kept(result: Result, words: Words) -> str:
    share = words.number(KEPT, 0, percent=True)
    every = words.mean(result.mean(PLAIN, ACCURACY), ACCURACY)
    plain, entropy, mutual = (words.mean(result.mean(each, SURE), SURE) for each in SCORES)
    outcomes = [words.outcome(result, difference(SURE, each, PLAIN)) for each in (ENTROPY, MUTUAL)]
    return words(
        f"Where only the {share} most certain test images are classified, the accuracy is {plain}, {entropy} and "
        f"{mutual}, against {every} for all with dropout off; compared with entropy with dropout off, for the entropy "
        f"of the mean {outcomes[0]}, for the mutual information {outcomes[1]}.",
        f"Test imgelerinin yalnızca en kesin görünen {share} kadarı sınıflandırılırsa doğruluk sırasıyla {plain}, "
        f"{entropy} ve {mutual}; hattan düşürme kapalıyken tüm imgelerde {every}. Hattan düşürme kapalıyken entropiye "
        f"göre, ortalamanın entropisi için {outcomes[0]}, karşılıklı bilgi için {outcomes[1]}.",
    )


def _calibration(result: Result, words: Words) -> str:
    off, mean = (words.mean(result.mean(each, CALIBRATION), CALIBRATION) for each in (PLAIN, ENTROPY))
    contrast = difference(CALIBRATION, ENTROPY, PLAIN)
    test, outcome = result.test(contrast), words.outcome(result, contrast)
    if not test.found:
        verdict = words(
            "a change of the probabilities' calibration by the mean was not found",
            "ortalamanın olasılıkların kalibrasyonunu değiştirdiği görülmedi",
        )
    elif test.interval.mean > 0:
        verdict = words(
            "the mean's probabilities are calibrated worse, whatever they tell of noise",
            "gürültü hakkında ne söylerse söylesin, ortalamanın olasılıkları daha kötü kalibre edilmiştir",
        )
    else:
        verdict = words(
            "the mean's probabilities are calibrated better", "ortalamanın olasılıkları daha iyi kalibre edilmiştir"
        )
    return words(
        "The calibration error, by how much the probability of the predicted class and its accuracy differ, is "
        f"{off} with dropout off and {mean} for the samples' mean, {outcome}: {verdict}. "
        "Sizes and p were chosen by the AUROC of noise, with other seeds but the same test images.",
        f"Kalibrasyon hatası, yani tahmin edilen sınıfın olasılığıyla doğruluğu arasındaki fark, hattan düşürme "
        f"kapalıyken {off}, örneklemlerin ortalamasında {mean}, {outcome}: "
        f"{verdict}. Boyutlar ve p, gürültünün AUROC değerine bakılarak, başka tohumlarla ama aynı test imgeleriyle "
        "seçildi.",
    )


_SIZES = {
    "images": 5000,
    "tests": 2000,
    "hidden": 256,
    "epochs": 40,
    "settle": 8,
    "lr": 0.1,
    "p": [0.7, 0.7, 0.5],
    "samples": 50,
    "angles": [30, 60, 90, 180],
}
_SMALL = {"images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1, "samples": 5, "angles": [90]}
EXPERIMENT = Experiment(
    name="uncertainty",
    exercise=None,
    title=Text("Uncertainty from dropout at test time", "Test zamanında hattan düşürmeyle belirsizlik"),
    question=Text(
        "Averaged over many thinned networks, does a net know better when it does not know: on noise, on rotated "
        "images, on the test images that it gets wrong?",
        "Seyreltilmiş birçok ağın ortalaması alınınca ağ, neyi bilmediğini daha iyi bilir mi: gürültüde, döndürülmüş "
        "imgelerde, yanlış sınıflandırdığı test imgelerinde?",
    ),
    scales={"full": _SIZES, "mini": {**_SIZES, "tests": 1000}, "tiny": {**_SIZES, **_SMALL}},
    settings=settings,
    run=run,
    measures=(NOISE, ROTATED, ACCURACY, SURE, CALIBRATION),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(9.8, 3.4),
)
