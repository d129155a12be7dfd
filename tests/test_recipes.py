"""The programs of docs/recipes.md, and what loading a program needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
RECIPES = [
    pytest.param(code, id=f"{heading.strip().lower().replace(' ', '-')}-{number}")
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
]


def run(code: str, folder: Path) -> None:
    """In a process of its own, where nothing is imported yet."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore")  # what PEFT imports warns of torch
@pytest.mark.usefixtures("torchvision")  # which PEFT imports where it is installed
@pytest.mark.parametrize("code", RECIPES)
def test_recipe(need: Any, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("torch")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})


SAVED = {
    "torch": """
import torch
from multidrop_torch import Dropout
net, X = torch.nn.Sequential(torch.nn.Linear(8, 8), Dropout(0.5, seed=0)), torch.ones(4, 8)
torch.export.save(torch.export.export(net, (X,)), "program.pt2")
torch.jit.trace(net, X, check_trace=False).save("program.pt")
""",
    "tensorflow": """
import keras
from multidrop_tensorflow import Dropout
keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), Dropout(0.5, seed=0)]).save("program.keras")
""",
    "mxnet": """
import multidrop_mxnet
import mxnet as mx
net = mx.gluon.nn.HybridSequential()
net.add(mx.gluon.nn.Dense(8), multidrop_mxnet.Dropout(0.5, seed=0))
net.initialize()
net.hybridize()
with mx.autograd.record():
    net(mx.nd.ones((4, 8)))
net.export("program")
""",
}
LOADED = {
    "torch": """
import torch
def exported(): return torch.export.load("program.pt2").module()(torch.ones(4, 8))
def traced(): return torch.jit.load("program.pt")(torch.ones(4, 8))
programs = [exported, traced]
""",
    "tensorflow": """
import keras, numpy as np
programs = [lambda: keras.models.load_model("program.keras")(np.ones((4, 8)))]
""",
    "mxnet": """
import multidrop_mxnet  # MXNet itself is not imported without it
import mxnet as mx
def imported():
    net = mx.gluon.SymbolBlock.imports("program-symbol.json", ["data"], "program-0000.params")
    return net(mx.nd.ones((4, 8)))
programs = [imported]
""",
}
TRIED = """
import sys
for program in programs:
    if "multidrop_{0}" not in sys.modules:
        try:
            program()
        except Exception:
            pass
        else:
            raise AssertionError("it ran without the import")
import multidrop_{0}
for program in programs:
    assert program().shape == (4, 8)
"""


@pytest.mark.parametrize("framework", SAVED)
def test_loaded_programs(need: Any, framework: str, tmp_path: Path) -> None:
    """A process that has not imported this library loads none; then it imports the backend and loads all."""
    need(framework)
    run(SAVED[framework], tmp_path)
    run(LOADED[framework] + TRIED.format(framework), tmp_path)
