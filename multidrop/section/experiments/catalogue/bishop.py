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
from ..plots import curves, dots
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

DISTANCE = Measure("distance", Text("distance to ridge regression", "sırt bağlanımına uzaklık"), 2, percent=True)
PLAIN = Measure("plain", Text("to least squares", "en küçük karelere"), 1, percent=True)
SLOPE = Measure("slope", Text("slope in the logarithms", "logaritmalarda eğim"), 3)
CLEAN = Measure("clean", Text("net's penalty without noise", "gürültüsüz ağın cezası"), 3)
NOISY = Measure("noisy", Text("net's penalty with noise", "gürültülü ağın cezası"), 3)
NEAR = 0.01  # the relative distance that counts as having arrived


def settings(scale: Scale) -> Sequence[Setting]:
    return [Setting(f"{s:g}", Text.numbers(f"σ = {s:g}"), {"sigma": s}) for s in scale["sigmas"]]


def steps_of(scale: Scale) -> list[int]:
    """The steps at which distances are measured: powers of 2 times the first."""
    return [scale["first"] * 2**i for i in range(scale["doublings"] + 1)]


def run(setting: Setting, lab: Lab) -> Measurements:
    """Measures the noise on the inputs of a linear model, and then on those of a net."""
    clean, noisy = (penalty(lab, noise) for noise in (None, md.family.GaussianNoise(setting["sigma"])))
    return {**linear(setting, lab), "clean": clean, "noisy": noisy}


def linear(setting: Setting, lab: Lab) -> Measurements:
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


def penalty(lab: Lab, noise: md.family.Member | None) -> float:
    """Trains a net with noise on its inputs, and computes what Bishop adds to the loss, divided by σ², at the test
    images without noise: half the mean of tr(J'(diag(p) − pp')J), where J is the derivative of the logits by the
    inputs, and p the probabilities. This is his equation for cross-entropy, with softmax in the place of the sigmoid.
    """
    net = lab.net((noise, None, None))
    lab.train(net)
    weights = lab.weights(net)
    W1, W2, W3, b1, b2, b3 = (weights[f"{kind}{i}"] for kind in "Wb" for i in (1, 2, 3))
    X = lab.inputs(lab.test_set[0]).reshape(-1, len(W1)).astype(np.float64)
    H1 = X @ W1 + b1
    H2 = np.maximum(H1, 0) @ W2 + b2
    logits = np.maximum(H2, 0) @ W3 + b3
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    by_hidden = (W3.T * (H2 > 0)[:, None]) @ W2.T * (H1 > 0)[:, None]  # derivative by H1: (n, classes, hidden)
    squared = by_hidden @ (W1.T @ W1) @ by_hidden.transpose(0, 2, 1)  # JJ'
    mean_of_diagonal = (p * np.diagonal(squared, axis1=1, axis2=2)).sum(axis=1)
    return float((mean_of_diagonal - np.einsum("ni,nij,nj->n", p, squared, p)).mean() / 2)


def contrasts(result: Result) -> Sequence[Contrast]:
    return [*map(slope, result.settings), *map(change, result.settings)]


def slope(setting: Setting) -> Contrast:
    label = Text(f"slope against −1/2, {setting.label.en}", f"eğim, −1/2'ye göre, {setting.label.tr}")
    return Contrast(setting.name, label, ((1.0, setting.name, SLOPE.name),), against=-0.5)


def change(setting: Setting) -> Contrast:
    label = Text(
        f"net's penalty, {setting.label.en}: with − without noise",
        f"ağın cezası, {setting.label.tr}: gürültülü − gürültüsüz",
    )
    return Contrast(f"net {setting.name}", label, ((1.0, setting.name, NOISY.name), (-1.0, setting.name, CLEAN.name)))


def plot(figure: Figure, result: Result, words: Words) -> None:
    panel, right = figure.subplots(1, 2)
    steps = np.array(steps_of(result.facts.scale))
    curves(panel, result, result.settings, "distances", words, steps)
    start = result.curve(result.settings[0], "distances")[0][0]
    ideal = start * np.sqrt(steps[0] / steps)
    panel.plot(steps, ideal, color="0.4", linewidth=0.8, label=words("1/√steps", "1/√adım"))
    panel.axhline(NEAR, color="0.4", linewidth=0.8, linestyle=":", label=words.number(NEAR, 0, percent=True))
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(words("steps in the average", "ortalamadaki adım sayısı"))
    panel.set_ylabel(words("relative distance to ridge regression", "sırt bağlanımına göreli uzaklık"))
    panel.legend()
    dots(right, result, result.settings, (CLEAN, NOISY), words)
    right.set_xlim(left=0)
    right.set_xlabel(words("the net's penalty, divided by σ² (nats)", "ağın cezası, σ²'ye bölünmüş (nat)"))


def answer(result: Result, words: Words) -> str:
    return f"{_linear(result, words)} {_net(result, words)}"


def _linear(result: Result, words: Words) -> str:
    worst = max((result.mean(each, DISTANCE) for each in result.settings), key=lambda each: each.high)
    near = min((result.mean(each, PLAIN) for each in result.settings), key=lambda each: each.mean)
    slopes = words.items([
        f"{words.number(mean.mean, 3)} ± {words.number(mean.half, 3)} ({words(each.label)})"
        for each in result.settings
        for mean in [result.mean(each, SLOPE)]
    ])  # fmt: skip
    steps, near_shown = words.count(steps_of(result.facts.scale)[-1]), words.number(NEAR, 0, percent=True)
    if worst.high < NEAR:
        opening = words(
            f"Yes: the noise leads to ridge regression, to within {near_shown}.",
            f"Evet: gürültü, {near_shown} payla, sırt bağlanımına götürüyor.",
        )
    else:
        opening = words("These runs do not settle it.", "Bu koşular buna karar vermeye yetmiyor.")
    other = [words(each.label) for each in result.settings if result.test(slope(each)).found]
    verdict = (
        words(f"a difference from −1/2 is found for {words.items(other)}",
              f"{words.items(other)} için −1/2'den fark bulundu")
        if other
        else words("no difference from −1/2 is found", "−1/2'den fark bulunamadı")
    )  # fmt: skip
    return words(
        f"{opening} A linear model is trained by gradient descent, and its inputs get new Gaussian noise in each step. "
        f"The mean of its weights over {steps} steps is compared with two exact solutions; distances are relative to "
        f"their length. It is at most {words.mean(worst, DISTANCE)} away from ridge regression, "
        f"(X'X/n + σ²I)⁻¹X'y/n, and at least {words.mean(near, PLAIN)} from least squares without noise. In theory the "
        f"first distance shrinks as 1/√steps, a slope of −1/2 in the logarithms; measured: {slopes}; {verdict}.",
        f"{opening} Doğrusal bir model gradyan inişiyle eğitiliyor, girdilerine her adımda yeni Gauss gürültüsü "
        f"ekleniyor. Ağırlıkların {steps} adım üzerinden ortalaması iki kesin çözümle karşılaştırılıyor; uzaklıklar "
        f"çözümün boyuna göredir. Sırt bağlanımına, (X'X/n + σ²I)⁻¹X'y/n, uzaklık en çok "
        f"{words.mean(worst, DISTANCE)}; gürültüsüz en küçük karelere uzaklık en az {words.mean(near, PLAIN)}. Kurama "
        f"göre birinci uzaklık 1/√adım ile, yani logaritmalarda −1/2 eğimle küçülür; "
        f"ölçülen: {slopes}; {verdict}.",
    )


def _net(result: Result, words: Words) -> str:
    tests = [result.test(change(each)) for each in result.settings]
    clean = words.mean(result.mean(result.settings[0], CLEAN), CLEAN)
    found = words.items([
        f"{words(each.label)}: {words.mean(result.mean(each, NOISY), NOISY)}, {words.outcome(result, change(each))}"
        for each in result.settings
    ])  # fmt: skip
    found_less = [words(each.label) for each, test in zip(result.settings, tests, strict=True)
                  if test.found and test.interval.mean < 0]  # fmt: skip
    conclusion = (
        words(f" So the noise reduces the penalty ({', '.join(found_less)}), as training with the penalty would.",
              f" Yani gürültü, cezayla eğitim gibi, cezayı küçültüyor ({', '.join(found_less)}).")
        if found_less
        else ""
    )  # fmt: skip
    return words(
        "For a net with ReLU and cross-entropy Bishop's penalty, to second order in σ, is σ² times half the mean of "
        f"tr(J'(diag(p) − pp')J), with the derivative J of the logits by the inputs. At the test images, divided by "
        f"σ², it is {clean} for nets that were trained without noise; for those with it, {found}.{conclusion}",
        "ReLU'lu ve çapraz entropili bir ağda Bishop'un cezası, σ'da ikinci dereceye kadar, tr(J'(diag(p) − pp')J) "
        f"ortalamasının yarısının σ² katıdır; J, logitlerin girdilere göre türevidir. Test imgelerinde, σ²'ye "
        f"bölünmüş olarak, gürültüsüz eğitilen ağlarda {clean}; gürültüyle eğitilenlerde {found}.{conclusion}",
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
    "images": 1000,
    "tests": 1000,
    "hidden": 128,
    "epochs": 30,
    "settle": 5,
}
_TINY = {"sigmas": [0.5], "replicas": 2, "forgotten": 10, "first": 10, "doublings": 2,
         "images": 200, "tests": 100, "hidden": 16, "epochs": 1, "settle": 0}  # fmt: skip
EXPERIMENT = Experiment(
    name="bishop",
    exercise=None,
    title=Text("Noise on the inputs is Tikhonov regularisation", "Girdi gürültüsü Tikhonov düzenlileştirmesidir"),
    question=Text(
        "Bishop proved that training under noise on the inputs regularises. For a linear model with squared loss, does "
        "it lead to the weights of ridge regression, and how fast? Does it reduce Bishop's penalty in a net?",
        "Bishop, girdi gürültüsüyle eğitimin düzenlileştirme olduğunu kanıtladı. Kare kayıplı doğrusal bir modelde bu, "
        "sırt bağlanımının ağırlıklarına mı götürür, ne hızla? Bir ağda Bishop'un cezasını küçültür mü?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {**_SIZES, **_TINY},
    },
    settings=settings,
    run=run,
    measures=(DISTANCE, PLAIN, SLOPE, CLEAN, NOISY),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    version=2,
    figsize=(10.0, 4.2),
)
