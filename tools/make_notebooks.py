"""Makes the notebooks: one for each framework and language, executed, from `notebooks/source/dropout.md`.

    python tools/make_notebooks.py                  # all of them
    python tools/make_notebooks.py torch numpy      # those of two frameworks, in every language
    python tools/make_notebooks.py --prose          # of changed prose alone: keeps the outputs, and runs nothing
    python tools/make_notebooks.py --check          # says whether the cells in the repository are the source's

The source is Markdown in which three kinds of lines begin a cell:

    <!-- en -->                 prose in English, up to the next cell; <!-- tr --> in Turkish
    <!-- en numpy mxnet -->     the same, in the notebooks of those frameworks only
    ```python torch             code, up to the closing fence, in torch's notebook; without a name, in all of them

The code is the same in every language, so each framework's notebook is executed once and its outputs stand in all
languages.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).parent.parent / "notebooks"
SOURCE = FOLDER / "source" / "dropout.md"
FRAMEWORKS = ("numpy", "torch", "tensorflow", "mxnet")
LANGUAGES = ("en", "tr")

_OPENING = re.compile(rf"<!-- (?P<language>{'|'.join(LANGUAGES)})(?P<prose>[ \w]*) -->|```python(?P<code>[ \w]*)")
_KERNEL = "multidrop-notebooks"
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # the nets are small, and threads of several kernels would wait for each other
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's lines as it starts, with times and addresses
    "TF_ENABLE_ONEDNN_OPTS": "0",  # which it announces on standard error, whatever the level
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a warning of the debugger, which nobody uses here
}


@dataclass(frozen=True)
class Cell:
    """A cell of the source: code, where `language` is None, or prose in that language, for some of the frameworks."""

    text: str
    language: str | None
    frameworks: tuple[str, ...]


def cells(source: str) -> Iterator[Cell]:
    """The cells of a source in their order.

    Raises:
        ValueError: for an unknown framework, text that belongs to no cell, or a fence that is not closed.
    """
    lines = iter(enumerate(source.splitlines(), start=1))
    opening, text = None, list[str]()
    for number, line in lines:
        begins = _OPENING.fullmatch(line)
        if begins is None:
            if opening is None and line.strip():
                raise ValueError(f"line {number}: expected <!-- en -->, <!-- tr --> or ```python; got {line!r}")
            text.append(line)
            continue
        if opening:
            yield _cell(opening, text)
        opening, text = begins, []
        if begins["language"] is None:
            for _, code in lines:
                if code == "```":
                    break
                text.append(code)
            else:
                raise ValueError(f"line {number}: expected a closing fence; got the end of the file")
            yield _cell(begins, text)
            opening, text = None, []
    if opening:
        yield _cell(opening, text)


def _cell(opening: re.Match[str], text: list[str]) -> Cell:
    names = tuple((opening["prose"] or opening["code"] or "").split())
    if unknown := set(names) - set(FRAMEWORKS):
        raise ValueError(f"{opening[0]}: expected frameworks among {', '.join(FRAMEWORKS)}; got {', '.join(unknown)}")
    return Cell("\n".join(text).strip(), opening["language"], names or FRAMEWORKS)


def notebook(source: str, language: str, framework: str) -> NotebookNode:
    """The notebook of one framework in one language, not executed."""
    chosen = [cell for cell in cells(source) if framework in cell.frameworks and cell.language in (None, language)]
    book = new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(chosen):
        new = new_code_cell if cell.language is None else new_markdown_cell
        book.cells.append(new(cell.text, id=f"cell-{number}"))  # nbformat's own ids are random
    return book


def execute(book: NotebookNode, timeout: int = 120) -> None:
    """Runs the cells in a kernel of this interpreter, in an empty folder, and puts the outputs into the notebook.

    Args:
        book: the notebook.
        timeout: seconds that a cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises an error.
        RuntimeError: if a cell writes to standard error, as a warning does, or leaves a file.
    """
    metadata = book.metadata.copy()
    with tempfile.TemporaryDirectory() as folder:
        # A kernel specification of its own, because one that is installed may belong to another interpreter.
        kernels, empty = Path(folder) / "kernels", Path(folder) / "empty"
        (kernels / _KERNEL).mkdir(parents=True)
        empty.mkdir()
        command = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            "--HistoryManager.enabled=False",
        ]
        environment = {**_ENVIRONMENT, "IPYTHONDIR": str(Path(folder) / "ipython")}
        (kernels / _KERNEL / "kernel.json").write_text(
            json.dumps({"argv": command, "display_name": _KERNEL, "language": "python", "env": environment})
        )
        manager = AsyncKernelManager(
            kernel_name=_KERNEL,
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)]),
            connection_file=str(Path(folder) / "kernel.json"),
            transport="ipc",  # sockets are files in the folder; ports could be taken by another kernel
        )
        client = NotebookClient(
            book,
            km=manager,
            timeout=timeout,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(empty)}},
        )
        client.execute(cleanup_kc=True)  # ends the kernel and closes the sockets
        if left := sorted(path.name for path in empty.iterdir()):
            raise RuntimeError(f"expected no files; the notebook leaves {', '.join(left)}")
    book.metadata = metadata  # without the kernel's version of Python
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise RuntimeError(f"expected nothing on standard error; got {output.text} from\n{cell.source}")
            if "text/html" in (data := output.get("data", {})):
                data["text/html"] = untimed(data["text/html"])
                data.pop("text/plain", None)  # of a `History` its repr, with times, versions and every last digit


def untimed(table: str) -> str:
    """Leaves out the times of the table that a `History` shows, so that each run makes the same notebook."""
    if ">seconds<" not in table:
        return table
    return re.sub(r"(<td[^>]*>)[^<]*(</td><td[^>]*>)[^<]*(</td></tr>)", r"\1…\2…\3", table)  # the last two columns


def with_outputs(book: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Gives a notebook the outputs of another one that has the same code.

    Raises:
        ValueError: if its code is different.
    """
    code = [[cell for cell in each.cells if cell.cell_type == "code"] for each in (book, executed)]
    for source, ran in zip_longest(*([cell.source for cell in each] for each in code)):
        if source != ran:
            raise ValueError(f"expected the code that was executed, {ran!r}; got {source!r}")
    for cell, done in zip(*code, strict=True):
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
    return book


def path_of(language: str, framework: str) -> Path:
    """Where a notebook is in the repository."""
    return FOLDER / language / f"{framework}.ipynb"


def cells_of(book: NotebookNode) -> list[tuple[str, str, str]]:
    """What a notebook has but for outputs: each cell's id, kind and text."""
    return [(cell.id, cell.cell_type, cell.source) for cell in book.cells]


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes and executes the notebooks.")
    parser.add_argument("frameworks", nargs="*", help=f"among {', '.join(FRAMEWORKS)}; all of them by default")
    parser.add_argument("--check", action="store_true", help="only compare the cells in the repository with the source")
    parser.add_argument("--prose", action="store_true", help="keep the outputs; an error if the code has changed")
    arguments = parser.parse_args()
    if unknown := set(arguments.frameworks) - set(FRAMEWORKS):
        parser.error(f"frameworks: expected some of {', '.join(FRAMEWORKS)}; got {', '.join(sorted(unknown))}")
    source, differ = SOURCE.read_text(encoding="utf-8"), []
    for framework in arguments.frameworks or FRAMEWORKS:
        books = {path_of(language, framework): notebook(source, language, framework) for language in LANGUAGES}
        if arguments.check:
            differ += [path for path, book in books.items() if cells_of(book) != cells_of(nbformat.read(path, 4))]
            continue
        first, executed = next(iter(books.items()))
        if arguments.prose:
            executed = nbformat.read(first, 4)
        else:
            execute(executed)
        for path, book in books.items():
            path.parent.mkdir(exist_ok=True)
            nbformat.write(with_outputs(book, executed), path)
            print(f"{path.relative_to(FOLDER.parent)}: {path.stat().st_size / 1024:.0f} kB")
    for path in differ:
        print(f"{path.relative_to(FOLDER.parent)}: not the source's cells; run python tools/make_notebooks.py")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
