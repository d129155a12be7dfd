"""Finding, checking and batching Fashion-MNIST."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from named import named

import multidrop as md
from multidrop import files
from multidrop.section.data import download, fashion_mnist
from multidrop.section.data.fashion_mnist import FILES, MINI, MINI_FOLDER


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no other place to find the set in."""
    monkeypatch.setenv(files.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr(download, "ADDRESSES", ("http://127.0.0.1:9/",))  # the discard port: refused at once
    return tmp_path / "cache" / "fashion-mnist"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the mini set, which for the test is the full one: its digests and archives are what is expected."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name in FILES:
        (folder / f"{name}.gz").write_bytes((MINI_FOLDER / f"{name}.gz").read_bytes())
    contents = {f"{n}.gz": (folder / f"{n}.gz").read_bytes() for n in FILES}
    archives = {n: download.Archive(len(content), hashlib.md5(content).hexdigest()) for n, content in contents.items()}
    monkeypatch.setattr(fashion_mnist, "FULL", dataclasses.replace(MINI, name="published"))
    monkeypatch.setattr(download, "ARCHIVES", archives)
    return folder


@pytest.fixture
def server(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The publisher, on this machine: what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(small))

        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(download, "ADDRESSES", (f"http://127.0.0.1:{server.server_port}/",))
        yield asked
        server.shutdown()
        thread.join()


def test_the_mini_set() -> None:
    images = fashion_mnist.load("mini")
    assert images.train[0].shape == (6000, 28, 28)
    assert images.test[0].shape == (1000, 28, 28)
    assert np.bincount(images.train[1]).tolist() == [600] * 10
    assert np.bincount(images.test[1]).tolist() == [100] * 10
    assert str(images) == "mini Fashion-MNIST, 6,000 training and 1,000 test images"
    assert "MIT License" in (MINI_FOLDER / "LICENSE").read_text()


@pytest.mark.usefixtures("full_data")
class TestFullSet:
    @pytest.fixture(autouse=True)
    def debian(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()

    def test_it_is_found_and_checked(self) -> None:
        images = fashion_mnist.load("full")
        assert images.train[0].shape == (60_000, 28, 28)
        assert np.bincount(images.test[1]).tolist() == [1000] * 10

    def test_the_mini_set_is_a_part_of_it(self) -> None:
        full, mini = fashion_mnist.load(fashion_mnist.DEBIAN_FOLDER), fashion_mnist.load("mini")
        for (images, labels), (part, part_labels) in ((full.train, mini.train), (full.test, mini.test)):
            whole = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
            assert all(whole[i.tobytes()] == label for i, label in zip(part, part_labels, strict=True))


def test_auto_falls_back_with_a_plain_warning() -> None:
    with pytest.warns(UserWarning, match="could not be downloaded; using its mini edition"):
        assert fashion_mnist.load("auto").edition is MINI


def test_full_does_not_fall_back() -> None:
    with pytest.raises(md.DataError, match=r"train-images-idx3-ubyte\.gz could not be downloaded .*data=\"mini\""):
        fashion_mnist.load("full")


def test_download(server: list[str], own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = fashion_mnist.load("full")
    assert images.folder == own_cache
    assert len(server) == 4
    assert np.array_equal(images.train[0], fashion_mnist.load("mini").train[0])
    fashion_mnist.load("full")
    assert len(server) == 4  # the cache was enough
    assert "train-images-idx3-ubyte.gz" in capsys.readouterr().err  # the bar


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_download_is_not_kept(server: list[str], small: Path, own_cache: Path, name: str) -> None:
    path = small / f"{name}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(md.DataError, match=name):
        fashion_mnist.load("full")
    assert not (own_cache / f"{name}.gz").exists()


def test_the_next_address_is_tried(
    server: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "ADDRESSES", ("http://127.0.0.1:9/", *download.ADDRESSES))
    assert fashion_mnist.load("full").edition.name == "published"


@pytest.mark.parametrize("compressed", [True, False])
def test_a_folder_that_is_given(small: Path, compressed: bool) -> None:
    if not compressed:
        for path in list(small.iterdir()):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    assert len(fashion_mnist.load(small).train[1]) == 6000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "not gzip", "swapped bytes"])
def test_damaged_files_are_named(small: Path, name: str, damage: str) -> None:
    path = small / f"{name}.gz"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        inner = bytearray(gzip.decompress(content))
        inner[-1] ^= 1
        path.write_bytes(gzip.compress(inner))
    elif damage == "missing":
        path.unlink()
    elif damage == "not gzip":
        path.write_bytes(b"<html>404</html>")
    else:
        content[100] ^= 255
        path.write_bytes(content)
    with pytest.raises(md.DataError, match=name):
        md.load_data_fashion_mnist(256, small)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(md.DataError, match='expected "auto", "full", "mini" or a folder; there is no folder'):
        fashion_mnist.load(tmp_path / "nowhere")


def test_batches(backend: Any) -> None:
    train_iter, test_iter = md.load_data_fashion_mnist(256, "mini", seed=1)
    assert len(train_iter) == 24
    batches = list(train_iter)
    assert [len(y) for _, y in batches] == [256] * 23 + [112]
    X, y = batches[0]
    assert tuple(X.shape) == (256, 1, 28, 28)
    host = backend.to_numpy(X)
    assert host.dtype == np.float32
    assert backend.to_numpy(y).dtype.kind == "i"
    order = train_iter.order(0)
    images = fashion_mnist.load("mini").train[0]
    assert np.array_equal(host[:, 0], images[order[:256]].astype(np.float32) / np.float32(255))
    assert np.array_equal(backend.to_numpy(y), fashion_mnist.load("mini").train[1][order[:256]])
    first, again = (backend.to_numpy(next(iter(test_iter))[1]) for _ in range(2))
    assert np.array_equal(first, again)


def test_each_pass_has_its_own_order(backend: Any) -> None:
    train_iter, _ = md.load_data_fashion_mnist(256, "mini", seed=1)
    passes = [np.concatenate([backend.to_numpy(y) for _, y in train_iter]) for _ in range(2)]
    assert not np.array_equal(passes[0], passes[1])
    train_iter.epoch = 0
    assert np.array_equal(np.concatenate([backend.to_numpy(y) for _, y in train_iter]), passes[0])
    assert sorted(train_iter.order(5)) == list(range(6000))


def test_the_order_is_the_same_in_every_framework(backend: Any) -> None:
    md.manual_seed(1)
    train_iter, _ = md.load_data_fashion_mnist(256, "mini")
    key = md.Key(1).fold_in("batches").fold_in(0)
    assert train_iter.key == key
    generator = np.random.Generator(np.random.Philox(key=key.fold_in(3).seed))
    assert np.array_equal(train_iter.order(3), generator.permutation(6000))


@pytest.mark.parametrize("bad", [0, -1, 2.5, None])
def test_bad_batch_sizes(bad: Any) -> None:
    with pytest.raises(ValueError, match="batch_size: expected an integer above 0"):
        md.load_data_fashion_mnist(bad, "mini")


@pytest.mark.parametrize("bad", [None, 3, b"x", object(), True, ["mini"], "a\0b"], ids=named)
def test_what_is_no_data(backend: Any, bad: Any) -> None:
    """And takes no key."""
    md.manual_seed(1)
    with pytest.raises(ValueError, match='data: expected "auto", "full", "mini" or a folder; got '):
        md.load_data_fashion_mnist(1, bad)
    with pytest.raises(md.DataError):
        md.load_data_fashion_mnist(1, "nowhere")
    assert md.load_data_fashion_mnist(1, "mini")[0].key == md.Key(1).fold_in("batches").fold_in(0)


@pytest.mark.parametrize("compressed", [True, False])
def test_no_more_is_read_than_is_expected(small: Path, compressed: bool) -> None:
    """Of a small archive that decompresses to 64 MB, and of a file of 64 MB, where 5 MB are expected."""
    path, much = small / f"{FILES[0]}.gz", bytes(1 << 26)
    if compressed:
        path.write_bytes(gzip.compress(much, 1))
    else:
        path.unlink()
        path.with_suffix("").write_bytes(much)
    del much
    tracemalloc.start()
    try:
        with pytest.raises(
            md.DataError, match=r"truncated or altered: expected contents of 4,704,016 bytes .*; got more"
        ):
            fashion_mnist.load(small)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 24


@pytest.fixture
def endless(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A publisher that does not stop: in its "body", with `step` bytes at a time, or in its "headers"."""
    told: dict[str, Any] = {"where": "body", "step": 1 << 16, "sent": 0}
    stopped = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if told["where"] == "body" else b"X: "))
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    self.wfile.write(b"x" * told["step"])
                    told["sent"] += told["step"]
                    stopped.wait(0.01 if told["step"] == 1 else 0)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(download, "ADDRESSES", (f"http://127.0.0.1:{server.server_port}/",))
        yield told
        stopped.set()
        server.shutdown()
        thread.join()


def test_an_endless_download(endless: dict[str, Any], small: Path, own_cache: Path) -> None:
    """Ends after the published size, and not much more was sent than that."""
    size = download.ARCHIVES[f"{FILES[0]}.gz"].size
    with pytest.raises(md.DataError, match=rf"could not be downloaded .*expected {size:,} bytes; got more"):
        fashion_mnist.load("full")
    assert endless["sent"] < size + (1 << 24)  # of which the system's buffers have the rest
    assert list(own_cache.iterdir()) == []


@pytest.mark.parametrize("where", ["body", "headers"])
def test_a_download_that_takes_for_ever(
    endless: dict[str, Any], own_cache: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    endless.update(where=where, step=1)
    monkeypatch.setattr(download, "LIMIT", 0.2)
    with pytest.raises(md.DataError, match=r"could not be downloaded .*TimeoutError: not done after 0\.2 s"):
        fashion_mnist.load("full")
    assert list(own_cache.iterdir()) == []


def test_a_server_without_the_file(server: list[str], small: Path) -> None:
    (small / f"{FILES[0]}.gz").unlink()
    with pytest.raises(md.DataError, match=r"could not be downloaded .*404"):
        fashion_mnist.load("full")


def test_a_cache_that_cannot_be_written(server: list[str], own_cache: Path) -> None:
    own_cache.parent.write_bytes(b"a file")
    with pytest.raises(md.DataError, match=f"the cache cannot be used: .*{own_cache.parent}"):
        fashion_mnist.load("full")


def test_what_a_killed_download_left_is_removed(server: list[str], own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / f".{FILES[0]}.gz.multidrop-0123456789abcdef").write_bytes(b"half")
    fashion_mnist.load("full")
    assert {path.name for path in own_cache.iterdir()} == {f"{name}.gz" for name in FILES}


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise FileNotFoundError(2, "there is no home folder")

    monkeypatch.setattr(files, "cache_folder", none)
    with pytest.raises(md.DataError, match=r"the cache cannot be used: .*there is no home folder"):
        fashion_mnist.load("full")
    with pytest.warns(UserWarning, match="mini edition"):
        assert fashion_mnist.load("auto").edition is MINI


def test_paths_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold no data, like paths that do not exist."""
    name = "x" * 300
    with pytest.raises(md.DataError, match=f"there is no folder {name}"):
        fashion_mnist.load(name)
    monkeypatch.setenv("MULTIDROP_CACHE", name)
    with pytest.warns(UserWarning, match=r"using its mini edition"):
        assert fashion_mnist.load("auto").edition is MINI


def test_a_download_without_rich(server: list[str], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows no bar."""
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert fashion_mnist.load("full").folder == own_cache


def test_image_sets_compare_by_identity() -> None:
    images = fashion_mnist.load("mini")
    assert images == images
    assert images != fashion_mnist.load("mini")
    assert len({images, images}) == 1
