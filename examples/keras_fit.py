# Needs: tensorflow
"""Keyed layers in Keras: two runs of `fit` with equal seeds have equal losses, and saving keeps the position."""

import tempfile
from pathlib import Path

import keras
import numpy as np
from multidrop_tensorflow import Dropout

import multidrop as md

rng = np.random.default_rng(0)
X = rng.normal(size=(256, 20)).astype("float32")
y = (X[:, 0] > 0).astype("int32")


def build():
    keras.utils.set_random_seed(0)  # initial weights, and the order of the batches
    md.manual_seed(0)  # the keys of the layers that are built from here on
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(32, activation="relu"),
            Dropout(0.5, name="drop"),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss)
    return model


losses = [build().fit(X, y, epochs=3, verbose=0).history["loss"] for _ in range(2)]
assert losses[0] == losses[1]
print("losses:", losses[0])

# The file holds the layer's position, so that training goes on with the masks to come.
model = build()
model.fit(X, y, epochs=1, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "run.keras")
    resumed = keras.models.load_model(Path(folder) / "run.keras")
ones = np.ones((1, 32), "float32")
drop, resumed_drop = model.get_layer("drop"), resumed.get_layer("drop")
assert (drop(ones, training=True).numpy() == resumed_drop(ones, training=True).numpy()).all()
print("mask of the last call:", md.last_mask(drop).key)
