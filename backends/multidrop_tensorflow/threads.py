"""The limit on TensorFlow's own threads."""

from __future__ import annotations

from contextlib import suppress

import tensorflow as tf


def one_thread() -> None:
    """Has operators of this process run in one thread each, and one after the other. It does nothing once TensorFlow
    has created its threads, which is at its first operator."""
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
