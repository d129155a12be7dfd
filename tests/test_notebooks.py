"""The notebooks are what their source generates, run in every framework, and use public names alone."""

from __future__ import annotations

import ast
import base64
import dataclasses
import importlib
import importlib.util
import io
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from matplotlib import image

import multidrop as md
from multidrop.section.history import Epoch

ROOT = Path(__file__).parent.parent


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "tools" / "make_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    return module


tool = _tool()
FRAMEWORKS, LANGUAGES = tool.FRAMEWORKS, tool.LANGUAGES
PATHS = [tool.path_of(language, framework) for language in LANGUAGES for framework in FRAMEWORKS]


def committed(language: str, framework: str) -> Any:
    return nbformat.read(tool.path_of(language, framework), 4)


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def shown(book: Any) -> list[str]:
    """What the cells print and show, without pictures."""
    data = [output.get("data", {}) for cell in code(book) for output in cell.outputs]
    pages = [re.sub(r'src="[^"]*"', "", each.get("text/html", "")) for each in data]
    return [*map(printed, code(book)), *(each.get("text/plain", "") for each in data), *pages]


def pictures(book: Any) -> list[bytes]:
    found = []
    for data in (output.get("data", {}) for cell in code(book) for output in cell.outputs):
        found += [data["image/png"]] if "image/png" in data else []
        found += re.findall(r'src="data:image/png;base64,([^"]+)"', data.get("text/html", ""))
    return [base64.b64decode(picture) for picture in found]


class TestSource:
    def test_cells(self) -> None:
        source = "<!-- en -->\na\n\n<!-- tr torch -->\nb\n```python mxnet numpy\nc\n\nd\n```\n\n```python\ne\n```\n"
        everywhere = FRAMEWORKS
        assert list(tool.cells(source)) == [
            tool.Cell("a", "en", everywhere),
            tool.Cell("b", "tr", ("torch",)),
            tool.Cell("c\n\nd", None, ("mxnet", "numpy")),
            tool.Cell("e", None, everywhere),
        ]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("text", "line 1: expected <!-- en -->"),
            ("```python\na\n```\ntext", "line 4: expected <!-- en -->"),
            ("```python\na", "line 1: expected a closing fence"),
            ("<!-- en jax -->\na", "expected frameworks among numpy, torch, tensorflow, mxnet; got jax"),
            ("```python jax\na\n```", "expected frameworks among numpy, torch, tensorflow, mxnet; got jax"),
        ],
    )
    def test_a_bad_one(self, source: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            list(tool.cells(source))

    def test_prose_is_there_in_both_languages(self) -> None:
        """Between two cells of code, a paragraph in one language has its twin in the other."""
        for framework in FRAMEWORKS:
            english, turkish = (
                [cell.cell_type for cell in tool.notebook(SOURCE, language, framework).cells] for language in LANGUAGES
            )
            assert english == turkish


SOURCE = tool.SOURCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
class TestCommitted:
    def test_its_cells_are_those_of_the_source(self, path: Path) -> None:
        book = nbformat.read(path, 4)
        nbformat.validate(book)
        made = tool.notebook(SOURCE, path.parent.name, path.stem)
        assert tool.cells_of(book) == tool.cells_of(made), "run python tools/make_notebooks.py"

    def test_every_cell_was_executed_in_order(self, path: Path) -> None:
        counts = [cell.execution_count for cell in code(nbformat.read(path, 4))]
        assert counts == list(range(1, len(counts) + 1))

    def test_pictures_are_opaque(self, path: Path) -> None:
        """And so legible on a dark page too."""
        found = pictures(nbformat.read(path, 4))
        assert found
        for picture in found:
            pixels = image.imread(io.BytesIO(picture), format="png")
            assert pixels.shape[2] == 3 or (pixels[:, :, 3] == 1).all()

    def test_it_is_small(self, path: Path) -> None:
        assert path.stat().st_size < 400_000

    def test_only_public_names(self, path: Path, need: Any) -> None:
        need(path.stem)
        for cell in code(nbformat.read(path, 4)):
            assert private_names(cell.source, path.stem) == []


def test_languages_share_code_and_outputs() -> None:
    for framework in FRAMEWORKS:
        first, *others = (code(committed(language, framework)) for language in LANGUAGES)
        for other in others:
            assert [(cell.source, cell.outputs) for cell in first] == [(cell.source, cell.outputs) for cell in other]


def test_frameworks_print_the_same_numbers() -> None:
    """In all cells of code that they share, but for one that shows tensors."""
    books = {name: {cell.source: printed(cell) for cell in code(committed("en", name))} for name in FRAMEWORKS}
    shared = set.intersection(*(set(book) for book in books.values()))
    assert len(shared) > 5
    differ = [source for source in shared for a, b in itertools.pairwise(books.values()) if a[source] != b[source]]
    assert all("print(dropout_layer(X, p, key))" in source for source in differ)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_runs(framework: str, need: Any) -> None:
    """And prints what the committed notebook shows."""
    need(framework)
    book = tool.notebook(SOURCE, "en", framework)
    tool.execute(book)
    assert shown(book) == shown(committed("en", framework))
    assert len(pictures(book)) == len(pictures(committed("en", framework)))


def test_outputs_belong_to_their_code() -> None:
    """Where prose alone has changed, outputs are kept; those of other code are not."""
    before, after = ("<!-- en -->\n{}\n```python\nprint({})\n```".format(*each) for each in (("a", 1), ("b", 1)))
    executed = tool.notebook(before, "en", "numpy")
    executed.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    kept = tool.with_outputs(tool.notebook(after, "en", "numpy"), executed)
    assert [printed(cell) for cell in code(kept)] == ["1\n"]
    with pytest.raises(ValueError, match="expected the code that was executed"):
        tool.with_outputs(tool.notebook(after.replace("1", "2"), "en", "numpy"), executed)
    with pytest.raises(ValueError, match=r"expected the code that was executed, None; got 'print\(2\)'"):
        tool.with_outputs(tool.notebook(f"{after}\n```python\nprint(2)\n```", "en", "numpy"), executed)


def test_times_are_left_out() -> None:
    """Of the table of a history; the rest of it stays, and so does a table without times."""
    epoch = Epoch(1, 1.25, 0.5, 0.625, seconds=0.001234, examples_per_second=98765.4, test_loss=1.5)
    history = md.History({"backend": "numpy"}, [epoch, dataclasses.replace(epoch, epoch=2)])
    table = tool.untimed(history._repr_html_().partition("<img")[0])
    assert "1.25" in table
    assert "0.625" in table
    assert not re.search(r"0\.00|98,?765", table)
    assert table.count("…") == 4
    untouched = "<table><tr><td>1</td><td>2</td><td>3</td></tr></table>"
    assert tool.untimed(untouched) == untouched


class TestExecution:
    """What a notebook must not do."""

    def test_warnings(self) -> None:
        book = tool.notebook("```python\nimport warnings\nwarnings.warn('of something')\n```", "en", "numpy")
        with pytest.raises(RuntimeError, match=r"expected nothing on standard error; got.*of something"):
            tool.execute(book)

    def test_files(self) -> None:
        book = tool.notebook("```python\nopen('left.txt', 'w').close()\n```", "en", "numpy")
        with pytest.raises(RuntimeError, match=r"expected no files; the notebook leaves left.txt"):
            tool.execute(book)


ELSEWHERE = {
    "numpy": set(),
    "torch": {"torch"},
    "tensorflow": {"tensorflow", "keras"},
    "mxnet": {"mxnet", "mxnet.gluon"},
}


def private_names(source: str, framework: str) -> list[str]:
    """What the code uses of multidrop that is not public, and what it imports besides that it should not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                allowed = {"multidrop", "numpy", "matplotlib.pyplot", *ELSEWHERE[framework]}
                found += [alias.name for alias in names if alias.name not in allowed]
            case ast.ImportFrom(module=module, names=names):
                if module == f"multidrop_{framework}":
                    public = importlib.import_module(module).__all__
                    found += [alias.name for alias in names if alias.name not in public]
                elif module not in ELSEWHERE[framework]:
                    found.append(str(module))
            case ast.Attribute(value=ast.Name(id="md"), attr=name):
                if name not in md.__all__ and name not in md.family.MEMBERS:
                    found.append(f"md.{name}")
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="md"), attr="family"), attr=name):
                if name not in md.family.MEMBERS:
                    found.append(f"md.family.{name}")
            case ast.Attribute(attr=name) if name.startswith("_") and name != "__init__":
                found.append(name)
    return found


@pytest.mark.parametrize(
    "line",
    [
        "from multidrop.section import data",
        "import multidrop.host",
        "import os",
        "from multidrop_numpy import on_host",
        "from multidrop_torch import Dropout",
        "md.host.release_memory()",
        "md.family.run",
        "net._weights",
    ],
)
def test_what_is_not_public_is_found(line: str) -> None:
    assert private_names(line, "numpy")
