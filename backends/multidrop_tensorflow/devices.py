"""The devices that nets can be on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf


def devices() -> dict[str, AbstractContextManager[Any]]:
    """The CPU, and as cuda:0, cuda:1, … what TensorFlow calls GPU:0, GPU:1, …. Keras models that are built within such
    a `tf.device` are on that device."""
    count = len(tf.config.list_logical_devices("GPU"))
    return {"cpu": tf.device("CPU:0")} | {f"cuda:{number}": tf.device(f"GPU:{number}") for number in range(count)}
