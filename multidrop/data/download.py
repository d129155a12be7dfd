"""Fetching Fashion-MNIST from its publisher into a cache."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

VARIABLE = "MULTIDROP_CACHE"

# The two addresses that the publisher names, and the MD5 that it gives for each archive.
ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
ARCHIVES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
TIMEOUT = 20  # seconds without an answer


class DownloadError(RuntimeError):
    """A file that could not be fetched from any address."""


def cache_folder() -> Path:
    """Where downloads are kept: the environment variable MULTIDROP_CACHE, else the system's folder for caches."""
    import pooch

    return Path(os.environ.get(VARIABLE) or pooch.os_cache("multidrop")) / "fashion-mnist"


def fetch(names: list[str]) -> Path:
    """Downloads what the cache lacks, with a progress bar, and gives the cache's folder.

    A file appears there only when it is whole and its MD5 is the publisher's.

    Raises:
        DownloadError: where a file can be had from no address.
    """
    folder = cache_folder()
    for name in names:
        if not (folder / name).is_file():
            _fetch_one(name, folder)
    return folder


def _fetch_one(name: str, folder: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")  # what it would say, the progress bar shows
    failures = []
    for address in ADDRESSES:
        try:
            with _Bar(name) as bar:
                pooch.retrieve(
                    address + name,
                    known_hash=f"md5:{ARCHIVES[name]}",
                    fname=name,
                    path=folder,
                    downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT),
                )
            return
        except (OSError, ValueError) as error:  # of the network (requests' errors are OSErrors) and of the hash
            failures.append(f"{address}: {_cause(error)}")
    raise DownloadError(f"{name} could not be downloaded ({'; '.join(failures)})")


def _cause(error: BaseException) -> str:
    """The innermost reason of a network error, whose outer layers repeat one another at length."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class _Bar:
    """A progress bar on standard error, in the form that pooch asks for."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "total":
            self._progress.update(self._task, total=value)
        else:
            super().__setattr__(name, value)

    def update(self, count: int) -> None:
        """`count` more bytes have come."""
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        """Back to none."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """The end; the bar stays as it is."""
