"""Downloads Fashion-MNIST from its publisher into a cache."""

from __future__ import annotations

import hashlib
import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ... import files
from ..terminal import plain_console

# The publisher's two addresses, and below the published size and MD5 of each archive.
ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)


@dataclass(frozen=True)
class Archive:
    """A published file: its size in bytes, and its MD5 in hexadecimal."""

    size: int
    md5: str


ARCHIVES = {
    "train-images-idx3-ubyte.gz": Archive(26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte.gz": Archive(29_515, "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte.gz": Archive(4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte.gz": Archive(5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
}
TIMEOUT = 20.0  # seconds to wait for an answer
LIMIT = 1800.0  # seconds in total for one file from one address
_CHUNK = 1 << 16


class DownloadError(RuntimeError):
    """Raised if a file cannot be downloaded from any address, or cannot be stored in the cache."""


def cache_folder() -> Path:
    """The folder of the downloads.

    Raises:
        OSError: if there is no cache folder: see `files.cache_folder`.
    """
    return files.cache_folder() / "fashion-mnist"


def fetch(names: list[str]) -> Path:
    """Downloads the files that the cache lacks, with a progress bar, and returns the cache's folder.

    A file appears in the cache only when it is complete and its MD5 is the published one. A download reads no more than
    the published size, and takes at most half an hour from each address.

    Raises:
        DownloadError: if a file cannot be downloaded from any address, or the cache cannot be written.
    """
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (folder / name).is_file():
                files.write(folder / name, _fetch_one(name))
    except OSError as error:
        raise DownloadError(f"the cache cannot be used: {error}") from error
    return folder


def _fetch_one(name: str) -> bytes:
    failures = []
    for address in ADDRESSES:
        try:
            with _bar(name, ARCHIVES[name].size) as advance:
                return _download(address + name, ARCHIVES[name], advance)
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{address}: {_cause(error)}")
    raise DownloadError(f"{name} could not be downloaded ({'; '.join(failures)})")


def _download(url: str, archive: Archive, advance: Callable[[int], None]) -> bytes:
    """Downloads and checks a file. A separate thread reads from the server, because a server that sends a byte now and
    then, even in its headers, never runs into `TIMEOUT`."""
    parts: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    given_up = threading.Event()
    deadline = time.monotonic() + LIMIT
    threading.Thread(target=_receive, args=(url, archive.size, parts, given_up), daemon=True).start()
    content = bytearray()
    try:
        while True:
            try:
                part = parts.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"not done after {LIMIT:g} s") from None
            if isinstance(part, Exception):
                raise part
            if not part:
                break
            content += part
            advance(len(part))
    finally:
        given_up.set()
    if len(content) != archive.size:
        came = "more" if len(content) > archive.size else f"{len(content):,}"
        raise ValueError(f"expected {archive.size:,} bytes; got {came}")
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != archive.md5:
        raise ValueError(f"expected the MD5 {archive.md5}; got {md5}")
    return bytes(content)


def _receive(url: str, size: int, parts: queue.SimpleQueue[bytes | Exception], given_up: threading.Event) -> None:
    """Puts the server's data into `parts`, at most `size` + 1 bytes, followed by b"" or the error."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            left = size + 1
            while left and not given_up.is_set() and (part := response.read1(min(left, _CHUNK))):
                parts.put(part)
                left -= len(part)
        parts.put(b"")
    except Exception as error:  # `_download` raises it in the caller's thread
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        parts.put(error)


def _cause(error: BaseException) -> str:
    """The innermost cause of a network error; the outer exceptions only repeat it."""
    while error.__context__ is not None and not error.__suppress_context__:
        error = error.__context__
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextmanager
def _bar(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error, and yields a function to call with each number of bytes received. Shows
    nothing if Rich is not installed."""
    try:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    except ImportError:
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=plain_console(stderr=True)) as progress:
        task = progress.add_task(name, total=size)
        yield lambda count: progress.advance(task, count)
