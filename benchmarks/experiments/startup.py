"""Times the import and the first call. Every sample is a new process.

The first call is measured as in a fresh container: with the package's machine code, without a cache folder and without
Numba. A second measurement compiles the kernel, as on a processor that no machine code of the package fits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..frameworks import OURS, OWN
from ..measure import quartiles, ratio

ROUNDS, COLD_ROUNDS = 7, 3
QUICK_ROUNDS, QUICK_COLD_ROUNDS = 1, 1

IMPORTS = {  # with the import that a user of that framework needs anyway
    "multidrop": "numpy",
    "multidrop_torch": "torch",
    "multidrop_tensorflow": "tensorflow",
    "multidrop_mxnet": "",  # with most versions of NumPy, MXNet alone cannot be imported
}

SETUP = {
    "numpy": "import numpy as np, multidrop_numpy; X = np.ones((256, 256), 'float32')",
    "torch": "import torch, multidrop_torch; X = torch.ones(256, 256)",
    "tensorflow": "import tensorflow as tf, multidrop_tensorflow; X = tf.ones((256, 256))",
    "mxnet": "import multidrop_mxnet, mxnet as mx; X = mx.np.ones((256, 256)); X.wait_to_read()",
}
CALL = {
    "numpy": {OURS: "md.dropout_layer(X, 0.2)"},
    "torch": {OURS: "md.dropout_layer(X, 0.2)", OWN: "torch.nn.functional.dropout(X, 0.2)"},
    "tensorflow": {OURS: "md.dropout_layer(X, 0.2)", OWN: "tf.nn.dropout(X, 0.2)"},
    "mxnet": {
        OURS: "md.dropout_layer(X, 0.2).wait_to_read()",
        OWN: "mx.npx.dropout(X, p=0.2, mode='always').wait_to_read()",
    },
}
FRESH, COMPILED = f"{OURS}, fresh container", f"{OURS}, compiled"


def run(quick: bool, total: Callable[[int], None], advance: Callable[[str], None]) -> tuple[list[Any], list[str]]:
    """Runs all measurements, and returns the records and the failures."""
    records: list[Any] = []
    failures: list[str] = []
    total(len(IMPORTS) + len(SETUP))
    rounds, cold_rounds = (QUICK_ROUNDS, QUICK_COLD_ROUNDS) if quick else (ROUNDS, COLD_ROUNDS)
    for ours, own in IMPORTS.items():
        advance(f"import {ours}")
        _record(records, failures, ours, partial(_imports, ours, own, rounds))
    for name in SETUP:
        advance(f"{name}, first call")
        # Compiling is measured once, because all frameworks share the kernel.
        _record(records, failures, name, partial(_first_calls, name, rounds, cold_rounds if name == "numpy" else 0))
    return records, failures


def _record(records: list[Any], failures: list[str], name: str, measure: Callable[[], dict[str, Any]]) -> None:
    try:
        records.append(measure())
    except subprocess.CalledProcessError as error:
        failures.append(f"{name}: {(error.stderr.strip().splitlines() or ['no reason given'])[-1]}")


def _imports(ours: str, own: str, rounds: int) -> dict[str, Any]:
    names = [ours] + ([own] if own else [])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[:: 1 if number % 2 else -1]:
            (taken,) = _process(f"import time; a = time.perf_counter(); import {name}", "[time.perf_counter() - a]")
            if number:  # round 0 only warms the disk cache
                seconds[name].append(taken)
    return {"what": "import", "name": ours, **_summary(seconds, [(ours, own)] if own else [])}


def _first_calls(name: str, rounds: int, compiled_rounds: int) -> dict[str, Any]:
    samples = dict(_samples(name))
    if not compiled_rounds:
        del samples[COMPILED]
    _first(name, OURS)  # warms the disk cache
    seconds: dict[str, list[float]] = {who: [] for who in samples}
    second: dict[str, list[float]] = {who: [] for who in samples}
    for number in range(rounds):
        for who, sample in samples.items():
            if who != COMPILED or number < compiled_rounds:
                first, next_one = sample()
                seconds[who].append(first)
                second[who].append(next_one)
    summary = _summary(seconds, [(FRESH, OWN)] if OWN in samples else [])
    return {"what": "first call", "name": name, "second call": _summary(second, [])["seconds"], **summary}


def _samples(name: str) -> Iterator[tuple[str, Callable[[], list[float]]]]:
    def compiled() -> list[float]:
        with tempfile.TemporaryDirectory() as empty:
            return _first(name, OURS, MULTIDROP_KERNEL="host", MULTIDROP_CACHE=empty)

    yield COMPILED, compiled
    yield FRESH, lambda: _first(name, OURS, blocked="numba", MULTIDROP_CACHE="/dev/null/none")
    if OWN in CALL[name]:
        yield OWN, lambda: _first(name, OWN)


def _first(name: str, who: str, blocked: str = "", **environment: str) -> list[float]:
    """The seconds of the first and the second call, in a new process that cannot import the package `blocked`."""
    call = CALL[name][who]
    # NumPy is imported before the clock starts, because a program that calls a dropout has imported it already.
    program = f"import sys; sys.modules.update(dict.fromkeys({blocked.split()})); import numpy, time"
    program += f"; import multidrop as md; {SETUP[name]}; a = time.perf_counter(); {call}"
    program += f"; b = time.perf_counter(); {call}"
    return _process(program, "[b - a, time.perf_counter() - b]", **environment)


def _process(program: str, result: str, **variables: str) -> list[float]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **variables}
    command = [sys.executable, "-c", f"{program}; t = {result}; import json; print(json.dumps(t))"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _summary(seconds: dict[str, list[float]], pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "rounds": {name: len(values) for name, values in seconds.items()},
        "seconds": {name: quartiles(values) for name, values in seconds.items()},
        "ratios": {f"{a} / {b}": ratio(seconds, a, b) for a, b in pairs},
    }
