"""Reports: a page for each experiment and language, in Markdown with a plot, and one HTML file that holds all."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ... import __version__, files
from . import plots, table
from .experiment import Experiment
from .result import Result
from .sizes import name_of
from .words import LANGUAGES, Text, Words


def page(result: Result, words: Words) -> str:
    """One experiment's report in Markdown, which refers to the plot `picture(experiment, words)` beside it."""
    experiment = result.experiment
    alt = words(f"Plot of the experiment {experiment.name}", f"{experiment.name} deneyinin grafiği")
    parts = [f"# {heading(experiment, words)}", words(experiment.question), result.answer(words.language),
             f"![{alt}]({picture(experiment, words)})", method(result, words), table.means(result, words)]  # fmt: skip
    if result.contrasts:
        parts += [compared(result, words), table.comparisons(result, words)]
    return "\n\n".join(parts) + "\n"


def heading(experiment: Experiment, words: Words) -> str:
    """The title, with the exercise's number."""
    if experiment.exercise is None:
        return words(experiment.title)
    exercise = words(f"Exercise {experiment.exercise}", f"Alıştırma {experiment.exercise}")
    return f"{exercise}: {words(experiment.title)}"


def picture(experiment: Experiment, words: Words) -> str:
    """The name of the plot's file."""
    return f"{experiment.name}{_suffix(words)}.png"


def method(result: Result, words: Words) -> str:
    """How the runs were made."""
    facts = result.facts
    sizes = ", ".join(f"{words(name_of(size))} {_shown(value, words)}" for size, value in facts.scale.items())
    kinds = (words("training", "eğitim"), words("test", "test"))
    examples = "".join(f", {words.count(n)} {kind}" for n, kind in zip(facts.examples, kinds, strict=False))
    data = facts.data + (f"{examples} {words('images', 'imgesi')}" if examples else "")
    count = words.count(len(result.runs))
    return words(
        f"{count} runs (settings: {len(result.settings)}, seeds: {facts.seeds}) in {facts.backend} {facts.framework} "
        f"with {facts.dtype}. Data: {data}. Sizes: {sizes}. A seed determines the training images, the weights, "
        "the order of the batches and the masks; the data set and the test images are the same in all runs. The table "
        "gives means over seeds ± half the 95 % t-interval. All intervals are about the spread over seeds; they do not "
        "say how other data sets or other test images would do.",
        f"{count} koşu ({len(result.settings)} ayar, her biri {facts.seeds} tohumla), {facts.backend} "
        f"{facts.framework} ile, {facts.dtype}. Veri: {data}. Boyutlar: {sizes}. Eğitim imgelerini, ağırlıkları, "
        "minigrupların sırasını ve maskeleri tohum belirler; veri kümesi ve test imgeleri her koşuda aynıdır. Tabloda "
        "tohumlar üzerinden ortalama ± %95 t-aralığının yarısı verilir. Bütün aralıklar tohumlar arasındaki yayılımı "
        "anlatır; başka veri kümeleri ya da başka test imgeleri için bir şey söylemez.",
    )


def compared(result: Result, words: Words) -> str:
    """How the comparisons were made."""
    count = len(result.contrasts)
    return words(
        "Differences are taken seed by seed and tested by paired t-tests. The intervals hold for each comparison "
        f"alone; the p-values are corrected for all {count} by Holm's method, and below 0.05 a difference counts "
        f"as found. Where none was, the last column gives the smallest difference that such a test finds with "
        f"probability 80 % at the level 0.05/{count}, given the spread and the number of seeds.",
        f"Farklar tohum tohum alınır ve eşleştirilmiş t-testiyle sınanır. Aralıklar tek bir karşılaştırma için "
        f"geçerlidir; p-değerleri Holm yöntemiyle {count} karşılaştırmanın tümü için düzeltilmiştir, 0,05'in altında "
        f"fark bulunmuş sayılır. Fark bulunamadıysa son sütun, bu yayılım ve tohum sayısıyla böyle bir testin "
        f"0,05/{count} düzeyinde %80 olasılıkla bulacağı en küçük farkı verir.",
    )


def html_of(result: Result, words: Words) -> str:
    """One experiment's report as HTML, with the plot inside."""
    pictures = {picture(result.experiment, words): plots.png_of(plots.figure_of(result, words))}
    return _html(page(result, words), pictures)


def write(results: Sequence[Result], folder: Path, languages: Sequence[str]) -> list[Path]:
    """Writes pages, plots, JSON, an index and report.html. The same results give the same bytes.

    Returns:
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    bodies = []
    for language in languages:
        words = LANGUAGES[language]
        pages = {}
        for result in results:
            name = f"{result.experiment.name}{_suffix(words)}.md"
            pages[name] = page(result, words)
            contents[picture(result.experiment, words)] = plots.png_of(plots.figure_of(result, words))
        contents.update({name: text.encode() for name, text in pages.items()})
        if len(results) > 1:
            contents[f"index{_suffix(words)}.md"] = _index(results, words).encode()
        bodies.append((words, [_html(text, contents) for text in pages.values()]))
    for result in results:
        contents[f"{result.experiment.name}.json"] = result.to_json().encode()
    if len(results) > 1:
        contents["report.html"] = _document(bodies).encode()
    for name, content in contents.items():
        files.write(folder / name, content)
    return [folder / name for name in contents]


def _index(results: Sequence[Result], words: Words) -> str:
    title = words("The section's claims and exercises", "Bölümün savları ve alıştırmaları")
    parts = [f"# {title}"]
    for result in results:
        name = f"{result.experiment.name}{_suffix(words)}.md"
        parts.append(f"## [{heading(result.experiment, words)}]({name})\n\n{result.answer(words.language)}")
    return "\n\n".join(parts) + "\n"


def _html(markdown: str, pictures: Mapping[str, bytes]) -> str:
    """Converts Markdown, with the pictures inside."""
    from markdown_it import MarkdownIt

    text: str = MarkdownIt("commonmark").enable("table").render(markdown)

    def inside(match: re.Match[str]) -> str:
        return f'src="data:image/png;base64,{base64.b64encode(pictures[match[1]]).decode()}"'

    return re.sub(r'src="([^"]+)"', inside, text)


_TITLE = Text("Dropout: experiments", "Hattan düşürme: deneyler")
_STYLE = """
body { font: 16px/1.5 sans-serif; color: #111; background: #fff; max-width: 60em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-size: 0.85em; }
th, td { border-bottom: 1px solid #ccc; padding: 0.2em 0.8em; }
img { max-width: 100%; background: #fff; }
"""


def _document(bodies: Sequence[tuple[Words, Sequence[str]]]) -> str:
    sections = [
        f'<main id="{words.language}" lang="{words.language}">\n{chr(10).join(parts)}</main>' for words, parts in bodies
    ]
    first = bodies[0][0]
    links = " · ".join(f'<a href="#{words.language}">{words("English", "Türkçe")}</a>' for words, _ in bodies)
    return (
        f'<!DOCTYPE html>\n<html lang="{first.language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="generator" content="multidrop {__version__}">\n<title>{first(_TITLE)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<nav>{links}</nav>\n{chr(10).join(sections)}\n</body>\n</html>\n"
    )


def _suffix(words: Words) -> str:
    return "" if words.language == "en" else f".{words.language}"


def _shown(value: object, words: Words) -> str:
    if isinstance(value, list | tuple):
        separator = words(", ", "; ")  # in Turkish the comma is the decimal sign
        return f"({separator.join(_shown(item, words) for item in value)})"
    if isinstance(value, int):
        return words.count(value)
    return words.short(value) if isinstance(value, float) else str(value)
