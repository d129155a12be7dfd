"""What the project says of itself in several places is the same in all."""

from __future__ import annotations

import re
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

import multidrop as md

ROOT = Path(__file__).parent.parent
BACKENDS = ROOT / "backends"
FILES = {"__init__.py", "py.typed"} | {
    f"{name}.py" for name in ("functional", "apply", "layers", "net", "training", "conversion", "comparison")
}

FENCE = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)


def packages() -> list[Path]:
    return sorted(path for path in BACKENDS.iterdir() if path.is_dir() and path.name != "__pycache__")


def test_every_backend_folder_is_an_entry_point() -> None:
    declared = {entry.name: entry.value for entry in entry_points(group="multidrop.backends")}
    assert declared == {path.name.removeprefix("multidrop_"): path.name for path in packages()}


@pytest.mark.parametrize("package", packages(), ids=lambda path: path.name)
def test_backends_have_the_same_files(package: Path) -> None:
    assert {path.name for path in package.iterdir()} >= FILES


@pytest.mark.parametrize("package", packages(), ids=lambda path: path.name)
def test_backends_import_their_own_framework_alone(package: Path) -> None:
    source = "\n".join(path.read_text() for path in package.rglob("*.py"))
    own = package.name.removeprefix("multidrop_")
    others = {"torch", "tensorflow", "keras", "mxnet"} - {own} - ({"keras"} if own == "tensorflow" else set())
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported & (others | {path.name for path in packages()} - {package.name}) == set()


def test_the_core_imports_no_framework_and_no_backend() -> None:
    for path in (ROOT / "multidrop").rglob("*.py"):
        imported = set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
        assert imported & {"torch", "tensorflow", "keras", "mxnet", *(p.name for p in packages())} == set(), path


def test_version() -> None:
    assert version("multidrop") == md.__version__


def test_public_names_have_docstrings() -> None:
    for name in md.__all__:
        assert getattr(md, name).__doc__, name


def test_both_readmes_give_the_same_commands() -> None:
    english, turkish = ((ROOT / name).read_text() for name in ("README.md", "README.tr.md"))
    strip = re.compile(r"#.*")
    assert [strip.sub("", code) for code in FENCE.findall(english)] == [
        strip.sub("", code) for code in FENCE.findall(turkish)
    ]
    assert len(FENCE.findall(english)) >= 2
    assert "README.tr.md" in english
    assert "README.md" in turkish


def test_readme_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: object) -> None:
    """Each Python block of the README, with the frameworks that it names."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        code = re.sub(r"#.*", "", block)
        for name in re.findall(r"(?:^import |\")(torch|tensorflow|mxnet)\b", code, re.MULTILINE):
            need(name)  # type: ignore[operator]
        with md.use_backend("numpy"):
            exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert "multidrop" in sys.modules


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")  # torch's own, as it compiles
@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_examples_of_the_docs_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest, need: Any,
) -> None:  # fmt: skip
    """And print what the page says, but for numbers, which are of one machine."""
    text = page.read_text()
    blocks, printed = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "text"))
    for name in {"keras": "tensorflow", "torch": "torch", "mxnet": "mxnet"}.items():
        if re.search(rf"^(import|from) {name[0]}\b", text, re.MULTILINE):
            need(name[1])
    if re.search(r"^from peft\b", text, re.MULTILINE):
        request.getfixturevalue("torchvision")  # which PEFT imports where it is installed
    if "tensorflow" in sys.modules:
        sys.modules["keras"].utils.clear_session()  # layers are numbered from the start
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with md.use_backend("numpy"):
        for block in blocks:
            exec(compile(block, page.name, "exec"), names)
    if printed:
        assert _without_numbers(capsys.readouterr().out) == _without_numbers("".join(printed))


def _without_numbers(text: str) -> str:
    return " ".join(re.sub(r"\b(0|\d\.\de[-+]\d\d)(?=[\s,]|$)", "#", text).split())
