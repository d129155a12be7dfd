"""Where things are: what an import loads, former names, and what the course needs besides."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import multidrop as md
from multidrop import family, moved


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_an_import_loads_next_to_nothing() -> None:
    """Neither NumPy, nor any part of the library: those come with the first name that is used."""
    code = (
        "import multidrop, sys; print(*sorted(name for name in sys.modules if name.startswith(('multidrop', 'numpy'))))"
    )
    assert python(code).stdout.split() == ["multidrop", "multidrop.moved"]


def test_the_plugin_of_pytest_loads_as_little() -> None:
    """Every run of pytest imports it, in every project."""
    code = (
        "import pytest, sys; before = {*sys.modules}; import multidrop.testing.plugin; "
        "print(*sorted({*sys.modules} - before - sys.stdlib_module_names))"
    )
    loaded = python(code).stdout.split()
    assert loaded == ["multidrop", "multidrop.moved", "multidrop.testing", "multidrop.testing.plugin"]


def test_all_public_names() -> None:
    assert {name for name in md.__all__ if not hasattr(md, name)} == set()
    assert set(md.__all__) <= set(dir(md))
    with pytest.raises(AttributeError, match="module 'multidrop' has no attribute 'dropout'"):
        md.dropout  # noqa: B018  # the error is what is tested


def test_every_backend_has_a_class_for_each_member(backend: Any) -> None:
    """Under the member's name, so that two backends read side by side."""
    names = {name for name, kind in family.MEMBERS.items() if kind.__module__.startswith("multidrop.family.")}
    assert "DropBlock" in names
    assert names - set(backend.__all__) == set()


@pytest.mark.parametrize("name", moved.MOVED)
def test_former_names(name: str) -> None:
    """Are the same modules, in whatever order they are imported, and leave the present ones as they are."""
    home = f"multidrop.{moved.MOVED[name]}"
    for first, second in ((home, f"multidrop.{name}"), (f"multidrop.{name}", home)):
        code = f"""
import importlib, sys
first, second = importlib.import_module({first!r}), importlib.import_module({second!r})
assert first is second
assert first.__spec__.name == {home!r}, first.__spec__
assert first is sys.modules[{home!r}]
"""
        done = python(code)
        assert done.returncode == 0, done.stderr


def test_what_was_within_a_former_name() -> None:
    code = """
import multidrop.host.memory, multidrop.host.memory
from multidrop.host import release_memory
from multidrop.spec.keys import Key
from multidrop.streams import Stream, manual_seed
from multidrop.section.data.fashion_mnist import load
import multidrop as md
assert multidrop.host.memory is multidrop.host.memory
assert md.kernel is md.host and md.masks is md.spec.masks and Key is md.Key
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


WITHOUT = "import sys; sys.modules.update(dict.fromkeys({names})); "


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_command_line_without_its_packages(missing: str) -> None:
    done = python(WITHOUT.format(names=[missing]) + "from multidrop.__main__ import main; main()")
    assert done.returncode == 1
    assert done.stderr.startswith(f"multidrop: the command line needs {missing}")
    assert done.stderr.endswith(', which is not installed: pip install "multidrop[section]"\n')
    assert len(done.stderr.splitlines()) == 1


def test_training_without_the_extra() -> None:
    """Works where nobody watches; what needs a package says so in a line, and nothing else is lost."""
    code = (
        WITHOUT.format(names=["typer", "rich", "matplotlib", "safetensors"])
        + """
import multidrop as md
md.manual_seed(0)
train_iter, test_iter = md.load_data_fashion_mnist(256, "mini")
history = md.train(md.Net(), train_iter, test_iter, num_epochs=1)
for call in (lambda: history.plot(), lambda: md.train(md.Net(), train_iter, test_iter, 1, checkpoint="run")):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    plot, checkpoint = done.stdout.splitlines()
    assert plot.startswith("a plot needs matplotlib")
    assert checkpoint.startswith("a checkpoint needs safetensors")


def test_type_checkers_see_the_public_names() -> None:
    """Each from the module that it is imported from."""
    tree = ast.parse(Path(md.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {}
    for line in block.body:
        assert isinstance(line, ast.ImportFrom)
        for name in line.names:
            assert name.name == name.asname
            seen[name.name] = ".".join(filter(None, ("multidrop", line.module)))
    assert sorted(seen) == md.__all__
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name, None) is getattr(md, name)


def test_former_names_that_two_threads_import() -> None:
    """The import system creates one module, another one, and then executes both."""
    finder = moved._Finder()
    names = ("multidrop.masks", "multidrop.philox")
    made = []
    for name in names:
        spec = finder.find_spec(name)
        assert spec is not None
        made.append((finder.create_module(spec), spec))
    for module, spec in made:
        module.__spec__ = spec  # as the import system does
    for module, _ in made:
        finder.exec_module(module)
        assert module.__spec__ is not None
        assert module.__spec__.name == module.__name__
