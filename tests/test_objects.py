"""The machine code that comes with the package is loaded and checked, and compiled anew where it does not fit."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.host import objects
from multidrop.spec import masks
from multidrop.testing import same_bits

MODULE = objects.ENTRIES
PACKAGE = Path(md.__file__).parent
LEVELS = [level for level in objects.LEVELS if objects._has(level)]

# Prints whether a small and a large dropout are right, and which modules of Numba were imported.
PROGRAM = """
import sys
import numpy as np
import multidrop as md
from multidrop.spec import masks
for size in (100, 2**20):
    x = np.arange(size, dtype="float32")
    assert np.array_equal(md.dropout_layer(x, 0.2, key=md.Key(7)), masks.dropout(x, 0.2, md.Key(7)))
print("right", "numba" in sys.modules, md.__file__)
"""

WITHOUT_NUMBA = """
import sys
class NoNumba:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numba":
            raise ImportError("Numba is not to be imported")
sys.meta_path.insert(0, NoNumba())
"""

FIRST_CALL = {
    "numpy": "X = np.ones((256, 256), 'float32')",
    "torch": "import torch; X = torch.ones(256, 256)",
    "tensorflow": "import tensorflow as tf; X = tf.ones((256, 256))",
    "mxnet": "import multidrop_mxnet, mxnet as mx; X = mx.np.ones((256, 256))",
}


def run(program: str, *, package: Path = PACKAGE, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, with a copy of the package where one is named."""
    search = [str(package.parent), str(package.parent / "backends")]
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=package.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
    )


def right(done: subprocess.CompletedProcess[str], numba: bool, package: Path = PACKAGE) -> bool:
    """Whether `PROGRAM` ended well, and Numba was imported as told."""
    assert done.returncode == 0, done.stderr
    return done.stdout.split() == ["right", str(numba), str(package / "__init__.py")]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, to be damaged."""
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "multidrop", ignore=ignored)
    backend = PACKAGE.parent / "backends" / "multidrop_numpy"
    shutil.copytree(backend, folder / "backends" / "multidrop_numpy", ignore=ignored)
    return folder / "multidrop"


@pytest.fixture(scope="module")
def built() -> bytes:
    """The object file that comes with the package for this processor."""
    return object_file(PACKAGE).read_bytes()


def object_file(package: Path, level: str = LEVELS[0]) -> Path:
    return package / "host" / "compiled" / objects.FOLDER / objects.file_name(level)


@pytest.mark.parametrize("name", FIRST_CALL)
def test_nothing_is_compiled_at_the_first_call(need: Any, name: str, tmp_path: Path) -> None:
    """With Numba out of reach, and no folder that can be written."""
    need(name)
    (tmp_path / "file").touch()
    program = f"""{WITHOUT_NUMBA}
import numpy as np
import multidrop as md
from multidrop.spec import masks
{FIRST_CALL[name]}
Y = md.dropout_layer(X, 0.2, key=md.Key(7))
Y = Y.asnumpy() if hasattr(Y, "asnumpy") else np.asarray(Y)
assert np.array_equal(Y, masks.dropout(np.ones((256, 256), "float32"), 0.2, md.Key(7)))
"""
    done = run(program, MULTIDROP_CACHE=str(tmp_path / "file" / "cache"))
    assert done.returncode == 0, done.stderr
    assert not done.stderr or name == "tensorflow", done.stderr  # which has notes of its own


def test_programs_of_tensorflow_need_no_compiling_either(need: Any) -> None:
    need("tensorflow")
    program = f"""{WITHOUT_NUMBA}
import numpy as np, tensorflow as tf, multidrop as md
from multidrop.spec import masks
Y = tf.function(lambda X: md.dropout_layer(X, 0.2, key=md.Key(7)))(tf.ones((256, 256)))
assert np.array_equal(Y, masks.dropout(np.ones((256, 256), "float32"), 0.2, md.Key(7)))
from multidrop_tensorflow import native
assert native._compiled
"""
    done = run(program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_levels_give_equal_bits(level: str) -> None:
    """All tests of the kernel, with that level's machine code."""
    files = [f"tests/test_{name}.py" for name in ("kernel", "kernel_threads", "host_memory")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", "numpy", *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
        env={**os.environ, objects.VARIABLE: level},
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout


def test_a_level_is_forced() -> None:
    program = "from multidrop.host import objects; print(*objects._candidates(objects.ENTRIES))"
    for level in LEVELS:
        first, *_ = run(program, MULTIDROP_KERNEL=level).stdout.split()
        assert first == str(object_file(PACKAGE, level))
    done = run(PROGRAM, MULTIDROP_KERNEL="x86-64-v1")
    assert "MULTIDROP_KERNEL: expected one of '" in done.stderr
    assert "; got 'x86-64-v1' (str)" in done.stderr


def test_levels_of_other_processors() -> None:
    assert objects._features("x86-64-v2") == objects.LEVELS["x86-64-v2"].split()
    assert set(objects._features("x86-64-v3")) >= {"avx2", "ssse3"}
    assert objects._features("aarch64") == ["neon"]
    assert objects.levels_to_build() in (list(objects.LEVELS)[:3], ["aarch64"], [])


def damaged(content: bytes, number: int) -> bytes:
    """One of many ways in which a file can be damaged."""
    chance = random.Random(number)
    at = chance.randrange(len(content))
    return [
        lambda: b"",
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :],
        lambda: content[:at] + bytes(min(4096, len(content) - at)) + content[at + 4096 :],
        lambda: content[:at] + chance.randbytes(5) + content[at:],
        lambda: chance.randbytes(len(content)),
        lambda: content + b"\0",
    ][number % 8]()


def test_damage_is_noticed(built: bytes, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(built)
    assert objects.fits(path, MODULE)
    for number in range(200):
        path.write_bytes(damaged(built, number))
        assert not objects.fits(path, MODULE), number
    path.unlink()
    assert not objects.fits(path, MODULE)
    path.mkdir()
    assert not objects.fits(path, MODULE)


def test_what_refers_to_what_is_not_there(built: bytes) -> None:
    """Is not loaded, which would end the process."""
    with pytest.raises(objects.Unusable):
        objects._open(objects._unpack(built, MODULE)._replace(externals=["not_there"]))


def test_damaged_object_files(copied: Path, built: bytes, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The next file that fits is taken: here the one in the cache."""
    done = run(PROGRAM, package=copied, MULTIDROP_KERNEL="host", MULTIDROP_CACHE=str(tmp_path))
    assert right(done, True, copied)
    assert "no object file fits this processor and version; compiling one" in done.stderr
    for number in range(pytestconfig.getoption("--damages")):
        object_file(copied).write_bytes(damaged(built, number))
        done = run(PROGRAM, package=copied, MULTIDROP_CACHE=str(tmp_path))
        assert right(done, False, copied), number
        assert not done.stderr
    object_file(copied).write_bytes(built)


COUNTING = "counting.compiled.entries"
COUNT = """
import sys
import numpy as np
from multidrop.host.objects import library
word = np.array([7], np.uint64)
print(*library("counting.compiled.entries").function("count")(word.ctypes.data), int(word[0]), "numba" in sys.modules)
"""


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """A copy of a small package with machine code of its own, which nobody has built; its parent is to be searched."""
    source = Path(__file__).parent / "plugin" / "counting"
    shutil.copytree(source, tmp_path / "site" / "counting", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site" / "counting"


def count(counting: Path, cache: Path, program: str = COUNT) -> tuple[list[str], str]:
    """What the program prints, and what it logs."""
    search = os.pathsep.join(map(str, (counting.parent, PACKAGE.parent, PACKAGE.parent / "backends")))
    done = run(program, PYTHONPATH=search, MULTIDROP_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def kept(cache: Path) -> list[Path]:
    """What is kept in the cache."""
    return sorted((cache / "kernel").glob("*"))


def test_the_cache(counting: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """What is damaged is made anew."""
    cache = tmp_path / "cache"
    compiled, logged = count(counting, cache)
    assert compiled == ["7", "1", "8", "True"]
    assert logged == f"{COUNTING}: no object file fits this processor and version; compiling one, which takes a while\n"
    loaded, logged = count(counting, cache)
    assert (loaded, logged) == (["7", "1", "8", "False"], "")
    (path,) = kept(cache)
    content = path.read_bytes()
    for number in range(pytestconfig.getoption("--damages")):
        path.write_bytes(damaged(content, number))
        again, logged = count(counting, cache)
        assert again == compiled, number
        assert "no object file fits" in logged
        assert kept(cache) == [path]
        assert count(counting, cache)[0] == loaded


@pytest.mark.parametrize("ruined", ["a folder that cannot be made", "a full disk"])
def test_without_a_cache(counting: Path, tmp_path: Path, ruined: str) -> None:
    """What cannot be kept is done without."""
    cache, program = tmp_path / "cache", COUNT
    if ruined == "a full disk":
        program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n{program}"
    else:
        cache.touch()
    printed, logged = count(counting, cache, program)
    assert printed == ["7", "1", "8", "True"]
    assert f"{COUNTING}: the object file could not be saved, and will be compiled again: " in logged
    assert not kept(cache)


def test_a_user_without_a_home(counting: Path) -> None:
    environment = {"HOME": "", "XDG_CACHE_HOME": "", "MULTIDROP_CACHE": ""}
    search = os.pathsep.join(map(str, (counting.parent, PACKAGE.parent, PACKAGE.parent / "backends")))
    program = f"import os; os.path.expanduser = lambda path: path\n{COUNT}"
    done = run(program, PYTHONPATH=search, **environment)
    assert done.stdout.split() == ["7", "1", "8", "True"], done.stderr


def test_two_cold_starts_at_once(counting: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: count(counting, cache)[0], range(2)))
    assert both == [["7", "1", "8", "True"]] * 2
    assert len(kept(cache)) == 1
    assert count(counting, cache)[0] == ["7", "1", "8", "False"]


def test_a_stale_object_never_runs_old_code(counting: Path, tmp_path: Path) -> None:
    """A source that has changed is compiled; what is kept of older ones does not grow without end."""
    cache, source = tmp_path / "cache", counting / "compiled" / "entries.py"
    for step in range(1, objects.KEPT + 3):
        source.write_text(source.read_text().replace(f"np.uint64({step})", f"np.uint64({step + 1})"))
        assert count(counting, cache)[0] == ["7", str(step + 1), str(8 + step), "True"]
    assert len(kept(cache)) == objects.KEPT


def test_functions_check_what_they_are_given() -> None:
    take, drop = objects.library().function("take"), objects.library().function("drop_float32")
    for function, arguments in ((take, ()), (take, (1, 2)), (drop, (1.0,) * 10), (take, ("1",)), (take, (1.0,))):
        with pytest.raises(TypeError):
            function(*arguments)
    with pytest.raises(OverflowError):
        drop(1.0, 0.0, -1, 0, 0, 0, 0, 0, 0, 0)
    words = np.array((5, 2**64 - 1), np.uint64)
    assert take(words.__array_interface__["data"][0]) == (5, 2**64 - 1)
    assert words.tolist() == [5, 0]


def test_sizes_that_share_work_in_parts() -> None:
    """Arrays of each layout around the sizes from which threads share them."""
    for shape in ((2**19 - 1,), (2**19 + 1,), (3, 2**18), (64, 33, 17, 16)):
        x = np.random.default_rng(0).normal(size=shape).astype("float32")
        for laid in (x, np.asfortranarray(x)):
            assert same_bits(md.dropout_layer(laid, 0.3, 5), masks.dropout(laid, 0.3, 5))
