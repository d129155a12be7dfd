"""TensorFlow's messages at its import obey TF_CPP_MIN_LOG_LEVEL; all else that is written meanwhile stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WRITTEN = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795710962.366928   26795 port.cc:153] an information
W0000 00:00:1795710962.366928   26795 port.cc:153] a warning
E0000 00:00:1795710962.366928   26795 cuda_dnn.cc:8310] an error
2026-11-26 16:35:59.123456: I tensorflow/core/util/port.cc:153] an older information
2026-11-26 16:35:59.123456: E external/local_xla/cuda_fft.cc:477] an older error
a warning of Python, I0000 within
"""
PROGRAM = """
import os, sys
from multidrop_tensorflow.startup import _filtered  # imports TensorFlow
sys.modules.pop("tensorflow")  # as if it were not yet imported
with _filtered(sys.argv[1]):
    os.write(2, sys.argv[2].encode())
    print("and what Python prints", file=sys.stderr)
os.write(2, b"later\\n")
os._exit(0)  # the interpreter would look for what was removed
"""


def test_messages_below_the_level_are_held_back(need: object) -> None:
    need("tensorflow")  # type: ignore[operator]
    from multidrop_tensorflow.startup import _hidden

    kept = {
        level: [line.split()[-1] for line in WRITTEN.encode().splitlines() if not _hidden(line, level)]
        for level in (1, 2, 3)
    }
    assert kept == {
        1: [b"warning", b"error", b"error", b"within"],
        2: [b"error", b"error", b"within"],
        3: [b"within"],
    }


@pytest.mark.parametrize("level", ["3"])
def test_a_process_says_only_what_is_not_held_back(need: object, level: str) -> None:
    """Also what C++ writes, in the order of writing; and TensorFlow's own lines are gone from the import."""
    need("tensorflow")  # type: ignore[operator]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, WRITTEN], capture_output=True, text=True, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": level},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "a warning of Python, I0000 within\nand what Python prints\nlater\n"
