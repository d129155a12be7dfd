# Needs: torch, tensorflow
"""Checks a port: `md.compare` gives two models equal weights and masks, trains both, and names the first difference."""

import keras
import numpy as np
import torch
from torch import nn

import multidrop as md

torch.manual_seed(0)  # the original's weights
original = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
port = keras.Sequential(
    [
        keras.Input((20,)),
        keras.layers.Dense(16),  # the activation was forgotten
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3),
    ]
)

rng = np.random.default_rng(0)
batches = [(rng.normal(size=(8, 20)).astype("float32"), rng.integers(0, 3, 8)) for _ in range(3)]

report = md.compare(original, port, batches)
print(report)  # the last line says where the models part
assert not report.equal

port.layers[0].activation = keras.activations.relu
report = md.compare(original, port, batches)
print(report)
assert report.equal
