"""How results show themselves in a notebook: one is executed, with a kernel of this interpreter."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import html
from multidrop.section.history import Epoch
from multidrop.section.notebook import in_notebook

CELLS = {
    "training": """
import numpy as np, multidrop as md
sizes = dict(num_inputs=4, num_outputs=3, num_hiddens1=8, num_hiddens2=8, dtype="float64")
batches = [(np.random.default_rng(1).normal(size=(8, 4)), np.arange(8) % 3)] * 3
def fail(net, history, epoch):
    if epoch.epoch == 2:
        raise KeyboardInterrupt
history = md.train(net := md.Net(**sizes, seed=1), batches, batches, 3)
""",
    "silent": "md.train(net, batches, batches, 1, display=False);",
    "interrupted": """
try:
    md.train(md.Net(**sizes, seed=1), batches, batches, 3, callbacks=[fail])
except md.Interrupted as error:
    print(len(error.history.epochs), "epochs")
""",
    "history": "history",
    "plot": "md.plot_histories(history)",
    "comparison": "md.compare(md.Net(**sizes, seed=1), md.Net(**sizes, seed=1), batches)",
    "audit": "md.audit(net, batches[0][0])",
    "mask": "md.last_mask(net.dropout1)",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell. A process of its own runs the notebook, because Jupyter's packages warn of changes."""
    folder = tmp_path_factory.mktemp("jupyter")
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "here"}
    (folder / "kernels" / "here").mkdir(parents=True)
    (folder / "kernels" / "here" / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    code = f"""
import json, os, sys
os.environ["JUPYTER_PATH"] = {str(folder)!r}
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell(cell) for cell in {list(CELLS.values())!r}]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, kernel_name="here", timeout=120).execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return dict(zip(CELLS, json.loads(done.stdout.splitlines()[-1]), strict=True))


def pages(outputs: list[Any]) -> list[str]:
    return ["".join(each["data"]["text/html"]) for each in outputs if "text/html" in each.get("data", {})]


def pictures(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def test_training_shows_table_and_curves(outputs: dict[str, list[Any]]) -> None:
    """One output for the bar, empty at the end, and one that is the history."""
    bar, history = pages(outputs["training"])
    assert bar == "<span></span>"
    assert [row.count("<td") for row in history.split("<tr>")[2:]] == [7, 7, 7]
    (curves,) = pictures(history)
    assert curves.startswith(b"\x89PNG")
    assert not any(each["output_type"] == "stream" for each in outputs["training"])
    assert pages(outputs["history"])[0].split("<img")[0] == history.split("<img")[0]


def test_a_run_that_shows_nothing(outputs: dict[str, list[Any]]) -> None:
    assert outputs["silent"] == []
    with pytest.raises(ValueError, match="display: expected True or False; got 'no'"):
        md.train(md.Net(), [], [], 1, display="no")  # type: ignore[arg-type]  # the error is what is tested


def test_an_interrupted_run_leaves_what_is_done(outputs: dict[str, list[Any]]) -> None:
    bar, history = pages(outputs["interrupted"])
    assert bar == "<span></span>"
    assert history.count("<tr>") == 3
    assert "2 epochs\n" in [each.get("text") for each in outputs["interrupted"]]


@pytest.mark.parametrize("name", ["comparison", "audit", "mask"])
def test_other_results_show_themselves(outputs: dict[str, list[Any]], name: str) -> None:
    (page,) = pages(outputs[name])
    expected = {
        "comparison": ("<caption", "No difference beyond 1e-09."),
        "audit": ("None found (layers: ",),
        "mask": ("<td", "shared axes"),
    }
    assert all(text in page for text in expected[name])


def test_a_plot_shows_itself(outputs: dict[str, list[Any]]) -> None:
    """Although this notebook does not import `matplotlib.pyplot`, which registers the display of figures."""
    (shown,) = outputs["plot"]
    assert base64.b64decode(shown["data"]["image/png"]).startswith(b"\x89PNG")


def test_no_page_sets_a_colour(outputs: dict[str, list[Any]]) -> None:
    """A notebook's theme does, light or dark; pictures have a white background of their own."""
    every = [page for cell in outputs.values() for page in pages(cell)]
    assert len(every) == 8
    for page in every:
        assert not re.search(r"colou?r|background", re.sub(r'src="[^"]*"', "", page))


def test_texts_are_escaped() -> None:
    history = md.History({"backend": "numpy"}, [Epoch(1, 1.0, 0.5, 0.5, 1.0, 1.0)], "<b>&", ["a < b"])
    page = history._repr_html_()
    assert "<b>" not in page
    assert page.count("&lt;b&gt;&amp;") == 2
    assert "<p>a &lt; b</p>" in page


def test_a_report_as_a_table() -> None:
    report = md.Report((md.conversion.Replaced("a", "Dropout(<p>)"),), (md.conversion.Unreached("b", "a function"),))
    page = report._repr_html_()
    assert "replaced: 1, not reached: 1" in page
    assert page.count("<tr>") == 3
    assert "Dropout(&lt;p&gt;)" in page


def test_a_random_model_as_a_table() -> None:
    model = md.Net(num_inputs=4, num_outputs=2)
    page = md.audit(model, np.ones((64, 4)))._repr_html_()
    assert page.count("<tr>") == 3
    assert "dropout2" in page


def test_long_tables_scroll() -> None:
    assert "overflow-y" not in html.table(["a"], [["b"]] * html.ROWS)
    assert "overflow-y" in html.table(["a"], [["b"]] * (html.ROWS + 1))


def test_here_is_no_notebook() -> None:
    assert not in_notebook()
