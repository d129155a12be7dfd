"""The two languages of the reports, and their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ... import checks

if TYPE_CHECKING:
    from .experiment import Contrast, Measure
    from .result import Result
    from .statistics import Interval, Test


class Text(NamedTuple):
    """A text in English and Turkish."""

    en: str
    tr: str

    @classmethod
    def same(cls, text: str) -> Text:
        """A text that needs no translation."""
        return cls(text, text)

    @classmethod
    def numbers(cls, text: str) -> Text:
        """A text in which only decimal signs differ: "p = 0.5" and "p = 0,5"."""
        return cls(text, text.replace(".", ","))


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
        mark = "−" if shown < 0 else "+" if sign and shown > 0 else ""
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

    def short(self, value: float) -> str:
        """A number in as few digits as tell it: 0.25 in English, 0,25 in Turkish."""
        return f"{value:g}".replace(".", ",") if self.language == "tr" else f"{value:g}"

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

    def amount(self, value: float, contrast: Contrast) -> str:
        """A contrast's value as the contrast is shown: a difference with its sign, and one of percentages in percentage
        points."""
        if contrast.against != 0.0:
            return self.number(value, contrast.digits, percent=contrast.percent)
        return self._points(value, contrast, sign=True)

    def range(self, test: Test, contrast: Contrast) -> str:
        """The ends of a comparison's interval, with their unit once: "−4.2 to −2.4 points"."""
        low, high = (self.amount(value, contrast) for value in (test.interval.low, test.interval.high))
        low = low.removesuffix(f" {self._unit}")
        return self(f"{low} to {high}", f"{low} ile {high} arası")

    def detectable(self, test: Test, contrast: Contrast) -> str:
        """The smallest difference that a comparison would have found and that the digits can show: rounded up, because
        a smaller one might not have been found."""
        unit = 10.0 ** (-contrast.digits - 2 * contrast.percent)
        return self._points(max(1, math.ceil(test.detectable / unit)) * unit, contrast)

    def _points(self, value: float, contrast: Contrast, *, sign: bool = False) -> str:
        if not contrast.percent:
            return self.number(value, contrast.digits, sign=sign)
        return f"{self.number(100 * value, contrast.digits, sign=sign)} {self._unit}"

    @property
    def _unit(self) -> str:
        return self("points", "puan")

    def untested(self, test: Test, contrast: Contrast) -> str:
        """The outcome of a comparison that has the same value in all runs, so that there is no t-test."""
        if math.isclose(test.interval.mean, test.against, abs_tol=1e-12):
            return self("no difference in any run", "hiçbir koşuda fark yok")
        same = self.amount(test.interval.mean, contrast)
        return self(f"not tested, because all runs have {same}", f"her koşuda {same} olduğu için sınanmadı")

    def outcome(self, result: Result, contrast: Contrast) -> str:
        """The outcome of a comparison in words, for the middle of a sentence: its mean and interval with p, or that no
        difference was found, with the size that could have been found."""
        test = result.test(contrast)
        if test.interval.deviation == 0.0:
            return self.untested(test, contrast)
        if not test.found:
            least = self.detectable(test, contrast)
            return self(
                f"no difference found ({self.probability(test.p)}; one of {least} would have been found with a "
                "probability of 80 %)",
                f"fark bulunamadı ({self.probability(test.p)}; {least} büyüklüğünde bir fark %80 olasılıkla bulunurdu)",
            )
        evidence = self(
            f"95 % interval {self.range(test, contrast)}, {self.probability(test.p)}",
            f"%95 güven aralığı {self.range(test, contrast)}, {self.probability(test.p)}",
        )
        if contrast.against != 0.0:
            expected = self.amount(contrast.against, contrast)
            return self(f"a difference from {expected} ({evidence})", f"{expected} değerinden fark ({evidence})")
        mean = self.amount(test.interval.mean, contrast)
        return self(f"a difference of {mean} ({evidence})", f"fark {mean} ({evidence})")

    def items(self, texts: Sequence[str]) -> str:
        """Joins texts: "a, b and c"."""
        *first, last = texts
        return f"{', '.join(first)} {self('and', 've')} {last}" if first else last


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LANGUAGES = {"en": Words("en"), "tr": Words("tr")}


def words_of(language: str) -> Words:
    """The words of a language.

    Raises:
        ValueError: for another one than "en" and "tr".
    """
    return LANGUAGES[checks.choice("language", language, tuple(LANGUAGES))]
