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
        [
            words(setting.label),
            *(words.mean(result.mean(setting, each), each) for each in measures),
        ]
        for setting in result.settings
    ]
    return markdown(head, rows)


def comparisons(result: Result, words: Words) -> str:
    """A row for each comparison: mean, interval, corrected p-value, and the verdict."""
    head = [words(text) for text in _COMPARED]
    rows = []
    for contrast in result.contrasts:
        test = result.test(contrast)
        rows.append([words(contrast.label), size(contrast, test, words), ends(contrast, test, words),
                     words.probability(test.p), verdict(contrast, test, words)])  # fmt: skip
    return markdown(head, rows)


_COMPARED = (
    Text("comparison", "karşılaştırma"),
    Text("mean", "ortalama"),
    Text("95 % interval", "%95 güven aralığı"),
    Text("corrected p", "düzeltilmiş p"),
    Text("verdict", "sonuç"),
)


def size(contrast: Contrast, test: Test, words: Words) -> str:
    """A contrast's mean over seeds."""
    return _signed(test.interval.mean, contrast, words)


def ends(contrast: Contrast, test: Test, words: Words) -> str:
    """A contrast's 95 % interval."""
    low, high = (_signed(value, contrast, words) for value in (test.interval.low, test.interval.high))
    return words(f"{low} to {high}", f"{low} ile {high} arası")


def verdict(contrast: Contrast, test: Test, words: Words) -> str:
    """Whether a difference was found; if not, the size that would have been."""
    if test.found:
        return words("difference found", "fark bulundu")
    if test.detectable == 0.0:
        return words("no difference: equal in all runs", "fark yok: tüm koşularda aynı")
    shown = words.number(test.detectable, contrast.digits, percent=contrast.percent)
    return words(f"no difference found (detectable: {shown})", f"fark bulunamadı (saptanabilir: {shown})")


def _signed(value: float, contrast: Contrast, words: Words) -> str:
    return words.number(value, contrast.digits, percent=contrast.percent, sign=contrast.against == 0.0)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
