"""Imports TensorFlow with the messages that the user asked for.

TensorFlow reads TF_CPP_MIN_LOG_LEVEL only after some of its libraries have written to standard error, so it hides their
messages at no level.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
_LEVELS = b"IWEF"  # the variable counts them from 0

# A line of Abseil's log, "I0000 00:00:1795710962.366928 26795 port.cc:153] …", and one of TensorFlow's own log,
# "2026-11-26 16:35:59.123456: I tensorflow/core/…"
_MESSAGE = re.compile(rb"(?:([IWEF])\d{4} [\d:.]+ +\d+ \S+:\d+\] )|(?:\d{4}-\d\d-\d\d [\d:.]+: ([IWEF]) \S+:\d+\] )")
_HEADING = b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow and Keras, and returns TensorFlow. Where TF_CPP_MIN_LOG_LEVEL is set to 1 or more, start-up
    messages below this level are left out."""
    with _filtered(os.environ.get(VARIABLE, "")):
        import keras  # noqa: F401  # which imports TensorFlow, or is imported by it
        import tensorflow as tf
    return tf


@contextmanager
def _filtered(level: str) -> Iterator[None]:
    """Holds back what is written to standard error, by C++ too, and then writes all but the messages below `level`."""
    least = int(level) if level.isdecimal() else 0
    if least == 0 or "tensorflow" in sys.modules:
        yield
        return
    try:
        before = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    with tempfile.TemporaryFile() as written:
        with suppress(Exception):  # None without a console
            sys.stderr.flush()
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            with suppress(Exception):
                sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            written.seek(0)
            kept = b"".join(line for line in written if not _hidden(line, least))
            with suppress(OSError):
                os.write(2, kept)


def _hidden(line: bytes, least: int) -> bool:
    if line.startswith(_HEADING):
        return True
    found = _MESSAGE.match(line)
    return found is not None and _LEVELS.index(found[1] or found[2]) < least
