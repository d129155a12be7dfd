"""Writers of one file that are killed or run at the same time: the file is complete, and leftovers are removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from multidrop import files

posix = pytest.mark.skipif(os.name != "posix", reason="locks, pipes and signals of POSIX")


@posix
@pytest.mark.parametrize("number", ["SIGKILL", "SIGINT"])
def test_processes_that_are_ended(tmp_path: Path, number: str, pytestconfig: pytest.Config) -> None:
    """At each step of a write and at random moments: the file is whole, and what is left, the next one removes."""
    kills = pytestconfig.getoption("--kills")
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path), number, str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ended"] > kills
    assert found["whole"] == found["ended"]
    assert found["left after the next"] == 0
    if number == "SIGKILL":
        assert found["statuses"] == [-signal.SIGKILL]
        assert found["left"] > 0  # otherwise nothing was swept
    else:
        assert found["statuses"] == [0]
        assert found["left"] == 0
    assert os.listdir(tmp_path) == ["run"]


def left(path: Path, name: str | None = None) -> Path:
    """A temporary file as a killed process leaves it."""
    temporary = path.with_name(files._prefix(str(path)) + (name or "0123456789abcdef"))
    temporary.write_bytes(b"half")
    return temporary


@posix
def test_only_what_a_dead_writer_left_is_removed(path: Path, tmp_path: Path) -> None:
    """No other destination's, no link's target, no pipe, and nothing of the user's."""
    removed = left(path)
    kept = [left(path.with_name("another.png")), left(path, "notes"), path.with_name(f".{path.name}.swp")]
    kept[2].write_bytes(b"of an editor")
    (tmp_path / "target").write_bytes(b"of the user")
    link, pipe = left(path, "0" * 16), left(path, "1" * 16)
    for special in (link, pipe):
        special.unlink()
    link.symlink_to(tmp_path / "target")
    os.mkfifo(pipe)
    files.write(path, b"new")
    assert not removed.exists()
    assert set(path.parent.iterdir()) == {path, *kept, link, pipe}
    assert (tmp_path / "target").read_bytes() == b"of the user"


@posix
def test_two_writers_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second does not remove what the first is about to write."""
    waits, goes_on = threading.Event(), threading.Event()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if threading.current_thread() is first and not goes_on.is_set():
            waits.set()
            goes_on.wait()
        real(descriptor)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            files.write(path, b"first")
        except BaseException as error:
            failures.append(error)

    monkeypatch.setattr(files, "_ATTEMPTS", 1)
    first = threading.Thread(target=run)
    monkeypatch.setattr(os, "fsync", fsync)
    first.start()
    waits.wait()
    files.write(path, b"second")
    assert path.read_bytes() == b"second"
    assert len(os.listdir(path.parent)) == 2
    goes_on.set()
    first.join()
    assert failures == []
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == [path.name]


def test_many_writers_at_once(path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    failures: list[BaseException] = []

    def run(content: bytes) -> None:
        try:
            for _ in range(10):
                files.write(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(path.parent) == [path.name]


def test_a_temporary_file_that_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a shared file system whose locks hold on one machine alone: the write is done again."""
    real, lost = os.fsync, []

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if len(lost) < times:
            lost.append(next(path.parent.glob(".*")))
            lost[-1].unlink()

    monkeypatch.setattr(os, "fsync", fsync)
    times = 2
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert len(lost) == 2
    times = sys.maxsize
    with pytest.raises(OSError, match=r"its temporary file was removed\); the one before it is kept"):
        files.write(path, b"newer")
    assert path.read_bytes() == b"new"


def test_where_locks_do_not_work(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left is removed when it is a day old."""
    monkeypatch.setattr(files, "_lock", lambda descriptor: None)
    temporary = left(path)
    files.write(path, b"new")
    assert temporary.exists()
    os.utime(temporary, (0, 0))
    files.write(path, b"new")
    assert os.listdir(path.parent) == [path.name]
