"""Files are whole or as they were, whatever happens while they are written, and what is damaged is named."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from named import named

import multidrop as md
from multidrop import files
from multidrop.section import checkpoint as checkpoints
from multidrop.section import figure
from multidrop.section.history import Epoch, write_csv

posix = pytest.mark.skipif(os.name != "posix", reason="modes, locks, limits and signals of POSIX")

HISTORY = md.History({"backend": "numpy"}, [Epoch(1, 1.5, 0.5, 0.625, 2.0, 30_000.0)])
STATE = {"W1": np.arange(600.0).reshape(20, 30), "b1": np.ones(30, np.float32), "dropout1": np.array([1, 2], np.uint64)}
FACTS = {"history": HISTORY.to_dict(), "batches": [7, 0]}

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A destination, alone in its folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "file.png"


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


@pytest.mark.parametrize("bad", [None, 3, b"x", object(), "a\0b"], ids=named)
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
    with pytest.raises(ValueError, match=r"path: expected an ending among .*png.*; got 'curves\.doc'"):
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


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Content with one damage: mostly a byte that is another, half of them in the header."""
    header = 8 + int.from_bytes(content[:8], "little")
    place = int(generator.integers(header if generator.random() < 0.5 else len(content)))
    kind = generator.choice(["edit", "flip", "cut", "extend", "insert", "delete"], p=[0.5, 0.3, 0.05, 0.05, 0.05, 0.05])
    some = generator.bytes(int(generator.integers(1, 20)))
    if kind == "edit":
        other = (content[place] + int(generator.integers(1, 256))) % 256
        return content[:place] + bytes([other]) + content[place + 1 :]
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << int(generator.integers(8))]) + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    if kind == "extend":
        return content + some
    return content[:place] + some + content[place:] if kind == "insert" else content[:place] + content[place + 1 :]


def test_every_damage_of_a_checkpoint_is_noticed(path: Path, pytestconfig: pytest.Config) -> None:
    checkpoints.save(path, STATE, FACTS)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(pytestconfig.getoption("--edits")):
        edited = damaged(content, generator)
        path.write_bytes(edited)
        with pytest.raises(md.CheckpointError, match=f"^{path}: "):
            checkpoints.load(path)


def test_every_byte_of_the_header_is_covered(path: Path) -> None:
    """Each of them, with a change that a JSON reader hardly sees: the lowest bit."""
    checkpoints.save(path, {"b1": np.ones(2)}, {"n": 1})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(md.CheckpointError, match=str(path)):
            checkpoints.load(path)


def test_a_checkpoint_is_a_safetensors_file(path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    checkpoints.save(path, STATE, FACTS)
    again = load_file(path)
    assert all(np.array_equal(again[name], array) and again[name].dtype == array.dtype for name, array in STATE.items())
    with safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["multidrop"])
    assert content["format"] == checkpoints.FORMAT
    assert content["facts"] == FACTS
    first = path.read_bytes()
    checkpoints.save(path, STATE, FACTS)
    assert path.read_bytes() == first


@pytest.mark.parametrize("facts", [{}, {"text": '"multidrop":"{\\"format\\": 2, "\\ü\0\ud800'}, {"n": [1, None, True]}])
def test_facts_come_back(path: Path, facts: dict[str, Any]) -> None:
    checkpoints.save(path, {"multidrop": np.zeros((0, 3)), '"': np.ones(1)}, facts)
    state, again = checkpoints.load(path)
    assert again == facts
    assert state["multidrop"].shape == (0, 3)


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": {1: 2}}, {1: 2}, {"x": np.ones(2)}, {"x": 1j}, [1]], ids=named)
def test_facts_that_json_cannot_hold(path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match="facts: expected names and values that JSON can hold; got "):
        checkpoints.save(path, STATE, bad)
    assert os.listdir(path.parent) == []


def format_1(path: Path, content: str) -> None:
    """A file as the first format had it."""
    from safetensors.numpy import save_file

    save_file({"W1": np.arange(3.0)}, path, {"multidrop": content})


def test_the_first_format_is_read(path: Path) -> None:
    import hashlib

    digest = hashlib.blake2b(b"W1 float64 (3,);" + np.arange(3.0).tobytes(), digest_size=16).hexdigest()
    format_1(path, json.dumps({"format": 1, "digest": digest, "batches": 5}))
    state, facts = checkpoints.load(path)
    assert state["W1"].tolist() == [0, 1, 2]
    assert facts == {"batches": 5}
    path.write_bytes(path.read_bytes()[:-1] + b"\x41")
    with pytest.raises(md.CheckpointError, match="do not match its digest"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", r"contents: expected a JSON object; got \[1\] \(list\)"),
        ("null", "contents: expected a JSON object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("{}", "expected format 1 or 2; got None"),
        ('{"format": 3}', "expected format 1 or 2; got 3"),
        ('{"format": "1"}', "expected format 1 or 2; got '1'"),
        ('{"format": 2, "digest": "00"}', "expected format 1 or 2; got 2"),
        ('{"format": 1}', "do not match its digest"),
    ],
    ids=lambda text: text[:20],
)
def test_contents_that_are_wrong(path: Path, content: str, message: str) -> None:
    format_1(path, content)
    with pytest.raises(md.CheckpointError, match=rf"{path}: .*{message}"):
        checkpoints.load(path)


def test_types_that_numpy_lacks(path: Path) -> None:
    header = json.dumps({"W1": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(md.CheckpointError, match=f"{path}: cannot be read as a checkpoint"):
        checkpoints.load(path)


EPOCH = HISTORY.to_dict()["epochs"][0]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"settings": {}},
        {"epochs": []},
        {"settings": [], "epochs": []},
        {"settings": {}, "epochs": {}},
        {"settings": {}, "epochs": None},
        {"settings": {}, "epochs": [None]},
        {"settings": {}, "epochs": [{}]},
        {"settings": {}, "epochs": [{**EPOCH, "more": 1}]},
        {"settings": {}, "epochs": [{**EPOCH, "epoch": "1"}]},
        {"settings": {}, "epochs": [{**EPOCH, "epoch": None}]},
        {"settings": {}, "epochs": [{**EPOCH, "epoch": 2}]},
        {"settings": {}, "epochs": [{**EPOCH, "seconds": "2.0"}]},
        {"settings": {}, "epochs": [{**EPOCH, "seconds": True}]},
        {"settings": {}, "epochs": [EPOCH, EPOCH]},
    ],
    ids=lambda content: json.dumps(content)[:50],
)
def test_a_history_that_is_damaged(path: Path, content: Any) -> None:
    with pytest.raises(ValueError, match=r"(history|settings|epochs?( 1)?): .*expected .*; got "):
        md.History.from_dict(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{path}: expected a history that to_json wrote: "):
        md.History.from_json(path)
    checkpoints.save(path, {}, {"history": content, "batches": [1, 0]})
    with pytest.raises(md.CheckpointError, match=f"{path}: no checkpoint of a run: "):
        resumed(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 100_000], ids=lambda content: repr(content[:9])
)
def test_a_history_that_is_no_json(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: expected a history that to_json wrote: "):
        md.History.from_json(path)


def test_settings_that_are_not_finite(path: Path) -> None:
    md.History({"clip": math.inf, "pair": (1, math.nan)}).to_json(path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["settings"] == {"clip": None, "pair": [1, None]}


def resumed(path: Path, **options: Any) -> md.History:
    """A run of two epochs on a few examples that goes on from a file, or begins it."""
    md.manual_seed(1)
    with md.use_backend("numpy"):
        generator = np.random.default_rng(0)
        images, labels = (
            generator.integers(0, 256, (8, 28, 28), np.uint8),
            generator.integers(0, 10, 8).astype(np.uint8),
        )
        batches = md.Batches(
            images, labels, 4, md.dispatch.load("numpy"), key=md.Key(3, 5), dtype="float32", source="noise"
        )
        test = list(batches)  # which passes over them once
        batches.epoch = 0
        net = md.Net(num_hiddens1=4, num_hiddens2=4)
        before = {name: array.copy() for name, array in md.dispatch.load("numpy").get_state(net).items()}
        try:
            return md.train(net, batches, test, options.pop("epochs", 2), checkpoint=path, resume=True, **options)
        except BaseException:
            after = md.dispatch.load("numpy").get_state(net)
            assert all(np.array_equal(after[name], array) for name, array in before.items())
            raise


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": None}, "no checkpoint of a run: batches: expected an integer"),
        ({"batches": "5"}, "no checkpoint of a run: batches: expected an integer"),
        ({"batches": [1, -1]}, "no checkpoint of a run: call: expected an integer"),
        ({"batches": [1, 2, 3]}, "no checkpoint of a run: batches: expected an integer"),
        ({"history": None}, "no checkpoint of a run: history: expected"),
        ({"W1": np.zeros((784, 4), np.float64)}, "of another net: state: expected W1 of type float32; got float64"),
        ({"W1": np.zeros((784, 4), np.int32)}, "of another net: state: expected W1 of type float32; got int32"),
        ({"dropout1": np.ones(2)}, "of another net: state: expected dropout1 of type uint64; got float64"),
        ({"W1": np.zeros((4, 784), np.float32)}, "of another net: state: expected W1 of shape"),
        ({"W9": np.zeros(1)}, r"of another net: state: expected .* unknown \['W9'\]"),
        ({"W1": None}, r"of another net: state: expected .* missing \['W1'\]"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_facts_or_arrays(path: Path, changes: dict[str, Any], message: str) -> None:
    """With a digest that is right."""
    resumed(path, epochs=1)
    state, facts = checkpoints.load(path)
    (name,) = changes
    if name in facts:
        facts = {key: v for key, v in (facts | changes).items() if v is not None}
    else:
        state = {key: v for key, v in (state | changes).items() if v is not None}
    checkpoints.save(path, state, facts)
    before = path.read_bytes()
    with pytest.raises(md.CheckpointError, match=f"{path}: {message}"):
        resumed(path)
    assert path.read_bytes() == before


def test_the_whole_key_of_the_batches_is_kept(path: Path) -> None:
    whole = resumed(path.with_name("whole"))
    resumed(path, epochs=1)
    assert checkpoints.load(path)[1]["batches"] == [3, 5]
    parts = resumed(path)
    assert [epoch.train_loss for epoch in parts.epochs] == [epoch.train_loss for epoch in whole.epochs]


def test_settings_are_compared_as_json_has_them(path: Path) -> None:
    for epochs in (1, 2):
        history = resumed(path, epochs=epochs, settings={"hidden": (4, 4), "clip": math.inf, "n": np.int64(1)})
    assert len(history.epochs) == 2
    with pytest.raises(ValueError, match="settings: expected names and values that JSON can hold; got "):
        resumed(path, settings={"x": object()})
    for bad in (3, b"x", "a\0b"):
        with pytest.raises(ValueError, match="checkpoint: expected the path of a file"):
            resumed(bad)  # type: ignore[arg-type]  # on purpose
