"""What the answers conclude: each verdict, from results that are made up for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from multidrop.section.experiments import experiment, table
from multidrop.section.experiments.catalogue import co_adaptation, smoothness
from multidrop.section.experiments.result import Facts, Result
from multidrop.section.experiments.words import LANGUAGES

SEEDS = 5
Means = Mapping[str, Mapping[str, float]]  # by setting and measure


def made_up(name: str, changes: Means) -> Result:
    """A result with a mean of 0.5 for each measure, but for the changes. Its spread is so small that each change is
    found; a measure without one is equal in all runs."""
    each = experiment.named(name)
    scale = each.scales["tiny"]
    draw = np.random.default_rng(0)
    runs = {
        (setting.name, seed): {
            measure.name: 0.5 + change + (draw.normal(0.0, 1e-3) if change else 0.0)
            for measure in each.measures
            for change in [changes.get(setting.name, {}).get(measure.name, 0.0)]
        }
        for setting in each.settings(scale)
        for seed in range(SEEDS)
    }
    return Result(each, Facts(SEEDS, "made up", "numpy", "", "float64", scale), runs)


# An experiment, the means that change, and what its answer says in each language, or with "-" in front does not say.
VERDICTS: list[tuple[str, Means, list[str], list[str]]] = [
    ("test-time", {}, ["not found to be better or worse, so dropout is off", "another answer each time"],
     ["daha iyi ya da daha kötü bulunmamıştır", "her seferinde başka bir yanıt"]),
    ("test-time", {"averaged": {"loss": -0.2}},
     ["the mean is better in negative log-likelihood (nats), so dropout stays on only where that is worth 5 runs"],
     ["negatif log-olabilirlik (nat) bakımından daha iyidir", "buna 5 çalıştırma değiyorsa"]),
    ("test-time", {"averaged": {"accuracy": 0.2, "calibration": -0.2}},
     ["better in test accuracy and calibration error, so"],
     ["test doğruluğu ve kalibrasyon hatası bakımından daha iyi"]),
    ("test-time", {"averaged": {"loss": -0.2, "calibration": 0.2}},
     ["is better in negative log-likelihood (nats), but worse in calibration error"],
     ["ama kalibrasyon hatası bakımından daha kötü"]),
    ("test-time", {"averaged": {"accuracy": -0.2}}, ["is worse in test accuracy, so dropout is off", "-better"],
     ["test doğruluğu bakımından daha kötüdür", "-daha iyi"]),
    ("test-time", {"once": {"accuracy": -0.2, "loss": 0.2}},
     ["one sample is worse in test accuracy and negative log-likelihood (nats).", "-another answer"],
     ["tek örneklem test doğruluğu ve negatif log-olabilirlik (nat) bakımından daha kötüdür"]),
    ("test-time", {"once": {"calibration": -0.2}}, ["one sample brings another answer", "-worse in"],
     ["her seferinde başka bir yanıt verir", "-daha kötüdür"]),
    ("co-adaptation", {}, ["it was not found that units trained with dropout depend less"], ["bağlı olduğu görülmedi"]),
    ("co-adaptation", {"dropout": {"fall": -0.2}}, ["dropout depend less on each other"],
     ["birbirine daha az bağlıdır"]),
    ("co-adaptation", {"dropout": {"fall": 0.2}}, ["more on each other, against the claim"], ["iddianın tersine"]),
    ("uncertainty", {},
     ["no score reaches 0.9", "not found that the samples' disagreement", "calibration by the mean was not found"],
     ["hiçbir ölçünün ortalaması 0,9", "daha iyi ayırdığı görülmedi", "kalibrasyonunu değiştirdiği görülmedi"]),
    ("uncertainty", {"mutual": {"noise": 0.45}},
     ["above 0.9 in the mean lies: mutual information.", "tells noise from clothes better.", "-was not found that"],
     ["ortalaması 0,9 üstünde olan: karşılıklı bilgi.", "daha iyi ayırıyor"]),
    ("uncertainty", {"mutual": {"noise": -0.2}}, ["worse, against the claim"], ["daha kötü ayırıyor"]),
    ("uncertainty", {"entropy": {"calibration": 0.2}}, ["calibrated worse"], ["daha kötü kalibre edilmiştir"]),
    ("uncertainty", {"entropy": {"calibration": -0.2}}, ["calibrated better"], ["daha iyi kalibre edilmiştir"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "english", "turkish"), VERDICTS)
def test_a_verdict(name: str, changes: Means, english: list[str], turkish: list[str]) -> None:
    result = made_up(name, changes)
    changed = {(setting, measure) for setting, values in changes.items() for measure in values}
    assert all(
        result.test(each).found == any((setting, measure) in changed for _, setting, measure in each.terms)
        for each in result.contrasts
    )
    for language, phrases in (("en", english), ("tr", turkish)):
        answer = result.answer(language)
        for phrase in phrases:
            assert (phrase.removeprefix("-") in answer) != phrase.startswith("-"), answer


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_features_of_few_living_units(alive: int) -> None:
    """Without two living units there is no pair to correlate; two that are proportional have one dimension."""
    H = np.zeros((6, 4))
    H[:, 3] = 0.7  # the same for all examples: dead
    H[:, :alive] = np.arange(6.0)[:, None] * np.array([1.0, 2.0])[:alive]
    found = co_adaptation._statistics(H)
    expected = {"correlation": float(alive == 2), "rank": min(1.0, alive), "dead": 1 - alive / 4}
    assert found == pytest.approx(expected)


def of_accuracies(plain: list[float], dropped: list[float]) -> Result:
    """A result of `co-adaptation` with these accuracies by seed; all else is equal."""
    each = experiment.named("co-adaptation")
    scale = each.scales["tiny"]
    runs = {
        (setting.name, seed): {**dict.fromkeys((one.name for one in each.measures), 0.5), "accuracy": accuracy}
        for setting, accuracies in zip(each.settings(scale), (plain, dropped), strict=True)
        for seed, accuracy in enumerate(accuracies)
    }
    return Result(each, Facts(len(plain), "made up", "numpy", "", "float64", scale), runs)


@pytest.mark.parametrize(
    ("plain", "dropped", "mean", "english", "turkish"),
    [
        ([0.80, 0.70], [0.85, 0.75], 0.05, "not tested, because all runs have +5.0 points", "her koşuda +5,0 puan"),
        ([0.1, 0.7], [0.1, 0.7], 0.0, "no difference in any run", "hiçbir koşuda fark yok"),
        ([0.3, 0.7], [0.1 + 0.2, 0.7], 0.0, "no difference in any run", "hiçbir koşuda fark yok"),
    ],
)
def test_equal_differences(plain: list[float], dropped: list[float], mean: float, english: str, turkish: str) -> None:
    """Their rounding errors are no spread, by which the t-test would be sure. What is said names the difference."""
    result = of_accuracies(plain, dropped)
    (contrast, *_) = result.contrasts
    test = result.test(contrast)
    assert (test.found, test.p, test.interval.deviation) == (False, 1.0, 0.0)
    assert test.interval.mean == pytest.approx(mean, abs=1e-12)
    for language, text in (("en", english), ("tr", turkish)):
        words = LANGUAGES[language]
        assert text in words.outcome(result, contrast)
        assert text in table.comparisons(result, words).splitlines()[2]


def test_a_small_spread_is_one() -> None:
    """One image in 10,000 is more than a rounding error."""
    result = of_accuracies([0.8, 0.7], [0.85, 0.7501])
    assert result.test(result.contrasts[0]).interval.deviation == pytest.approx(0.0001 / 2**0.5)


def test_a_difference_of_zero_has_no_sign() -> None:
    words = LANGUAGES["en"]
    assert [words.number(value, 1, sign=True) for value in (0.04, -0.04, 0.06, -0.06)] == ["0.0", "0.0", "+0.1", "−0.1"]


@pytest.mark.parametrize(
    ("accuracies", "sigma"),
    [
        ([0.9, 0.7, 0.3], 1.5),
        ([0.9, 0.5, 0.3], 1.0),
        ([0.9, 0.8, 0.8], 2.0),
        ([0.05, 0.05, 0.05], 0.0),
        ([0.1, 0.1, 0.1], 0.0),
    ],
)
def test_the_noise_that_halves_the_excess(accuracies: list[float], sigma: float) -> None:
    """A net that is no better than chance has none, and its run must not fail."""
    assert smoothness.halving([0.0, 1.0, 2.0], accuracies) == pytest.approx(sigma)
