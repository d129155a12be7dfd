"""What the project says of itself in several places is the same in all."""

from __future__ import annotations

import re
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import multidrop as md

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings

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


def test_both_readmes_have_the_same_names_and_parts() -> None:
    """In the same order: the code in the first column of each table, headings, and paragraphs that begin in bold."""
    english, turkish = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.tr.md"))
    for pattern in (r"^\| (`[^|]*?) \|", r"^(#+) ", r"^(\*\*)\w"):
        names = re.findall(pattern, english, re.MULTILINE)
        assert names
        assert names == re.findall(pattern, turkish, re.MULTILINE)


@pytest.mark.parametrize("readme", ["README.md", "README.tr.md"])
def test_the_layout_names_every_module(readme: str) -> None:
    (layout,) = re.findall(r"```\n(multidrop/ .*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)
    modules = {path.stem for path in (ROOT / "multidrop").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in modules if not name.startswith("_")} - set(re.findall(r"\w+", layout)) == set()


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
    """And print what the page says, with the same numbers. Those of rounding depend on the processor: they are of the
    same size."""
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
        output, shown = capsys.readouterr().out, "".join(printed)
        assert " ".join(NUMBER.sub("#", output).split()) == " ".join(NUMBER.sub("#", shown).split())
        for found, said in zip(map(float, NUMBER.findall(output)), map(float, NUMBER.findall(shown)), strict=True):
            rounding = max(found, said) < ROUNDING
            assert rounding or found == pytest.approx(said, rel=0.03), (found, said, output)
            assert not (rounding and found and said) or 0.1 < found / said < 10, (found, said, output)


NUMBER = re.compile(r"\b(?:0|\d\.\de[-+]\d\d)(?=[\s,]|$)")
ROUNDING = 1e-5


SYSTEMS = [  # with the wheels of MXNet 1.9.1; its NumPy 1 has none for Python 3.13
    ("3.10", "linux", "x86_64", True),
    ("3.12", "linux", "aarch64", True),
    ("3.12", "darwin", "x86_64", True),
    ("3.12", "darwin", "arm64", False),
    ("3.12", "win32", "AMD64", False),
    ("3.13", "linux", "x86_64", False),
    ("3.14", "linux", "x86_64", False),
    ("3.12", "linux", "ppc64le", False),
]


@pytest.mark.parametrize(("python", "system", "machine", "has_wheel"), SYSTEMS)
def test_all_leaves_mxnet_out_where_it_has_no_wheel(python: str, system: str, machine: str, has_wheel: bool) -> None:
    """And has all that the extra of each framework has elsewhere, in the same versions."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    environment = {"python_version": python, "sys_platform": system, "platform_machine": machine}

    def requirements(extra: str) -> set[str]:
        found: set[str] = set()
        for text in extras[extra]:
            each = Requirement(text)
            if each.marker is None or each.marker.evaluate(environment):
                inner = (
                    map(requirements, each.extras) if each.name == "multidrop" else ({f"{each.name}{each.specifier}"},)
                )
                found |= set().union(*inner)
        return found

    frameworks = set().union(*map(requirements, ("section", "torch", "tensorflow", "mxnet")))
    mxnet = next(name for name in frameworks if name.startswith("mxnet"))
    assert requirements("all") == frameworks - (set() if has_wheel else {mxnet})
