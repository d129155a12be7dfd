"""The fused kernel in several threads, in forked processes, and at the end of a program."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import host
from multidrop.host import memory, pool
from multidrop.spec import masks
from multidrop.testing import same_bits

KEY = md.Key(2**64 - 3, 2**63 + 1)
LARGE = (4 * host.GRAIN + 12340,)  # enough for several threads


def test_a_large_array_in_several_threads() -> None:
    x = np.random.default_rng(0).normal(size=LARGE).astype(np.float32)
    assert same_bits(host.dropout(x, 0.2, KEY, 3), masks.dropout(x, 0.2, KEY, 3))
    y = x.reshape(4, -1).T
    assert same_bits(host.dropout(y, 0.2, KEY, 3), masks.dropout(y, 0.2, KEY, 3))


def test_eight_callers_at_once() -> None:
    x = np.random.default_rng(0).normal(size=LARGE).astype(np.float32)
    keys = [md.Key(n) for n in range(8)]
    expected = [masks.dropout(x, 0.2, key) for key in keys]
    with ThreadPoolExecutor(8) as callers:
        for _ in range(3):
            results = callers.map(lambda key: host.dropout(x, 0.2, key), keys)
            assert all(same_bits(y, z) for y, z in zip(results, expected, strict=True))


DIGEST = f"""
import hashlib, numpy as np, multidrop as md
x = np.arange({LARGE[0]}, dtype="float32")
def digest():
    return hashlib.sha256(md.dropout_layer(x, 0.2, key=md.Key(7))).hexdigest()
"""


def python(code: str, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DIGEST + code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=cwd,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def digest() -> str:
    import hashlib

    x = np.arange(LARGE[0], dtype="float32")
    return hashlib.sha256(masks.dropout(x, 0.2, md.Key(7)).tobytes()).hexdigest()


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_numbers_of_threads(threads: str) -> None:
    """The caller's, and the helpers, of which fewer may do when they are quick."""
    code = "import sys; from multidrop.host import pool"
    code += "; print(digest(), len(sys._current_frames()), pool.workers())"
    drawn, running, workers = python(code, MULTIDROP_NUM_THREADS=threads).split()
    assert drawn == digest()
    assert int(running) <= int(threads) == int(workers)


@pytest.mark.parametrize("bad", ["0", "-1", "two"])
def test_a_bad_number_of_threads_is_named(bad: str) -> None:
    code = """
try:
    digest()
except ValueError as error:
    print(error)
"""
    printed = python(code, MULTIDROP_NUM_THREADS=bad)
    assert printed.startswith("MULTIDROP_NUM_THREADS: expected an integer above 0; got ")


def test_at_the_end_of_the_program() -> None:
    """When Python starts no thread any more."""
    code = """
import atexit, numpy as np, multidrop as md
x = np.ones(2**20)
def last():
    print(np.array_equal(md.dropout_layer(x, 0.5, 1), 2.0 * md.keep_mask(x.shape, 0.5, 1)))
atexit.register(last)
"""
    assert python(code, MULTIDROP_NUM_THREADS="2").strip() == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_after_fork() -> None:
    """In a child that was forked while the parent's threads were at work, and that has a helper of its own; and the
    parent works on."""
    code = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
print(digest())
stop = threading.Event()
def work():
    while not stop.is_set():
        digest()
busy = [threading.Thread(target=work) for _ in range(3)]
for thread in busy:
    thread.start()
sys.stdout.flush()
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends it if the next line does not
        print(digest(), flush=True)
        while len(sys._current_frames()) != 2:  # its helper begins
            pass
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
for thread in busy:
    thread.join()
print(digest())
"""
    assert python(code, MULTIDROP_NUM_THREADS="2").splitlines() == [digest()] * 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_ends_by_itself() -> None:
    """Python ends the child as it ends the parent, and waits for no thread that only the parent has."""
    code = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
print(digest(), flush=True)
if child := os.fork():
    print(os.waitpid(child, 0)[1])
"""
    assert python(code, MULTIDROP_NUM_THREADS="3").splitlines() == [digest(), "0"]


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller works alone, and keeps no jobs for threads that there are not."""

    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    alone = pool._Pool(2)
    monkeypatch.setattr(pool, "start_new_thread", start)
    monkeypatch.setitem(pool._pools, "pool", alone)
    x = np.random.default_rng(0).normal(size=LARGE).astype(np.float32)
    assert same_bits(host.dropout(x, 0.2, KEY, 3), masks.dropout(x, 0.2, KEY, 3))
    assert alone.running == alone._jobs.qsize() == 0


def test_an_idle_thread_keeps_no_job() -> None:
    idle, gone = pool._Pool(1), threading.Event()
    job = np.array((1, 0, 0, 0, 0, 1, 0, 0), np.int64)  # open, and with nothing left to do
    weakref.finalize(job, gone.set)
    idle.help(job, memory.address_of(job), 1)
    del job
    assert gone.wait(60)
    assert idle.running == 1
    idle.end()


def test_threads_that_end() -> None:
    """Those that are one too many at once, the others with the pool."""
    ending = pool._Pool(2)
    threads = [threading.Thread(target=ending._run, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    ending.end()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert ending._jobs.qsize() == 1  # which ends a thread that begins only now


def test_a_package_that_cannot_be_written(tmp_path: Path) -> None:
    """A read-only installation, with and without a folder for caches that can be written. To root every folder can, so
    that Numba is told of folders that cannot be made."""
    package = Path(md.__file__).parent
    copy = tmp_path / "site"
    copy.mkdir()
    subprocess.run(
        ["cp", "-r", str(package), str(package.parent / "backends" / "multidrop_numpy"), str(copy)], check=True
    )
    for cached in copy.rglob("__pycache__"):
        subprocess.run(["rm", "-rf", str(cached)], check=True)
        cached.write_text("a file, where the folder for the cache would be made")
    home = tmp_path / "home"
    home.write_text("no folder")
    environment = {
        "PYTHONPATH": str(copy),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    code = f"import multidrop; assert multidrop.__file__.startswith({str(copy)!r}); print(digest())"
    assert python(code, tmp_path, **environment) == digest()


def test_threads_that_take_a_position_at_once() -> None:
    """Without the GIL, which Python's calls hold, and which alone would keep two of them apart."""
    from numba import njit

    from multidrop.host.compiled import loops

    stream, count = np.array([3, 2**64 - 5000], np.uint64), 3_000_000  # whose call begins anew on the way
    address = memory.address_of(stream)

    @njit(nogil=True)  # type: ignore[misc]  # Numba's decorators have no types
    def take_all(calls: Any) -> None:
        for i in range(calls.size):
            calls[i] = loops.take(address)[1]

    calls = np.empty((2, count), np.uint64)
    take_all(calls[0, :0])  # compiled before they begin
    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as takers:
        list(takers.map(lambda part: (start.wait(), take_all(part)), calls))
    taken = np.sort(calls.ravel() + np.uint64(5000))
    assert (taken == np.arange(2 * count, dtype=np.uint64)).all()
    assert stream.tolist() == [3, 2 * count - 5000]
