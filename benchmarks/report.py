"""Writes the results as Markdown: the report beside them, and the table in the README."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import plot
from .experiments import BACKWARD
from .frameworks import APART, COPY, FUSED, NONE, OURS, OWN, OWN_PAIR, SECTION

PAGE = "report.md"
CHOICE = "its choice"  # of the number of threads: half of the cores for MXNet, all for the others
EXPERIMENTS = ("sizes", "settings", "relu", "memory", "training", "startup")
BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
SMALL, MIDDLE, LARGE = 16, 2**16, 2**24

Result = dict[str, Any]
Rows = list[list[str]]


def read(folder: Path) -> dict[str, Result]:
    """Reads the results in a folder, by experiment."""
    paths = {name: folder / f"{name}.json" for name in EXPERIMENTS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def write(folder: Path) -> None:
    """Writes the report and the plots of the results in a folder."""
    results = read(folder)
    parts = ["# Benchmark results", _about(results)]
    sections = {
        "sizes": _sizes,
        "settings": _settings,
        "relu": _relu,
        "memory": _memory,
        "training": _training,
        "startup": _startup,
    }
    for name, result in results.items():
        parts += [*sections[name](result), *_missing(result)]
    if "sizes" in results:
        plot.sizes(results["sizes"], folder / "sizes.png")
        plot.sizes(results["sizes"], folder / "sizes-with-backward.png", BACKWARD)
    if "settings" in results:
        plot.probabilities(results["settings"], folder / "p.png")
    (folder / PAGE).write_text("\n\n".join(parts) + "\n")


def _about(results: Mapping[str, Result]) -> str:
    lines = [
        "Written by `python -m benchmarks`. A ratio is multidrop's time divided by the other's; less than 1 means that "
        "multidrop is faster. Each is the median over the rounds of one interleaved run, with the quartiles in "
        "brackets. Own: the framework's own dropout. Formula: the section's. Copy: a copy of the tensor. Both: forward "
        "with backward; the copy is then two copies.",
    ]
    machines: dict[str, list[str]] = {}
    for name, result in results.items():
        key = json.dumps(result["machine"], sort_keys=True)
        machines.setdefault(key, []).append(name + (" (quick)" if result["quick"] else ""))
    lines += [f"{', '.join(names)}: {machine(json.loads(key))}" for key, names in machines.items()]
    return "\n\n".join(lines)


def machine(facts: Mapping[str, Any], language: str = "en") -> str:
    """Formats the machine and the versions as one line."""
    words = {"en": ("cores", "memory", "commit", "load before"), "tr": ("çekirdek", "bellek", "commit", "önceki yük")}[
        language
    ]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    gpu = f"{facts['gpu']}, " if facts["gpu"] else ""
    load = f"{facts['load']:.1f}"
    return (
        f"{gpu}{facts['processor']}, {facts['cores']} {words[0]}, {facts['memory'] / 2**30:.0f} GiB {words[1]}, "
        f"{facts['system']}; Python {facts['python']}, {versions}; {words[2]} {facts['commit']}, {facts['date']}; "
        f"{words[3]} {load.replace('.', ',') if language == 'tr' else load}."
    )


def duration(seconds: float) -> str:
    """Formats a duration: "8 s", "2 min 5 s" or "1 h 2 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def number(value: float) -> str:
    """Formats a number with two or three digits."""
    digits = 3 if 1 <= value < 10 else 2
    return f"{value:.0f}" if value >= 100 else f"{value:#.{digits}g}".rstrip(".")


def ratio(record: Mapping[str, Any], above: str, below: str, spread: bool = True) -> str:
    """Formats one ratio of a record with its quartiles; a dash if it was not measured."""
    value = record["ratios"].get(f"{above} / {below}")
    if value is None:
        return "–"
    return number(value["median"]) + (f" ({number(value['low'])}–{number(value['high'])})" if spread else "")


def table(head: Iterable[str], rows: Rows) -> str:
    """Formats a Markdown table, with the first column left-aligned."""
    head = list(head)
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _groups(result: Result) -> dict[tuple[str, str], list[Any]]:
    """The records by framework and mode, in the order of measurement."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for record in result["records"]:
        groups.setdefault((record["framework"], record["case"]["mode"]), []).append(record)
    return groups


_FORWARD = [f"÷ {who}" for who in ("own", "formula", "copy")]
HEAD = [*_FORWARD, *[f"both {word}" for word in _FORWARD], "both ÷ forward", "own: both ÷ forward"]


def _columns(record: Mapping[str, Any]) -> list[str]:
    compared = [ratio(record, OURS + way, who + way) for way in ("", BACKWARD) for who in (OWN, SECTION, COPY)]
    return [*compared, ratio(record, OURS + BACKWARD, OURS), ratio(record, OWN + BACKWARD, OWN)]


def _sizes(result: Result) -> list[str]:
    parts = ["## Sizes", "![Forward](sizes.png)", "![Forward with backward](sizes-with-backward.png)"]
    for (framework, mode), records in _groups(result).items():
        rows = [[f"{record['case']['size']:,}", *_columns(record)] for record in records]
        parts += [f"### {framework}, {mode}", table(["elements", *HEAD], rows)]
    rows = [
        [*group, *(_growth(records, who) for who in (OURS, OWN, SECTION, COPY))]
        for group, records in _groups(result).items()
    ]
    head = ["framework", "mode", "multidrop", "framework's own", "section's formula", "copy"]
    about = f"The slope of log time against log size, from {MIDDLE:,} elements on; 1 means proportional growth."
    return [*parts, "### Growth", about, table(head, rows)]


def _growth(records: list[Any], who: str) -> str:
    points = [
        (record["case"]["size"], record["seconds"][who]["median"])
        for record in records
        if record["case"]["size"] >= MIDDLE and who in record["seconds"]
    ]
    if len(points) < 2:
        return "–"
    sizes, seconds = np.log(np.array(points)).T
    return f"{np.polyfit(sizes, seconds, 1)[0]:.2f}"


def _settings(result: Result) -> list[str]:
    parts = ["## Settings", "![Time by p](p.png)"]
    names = {"p": "p", "type": "dtype", "layout": "layout", "threads": ""}
    for question, key in names.items():
        rows = [
            [record["framework"], str(record["case"][key] if key else record["threads"] or CHOICE), *_columns(record)]
            for record in result["records"]
            if record["question"] == question
        ]
        parts += [f"### By {question}", table(["framework", question, *HEAD], rows)]
    parts += ["### Time by p", "The forward time at each p, divided by the time at the fastest p."]
    return [*parts, _by_p(result), "### Ways to call", *_ways(result)]


def _by_p(result: Result) -> str:
    rows = []
    for framework in dict.fromkeys(record["framework"] for record in result["records"]):
        records = [r for r in result["records"] if (r["framework"], r["question"]) == (framework, "p")]
        for who in (OURS, OWN, SECTION):
            seconds = {r["case"]["p"]: r["seconds"][who]["median"] for r in records if who in r["seconds"]}
            if seconds:
                rows.append([framework, who, *(number(s / min(seconds.values())) for s in seconds.values())])
                head = ["framework", "who", *map(str, seconds)]
    return table(head, rows) if rows else ""


def _ways(result: Result) -> list[str]:
    parts = []
    for framework in dict.fromkeys(record["framework"] for record in result["records"]):
        records = [r for r in result["records"] if (r["framework"], r["question"]) == (framework, "way")]
        if records:
            against = records[0]["against"]
            rows = [[way, *(ratio(record, way, against) for record in records)] for way in records[0]["seconds"]]
            head = [f"{framework}, ÷ {against}", *(f"{record['case']['size']:,} elements" for record in records)]
            parts.append(table(head, rows))
    return parts


def _relu(result: Result) -> list[str]:
    rows = [
        [
            *(record["framework"], record["case"]["mode"], f"{record['case']['size']:,}"),
            *(ratio(record, FUSED + way, who + way) for way in ("", BACKWARD) for who in (APART, OWN_PAIR)),
        ]
        for record in result["records"]
    ]
    head = ["framework", "mode", "elements", *(f"{way}÷ {who}" for way in ("", "both ") for who in ("apart", "own"))]
    about = "`relu_dropout`, compared with ReLU, then `dropout_layer` (apart), or the framework's own dropout (own)."
    return ["## ReLU and dropout", about, table(head, rows)]


def _memory(result: Result) -> list[str]:
    about = (
        "Bytes per element of the input. Accounted: the framework's own count (torch's saved tensors), without the "
        "input, which the program keeps anyway. Held: the memory in use after a chain of dropouts, per additional "
        "dropout. In a chain the output of one dropout is the input of the next, so a dropout whose backward pass "
        "needs neither holds nothing. multidrop keeps the key, 16 bytes at any size, outside of tensors."
    )
    rows = [
        [
            record["framework"],
            record["who"],
            "–" if record["accounted"] is None else number(record["accounted"] / record["case"]["size"]),
            "–" if record["held"] is None else f"{record['held'] / record['case']['size']:.2f}",
        ]
        for record in result["records"]
    ]
    return ["## Memory", about, table(["framework", "who", "accounted", "held"], rows)]


def _training(result: Result) -> list[str]:
    parts = ["## Training"]
    for record in result["records"]:
        about = f"{record['framework']}: {record['data']}; {record['epochs']} epochs, {record['rounds']} rounds."
        rows = [
            [name, ratio(record, OURS, name) if name != OURS else "1", f"{record['accuracy'][name]['median']:.3f}"]
            for name in record["seconds"]
        ]
        parts += [about, table(["who drops", "multidrop ÷ it", "test accuracy"], rows)]
    return parts


def _startup(result: Result) -> list[str]:
    rows = [
        [
            f"{record['name']}, {record['what']}",
            name,
            _duration(value),
            _duration(record.get("second call", {}).get(name)),
        ]
        for record in result["records"]
        for name, value in record["seconds"].items()
    ]
    ratios = [
        [f"{record['name']}, {record['what']}", pair, *[number(value[key]) for key in ("median", "low", "high")]]
        for record in result["records"]
        for pair, value in record["ratios"].items()
    ]
    return [
        "## Startup",
        table(["of", "who", "seconds", "second call"], rows),
        table(["of", "ratio", "median", "low", "high"], ratios),
    ]


def _duration(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{value['median']:#.2g} ({value['low']:#.2g}–{value['high']:#.2g})"


def _missing(result: Result) -> list[str]:
    lines = [f"- Left out: {name}: {reason}" for name, reason in result["left_out"].items()]
    lines += [f"- Failed: {' '.join(failure.split())}" for failure in result["failures"]]
    return ["\n".join(lines)] if lines else []


WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "about": (
            "The time of `dropout_layer` (compiled: of the layer) divided by that of the framework's own dropout, of "
            "the section's formula and of a plain copy, float32, p = 0.2; less than 1 means faster. Medians over the "
            "rounds of one interleaved run on this machine; they may differ on another: "
        ),
        "head": ["framework", "÷ its own: 16", "256 × 256", "4096 × 4096", "÷ formula", "÷ copy", "backward too"],
        "note": "The last three: 4096 × 4096 elements; the last: forward with backward ÷ forward.",
        "training": "Training the section's net, the time divided by that with the framework's own dropout",
        "apart": "Measured separately:",
        "without": "÷ no dropout",
        "effort": "{epochs} epochs, {rounds} rounds",
        "plot": "Time by size",
    },
    "tr": {
        "about": (
            "`dropout_layer`ın süresi (derlenmiş programda katmanın süresi), çerçevenin kendi dropout'una, bölümün "
            "formülüne ve düz bir kopyaya bölünmüş olarak; float32, p = 0,2; 1'den küçük, daha hızlı demektir. "
            "Bu makinede dönüşümlü tek bir koşunun turları üzerinden ortancalar; başka bir makine için söz vermezler: "
        ),
        "head": ["çerçeve", "÷ kendisininki: 16", "256 × 256", "4096 × 4096", "÷ formül", "÷ kopya", "geri geçişle"],
        "note": "Son üç sütun: 4096 × 4096 öğe; sonuncusu: ileri ve geri geçiş ÷ ileri geçiş.",
        "training": "Bölümün ağının eğitimi; süre, çerçevenin kendi dropout'uyla geçen süreye bölünmüş",
        "apart": "Ayrı bir koşuda:",
        "without": "÷ dropout'suz",
        "effort": "{epochs} dönem, {rounds} tur",
        "plot": "Boyuta göre süre",
    },
}


def write_readme(path: Path, language: str, folder: Path) -> None:
    """Writes the table between the two marks of a page.

    Raises:
        ValueError: if the page has no marks, or the folder has no full measurement of sizes.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path}: expected the marks {BEGIN} and {END}; got a page without them")
    part = readme(language, folder, f"{path.resolve().parent}")
    path.write_text(f"{before}{BEGIN}\n{part}\n{END}{after}")


def readme(language: str, folder: Path, base: str) -> str:
    """The README's part: the table, the training run, and the plot, with its path relative to `base`."""
    words, results = WORDS[language], read(folder)
    if "sizes" not in results or results["sizes"]["quick"]:
        raise ValueError(f"{folder}: expected a full sizes.json; got none: run python -m benchmarks sizes")
    rows = []
    for (framework, mode), records in _groups(results["sizes"]).items():
        by_size = {record["case"]["size"]: record for record in records}

        def cell(size: int, above: str, below: str, by_size: dict[int, Any] = by_size) -> str:
            text = ratio(by_size[size], above, below, spread=False) if size in by_size else "–"
            return text.replace(".", ",") if language == "tr" else text

        own = [cell(size, OURS, OWN) for size in (SMALL, MIDDLE, LARGE)]
        large = [cell(LARGE, above, below) for above, below in ((OURS, SECTION), (OURS, COPY), (OURS + BACKWARD, OURS))]
        rows.append([f"{framework}, {mode}", *own, *large])
    plot_path = os.path.relpath(folder / "sizes.png", base)
    parts = [words["about"] + machine(results["sizes"]["machine"], language), table(words["head"], rows), words["note"]]
    if "training" in results:
        apart = results["training"]["machine"] != results["sizes"]["machine"]
        parts.append(_training_line(results["training"], language, apart))
    return "\n\n".join([*parts, f"![{words['plot']}]({plot_path})"])


def _training_line(result: Result, language: str, apart: bool) -> str:
    """Formats the training run as one line. If `apart`, it was measured separately, and its machine is added."""
    words, values = WORDS[language], []
    for record in result["records"]:
        if f"{OURS} / {OWN}" in record["ratios"]:
            own, none = (ratio(record, OURS, who, spread=False) for who in (OWN, NONE))
            effort = words["effort"].format(**record)
            values.append(f"{record['framework']} {own} ({words['without']}: {none}; {effort})")
    text = "; ".join(values)
    line = f"{words['training']}: {text.replace('.', ',') if language == 'tr' else text}."
    return f"{line} {words['apart']} {machine(result['machine'], language)}" if apart else line
