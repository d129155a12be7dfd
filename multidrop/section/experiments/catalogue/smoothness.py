"""The section's claim that noise in training makes a smoother function: accuracy under noise on the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import multidrop as md

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..lab import CLASSES
from ..plots import COLORS, curves, dots
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

CLEAN = Measure("clean", Text("test accuracy without noise", "gürültüsüz test doğruluğu"), 1, percent=True)
NOISY = Measure("noisy", Text("test accuracy under noise", "gürültülü test doğruluğu"), 1, percent=True)
HALF = Measure("half", Text("σ that halves the accuracy's excess over chance",
                            "doğruluğun şansa üstünlüğünü yarıya indiren σ"), 3)  # fmt: skip
CHANGE = Measure("change", Text("relative change of the logits", "logitlerin göreli değişimi"), 2, percent=True)

PLAIN = Setting("plain", Text("no noise", "gürültüsüz"), {"p1": 0.0, "p2": 0.0, "sigma": 0.0})
DROPOUT = Setting("dropout", Text("dropout", "hattan düşürme"), {"p1": 0.2, "p2": 0.5, "sigma": 0.0})


def settings(scale: Scale) -> Sequence[Setting]:
    return PLAIN, DROPOUT, noise_of(scale)


def noise_of(scale: Scale) -> Setting:
    """The reference, trained under noise on its inputs."""
    return Setting("noise", Text("noise on the inputs", "girdide gürültü"),
                   {"p1": 0.0, "p2": 0.0, "sigma": scale["trained"]})  # fmt: skip


def run(setting: Setting, lab: Lab) -> Measurements:
    """Tests a net with the same noise, times each σ. Noisy pixels are not clipped to [0, 1]."""
    noise = md.family.GaussianNoise(setting["sigma"]) if setting["sigma"] else None
    net = lab.net((noise, setting["p1"], setting["p2"]))
    lab.train(net)
    images, y = lab.test_set
    X = lab.inputs(images)
    draw = lab.generator("pixels").normal(size=X.shape).astype(X.dtype)
    sigmas = lab.scale["sigmas"]
    accuracies = [lab.score(net, X + np.asarray(sigma, X.dtype) * draw, y)[0] for sigma in sigmas]
    return {
        "clean": accuracies[0],
        "noisy": accuracies[sigmas.index(lab.scale["shown"])],
        "half": halving(sigmas, accuracies),
        "change": change(net, X, np.asarray(lab.scale["small"], X.dtype) * draw),
        "accuracies": accuracies,
    }


def halving(sigmas: Sequence[float], accuracies: Sequence[float]) -> float:
    """The first σ at which half of the excess over chance is lost, on straight lines between the measured ones; the
    last σ if no more is lost until there, and the first one if there is no excess to lose."""
    level = (accuracies[0] + 1 / CLASSES) / 2
    if accuracies[0] <= level:
        return sigmas[0]
    for i in range(1, len(sigmas)):
        before, after = accuracies[i - 1], accuracies[i]
        if after <= level:
            return sigmas[i - 1] + (sigmas[i] - sigmas[i - 1]) * (before - level) / (before - after)
    return sigmas[-1]


def change(net: object, X: npt.NDArray, noise: npt.NDArray) -> float:
    """The root mean square over images of the norm by which small noise moves the logits, relative to that of their
    distance from the mean logits."""
    logits, moved = (md.predict(net, inputs, outputs="values") for inputs in (X, X + noise))
    return float(np.sqrt(((moved - logits) ** 2).sum() / ((logits - logits.mean(axis=0)) ** 2).sum()))


def contrasts(result: Result) -> Sequence[Contrast]:
    trained = result.settings[1:]
    return [difference(measure, each, PLAIN) for measure in (NOISY, HALF, CHANGE) for each in trained]


def plot(figure: Figure, result: Result, words: Words) -> None:
    accuracies, changes = figure.subplots(1, 2, width_ratios=(3, 2))
    curves(accuracies, result, result.settings, "accuracies", words, result.facts.scale["sigmas"])
    for color, setting in zip(COLORS, result.settings, strict=False):
        at = result.mean(setting, HALF)
        level = (result.mean(setting, CLEAN).mean + 1 / CLASSES) / 2
        accuracies.errorbar(at.mean, level, xerr=at.half, fmt="o", color=color, markersize=4, capsize=3)
    accuracies.plot([], [], "o", color="0.4", markersize=4, label=words("half of the excess", "üstünlüğün yarısı"))
    accuracies.axhline(1 / CLASSES, color="0.4", linewidth=0.8, label=words("chance", "şans"))
    accuracies.set_ylim(0, 1)
    accuracies.set_xlabel(words("σ of the noise (grey values: 0 to 1)", "gürültünün σ'sı (gri değerler: 0–1)"))
    accuracies.set_ylabel(words("test accuracy", "test doğruluğu"))
    accuracies.legend()
    dots(changes, result, result.settings, (CHANGE,), words)


def answer(result: Result, words: Words) -> str:
    scale = result.facts.scale
    shown, small, trained = (words.small(scale[name], 1) for name in ("shown", "small", "trained"))
    clean, noisy, half, moved = (
        [words.mean(result.mean(each, measure), measure) for each in result.settings]
        for measure in (CLEAN, NOISY, HALF, CHANGE)
    )
    of_noisy, of_half, of_moved = (
        [words.outcome(result, difference(measure, each, PLAIN)) for each in result.settings[1:]]
        for measure in (NOISY, HALF, CHANGE)
    )
    dropped, noised = (words(_smoother(result, each)) for each in result.settings[1:])
    text = words(
        f"Trained without noise, the net classifies {clean[0]} of the test images correctly, and {noisy[0]} under "
        f"noise of σ = {shown} on the pixels. With dropout it is {clean[1]} and {noisy[1]}, under noise "
        f"{of_noisy[0]}; trained under noise of σ = {trained} on its inputs, {clean[2]} and {noisy[2]}, under noise "
        f"{of_noisy[1]}. As σ grows, half of a net's own excess over chance is lost at σ = {half[0]} without noise "
        f"in training; with dropout at {half[1]}, {of_half[0]}; with noise on the inputs at {half[2]}, {of_half[1]}. "
        f"Noise of σ = {small} moves the logits by {moved[0]} of their distance from their mean; with dropout by "
        f"{moved[1]}, {of_moved[0]}; with noise on the inputs by {moved[2]}, {of_moved[1]}. So, compared with the "
        f"net without noise in training, the net with dropout is {dropped}, and the one with noise on the inputs is "
        f"{noised}.",
        f"Gürültüsüz eğitilen ağ test imgelerinin {clean[0]} kadarını, piksellerde σ = {shown} gürültüyle ise "
        f"{noisy[0]} kadarını doğru sınıflandırıyor. Hattan düşürmeyle bu oranlar {clean[1]} ve {noisy[1]}, "
        f"gürültüde {of_noisy[0]}; girdilerinde σ = {trained} gürültüyle eğitilince {clean[2]} ve {noisy[2]}, "
        f"gürültüde {of_noisy[1]}. Ağın şansa üstünlüğünün yarıya indiği σ, gürültüsüz eğitimde {half[0]}; hattan "
        f"düşürmeyle {half[1]}, {of_half[0]}; girdide gürültüyle {half[2]}, {of_half[1]}. σ = {small} gürültü "
        f"logitleri, ortalamalarına uzaklıklarının {moved[0]} kadarı oynatıyor; hattan düşürmeyle {moved[1]}, "
        f"{of_moved[0]}; girdide gürültüyle {moved[2]}, {of_moved[1]}. Yani gürültüsüz eğitilen ağa göre hattan "
        f"düşürmeyle eğitilen {dropped}, girdide gürültüyle eğitilen {noised}.",
    )
    if max(result.values(each, HALF).max() for each in result.settings) < scale["sigmas"][-1]:
        return text
    last = words.small(scale["sigmas"][-1])
    return text + words(
        f" Where half was not lost up to σ = {last}, the largest that was tested, this is counted as {last}.",
        f" Yarısının σ = {last} değerine, yani denenen en büyük σ'ya kadar kaybedilmediği yerde {last} sayıldı.",
    )


def _smoother(result: Result, setting: Setting) -> Text:
    """What the comparisons with the net without noise say: by the σ at which half is lost, and by the logits."""
    found: list[Text] = []
    for measure, sign in ((HALF, 1), (CHANGE, -1)):
        test = result.test(difference(measure, setting, PLAIN))
        found.append(_SMOOTHER[sign * test.interval.mean > 0] if test.found else _UNDECIDED)
    by_sigma, by_logits = found
    if by_sigma == by_logits == _UNDECIDED:
        return Text(f"{by_sigma.en} by either measure", f"iki ölçüye göre de {by_sigma.tr}")
    if by_sigma == by_logits:
        return Text(f"{by_sigma.en} by both measures", f"iki ölçüye göre de {by_sigma.tr}")
    return Text(
        f"{by_sigma.en} by that σ and {by_logits.en} by the logits",
        f"bu σ'ya göre {by_sigma.tr}, logitlere göre {by_logits.tr}",
    )


_SMOOTHER = {True: Text("smoother", "daha pürüzsüz"), False: Text("less smooth", "daha az pürüzsüz")}
_UNDECIDED = Text("not found to differ", "ayırt edilemiyor")


_SIZES = {
    "images": 1000,
    "hidden": 256,
    "epochs": 100,
    "settle": 20,
    "lr": 0.1,
    "trained": 0.3,
    "sigmas": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0],
    "shown": 0.3,
    "small": 0.01,
}
EXPERIMENT = Experiment(
    name="smoothness",
    exercise=None,
    title=Text("Smoothness", "Pürüzsüzlük"),
    question=Text(
        "Does dropout make the net a smoother function of its inputs, so that noise on the pixels harms it less?",
        "Hattan düşürme ağı girdilerinin daha pürüzsüz bir fonksiyonu yapar mı; pikseldeki gürültü ona daha az mı "
        "zarar verir?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {
            **_SIZES, "images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 0, "sigmas": [0.0, 0.3, 1.0],
        },
    },
    settings=settings,
    run=run,
    measures=(CLEAN, NOISY, HALF, CHANGE),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 3.6),
)  # fmt: skip
