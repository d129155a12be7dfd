# Needs: torch, tensorflow
"""The same mask in two frameworks: a key names it, and the tensor decides where it is computed."""

import numpy as np
import tensorflow as tf
import torch

import multidrop as md

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
key = md.Key(seed=7, call=3)

in_torch = md.dropout_layer(torch.tensor(X), 0.5, key=key)
in_tensorflow = md.dropout_layer(tf.constant(X), 0.5, key=key)
assert (in_torch.numpy() == in_tensorflow.numpy()).all()  # every bit, not "close"

# A compiled program gives the same numbers as an eager call.
program = tf.function(lambda X: md.dropout_layer(X, 0.5, key=key), jit_compile=True)
assert (program(X).numpy() == in_torch.numpy()).all()

# A part of a tensor gets its part of the mask: `start` is the index of its first element.
second_half = md.dropout_layer(torch.tensor(X[2:]), 0.5, key=key, start=2 * 6)
assert torch.equal(second_half, in_torch[2:])

print(md.keep_mask(X.shape, 0.5, key).astype(int))  # the mask itself, 1 where an element is kept
