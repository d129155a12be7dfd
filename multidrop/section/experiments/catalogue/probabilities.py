"""Exercise 1: the probabilities of the two layers, and what swapping them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..experiment import Contrast, Experiment, Measure, Measurements, Scale, Setting, difference
from ..words import Text, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..lab import Lab
    from ..result import Result

ACCURACY = Measure("accuracy", Text("test accuracy", "test doğruluğu"), 1, percent=True)
GAP = Measure("gap", Text("training − test accuracy", "eğitim − test doğruluğu"), 1, percent=True)


def settings(scale: Scale) -> Sequence[Setting]:
    return [setting(p1, p2) for p1 in scale["p"] for p2 in scale["p"]]


def setting(p1: float, p2: float) -> Setting:
    return Setting(f"{p1:g} {p2:g}", Text.numbers(f"p1 = {p1:g}, p2 = {p2:g}"), {"p1": p1, "p2": p2})


def run(setting: Setting, lab: Lab) -> Measurements:
    last = lab.train(lab.net((None, setting["p1"], setting["p2"]))).epochs[-1]
    gap = last.eval_train_accuracy - last.test_accuracy
    return {"accuracy": last.test_accuracy, "loss": last.test_loss, "gap": gap}


def contrasts(result: Result) -> Sequence[Contrast]:
    return [*dropped(result), *swapped(result)]


def dropped(result: Result) -> list[Contrast]:
    """Each setting with dropout against none."""
    none = setting(0.0, 0.0)
    return [difference(ACCURACY, each, none) for each in result.settings if each.name != none.name]


def swapped(result: Result) -> list[Contrast]:
    """Each two probabilities against the same in the other order."""
    ps = result.facts.scale["p"]
    return [difference(ACCURACY, setting(p, q), setting(q, p)) for p in ps for q in ps if p < q]


def plot(figure: Figure, result: Result, words: Words) -> None:
    ps = result.facts.scale["p"]
    panels = figure.subplots(1, 2)
    for panel, measure in zip(panels, (ACCURACY, GAP), strict=True):
        values = [[result.mean(setting(p1, p2), measure).mean for p2 in ps] for p1 in ps]
        image = panel.imshow(values, cmap="cividis", origin="lower")
        middle = (image.norm.vmin + image.norm.vmax) / 2
        for i in range(len(ps)):
            for j in range(len(ps)):
                text = words.number(values[i][j], 1, percent=True)
                panel.text(j, i, text, ha="center", va="center", fontsize=8,
                           color="black" if values[i][j] > middle else "white")  # fmt: skip
        panel.set_xticks(range(len(ps)), [words.number(p, 1) for p in ps])
        panel.set_yticks(range(len(ps)), [words.number(p, 1) for p in ps])
        panel.set_xlabel(words("p after the second hidden layer", "ikinci gizli katmandan sonra p"))
        panel.set_ylabel(words("p after the first hidden layer", "birinci gizli katmandan sonra p"))
        panel.set_title(words(measure.label), fontsize="medium")
        panel.grid(visible=False)


def answer(result: Result, words: Words) -> str:
    best, none = max(result.settings, key=lambda each: result.mean(each, ACCURACY).mean), setting(0.0, 0.0)
    first, best_shown = (words.mean(result.mean(each, ACCURACY), ACCURACY) for each in (none, best))
    gaps = [words.mean(result.mean(each, GAP), GAP) for each in (none, best)]
    found = [result.test(each).interval.mean > 0 for each in dropped(result) if result.test(each).found]
    count, better, worse = len(dropped(result)), sum(found), len(found) - sum(found)
    return words(
        f"Without dropout the test accuracy is {first}, and {gaps[0]} lie between training and test. The highest mean "
        f"of the grid, {best_shown}, is that of {words(best.label)}, with {gaps[1]} between training and test; being "
        f"the highest of several, it is somewhat too high. Settings with dropout: {count}; found to be better than "
        f"none: {better}, worse: {worse}. ",
        f"Hattan düşürme olmadan test doğruluğu {first}; eğitim ile test arasında {gaps[0]} var. Izgaradaki en yüksek "
        f"ortalama {best_shown}: {words(best.label)}; burada eğitimle test arasındaki fark {gaps[1]}. Birçok değerin "
        f"en büyüğü olduğu için bu ortalama biraz iyimserdir. Hattan düşürmeli ayar sayısı {count}; düşürmesiz olandan "
        f"iyi bulunan {better}, kötü bulunan {worse}. ",
    ) + _swaps(result, words)


def _swaps(result: Result, words: Words) -> str:
    swaps = swapped(result)
    found = [each for each in swaps if result.test(each).found]
    others = [each for each in swaps if each not in found]
    if found:
        shown = words.items([
            f"{words(each.label)}: {words.amount(result.test(each).interval.mean, each)}" for each in found
        ])  # fmt: skip
        text = words(
            f"Pairs of probabilities of which swapping makes a difference: {len(found)} of {len(swaps)} ({shown}).",
            f"Yer değiştirmenin fark yarattığı olasılık çifti: {len(swaps)} içinde {len(found)} ({shown}).",
        )
    else:
        text = words(
            f"Swapping the two probabilities: no difference found (pairs compared: {len(swaps)}).",
            f"İki olasılığın yerini değiştirince fark bulunamadı (karşılaştırılan çift: {len(swaps)}).",
        )
    widest = max(others, key=lambda each: result.test(each).detectable, default=None)
    if widest is None or result.test(widest).detectable == 0.0:
        return text
    least = words.detectable(result.test(widest), widest)
    return text + words(
        f" Where none was found, a difference of {least} would have been found with a probability of at least 80 %.",
        f" Bulunamayan yerde {least} büyüklüğünde bir fark en az %80 olasılıkla bulunurdu.",
    )


_SIZES = {"images": 1000, "hidden": 256, "epochs": 100, "settle": 20, "lr": 0.1, "p": [0.0, 0.2, 0.5, 0.8]}
EXPERIMENT = Experiment(
    name="probabilities",
    exercise=1,
    title=Text("The probabilities of the two layers", "İki katmanın olasılıkları"),
    question=Text(
        "How does the net's accuracy depend on the two probabilities of dropout, and does it matter which of the two "
        "hidden layers has which?",
        "Ağın doğruluğu iki hattan düşürme olasılığına nasıl bağlıdır; hangisinin hangi gizli katmanda olduğu fark "
        "eder mi?",
    ),
    scales={
        "full": _SIZES,
        "mini": _SIZES,
        "tiny": {**_SIZES, "images": 200, "tests": 200, "hidden": 16, "epochs": 2, "settle": 1, "p": [0.0, 0.5]},
    },
    settings=settings,
    run=run,
    measures=(ACCURACY, GAP),
    contrasts=contrasts,
    plot=plot,
    answer=answer,
    figsize=(8.6, 4.2),
)
