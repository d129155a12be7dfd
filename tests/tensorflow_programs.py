"""Traced programs of TensorFlow, and what is in them."""

from __future__ import annotations

from typing import Any


def traced(function: Any, **options: Any) -> Any:
    import tensorflow as tf

    return tf.function(function, autograph=False, **options)


def operators(function: Any, *arguments: Any) -> set[str]:
    return {node.type for node in function.get_concrete_function(*arguments).graph.get_operations()}


def taped(function: Any, X: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = function(X)
    return Y, tape.gradient(Y, X)
