"""Choices on validation images, and the answers of the experiments that make them, on measurements made up here."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from multidrop_numpy.layers import Random

import multidrop as md
from multidrop.section.data import fashion_mnist
from multidrop.section.experiments import lab as lab_module
from multidrop.section.experiments.catalogue import noises, weight_decay, weights
from multidrop.section.experiments.experiment import named
from multidrop.section.experiments.lab import Lab
from multidrop.section.experiments.result import Facts, Result
from multidrop.section.experiments.tuning import Trial, at_the_edge, tuned
from multidrop.section.experiments.words import LANGUAGES

SEEDS = 5


def made_up(name, means):
    """A result whose settings have these mean accuracies, with losses of minus them, and a little spread."""
    experiment = named(name)
    facts = Facts(SEEDS, "made up", "numpy", "0", "float64", experiment.scales["tiny"])
    spread = np.random.default_rng(0).normal(0, 1e-3, (len(means), SEEDS))
    runs = {
        (setting, seed): {
            "accuracy": means[setting] + spread[i, seed],
            "loss": 3.0 - means[setting] + spread[i, seed],
            "gap": 0.1 + spread[i, seed],
            **dict.fromkeys(("p", "decay", "p by loss", "decay by loss", "chosen", "chosen by loss"), 0.0),
        }
        for i, setting in enumerate(means)
        for seed in range(SEEDS)
    }
    return Result(experiment, facts, runs)


def test_validation_images_are_of_the_training_set_and_not_trained_on(monkeypatch):
    images = fashion_mnist.load("mini")
    numbers = np.arange(len(images.train[1]))
    monkeypatch.setattr(lab_module, "images_of", lambda data: replace(images, train=(numbers, numbers)))
    lab = Lab(3, {"images": 500, "validation": 2000}, "mini", "float32")
    (train, _), (validation, _) = lab.train_set, lab.validation_set
    assert len(train) == 500
    assert len(validation) == 2000
    assert len({*train, *validation}) == 2500


def test_the_choice_looks_at_validation_alone():
    trials = [Trial(0.9, 0.1, 0.0, 0.5, 0.7), Trial(0.1, 0.9, 0.0, 0.6, 0.8), Trial(0.2, 0.8, 0.0, 0.6, 0.6)]
    best = tuned([0, 1, 2], trials.__getitem__)
    assert (best.by_accuracy, best.by_loss) == (1, 2)  # of equals, the first
    assert (best.accuracy, best.loss) == (0.1, 0.8)


@pytest.mark.parametrize(
    ("none", "dropout", "decay", "both", "kind"),
    [
        (0.70, 0.75, 0.72, 0.77, "additive"),
        (0.70, 0.75, 0.72, 0.80, "synergy"),
        (0.70, 0.60, 0.60, 0.60, "synergy"),  # of harms: both gain nothing
        (0.70, 0.75, 0.74, 0.76, "diminishing"),
        (0.70, 0.75, 0.74, 0.75, "no more"),
        (0.70, 0.75, 0.74, 0.745, "cancelling"),
        (0.70, 0.70, 0.74, 0.74, "unknown"),
    ],
)
def test_weight_decay_tells_each_kind_of_interaction(none, dropout, decay, both, kind):
    result = made_up("weight-decay", {"none": none, "dropout": dropout, "decay": decay, "both": both})
    for measure, sign in ((weight_decay.ACCURACY, 1.0), (weight_decay.LOSS, -1.0)):
        assert weight_decay.kind(result, measure, sign) == kind
    assert result.answer("en").count(weight_decay.VERDICTS[kind].en) == 2
    assert result.answer("tr").count(weight_decay.VERDICTS[kind].tr) == 2


def test_the_interaction_is_the_effect_of_both_minus_the_sum_of_the_effects():
    result = made_up("weight-decay", {"none": 0.70, "dropout": 0.75, "decay": 0.74, "both": 0.76})
    none, dropout, decay, both = (result.values(each, "accuracy") for each in weight_decay.ALL)
    expected = (both - none) - ((dropout - none) + (decay - none))
    np.testing.assert_allclose(result.sample(weight_decay.interaction(weight_decay.ACCURACY)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("better", "words"),
    [
        (0.0, "No other noise was found to beat dropout in test accuracy"),
        (0.05, "Better than dropout in test accuracy: DropPath"),
    ],
)
def test_noises_says_whether_any_beats_dropout(better, words):
    names = [each.name for each in noises.settings({"hidden": 16})]
    result = made_up("noises", {name: 0.7 + better * (name == "DropPath") for name in names})
    assert words in result.answer("en")
    assert "Worse" not in result.answer("en")
    result.answer("tr")


def test_noises_leaves_out_by_rule():
    reasons = noises.family({"hidden": 16})
    assert {name for name, reason in reasons.items() if reason is None} == {
        "AlphaDropout", "DropPath", "Dropout", "GaussianDropout", "GaussianNoise"
    }  # fmt: skip
    assert reasons["DropConnect"] == noises.WEIGHTS
    assert reasons["DropBlock"] == noises.LAYOUT
    assert reasons["ConcreteDropout"] == noises.LEARNS


def layers_of(layer):
    yield layer
    for child in layer.children():
        yield from layers_of(child)


@pytest.mark.parametrize("member", weights.NAMES)
def test_weights_counts_decisions_as_the_masks_have_elements(member):
    """The count from the sizes against the shapes that a forward pass draws for."""
    with md.use_backend("numpy"):
        net = md.perceptron((784, 16, 16, 10), (None, member(0.5), member(0.5)), seed=0)
    net(np.zeros((5, 784), np.float32))
    drawn = [layer._shape for layer in layers_of(net) if isinstance(layer, Random)]
    assert sum(map(math.prod, drawn)) == weights.decisions(member, {"hidden": 16, "batch": 5})


@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "activations, p = 0.5: a difference of +5"), ("tr", "etkinleştirmeler, p = 0,5: fark +5")],
)
def test_weights_names_what_was_found_better(language, words):
    result = made_up("weights", {"none": 0.7, "Dropout 0.5": 0.75, "DropConnect 0.5": 0.7})
    assert words in result.answer(language)


def test_choices_at_the_edge_are_told() -> None:
    grid = [0.1, 0.5, 0.8]
    chosen = {"a": (np.full(3, 0.8), grid), "b": (np.full(3, 0.1), grid), "c": (np.array([0.8, 0.5, 0.8]), grid)}
    text = at_the_edge(chosen, LANGUAGES["en"])
    assert text.startswith(" Every seed chose at the edge of the grid for a (strongest, 0.80) and b (weakest, 0.10):")
    assert "a (en güçlü, 0,80)" in at_the_edge(chosen, LANGUAGES["tr"])
    assert at_the_edge({"c": chosen["c"], "d": (np.zeros(3), [0.0])}, LANGUAGES["en"]) == ""
