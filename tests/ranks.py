"""Two processes of torch.distributed on one machine, for `test_processes`: each writes what it finds. To be run as
`python ranks.py RANK FOLDER`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from multidrop_torch import Dropout
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import multidrop as md

WORLD = 2


def net(key: md.Key | None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), Dropout(0.5, seed=key), nn.Linear(64, 4))


def train(model: Any, steps: int = 2) -> list[list[int]]:
    """Some steps; the streams after them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().sum().backward()
        optimizer.step()
    return [stream.tolist() for name, stream in model.state_dict().items() if name.endswith("stream")]


def total(model: Any) -> float:
    """Of the weights, which are the same in all ranks after each step."""
    return sum(float(p.double().sum()) for p in model.parameters())


def alone(model: Any, rank: int) -> None:
    """The first rank evaluates, which would wait for the others if there were buffers to broadcast."""
    if rank == 0:
        model.eval()(torch.ones(4, 8))
        model.train()(torch.ones(4, 8))
    else:
        model.module(torch.ones(4, 8))  # takes as many calls


def replicated(rank: int) -> dict[str, Any]:
    """DistributedDataParallel, which broadcasts buffers: a stream is none. Saved, and continued by another model."""
    model = DistributedDataParallel(net(md.Key(5).fold_in(rank)))
    streams = train(model)
    alone(model, rank)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    further = train(model), total(model)
    other = DistributedDataParallel(net(md.Key(9)))
    other.load_state_dict(state)
    return {"streams": streams, "total": total(model), "resumed": (train(other), total(other)) == further}


def unseeded(rank: int) -> dict[str, Any]:
    """Masks by torch's generator, which each rank seeds for itself."""
    model = DistributedDataParallel(net(None))
    torch.manual_seed(5 + rank)
    train(model)
    alone(model, rank)
    train(model)
    return {"mask": md.last_mask(model.module[1]).key.seed, "total": total(model)}


def sharded(rank: int) -> dict[str, Any]:
    """`fully_shard`, which leaves buffers to each rank: its own state is saved and loaded, and the whole one too."""
    model, other = net(md.Key(5).fold_in(rank)), net(md.Key(9))
    for m in (model, other):
        fully_shard(m)
    streams = train(model)
    other.load_state_dict(model.state_dict())
    resumed = train(other) == train(model)
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(other, get_model_state_dict(model, options=options), options=options)
    resumed &= train(other) == train(model)
    return {"streams": streams, "resumed": resumed}


def distributed(rank: int) -> dict[str, Any]:
    """Parts of one tensor: each rank drops by its part of the mask of the whole, whose gradient is the same."""
    mesh = init_device_mesh("cpu", (WORLD,))
    whole = torch.linspace(1, 2, 40).reshape(8, 5)
    found = {}
    for name, placement in (("rows", Shard(0)), ("columns", Shard(1)), ("copies", Replicate())):
        X = distribute_tensor(whole, mesh, [placement]).requires_grad_()
        Y = Dropout(0.5, seed=3)(X)
        Y.sum().backward()
        expected = md.dropout_layer(whole, 0.5, 3)
        found[name] = torch.equal(Y.full_tensor(), expected) and torch.equal(X.grad.full_tensor() * whole, expected)
    for seed in (None, 3):
        net = nn.Sequential(nn.Linear(8, 8), Dropout(0.5, seed=seed))
        model = parallelize_module(net, mesh, {"1": SequenceParallel()})
        model(torch.ones(2, 4, 8))
    return {"whole": found, "stream": model[1].stream.tolist()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # what torch says of a machine without a network is not what is tested
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=WORLD)
    found = {way.__name__: way(rank) for way in (replicated, unseeded, sharded, distributed)}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # at an ordinary exit a thread of gloo's that has not ended yet aborts the process, now and then
