"""Runs a framework's own tests of dropout with multidrop's layers instead of the framework's.

    python tools/own_tests.py torch FOLDER_OF_PYTORCH
    python tools/own_tests.py tensorflow FOLDER_OF_KERAS --own
    python tools/own_tests.py mxnet FOLDER_OF_MXNET

The folder is a checkout of the framework's repository, preferably of the installed version. PyTorch's tests also need
the package expecttest, MXNet's need nose and scipy. With `--own`, the tests also run with the framework's own layers,
and a test that fails there in the same way does not count against multidrop.

Prints the outcome of each test, and exits with status 1 if an outcome differs from `DIFFERENCES`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import os
import re
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from multidrop import checks


class Difference(NamedTuple):
    """Tests that fail by design."""

    reason: str
    failure: str  # a regular expression that matches the failure of each
    tests: tuple[str, ...]


class Outcome(NamedTuple):
    """The outcome of a test."""

    result: str  # "passed", "failed" or "skipped"
    why: str = ""  # one line, unless it passed
    text: str = ""  # the full report of a failure
    reached: bool = False  # whether it called multidrop's code


KERAS = "keras/src/layers/regularization/"
MXNET = "tests/python/unittest/"

TESTS = {
    "torch": ("test/nn/test_dropout.py",),
    "tensorflow": tuple(
        f"{KERAS}{name}_test.py"
        for name in ("dropout", "spatial_dropout", "alpha_dropout", "gaussian_dropout", "gaussian_noise")
    ),
    "mxnet": tuple(
        MXNET + name
        for name in (
            "test_gluon.py::test_dropout",
            "test_gluon.py::test_basic",
            "test_gluon.py::test_symbol_block",
            "test_gluon.py::test_apply",
            "test_exc_handling.py::test_exc_gluon",
            "test_operator.py::test_dropout",
            "test_autograd.py::test_training",
            "test_autograd.py::test_is_train",
            "test_contrib_autograd.py::test_training",
            "test_higher_order_grad.py::test_dropout",
            "test_gluon_contrib.py::test_vardrop",
            "test_gluon_rnn.py::test_rnn_cells",
            "test_rnn.py::test_unfuse",
            "test_symbol.py::test_eliminate_common_expr",
            "test_module.py::test_module_update_no_pragram",
        )
    ),
}

DIFFERENCES = {
    "torch": (),
    "tensorflow": (
        Difference(
            "The errors have the expected types, but multidrop's messages, which are the same in every framework. The "
            "tests look for Keras' messages.",
            r'does not match "(rate|noise_shape): expected',
            (
                "dropout_test.py::DropoutTest::test_dropout_negative_rate",
                "dropout_test.py::DropoutTest::test_dropout_rate_greater_than_one",
                "dropout_test.py::DropoutTest::test_validate_noise_shape_non_iterable",
                "dropout_test.py::DropoutTest::test_validate_noise_shape_invalid_type",
                "dropout_test.py::DropoutTest::test_validate_noise_shape_negative_value",
                "dropout_test.py::DropoutTest::test_validate_noise_shape_zero_value",
                "alpha_dropout_test.py::AlphaDropoutTest::test_alpha_dropout_negative_rate",
                "alpha_dropout_test.py::AlphaDropoutTest::test_alpha_dropout_rate_greater_than_one",
            ),
        ),
        Difference(
            "The test requires a standard deviation below 1.1 for one sample; 1.088 is expected. The mask of its seed, "
            "1337, drops 31.2 % of 10,000 elements instead of 30 %, which is 2.6 standard deviations more, and gives "
            "1.1002.",
            r"x: array\(1.100172",
            ("alpha_dropout_test.py::AlphaDropoutTest::test_alpha_dropout_correctness",),
        ),
    ),
    "mxnet": (
        Difference(
            "The test counts the outputs of a traced net. In the trace, multidrop's layer is an operator with a second "
            "output, preceded by two operators that draw the mask's key: three outputs more than MXNet's.",
            "assert 17 == 14",
            ("test_gluon.py::test_symbol_block",),
        ),
        Difference(
            "Only MXNet's operator has `mode='always'`, which drops in evaluation mode too; Gluon's layer lacks it, "
            "and so does multidrop's. At p = 1 the result is 0, but the test expects MXNet's NaN.",
            "mode: expected 'training'",
            ("test_operator.py::test_dropout",),
        ),
        Difference(
            "MXNet cannot differentiate an operator written in Python twice, so a second gradient is an error.",
            "Cannot differentiate",
            ("test_higher_order_grad.py::test_dropout",),
        ),
    ),
}


def replace_torch() -> None:
    """Replaces the layers and functions of `torch.nn` by multidrop's."""
    import multidrop_torch.functional
    import torch

    replace(torch.nn, multidrop_torch)
    replace(torch.nn.functional, multidrop_torch.functional)


def replace_tensorflow() -> None:
    """Replaces Keras' layers by multidrop's."""
    import multidrop_tensorflow
    from keras.src import layers

    replace(layers, multidrop_tensorflow)


def replace_mxnet() -> None:
    """Replaces Gluon's layer by multidrop's, and each call of the operator by a new layer."""
    import multidrop_mxnet
    import mxnet as mx

    def operator(data: Any, p: float = 0.5, mode: str = "training", axes: tuple[int, ...] = (), **_: Any) -> Any:
        if mode != "training":
            raise NotImplementedError(f"mode: expected 'training', the layer's; got {mode!r}")
        return multidrop_mxnet.Dropout(p, axes)(data)

    mx.gluon.nn.Dropout = multidrop_mxnet.Dropout
    mx.nd.Dropout = mx.sym.Dropout = operator


def replace(theirs: Any, ours: Any) -> None:
    for name in vars(theirs):
        if re.fullmatch(r"\w*(Dropout|dropout)(\dd|\dD)?|GaussianNoise", name):
            setattr(theirs, name, getattr(ours, name))


class Recorder:
    """A pytest plugin that records the outcome of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.reached = False
        for name, check in inspect.getmembers(checks, inspect.isfunction):
            setattr(checks, name, self._noting(check))

    def _noting(self, check: Any) -> Any:
        """Wraps a check to record its calls. All layers and functions of multidrop check their arguments, so a call
        shows that a test has reached them."""

        def noting(*args: Any, **kwargs: Any) -> Any:
            self.reached = True
            return check(*args, **kwargs)

        return noting

    def pytest_runtest_logstart(self) -> None:
        self.reached = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("/")[2]
        outcome = self.outcomes.get(name, Outcome("passed"))
        if report.skipped:
            outcome = Outcome("skipped", report.longrepr[2])
        elif report.failed:
            crash = report.longrepr.reprcrash
            why = f"{Path(crash.path).name}:{crash.lineno}: {crash.message.strip().splitlines()[0]}"
            outcome = Outcome("failed", why, report.longreprtext)
        self.outcomes[name] = outcome._replace(reached=self.reached)


def run(framework: str, sources: Path, own: bool) -> dict[str, Outcome]:
    """Runs the tests in this process, and returns the outcome of each."""
    os.environ["MXNET_TEST_SEED"] = "0"  # MXNet's tests would draw a random seed
    importlib.import_module(f"multidrop_{framework}")
    if not own:
        {"torch": replace_torch, "tensorflow": replace_tensorflow, "mxnet": replace_mxnet}[framework]()
    if framework == "mxnet":
        sys.path.insert(0, str(sources / MXNET))  # the tests import shared modules from there
    recorder, printed = Recorder(), io.StringIO()
    # Without the checkout's configuration, and without importing the checkout instead of the installed framework.
    settings = [
        "-c",
        os.devnull,
        f"--rootdir={sources}",
        "--noconftest",
        "--import-mode=importlib",
        "-pno:cacheprovider",
    ]
    with contextlib.redirect_stdout(printed):
        code = pytest.main([*settings, *(str(sources / name) for name in TESTS[framework])], [recorder])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{framework}: expected tests to run; got {code!r}:\n{printed.getvalue()}")
    return recorder.outcomes


def in_new_process(framework: str, sources: Path, own: bool) -> dict[str, Outcome]:
    """Calls `run` in a new process, in which no layer has been replaced yet."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, framework, sources, own).result()


def verdict(outcome: Outcome | None, expected: Difference | None, own: Outcome | None) -> tuple[str, str]:
    """The category of an outcome, and the reason."""
    if outcome is None:
        return UNEXPECTED, "it is listed, but these sources have no such test"
    if outcome.result == "skipped":
        return "skipped", outcome.why
    if outcome.result == "failed":
        if expected is not None and re.search(expected.failure, outcome.text):
            return "differs as listed", expected.reason
        if own is not None and own.why == outcome.why:
            return "fails with the framework's own too", own.why
        return UNEXPECTED, outcome.why
    if expected is not None:
        return UNEXPECTED, f"it passes, but is listed: {expected.reason}"
    return ("passed", "") if outcome.reached else (UNEXPECTED, "it passes without reaching multidrop's code")


UNEXPECTED = "unexpected"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=TESTS)
    parser.add_argument("sources", type=Path, help="a checkout of the framework's repository")
    parser.add_argument("--own", action="store_true", help="also run them with the framework's own layers")
    args = parser.parse_args()
    sources = args.sources.resolve()
    outcomes = in_new_process(args.framework, sources, own=False)
    owns = in_new_process(args.framework, sources, own=True) if args.own else {}
    listed = {test: difference for difference in DIFFERENCES[args.framework] for test in difference.tests}
    counts: Counter[str] = Counter()
    for test in dict.fromkeys([*outcomes, *listed]):
        outcome = outcomes.get(test)
        kind, why = verdict(outcome, listed.get(test), owns.get(test))
        counts[kind] += 1
        print(f"{test}: {kind}" + (f": {why}" if why else ""))
        if kind == UNEXPECTED and outcome is not None and outcome.text:
            print(outcome.text)
    print(f"{counts.total()} tests: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return int(UNEXPECTED in counts)


if __name__ == "__main__":
    sys.exit(main())
