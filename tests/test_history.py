"""A run's history: as a table, as JSON and CSV, as curves, and the curves and differences of several runs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.section import history as histories
from multidrop.section.history import Epoch, header, row

HISTORY = md.History(
    {"backend": "numpy", "data": "some data"},
    [Epoch(1, 1.5, 0.5, 0.625, 2.0, 30_000.0), Epoch(2, math.nan, 0.1, 0.1, 2.5, 24_000.0)],
)


def test_history_as_json_and_csv(tmp_path: Path) -> None:
    HISTORY.to_json(tmp_path / "h.json")
    again = md.History.from_json(tmp_path / "h.json")
    assert again.settings == HISTORY.settings
    assert again.epochs[0] == HISTORY.epochs[0]
    assert math.isnan(again.epochs[1].train_loss)
    assert json.loads((tmp_path / "h.json").read_text())["epochs"][1]["train_loss"] is None
    HISTORY.to_csv(tmp_path / "h.csv")
    rows = list(csv.DictReader((tmp_path / "h.csv").read_text().splitlines()))
    assert [float(r["test_accuracy"]) for r in rows] == [0.625, 0.1]


def test_history_as_a_table() -> None:
    lines = str(HISTORY).splitlines()
    assert lines == [header(), row(HISTORY.epochs[0]), row(HISTORY.epochs[1])]
    assert len(set(map(len, lines))) == 1
    assert lines[1].split() == ["1", "1.5000", "0.5000", "–", "0.6250", "2.00", "30,000"]


def run(label: str, seed: int | None = None, shift: float = 0.0, epochs: int = 3, **settings: Any) -> md.History:
    """A made-up run, whose losses and accuracies are `shift` above those of another."""
    found = [
        Epoch(n, 2 / n + shift, 0.5 + shift, 0.4 + n / 10 + shift, 1.0, 1e4, test_loss=3 / n + shift)
        for n in range(1, epochs + 1)
    ]
    return md.History({"backend": "numpy", "data": "some data", "seed": seed} | settings, found, label)


def curves(panel: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in panel.lines}


def test_history_as_curves(tmp_path: Path) -> None:
    """Loss and accuracy have axes of their own; what was not measured has no dot."""
    figure = HISTORY.plot(tmp_path / "curves.png")
    loss, accuracy = figure.axes
    assert curves(loss) == {"training, while it learns": [1.5]}
    assert curves(accuracy) == {"training, while it learns": [0.5, 0.1], "test": [0.625, 0.1]}
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss (nats)", "accuracy"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_epochs_that_were_not_tested_have_no_dot() -> None:
    epochs = [Epoch(1, 1.0, 0.1, math.nan, 1.0, 1e4), Epoch(2, 0.5, 0.2, 0.3, 1.0, 1e4, test_loss=0.7)]
    loss, _ = md.History({}, epochs).plot().axes
    line = next(line for line in loss.lines if line.get_label() == "test")
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2], [0.7])


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_figures_are_white(style: str, tmp_path: Path) -> None:
    """With dark text, whatever style is in force: in a dark notebook they are read like anywhere."""
    from matplotlib import colors, image
    from matplotlib import style as styles

    with styles.context([style, {"savefig.transparent": True}]):
        figure = run("a").plot(tmp_path / "curves.png")
    assert colors.to_hex(figure.axes[0].xaxis.label.get_color()) == "#000000"
    pixels = image.imread(tmp_path / "curves.png")
    assert pixels[0, 0].tolist() == [1, 1, 1, 1]
    assert pixels[..., 3].min() == 1


def test_runs_with_one_label_are_a_mean_with_its_spread() -> None:
    runs = [run("with", seed, seed / 100) for seed in range(3)] + [run("without", seed, 0.2) for seed in range(3)]
    figure = md.plot_histories(runs)
    loss, accuracy = figure.axes
    assert curves(accuracy)["with, test"] == pytest.approx([0.51, 0.61, 0.71])
    bands = {tuple(np.round(band.get_facecolor()[0, :3], 3)): band for band in loss.collections}
    assert len(bands) == 2
    colors = {line.get_color() for line in loss.lines}
    assert len(colors) == 2
    lower, upper = loss.collections[1].get_paths()[0].vertices[:, 1].min(), 3 + 0.02
    assert lower == pytest.approx(1.0)
    assert loss.collections[1].get_paths()[0].vertices[:, 1].max() == pytest.approx(upper)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["with", "without", "training, while it learns", "test"]
    assert "means of 3 runs; bands: smallest to largest" in figure.get_supxlabel()
    figure = md.plot_histories(runs, spread="deviation")
    assert figure.axes[0].collections[1].get_paths()[0].vertices[:, 1].max() == pytest.approx(3 + 0.01 + 0.01)
    assert "standard deviation" in figure.get_supxlabel()


def test_equal_runs_of_several_backends_stay_visible(tmp_path: Path) -> None:
    """Overlaid, the first the widest, with the largest difference in a panel of its own."""
    names = ("numpy", "torch", "tensorflow", "mxnet")
    runs = [run(name, 0, number * 1e-12, backend=name, version=name) for number, name in enumerate(names)]
    loss, accuracy, difference = histories.plot(runs, tmp_path / "curves.png").axes
    assert len(loss.lines) == len(accuracy.lines) == 8
    widths = [line.get_linewidth() for line in loss.lines if line.get_label().endswith("test")]
    assert widths == sorted(set(widths), reverse=True)
    assert curves(difference)["test accuracy"] == pytest.approx([3e-12] * 3, rel=1e-3)
    assert curves(difference)["test loss, relative"] == pytest.approx([1e-12, 2e-12, 3e-12], rel=1e-3)
    assert len(histories.plot([*runs, run("other", 0, lr=0.5)]).axes) == 2
    equal = md.plot_histories([runs[0], run("torch", 0, backend="torch", version="torch")]).axes[2]
    assert equal.get_yticklabels()[0].get_text() == "0"


def test_differences_are_paired_by_seed() -> None:
    a = [run("without", seed, seed / 10) for seed in (1, 2, 3)]
    b = [run("with", seed, seed / 10 + 0.05 * seed) for seed in (3, 1, 2)]
    loss, accuracy = md.plot_difference(a, b).axes
    assert curves(accuracy)["test"] == pytest.approx([0.1] * 3)
    assert loss.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(0.15)
    assert loss.get_title() == "with − without"
    assert curves(md.plot_difference(run("a"), run("b", shift=0.25)).axes[0])["test"] == pytest.approx([0.25] * 3)


def test_seeds_of_any_type_pair() -> None:
    for first, second in ((1, "x"), ([1], [2])):
        a = [run("without", seed, shift) for seed, shift in ((first, 0.0), (second, 0.5))]  # type: ignore[arg-type]
        b = [run("with", seed, shift) for seed, shift in ((second, 0.5), (first, 0.0))]  # type: ignore[arg-type]
        assert curves(md.plot_difference(a, b).axes[0])["test"] == pytest.approx([0] * 3)


def test_texts_are_drawn_as_they_are(tmp_path: Path) -> None:
    """Matplotlib would read dollar signs as mathematics, and fail where it cannot."""
    first, second = run("$a_$", data="$x_$"), run("b")
    for figure in (
        md.plot_histories([first, second], tmp_path / "runs.png"),
        md.plot_difference(second, first, tmp_path / "difference.png"),
    ):
        assert "$x_$" in figure.get_supxlabel() or "$a_$" in figure.axes[0].get_title()


def test_a_label_with_an_underscore_hides_no_style() -> None:
    """Matplotlib's own labels of lines begin like this."""
    (legend,) = md.plot_histories([run("_a"), run("_b")]).legends
    assert [text.get_text() for text in legend.texts] == ["_a", "_b", "training, while it learns", "test"]


def test_runs_without_a_common_epoch(tmp_path: Path) -> None:
    """Are drawn, without a warning: a run that diverges in its first epoch has no other history."""
    runs = [run(name, 0, epochs=0, backend=name) for name in ("numpy", "torch")]
    assert len(md.plot_histories(runs, tmp_path / "runs.png").axes) == 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: md.plot_histories([]), ValueError, "histories: expected at least one History; got none"),
        (lambda: md.plot_histories([3]), TypeError, r"histories: expected a History or a list of them; got \[3\]"),  # type: ignore[list-item]
        (lambda: md.plot_histories(run("a"), spread="x"), ValueError, "spread: expected one of 'range', 'deviation'"),
        (lambda: md.plot_difference([run("a")] * 2, run("b")), ValueError, "b: expected as many runs as a has, 2"),
        (lambda: md.plot_difference(run("a", 1), run("b", 2)), ValueError, r"b: expected runs with the seeds of a, "),
        (lambda: md.plot_difference([run("a", 1), run("a")], [run("b")] * 2), ValueError, r"each once, \[1, None\]"),
        (lambda: md.plot_difference([run("a", 1)] * 2, [run("b", 1), run("b", 2)]), ValueError, r"each once, \[1, 1\]"),
        (lambda: md.plot_difference(run("a"), None), TypeError, "b: expected a History or a list of them; got None"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_bad_arguments_of_plots(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_histories_of_earlier_versions_are_read() -> None:
    """Without label, notes, and what was not measured then."""
    names = ("epoch", "train_loss", "train_accuracy", "test_accuracy", "seconds", "examples_per_second")
    content = HISTORY.to_dict()
    former = {
        "settings": content["settings"],
        "epochs": [{name: epoch[name] for name in names} for epoch in content["epochs"]],
    }
    again = md.History.from_dict(former)
    assert again.label == "numpy"
    assert again.notes == []
    assert math.isnan(again.epochs[0].test_loss)
    assert again.epochs[0].test_accuracy == 0.625
    for damage in ({"label": 3}, {"notes": "x"}, {"notes": [3]}):
        with pytest.raises(ValueError, match=r"history: (label|notes): expected .*; got "):
            md.History.from_dict(former | damage)


def test_label_and_notes_are_kept(tmp_path: Path) -> None:
    history = md.History({"backend": "torch"}, HISTORY.epochs, "wide", ["said"])
    history.to_json(tmp_path / "history.json")
    again = md.History.from_json(tmp_path / "history.json")
    assert (again.label, again.notes) == ("wide", ["said"])
    assert str(again).splitlines()[-1] == "said"
