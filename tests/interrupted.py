"""Large dropouts that a signal handler ends by an exception: `python interrupted.py FRAMEWORK COUNT`.

After each exception the memory that the call wrote into must not change any more. Prints how many calls were ended.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import multidrop as md

SIZE = 1 << 23


class Interrupted(Exception):
    """What the signal handler raises."""


def interrupt(*_: object) -> None:
    raise Interrupted


def calls_of(framework: str) -> list[tuple[Callable[[], Any], Callable[[], np.ndarray]]]:
    """What is called, and the memory that it writes into, where that outlives the call."""
    x = np.ones(SIZE, np.float32)
    turned, out = x.reshape(8, 1 << 10, 1 << 10).transpose(0, 2, 1), np.empty_like(x)
    key = md.Key(7)
    if framework == "numpy":
        import multidrop_numpy as backend

        out_turned = np.empty_like(turned)
        return [
            (lambda: backend.dropout_layer(x, 0.2, key, out=out), lambda: out),
            (lambda: backend.dropout_layer(turned, 0.2, key, out=out_turned), lambda: out_turned),
            (lambda: backend.dropout_layer(x.reshape(8, -1), 0.2, key, out=out.reshape(8, -1), axes=0), lambda: out),
            (lambda: backend.relu_dropout(x, 0.2, key, out=out), lambda: out),
            (lambda: md.kernel.relu_gradient(x, out, 0.2), lambda: out),
            (lambda: md.keep_mask(SIZE, 0.2, key), lambda: out),
        ]
    if framework == "torch":
        import multidrop_torch
        import torch

        X, layer = torch.ones(SIZE), multidrop_torch.Dropout(0.2, inplace=True, seed=1)
        W = torch.ones(SIZE, requires_grad=True)
        return [
            (lambda: layer(X), X.numpy),
            (lambda: md.dropout_layer(X, 0.2, key), X.numpy),
            (lambda: md.dropout_layer(W, 0.2, key).sum().backward(), lambda: W.detach().numpy()),
        ]
    if framework == "tensorflow":
        import tensorflow as tf

        T = tf.ones(SIZE)
        program = tf.function(lambda T: md.dropout_layer(T, 0.2, key))
        return [
            (lambda: md.dropout_layer(T, 0.2, key), T.numpy),
            (lambda: program(T), T.numpy),
        ]
    from multidrop_mxnet import mx

    M = mx.np.ones(SIZE)
    M.wait_to_read()
    return [(lambda: md.dropout_layer(M, 0.2, key).wait_to_read(), M.asnumpy)]


def main(framework: str, count: int) -> None:
    calls, ended = calls_of(framework), 0
    for call, _ in calls:
        call()  # loads the kernel and starts the threads
    signal.signal(signal.SIGALRM, interrupt)
    chance = random.Random(0)
    while ended < count:
        call, memory = calls[ended % len(calls)]
        begin = time.perf_counter()
        call()
        taken = time.perf_counter() - begin
        try:
            # Twice, so that the handler's exception is met by the next one on its way.
            signal.setitimer(signal.ITIMER_REAL, max(chance.random() * taken, 1e-6), 2e-4)
            call()
        except Interrupted:
            ended += 1
        finally:
            while True:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    break
                except Interrupted:
                    pass
        before = memory().copy()
        time.sleep(2e-3)
        assert np.array_equal(before, memory()), "written after the call had ended"
    print(ended)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
