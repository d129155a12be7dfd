"""CONTRIBUTING.md: its worked examples do what the page says, without a line more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_ways import WAYS
from layer_ways import LAYER_WAYS
from test_experiments_catalogue import computed

import multidrop as md
from multidrop.family import oracle
from multidrop.section.experiments import experiment, report
from multidrop.section.experiments.words import LANGUAGES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_set_up_is_the_readmes() -> None:
    command = re.search(r"^python3 -m venv \.venv-test .*\n", PAGE, re.MULTILINE)
    assert command
    assert command[0] in (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text between a heading and the next."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return text


def additions() -> dict[str, str]:
    """What the worked example adds, by the file that it names before each block."""
    blocks = re.findall(r"^`([\w./]+)`[^`]*\n\n```\w+\n(.*?)^```$", section("A member in one file"), re.S | re.M)
    return dict(blocks)


def test_one_file_of_sixty_lines_and_one_line() -> None:
    file, line, specification = additions().items()
    assert not (ROOT / file[0]).exists()
    assert len(file[1].splitlines()) < 60
    assert line[0] == "multidrop/family/__init__.py"
    assert len(line[1].splitlines()) == 1
    assert specification[0] == "docs/specification.md"


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the repository with the additions; it leaves the members of this process alone."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("multidrop", "backends", "tests", "docs", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in additions().items():
        with (tmp_path / name).open("a", encoding="utf-8") as file:
            file.write(text)
    python(tmp_path, "tools/make_vectors.py")
    return tmp_path


def python(folder: Path, *command: str) -> str:
    """What Python prints in a copy of the repository."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "backends")))}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


MEMBER = "UniformNoise(width=0.1)"
TESTS = {
    "family": (WAYS, ("values_and_gradients", "a_part_equals_the_whole", "calls_without_a_key")),
    "member_layers": (LAYER_WAYS, ("values_and_gradients", "saved_and_resumed", "short_constructors")),
}
"""Of the tests that a member is tried with, some, in each way of running."""


def test_the_familys_tests_cover_the_member(extended: Path, backend: Any) -> None:
    """As a function and as a layer, in every way of running that the framework has, with no test of its own."""
    names = {name for _, tests in TESTS.values() for name in tests}
    chosen = f"UniformNoise and ({' or '.join(names)} or bad_calls) or each_member_has_a_vector or TestVectors"
    printed = python(
        extended, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--backend", backend.name, "-k", chosen,
        "tests/test_family.py", "tests/test_members.py", "tests/test_member_layers.py", "tests/test_testing.py",
    )  # fmt: skip
    passed = set(re.findall(r"^tests/test_(\S+) PASSED", printed, re.MULTILINE))
    for file, (ways, tests) in TESTS.items():
        for way in ways[backend.name]:
            for test in tests:
                assert f"{file}.py::TestEveryWay::test_{test}[{way}-{MEMBER}]" in passed
    assert f"family.py::TestErrors::test_bad_calls_take_no_mask[{MEMBER}-{backend.name}]" in passed
    assert "members.py::TestSpecification::test_each_member_has_a_vector" in passed
    assert "testing.py::TestVectors::test_it_has_every_member_type_key_and_start" in passed


def test_an_experiment_in_one_file(monkeypatch: pytest.MonkeyPatch, need: Any) -> None:
    need("numpy")
    ((file, code),) = re.findall(r"^`([\w./]+)` is new:\n\n```python\n(.*?)^```$",
                                 section("An experiment in one file"), re.S | re.M)  # fmt: skip
    assert not (ROOT / file).exists()
    name = file.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    exec(compile(code, "CONTRIBUTING.md", "exec"), vars(module))
    monkeypatch.setitem(experiment.catalogue(), "learning-rate", module.EXPERIMENT)  # type: ignore[arg-type]
    result = computed("learning-rate", "numpy")
    for words in LANGUAGES.values():
        page = report.page(result, words)
        assert result.answer(words.language) in page
        assert words(module.LARGE.label) in page
    assert result.plot().axes


def test_a_backend_in_one_folder(monkeypatch: pytest.MonkeyPatch, need: Any) -> None:
    """Has the eight names of the contract, and gives the oracle's numbers, in layers too."""
    need("numpy")
    monkeypatch.syspath_prepend(ROOT / "tests" / "plugin")
    monkeypatch.setitem(sys.modules, "toyframe", None)  # so that it is gone again afterwards
    del sys.modules["toyframe"]
    (code,) = re.findall(r"```python\n(.*?)```", section("A backend in one folder"), re.DOTALL)
    backend = types.ModuleType("multidrop_toyframe")
    exec(compile(code, "CONTRIBUTING.md", "exec"), vars(backend))
    for name in ("name", "version", "types", "tensor", "to_numpy", "draw_key", "apply", "layer"):
        assert hasattr(backend, name)
    x, member, key = np.arange(20.0), md.family.GaussianDropout(0.3), md.Key(3)
    X = backend.tensor(x)
    assert isinstance(X, backend.types)
    assert np.array_equal(backend.to_numpy(backend.apply(member, X, key, start=5)), oracle.apply(member, x, key, 5))
    md.manual_seed(2)
    first = md.Stream(md.Key(2).fold_in("dropout").fold_in(0))
    layer = backend.layer(member)
    for _ in range(2):
        assert np.array_equal(backend.to_numpy(layer(X)), oracle.apply(member, x, first.next()))
    with pytest.raises(ValueError, match="start: expected"):
        backend.apply(member, X, start=-1)
    assert np.array_equal(
        backend.to_numpy(backend.apply(member, X)), oracle.apply(member, x, md.Key(2).fold_in("calls"))
    )
