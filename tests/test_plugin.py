"""The plugin of pytest in other projects: each test runs pytest in one, where multidrop's entry point is declared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import multidrop as md

ROOT = Path(__file__).parent.parent
LISTED = "import pytest\n\ndef test_it(backend):\n    print('ran with', getattr(backend, 'name', backend))\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project, and beside it the entry point of this checkout, as an installation declares it."""
    declared = re.search(
        r"\[project\.entry-points\.pytest11\]\n((?:\w+ = .*\n)+)", (ROOT / "pyproject.toml").read_text()
    )
    assert declared is not None
    info = tmp_path / "site" / "checkout-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: checkout\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\n" + declared[1].replace('"', ""))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return folder


def run(project: Path, *options: str, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (project / f"{name}.py").write_text(text)
    path = os.pathsep.join(map(str, (project.parent / "site", ROOT, ROOT / "backends")))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-v", "-p", "no:cacheprovider", *options],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The backends that the test of `LISTED` ran with."""
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"ran with (\w+)", done.stdout)


def test_what_is_installed(project: Path) -> None:
    assert ran(run(project, test_a=LISTED)) == list(md.available_backends())


@pytest.mark.parametrize("option", ["--backend", "--multidrop-backend"])
def test_one_that_was_asked_for(project: Path, option: str) -> None:
    assert ran(run(project, option, "numpy", test_a=LISTED)) == ["numpy"]
    assert ran(run(project, f"{option}=numpy", test_a=LISTED)) == ["numpy"]


def test_one_that_is_set_in_the_settings(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\naddopts = --backend numpy\n")
    assert ran(run(project, test_a=LISTED)) == ["numpy"]


def test_it_is_set_for_the_test_alone(project: Path) -> None:
    code = (
        "import multidrop as md\n\ndef test_it(backend):\n    assert md.get_backend() == backend.name\n"
        "    print('ran with', backend.name)\n\ndef test_after():\n    assert md.get_backend() == 'numpy'\n"
    )
    assert ran(run(project, "--backend", "numpy", test_a=code)) == ["numpy"]


@pytest.mark.parametrize("asked", ["absentframe", "all"])
def test_one_that_is_missing_fails(project: Path, asked: str) -> None:
    file = project.parent / "site" / "checkout-1.dist-info" / "entry_points.txt"
    file.write_text(file.read_text() + "[multidrop.backends]\nabsentframe = multidrop_absentframe\n")
    done = run(project, "--backend", asked, test_a=LISTED)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    message = r"--multidrop-backend absentframe: expected a framework that is installed; got none: pip install checkout"
    assert re.search(message, done.stderr)


def test_one_that_nobody_declared_fails(project: Path) -> None:
    done = run(project, "--backend", "pytorch", test_a=LISTED)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search("--multidrop-backend: expected one of .*numpy.* or all; got pytorch", done.stderr)


OPTION = "def pytest_addoption(parser):\n    parser.addoption('--backend', default='agg')\n"
FLAG = "def pytest_addoption(parser):\n    parser.addoption('--backend', action='store_true')\n"
CHOICE = "def pytest_addoption(parser):\n    parser.addoption('--backend', choices=['svg', 'agg'], default='agg')\n"
OWN = "def test_own(pytestconfig):\n    print('ran with', pytestconfig.getoption('--backend'))\n"


def test_a_project_with_an_option_of_that_name(project: Path) -> None:
    """Keeps it, and has the other name for this one."""
    assert ran(run(project, "--backend", "svg", conftest=OPTION, test_a=OWN)) == ["svg"]
    assert ran(run(project, conftest=CHOICE, test_a=OWN)) == ["agg"]
    assert ran(run(project, "--backend", conftest=FLAG, test_a=OWN)) == ["True"]
    assert ran(run(project, "--multidrop-backend", "numpy", conftest=OPTION, test_a=LISTED)) == ["numpy"]


def test_a_plugin_with_an_option_of_that_name(project: Path) -> None:
    """Whether it is loaded before this one or after."""
    (project / "other.py").write_text(OPTION)
    assert ran(run(project, "-p", "other", "--backend", "svg", test_a=OWN)) == ["svg"]
    site = project.parent / "site" / "other-1.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (site / "entry_points.txt").write_text("[pytest11]\nother = other\n")
    assert ran(run(project, "--backend", "svg", test_a=OWN)) == ["svg"]


FIXTURE = "import pytest\n\n@pytest.fixture\ndef backend():\n    return 'mine'\n\n"
DIRECT = "def pytest_generate_tests(metafunc):\n    if 'backend' in metafunc.fixturenames:\n        {}\n"


@pytest.mark.parametrize(
    "files",
    [
        {"conftest": FIXTURE, "test_a": LISTED},
        {"test_a": FIXTURE + LISTED},
        {"test_a": LISTED.replace("def test_it", "@pytest.mark.parametrize('backend', ['mine'])\ndef test_it")},
        {"conftest": DIRECT.format("metafunc.parametrize('backend', ['mine'])"), "test_a": LISTED},
        {"test_a": DIRECT.format("metafunc.parametrize('backend', ['mine'])") + LISTED},
    ],
    ids=["fixture in conftest", "fixture in module", "mark", "hook in conftest", "hook in module"],
)
def test_a_project_with_backends_of_its_own(project: Path, files: dict[str, str]) -> None:
    """Has each test once."""
    assert ran(run(project, **files)) == ["mine"]


def test_without_the_plugin(project: Path) -> None:
    assert ran(run(project, "-p", "no:multidrop", "--backend", "svg", conftest=OPTION, test_a=OWN)) == ["svg"]


@pytest.mark.parametrize(
    ("option", "loaded"),
    [((), "[]"), (("--backend", "numpy"), "['numpy', 'multidrop.dispatch']")],
    ids=["idle", "used"],
)
def test_it_imports_nothing_before_it_is_used(project: Path, option: tuple[str, ...], loaded: str) -> None:
    """Each run of pytest, in every project, loads it."""
    code = (
        "import sys\n\ndef test_it():\n    names = ('numpy', 'torch', 'tensorflow', 'mxnet', 'llvmlite', "
        "'multidrop.dispatch', 'multidrop.testing.contract')\n"
        "    assert 'multidrop.testing.plugin' in sys.modules\n"
        "    print('loaded', [n for n in names if n in sys.modules])\n"
    )
    # Hypothesis' own plugin may import NumPy.
    done = run(project, "-p", "no:hypothesispytest", *option, test_a=code)
    assert f"loaded {loaded}" in done.stdout, done.stdout + done.stderr


def test_the_assertions_do_not_import_pytest() -> None:
    code = "import sys, multidrop.testing; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_conformance_test_of_one_line(project: Path) -> None:
    """With the toy, installed as a third party's package."""
    code = (
        "from multidrop.testing import Conformance\n\nclass TestToy(Conformance):\n    backend = 'toyframe'\n"
        "    lacks = ('bfloat16',)\n"
    )
    path = ROOT / "tests" / "plugin"
    (project / "conftest.py").write_text(f"import sys\n\nsys.path.insert(0, {str(path)!r})\n")
    done = run(project, test_toy=code)
    assert done.returncode == 0, done.stdout
    assert re.search(r"test_vectors\[DropBlock-float16\] PASSED", done.stdout)
    assert re.search(r"test_gradient\[DropBlock\] SKIPPED", done.stdout)


def test_the_page_for_users_runs(project: Path) -> None:
    """Its code, as a test module of a project."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)
    tests = [block for block in blocks if "def test_" in block]
    assert len(tests) >= 4
    done = run(project, test_page="\n\n".join(tests))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"PASSED", done.stdout)) >= len(tests)
