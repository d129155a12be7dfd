"""Bishop's theorem: noise on the inputs is Tikhonov regularisation.

Source: C. M. Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7 (1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import multidrop as md

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting
from ..plots import curves
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

DISTANCE = Measure("distance", Text("distance to ridge regression", "sırt bağlanımına uzaklık"), 2, percent=True)
PLAIN = Measure("plain", Text("to least squares", "en küçük karelere"), 1, percent=True)
SLOPE = Measure("slope", Text("slope in the logarithms", "logaritmalarda eğim"), 3)


def settings(scale: Scale) -> Sequence[Setting]:
    return [
        Setting(f"{s:g}", Text(f"σ = {s:g}", f"σ = {s:g}".replace(".", ",")), {"sigma": s}) for s in scale["sigmas"]
    ]


def steps_of(scale: Scale) -> list[int]:
    """The steps at which distances are measured: powers of 2 times the first."""
    return [scale["first"] * 2**i for i in range(scale["doublings"] + 1)]


def run(setting: Setting, lab: Lab) -> Measurements:
    """Averages the iterates of gradient descent under noise, in several replicas at once.

    The loss is linear in neither noise nor weights, but its gradient is linear in the weights; so the iterates at a
    constant rate scatter around the minimum, and their average approaches it as 1/√steps. The first iterates are left
    out of the average: they tell where the descent began.
    """
    n, d = lab.scale["examples"], lab.scale["features"]
    X, y = data(lab)
    ridge = np.linalg.solve(X.T @ X / n + setting["sigma"] ** 2 * np.eye(d), X.T @ y / n)
    plain = np.linalg.lstsq(X, y, rcond=None)[0]
    steps = steps_of(lab.scale)
    averages = descend(setting["sigma"], X, y, steps, lab)
    distances = [_apart(average, ridge) for average in averages]
    slope = np.polyfit(np.log(steps), np.log(distances), 1)[0]
    return {"distances": distances, "distance": distances[-1], "plain": _apart(averages[-1], plain), "slope": slope}


def data(lab: Lab) -> tuple[npt.NDArray, npt.NDArray]:
    """Normal inputs of unequal scales, and a linear response with noise."""
    n, d = lab.scale["examples"], lab.scale["features"]
    draw = lab.generator("linear")
    X = draw.normal(size=(n, d)) * np.linspace(0.5, 1.2, d)
    return X, X @ draw.normal(size=d) + 0.5 * draw.normal(size=n)


def descend(sigma: float, X: npt.NDArray, y: npt.NDArray, steps: Sequence[int], lab: Lab) -> list[npt.NDArray]:
    """The average weights after each of `steps`, shape (replicas, features), computed in the backend's tensors. Only
    operators are used, which all backends have in common; hence the features come first, and sums are products."""
    n, d, replicas = *X.shape, lab.scale["replicas"]
    tensor = lab.backend.tensor
    inputs = tensor(np.tile(X.T, (replicas, 1, 1)).astype(lab.dtype))  # (replicas, d, n)
    targets = tensor(y.astype(lab.dtype)[None])  # (1, n)
    sum_over_features = tensor(np.ones((1, d), lab.dtype))
    mean_over_examples = tensor(np.full((n, 1), 1 / n, lab.dtype))
    w: Any = tensor(np.zeros((replicas, d, 1), lab.dtype))
    total: Any = tensor(np.zeros((replicas, d, 1), lab.dtype))
    noise, stream = md.family.GaussianNoise(sigma), md.Stream(lab.key("noise"))
    averages = []
    for step in range(1 - lab.scale["forgotten"], steps[-1] + 1):
        noisy = md.apply(noise, inputs, stream.next())
        residual = sum_over_features @ (noisy * w) - targets  # (replicas, 1, n)
        w = w - lab.scale["lr"] * ((noisy * residual) @ mean_over_examples)
        if step >= 1:
            total = total + w
        if step in steps:
            averages.append(np.asarray(lab.backend.to_numpy(total), np.float64)[..., 0] / step)
    return averages


def _apart(weights: npt.NDArray, exact: npt.NDArray) -> float:
    """The root mean square, over replicas, of the distance to the exact weights, relative to their norm."""
    return float(np.sqrt(((weights - exact) ** 2).sum(axis=1).mean()) / np.linalg.norm(exact))


def contrasts(result: Result) -> Sequence[Contrast]:
    return [
        Contrast(
            each.name, Text(f"slope against −1/2, {each.label.en}", f"eğim, −1/2'ye göre, {each.label.tr}"),
            ((1.0, each.name, SLOPE.name),), against=-0.5,
        )
        for each in result.settings
    ]  # fmt: skip


def plot(figure: Figure, result: Result, words: Words) -> None:
    panel = figure.subplots()
    steps = np.array(steps_of(result.facts.scale))
    curves(panel, result, result.settings, "distances", words, steps)
    start = result.curve(result.settings[0], "distances")[0][0]
    ideal = start * np.sqrt(steps[0] / steps)
    panel.plot(steps, ideal, color="0.4", linewidth=0.8, label=words("1/√steps", "1/√adım"))
    panel.axhline(0.01, color="0.4", linewidth=0.8, linestyle=":")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(words("steps in the average", "ortalamadaki adım sayısı"))
    panel.set_ylabel(words("relative distance to ridge regression", "sırt bağlanımına göreli uzaklık"))
    panel.legend()


def answer(result: Result, words: Words) -> str:
    worst = max((result.mean(each, DISTANCE) for each in result.settings), key=lambda each: each.high)
    near = min((result.mean(each, PLAIN) for each in result.settings), key=lambda each: each.mean)
    slopes = words.items([
        f"{words.number(mean.mean, 3)} ± {words.number(mean.half, 3)} ({words(each.label)})"
        for each in result.settings
        for mean in [result.mean(each, SLOPE)]
    ])  # fmt: skip
    steps = words.count(steps_of(result.facts.scale)[-1])
    return words(
        "Gradient descent on a linear model whose inputs get new Gaussian noise in each step ends where ridge "
        f"regression is in closed form, (X'X/n + σ²I)⁻¹X'y/n: after {steps} steps the averaged weights are at most "
        f"{words.mean(worst, DISTANCE)} of its length away, but at least {words.mean(near, PLAIN)} from least squares "
        f"without noise. The distance shrinks as 1/√steps, a slope of −1/2 in the logarithms; measured: {slopes}.",
        "Girdilerine her adımda yeni Gauss gürültüsü eklenen doğrusal modelde gradyan inişi, sırt bağlanımının kapalı "
        f"çözümüne varıyor, (X'X/n + σ²I)⁻¹X'y/n: {steps} adımdan sonra ortalama ağırlıkların ona uzaklığı, boyunun "
        f"en çok {words.mean(worst, DISTANCE)} kadarı; gürültüsüz en küçük karelere uzaklıkları ise en az "
        f"{words.mean(near, PLAIN)}. Uzaklık 1/√adım ile, yani logaritmalarda −1/2 eğimle küçülür; ölçülen: {slopes}.",
    )


_SIZES = {
    "examples": 50,
    "features": 8,
    "sigmas": [0.25, 0.5, 1.0],
    "replicas": 8,
    "lr": 0.1,
    "forgotten": 400,
    "first": 100,
    "doublings": 6,
}
EXPERIMENT = Experiment(
    name="bishop",
    exercise=None,
    title=Text("Noise on the inputs is Tikhonov regularisation", "Girdi gürültüsü Tikhonov düzenlileştirmesidir"),
    question=Text(
        "Bishop proved that training under noise on the inputs regularises. For a linear model with squared loss, does "
        "it lead to the weights of ridge regression, and how fast?",
        "Bishop, girdi gürültüsüyle eğitimin düzenlileştirme olduğunu kanıtladı. Kare kayıplı doğrusal bir modelde bu, "
        "sırt bağlanımının ağırlıklarına mı götürür, ne hızla?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {**_SIZES, "sigmas": [0.5], "replicas": 2, "forgotten": 10, "first": 10, "doublings": 2},
    },
    settings=settings,
    run=run,
    measures=(DISTANCE, PLAIN, SLOPE),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
)
