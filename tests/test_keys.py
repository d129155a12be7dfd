"""Keys, streams, and what `manual_seed` gives to whom."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import multidrop as md

words64 = st.integers(0, 2**64 - 1)


def test_a_key_is_a_value() -> None:
    assert md.Key(3) == md.Key(3, call=0) == md.Key(np.int64(3))
    assert hash(md.Key(3, 1)) == hash(md.Key(3, 1))
    assert md.Key(3, 1) != md.Key(1, 3)
    assert pickle.loads(pickle.dumps(md.Key(3, 1))) == md.Key(3, 1)


@pytest.mark.parametrize("bad", [-1, 2**64, 1.0, "1", None, True])
def test_bad_keys(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"seed: expected an integer in \[0, 2\^64\)"):
        md.Key(bad)
    with pytest.raises(ValueError, match="call: expected"):
        md.Key(0, bad)


@given(words64, words64, words64)
def test_seed_call_and_data_are_not_added(seed: int, call: int, data: int) -> None:
    """Keys that an implementation which adds its words would confuse."""
    key = md.Key(seed, call)
    others = [md.Key((seed + 1) % 2**64, call), md.Key(seed, (call + 1) % 2**64), md.Key(call, seed)]
    folded = key.fold_in(data)
    assert folded == md.Key(seed, call).fold_in(data)
    assert folded.call == 0
    assert folded not in [other.fold_in(data) for other in others if other != key]
    assert folded != key.fold_in((data + 1) % 2**64)


def test_fold_in_of_strings_and_numbers() -> None:
    folded = [md.Key(0).fold_in(data) for data in (0, 1, "0", "1", "", "layer.1", "layer.2", 2**32, 2**63)]
    assert len(set(folded)) == len(folded)
    for bad in (-1, 2**64, 1.5, None, True):
        with pytest.raises(ValueError, match="data: expected"):
            md.Key(0).fold_in(bad)  # type: ignore[arg-type]  # what is tested


def test_fold_in_stays_what_it_is() -> None:
    """Derived keys are part of what makes runs reproducible across versions."""
    assert md.Key(0).fold_in(0) == md.Key(FOLDED_INT)
    assert md.Key(0).fold_in("dropout") == md.Key(FOLDED_STR)


FOLDED_INT = 8053062727845045437
FOLDED_STR = 3098827180565195925


def test_a_stream_counts() -> None:
    stream = md.Stream(md.Key(5, 2**64 - 1))
    assert [stream.next(), stream.next()] == [md.Key(5, 2**64 - 1), md.Key(5, 0)]
    assert stream.key == md.Key(5, 1)
    stream.key = md.Key(6, 9)
    assert stream.next() == md.Key(6, 9)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copied_stream_goes_its_own_way(duplicate: Any) -> None:
    stream = md.Stream(md.Key(5))
    stream.next()
    other = duplicate(stream)
    assert (other.next(), other.next(), stream.next()) == (md.Key(5, 1), md.Key(5, 2), md.Key(5, 1))


def test_a_stream_gives_no_key_twice_to_threads() -> None:
    stream = md.Stream(md.Key(0))
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: stream.next(), range(4000)))
    assert sorted(key.call for key in keys) == list(range(4000))


def mask_of(backend: Any, key: md.Key | int | None = None) -> bytes:
    Y = md.dropout_layer(backend.tensor(np.ones(256, np.float32)), 0.5, key)
    return (backend.to_numpy(Y) != 0).tobytes()


def test_calls_after_manual_seed(backend: Any) -> None:
    """The n-th call without a key has the n-th mask of one stream, the same in every framework."""
    md.manual_seed(3)
    first = [mask_of(backend) for _ in range(3)]
    md.manual_seed(3)
    assert [mask_of(backend) for _ in range(3)] == first
    root = md.Key(3).fold_in("calls")
    assert first == [mask_of(backend, md.Key(root.seed, call)) for call in range(3)]
    assert len(set(first)) == 3


def test_calls_without_a_seed_differ(backend: Any) -> None:
    assert mask_of(backend) != mask_of(backend)


def test_calls_without_a_seed_follow_the_framework(backend: Any) -> None:
    def seed() -> None:
        if backend.name == "numpy":
            np.random.seed(5)
        elif backend.name == "torch":
            import torch

            torch.manual_seed(5)
        elif backend.name == "tensorflow":
            import tensorflow as tf

            tf.random.set_seed(5)
        else:
            import mxnet as mx

            mx.random.seed(5)

    seed()
    first = [mask_of(backend), mask_of(backend)]
    seed()
    assert [mask_of(backend), mask_of(backend)] == first
    assert first[0] != first[1]


def test_the_nth_part_has_the_same_key_in_every_framework(backend: Any) -> None:
    md.manual_seed(11)
    states = [backend.get_state(md.Net(num_inputs=4, num_hiddens1=3, num_hiddens2=3)) for _ in range(2)]
    dropout = md.Key(11).fold_in("dropout")
    seeds = [int(state[name][0]) for state in states for name in ("dropout1", "dropout2")]
    assert seeds == [dropout.fold_in(n).seed for n in range(4)]
    assert not np.array_equal(states[0]["W1"], states[1]["W1"])


def test_bad_seeds(backend: Any) -> None:
    for bad in (-1, 2**64, "a", 0.5):
        with pytest.raises(ValueError, match="seed: expected"):
            md.manual_seed(bad)  # type: ignore[arg-type]  # what is tested
        with pytest.raises(ValueError, match="seed: expected"):
            md.Dropout(0.5, seed=bad)  # type: ignore[arg-type]  # what is tested


def forked(code: str, first: str = "") -> list[str]:
    """The lines that a program of forks prints: `child(f)` prints `f()` in a child, and waits for it. `first` is run
    before this library is imported."""
    begin = """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
import multidrop as md
from multidrop import streams

def child(f):
    pid = os.fork()
    if not pid:
        os.write(1, f"{f()}\\n".encode())  # at once, where `print` writes the end of the line apart
        os._exit(0)
    os.waitpid(pid, 0)
"""
    command = [sys.executable, "-c", first + begin + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@needs_fork
def test_a_forked_child_has_keys_of_its_own() -> None:
    """Those of its number among its parent's forks since `manual_seed`, for calls and for what is built in it."""
    lines = forked("""
def drawn():
    return [streams.call_key("numpy").seed, streams.call_key("numpy").call, streams.layer_key("numpy").seed]

child(lambda: streams.call_key("numpy"))
md.manual_seed(7)
print(drawn(), flush=True)
child(drawn)
child(drawn)
child(lambda: child(drawn) or drawn())
child(lambda: md.manual_seed(7) or drawn())
md.manual_seed(7)
child(drawn)
child(lambda: md.manual_seed(None) or drawn())
""")
    root = md.Key(7)

    def drawn(*forks: int) -> str:
        key = root
        for fork in forks:
            key = key.fold_in("fork").fold_in(fork)
        return str([key.fold_in("calls").seed, 1, key.fold_in("dropout").fold_in(0).seed])

    assert lines == ["None", drawn(), drawn(1), drawn(2), drawn(3, 1), drawn(3), drawn(), drawn(1)]


@needs_fork
def test_a_generator_that_processes_share_gives_each_its_own() -> None:
    lines = forked("""
drawn = md.Key(5)
print(streams.in_this_process(drawn) == drawn, flush=True)
for _ in range(2):
    child(lambda: streams.in_this_process(drawn).seed)
child(lambda: child(lambda: streams.in_this_process(drawn).seed) or streams.in_this_process(drawn).seed)
child(lambda: md.manual_seed(None) or streams.in_this_process(drawn) == drawn)
""")
    assert [lines[0], lines[-1]] == ["True", "True"]
    assert len(set(lines[1:-1])) == 4


@needs_fork
def test_forks_of_several_threads_at_once() -> None:
    """No two have one number, and none finds a stream or the lock of another thread's in its way."""
    lines = forked("""
import sys
sys.setswitchinterval(1e-6)
md.manual_seed(1)
stream, stop = md.Stream(md.Key(3)), threading.Event()

def work():
    while not stop.is_set():
        stream.next()

busy = [threading.Thread(target=work) for _ in range(2)]

def fork():
    for _ in range(5):
        child(lambda: stream.next() and streams.call_key("numpy").seed)

forking = [threading.Thread(target=fork) for _ in range(8)]
for thread in (*busy, *forking):
    thread.start()
for thread in forking:
    thread.join()
stop.set()
""")
    assert len(set(lines)) == len(lines) == 40


@needs_fork
@pytest.mark.parametrize("hook", ["before", "after_in_parent"])
def test_a_signal_during_a_fork(hook: str) -> None:
    """Its handler's exception ends one of this library's functions around the fork, and Python discards it. The lock is
    free afterwards, and each child has keys of its own."""
    # A C function raises the signal. Its handler runs as the next Python function begins, which is this library's.
    first = """
import ctypes, functools, os, signal, sys
trip = functools.partial(ctypes.CDLL(None)["raise"], signal.SIGUSR1)
"""
    if hook == "after_in_parent":  # these are called in the order in which they are registered, the others in reverse
        first += "os.register_at_fork(after_in_parent=trip)\n"
    code = """
def interrupt(*_):
    if ending:
        raise ending.pop()

def number():
    seed = streams.call_key("numpy").seed
    return next((n for n in range(9) if md.Key(7).fold_in("fork").fold_in(n).fold_in("calls").seed == seed), seed)

ending = []
signal.signal(signal.SIGUSR1, interrupt)
sys.unraisablehook = lambda ignored: print(ignored.object.__name__, flush=True)
"""
    if hook == "before":
        code += "os.register_at_fork(before=trip)\n"
    code += """
md.manual_seed(7)
child(number)
ending.append(KeyboardInterrupt())
child(number)
print(ending, streams.lock.locked(), flush=True)
child(number)
"""
    lines = forked(code, first)
    if hook == "before":
        assert lines[:2] + lines[3:] == ["1", "_before_fork", "[] False", "2"]
        assert int(lines[2]) > 9  # not numbered
    else:
        assert sorted(lines) == sorted(["1", "2", "_after_fork_in_parent", "[] False", "3"])


@needs_fork
def test_a_stream_in_a_child_is_a_copy() -> None:
    lines = forked("""
stream = md.Stream(md.Key(3))
stream.next()
for _ in range(2):
    child(lambda: [stream.next().call, stream.next().call])
print(stream.next().call)
""")
    assert lines == ["[1, 2]", "[1, 2]", "1"]
