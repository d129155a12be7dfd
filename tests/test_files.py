"""Functions that write a file write all of it or leave the previous one: full disks, modes, links, errors."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from example_run import FACTS, HISTORY, STATE
from named import named

import multidrop as md
from multidrop import files
from multidrop.section import checkpoint as checkpoints
from multidrop.section import figure
from multidrop.section.history import write_csv

posix = pytest.mark.skipif(os.name != "posix", reason="modes, locks, limits and signals of POSIX")

WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: files.write(path, b"new" * 1000),
    "function": lambda path: files.write(path, lambda file: file.write(b"new" * 1000)),
    "checkpoint": lambda path: checkpoints.save(path, STATE, FACTS),
    "json": HISTORY.to_json,
    "csv": HISTORY.to_csv,
    "rows": lambda path: write_csv(path, [["a", "b"]] * 200),
    "curves": HISTORY.plot,
    "figure": figure.draw_dropout,
}
ERRORS = (OSError, md.CheckpointError)


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    """Each function of the library that writes a file."""
    return WRITERS[request.param]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 60 bytes, as if the disk had no more."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced(write: Any, path: Path) -> None:
    write(path)
    first = path.read_bytes()
    path.write_bytes(b"old")
    write(path)
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == [path.name]


@posix
def test_a_full_disk(write: Any, path: Path) -> None:
    path.write_bytes(b"old")
    with (
        full_disk(),
        pytest.raises(ERRORS, match=r"could not be written \(File too large\); the one before it is kept"),
    ):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]
    path.unlink()
    with full_disk(), pytest.raises(ERRORS, match=rf"could not be .*there was none before it.*|{path}") as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("place", ["missing", "folder", "below a file", "loop"])
def test_a_destination_that_cannot_be(write: Any, path: Path, tmp_path: Path, place: str) -> None:
    if place == "missing":
        path = path.parent / "none" / path.name
    elif place == "folder":
        path.mkdir()
    elif place == "below a file":
        path.write_bytes(b"old")
        path = path / path.name
    else:
        path.symlink_to(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ERRORS, match="could not be written") as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("bad", [None, 3, b"x", object(), "a\0b", "", "/", Path()], ids=named)
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("bytes", "function")])
def test_what_is_no_path(name: str, bad: Any) -> None:
    if bad is None and name in ("curves", "figure"):
        pytest.skip("without a path the figure is not written")
    with pytest.raises(ValueError, match="path: expected the path of a file, a string or a Path; got "):
        WRITERS[name](bad)
    if name in ("json", "checkpoint"):
        with pytest.raises(ValueError, match="path: expected the path of a file, a string or a Path; got "):
            {"json": md.History.from_json, "checkpoint": checkpoints.load}[name](bad)


@posix
def test_modes(write: Any, path: Path) -> None:
    """A new file has what the umask leaves; a file that is replaced keeps its own."""
    for mask, expected in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        with umask(mask):
            write(path)
        assert mode(path) == expected
        path.unlink()
    write(path)
    for kept in (0o640, 0o755, 0o606):
        path.chmod(kept)
        with umask(0o077):
            write(path)
        assert mode(path) == kept


@posix
def test_folders_and_files_that_are_read_only(write: Any) -> None:
    """Also for root, who writes everywhere: as another user."""
    folder = Path(tempfile.mkdtemp())
    path, user = folder / "file.png", os.geteuid()
    write(path)  # what is imported for it is imported by the user who can read it
    path.write_bytes(b"old")
    other = 65534
    try:
        if user == 0:
            os.chown(folder, other, other)
            os.chown(path, other, other)
            os.seteuid(other)
        for protected, mode in ((folder, 0o555), (path, 0o444)):
            before = stat.S_IMODE(protected.stat().st_mode)
            protected.chmod(mode)
            with pytest.raises(ERRORS, match=r"could not be written \(Permission denied\); the one before it is kept"):
                write(path)
            assert path.read_bytes() == b"old"
            protected.chmod(before)
        assert os.listdir(folder) == [path.name]
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


@posix
def test_links(write: Any, path: Path, tmp_path: Path) -> None:
    """The link stays, and its target is written, whether it is there or not."""
    target = tmp_path / "target"
    path.symlink_to("second")
    (path.parent / "second").symlink_to(target)
    for content in (None, b"old"):
        if content:
            target.write_bytes(content)
        write(path)
        assert path.is_symlink()
        assert len(target.read_bytes()) > 3
        assert sorted(os.listdir(path.parent)) == ["file.png", "second"]
        assert sorted(os.listdir(tmp_path)) == ["out", "target"]


@posix
def test_devices_and_pipes(write: Any, path: Path) -> None:
    os.mkfifo(path)
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join()
    assert len(came[0]) > 10
    assert stat.S_ISFIFO(path.stat().st_mode)
    if write is WRITERS["bytes"]:
        files.write(os.devnull, b"new")
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError], ids=lambda error: error.__name__)
def test_what_is_raised_while_writing(
    write: Any, path: Path, monkeypatch: pytest.MonkeyPatch, step: str, raised: type[BaseException]
) -> None:
    """Leaves nothing behind."""
    path.write_bytes(b"old")
    real = getattr(os, step)

    def fails(*arguments: Any, **options: Any) -> Any:
        if step == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **options)
        if step in ("open", "write"):
            real(*arguments, **options)
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fails)
        with pytest.raises(raised):
            write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_function_that_fails_touches_nothing(path: Path) -> None:
    def fails(file: Any) -> None:
        file.write(b"new")
        raise RuntimeError("of its own")

    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="of its own"):
        files.write(path, fails)
    assert path.read_bytes() == b"old"


def test_long_names(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127):
        files.write(tmp_path / name, b"new")
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_figures_by_their_ending(tmp_path: Path) -> None:
    HISTORY.plot(tmp_path / "curves.SVG")
    assert b"<svg" in (tmp_path / "curves.SVG").read_bytes()
    HISTORY.plot(tmp_path / "curves")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"path: expected an extension among .*png.*; got 'curves\.doc'"):
        HISTORY.plot(tmp_path / "curves.doc")
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"MULTIDROP_CACHE": "/mine", "XDG_CACHE_HOME": "/xdg"}, "/mine"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/multidrop"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/multidrop"),
        ("linux", {"MULTIDROP_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/multidrop"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/me/Library/Caches/multidrop"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/multidrop"),
        ("win32", {}, "/home/me/AppData/Local/multidrop"),
    ],
)
def test_the_cache(monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str) -> None:
    for name in ("MULTIDROP_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert files.cache_folder() == Path(expected)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MULTIDROP_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(OSError, match="set MULTIDROP_CACHE to a folder"):
        files.cache_folder()


def test_files_need_the_standard_library_alone() -> None:
    source = Path(str(files.__file__))
    code = f"import runpy, sys; runpy.run_path({str(source)!r}); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "secrets" in loaded  # it ran
    assert loaded & {"multidrop", "numpy", "numba", "safetensors", "rich"} == set()
