# Needs: numpy
"""Dropout and its gradient by hand: the backward pass draws the mask again from the key and stores nothing."""

import numpy as np

import multidrop as md

rng = np.random.default_rng(0)
X, y = rng.normal(size=(64, 10)), rng.integers(0, 2, 64)
W1, W2 = rng.normal(size=(10, 32)) * 0.3, rng.normal(size=(32, 2)) * 0.3
P, RATE = 0.5, 0.5


def loss_and_gradients(W1, W2, key):
    H = np.maximum(X @ W1, 0.0)
    D = md.dropout_layer(H, P, key)
    logits = D @ W2
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    loss = -np.log(shares[np.arange(64), y]).mean()

    dlogits = (shares - np.eye(2)[y]) / 64
    dD = dlogits @ W2.T
    dH = md.dropout_layer(dD, P, key)  # the gradient of dropout is dropout with the same key
    return loss, X.T @ (dH * (H > 0)), D.T @ dlogits


# The gradient agrees with a difference quotient, since equal keys give equal masks.
key, step = md.Key(1), 1e-6
_, dW1, _ = loss_and_gradients(W1, W2, key)
moved = W1.copy()
moved[3, 5] += step
slope = (loss_and_gradients(moved, W2, key)[0] - loss_and_gradients(W1, W2, key)[0]) / step
print(f"gradient {dW1[3, 5]:.6f}, difference quotient {slope:.6f}")
assert abs(slope - dW1[3, 5]) < 1e-5

stream = md.Stream(key)  # a key for each step
losses = []
for _ in range(200):
    loss, dW1, dW2 = loss_and_gradients(W1, W2, stream.next())
    W1, W2 = W1 - RATE * dW1, W2 - RATE * dW2
    losses.append(loss)
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
assert losses[-1] < losses[0]
