"""What forked data workers draw: prints, for `test_processes`, one line an item, the mask as bits. To be run as
`python forked.py BACKEND WAY LOADER`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import multidrop as md

SIZE, ITEMS = 64, 12


def draws(backend: str, way: str) -> Callable[[int], str]:
    """A function of an item's number that drops by the next mask of a layer, or of calls without a key, and gives the
    mask as bits."""
    md.set_backend(backend)  # before MXNet is imported
    module = md.dispatch.load(backend)
    drop: Callable[[Any], Any]
    if way == "layer":  # unseeded, built before the fork
        drop = md.Dropout(0.5)
    elif way == "built":  # in the worker, after `manual_seed`
        drop = lambda X: md.Dropout(0.5)(X)  # noqa: E731  # like the others
    else:
        drop = lambda X: md.dropout_layer(X, 0.5)  # noqa: E731  # like the others
    if way in ("calls", "built"):
        md.manual_seed(0)

    def item(number: int) -> str:
        X = module.tensor(np.ones(SIZE, np.float32))
        if backend == "mxnet":
            import mxnet as mx

            with mx.autograd.record():
                Y = drop(X)
        else:
            Y = drop(X)
        return "".join(map(str, (module.to_numpy(Y) != 0).astype(int)))

    return item


class Items:
    """A data set for torch's and for Gluon's loader."""

    def __init__(self, item: Callable[[int], str]) -> None:
        self.item = item

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, number: int) -> str:
        return self.item(number)


def torch_epoch(item: Callable[[int], str]) -> Iterator[str]:
    import torch

    loader = torch.utils.data.DataLoader(Items(item), batch_size=3, num_workers=2, multiprocessing_context="fork")
    return (mask for batch in loader for mask in batch)


def gluon_epoch(item: Callable[[int], str]) -> Iterator[str]:
    import mxnet as mx

    # One for each worker: which worker takes which batch is a matter of time.
    for _ in range(2):
        loader = mx.gluon.data.DataLoader(Items(item), batch_size=6, num_workers=1, batchify_fn=list)
        yield from (mask for batch in loader for mask in batch)


def pool_epoch(item: Callable[[int], str]) -> Iterator[str]:
    """Two processes by hand, and what a child of one draws."""

    def work(queue: Any, depth: int) -> None:
        masks = [item(number) for number in range(ITEMS // 4)]
        if depth:
            masks += child(depth - 1)
        queue.put(masks)

    def child(depth: int) -> list[str]:
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=work, args=(queue, depth))
        process.start()
        masks = queue.get()
        process.join()
        return masks

    for _ in range(2):
        yield from child(1)


EPOCHS = {"torch": torch_epoch, "mxnet": gluon_epoch, "numpy": pool_epoch}

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
    backend, way, loader = sys.argv[1:]
    item = draws(backend, way)
    if "torch" in (backend, loader):
        import torch

        torch.manual_seed(0)
    if backend == "mxnet":
        import mxnet as mx

        mx.random.seed(0)
    np.random.seed(0)
    for _ in range(2):
        print(item(0))  # the parent's own
        for mask in EPOCHS[loader](item):
            print(mask)
    sys.stdout.flush()
    os._exit(0)  # whatever threads of a framework's there are
