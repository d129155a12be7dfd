"""The two languages of the reports, and their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .experiment import Measure
    from .statistics import Interval


class Text(NamedTuple):
    """A text in English and Turkish. `Text.same` is for one that needs no translation."""

    en: str
    tr: str

    @classmethod
    def same(cls, text: str) -> Text:
        return cls(text, text)


@dataclass(frozen=True)
class Words:
    """Writes numbers and sentences in one language: "en" or "tr"."""

    language: str

    def __call__(self, en: str | Text, tr: str | None = None) -> str:
        """Chooses from `(english, turkish)`, or from a `Text`."""
        text = en if isinstance(en, Text) else Text(en, en if tr is None else tr)
        return text.tr if self.language == "tr" else text.en

    def number(self, value: float, digits: int = 3, *, percent: bool = False, sign: bool = False) -> str:
        """A number with that many decimals: 0.853 in English, 0,853 in Turkish; in percent 85.3 % and %85,3."""
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        shown = round(100 * value if percent else value, digits) + 0.0  # -0.0 becomes 0.0
        text = f"{abs(shown):,.{digits}f}"
        mark = "−" if shown < 0 else "+" if sign else ""
        if self.language == "tr":
            text = text.translate(str.maketrans(",.", ".,"))
            return f"{mark}%{text}" if percent else f"{mark}{text}"
        return f"{mark}{text} %" if percent else f"{mark}{text}"

    def count(self, value: int) -> str:
        """A whole number with separators: 10,000 in English, 10.000 in Turkish."""
        return self.number(value, 0)

    def small(self, value: float, digits: int = 2) -> str:
        """A number of any magnitude, with that many significant digits."""
        if value == 0 or not math.isfinite(value):
            return self.number(value, 0)
        exponent = math.floor(math.log10(abs(value)))
        if -4 < exponent < 4:
            return self.number(value, max(0, digits - 1 - exponent))
        return f"{self.number(value / 10**exponent, digits - 1)}·10{str(exponent).translate(_RAISED)}"

    def probability(self, p: float) -> str:
        """A p-value with its sign of equality: "p = 0.012", or "p < 0.001"."""
        return f"p < {self.number(0.001)}" if p < 0.001 else f"p = {self.number(p)}"

    def mean(self, each: Interval, measure: Measure) -> str:
        """A mean with half the length of its interval, as the measure is shown: 85.3 ± 0.4 %."""
        digits, percent = measure.digits, measure.percent
        if not percent:
            return f"{self.number(each.mean, digits)} ± {self.number(each.half, digits)}"
        if self.language == "tr":
            return f"{self.number(each.mean, digits, percent=True)} ± {self.number(100 * each.half, digits)}"
        return f"{self.number(100 * each.mean, digits)} ± {self.number(each.half, digits, percent=True)}"

    def items(self, texts: Sequence[str]) -> str:
        """Joins texts: "a, b and c"."""
        *first, last = texts
        return f"{', '.join(first)} {self('and', 've')} {last}" if first else last


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LANGUAGES = {"en": Words("en"), "tr": Words("tr")}
