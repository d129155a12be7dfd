"""The tables of a report, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .experiment import Contrast
from .statistics import Test
from .words import Text, Words

if TYPE_CHECKING:
    from .result import Result


def means(result: Result, words: Words) -> str:
    """A row for each setting, a column for each measure: mean ± half the 95 % interval over seeds."""
    measures = result.experiment.measures
    head = [words("setting", "ayar"), *(words(measure.label) for measure in measures)]
    rows = [
        [words(setting.label), *(words.mean(result.mean(setting, each), each) for each in measures)]
        for setting in result.settings
    ]
    return markdown(head, rows)


def comparisons(result: Result, words: Words) -> str:
    """A row for each comparison: mean, interval, corrected p-value, and the verdict."""
    head = [words(text) for text in _COMPARED]
    rows = []
    for contrast in result.contrasts:
        test = result.test(contrast)
        rows.append([
            words(contrast.label),
            words.amount(test.interval.mean, contrast),
            words.range(test, contrast),
            words.probability(test.p),
            verdict(contrast, test, words),
        ])  # fmt: skip
    return markdown(head, rows)


_COMPARED = (
    Text("comparison", "karşılaştırma"),
    Text("mean", "ortalama"),
    Text("95 % interval", "%95 güven aralığı"),
    Text("corrected p", "düzeltilmiş p"),
    Text("verdict", "sonuç"),
)


def verdict(contrast: Contrast, test: Test, words: Words) -> str:
    """Whether a difference was found; if not, the size that would have been."""
    if test.found:
        return words("difference found", "fark bulundu")
    if test.interval.deviation == 0.0:
        return words.untested(test, contrast)
    least = words.detectable(test, contrast)
    return words(f"no difference found (detectable: {least})", f"fark bulunamadı (saptanabilir: {least})")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
