"""Two processes of torch.distributed on one machine, for `test_ranks`: each writes what it finds. To be run as
`python ranks.py RANK FOLDER`.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import multidrop_torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from multidrop_torch import Dropout, per_rank
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

import multidrop as md

WORLD = 2
LONGEST = timedelta(seconds=60)  # that a rank waits for another; then it is an error
MEMBERS = [
    md.family.DropPath(0.5),
    md.family.SpatialDropout(0.5),
    md.family.AlphaDropout(0.3),
    md.family.GaussianDropout(0.3),
    md.family.GaussianNoise(0.3),
]


def net(key: int | md.Key | None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), Dropout(0.5, seed=key), nn.Linear(64, 4))


def key_of(seed: int, place: int, call: int = 0) -> md.Key:
    """The key that `per_rank` gives a place."""
    return md.Key(md.Key(seed).fold_in("rank").fold_in(place).seed, call)


def keeps(Y: Tensor, key: md.Key) -> bool:
    """Whether what is left of ones is a key's mask."""
    return torch.equal(Y != 0, torch.from_numpy(md.keep_mask(tuple(Y.shape), 0.5, key)))


def train(model: Any, steps: int = 2) -> list[md.Key]:
    """Some steps; the keys of their masks."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    drop = next(module for module in model.modules() if isinstance(module, Dropout))
    keys = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().sum().backward()
        optimizer.step()
        keys.append(md.last_mask(drop).key)
    return keys


def total(model: Any) -> float:
    """Of the weights, which are the same in all ranks after each step."""
    return sum(float(p.double().sum()) for p in model.parameters())


def replicated(rank: int) -> dict[str, Any]:
    """DistributedDataParallel by default, which broadcasts buffers. Saved, and continued by another model."""
    model = DistributedDataParallel(per_rank(net(5)))
    own = train(model) == [key_of(5, rank, call) for call in range(2)]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    further = train(model), total(model)
    other = DistributedDataParallel(per_rank(net(9)))
    other.load_state_dict(state)
    alike = DistributedDataParallel(net(5))
    return {
        "own": own,
        "resumed": (train(other), total(other)) == further,
        "total": total(model),
        "saved": state["module.1.stream"].tolist(),
        "all alike without per_rank": train(alike) == [md.Key(5, 0), md.Key(5, 1)],
        "keys per rank": train(DistributedDataParallel(net(md.Key(5).fold_in(rank)))) == keys_from(rank),
    }


def keys_from(rank: int) -> list[md.Key]:
    return [md.Key(md.Key(5).fold_in(rank).seed, call) for call in range(2)]


def unseeded(rank: int) -> dict[str, Any]:
    """Masks by torch's generator, which each rank seeds for itself."""
    model = DistributedDataParallel(net(None))
    torch.manual_seed(5 + rank)
    return {"mask": train(model)[0].seed, "total": total(model)}


def alone(rank: int) -> dict[str, Any]:
    """The first rank alone evaluates, which hangs where a model has buffers, for they are broadcast then."""
    found = {}
    for seed in (None, 5):
        model = DistributedDataParallel(net(seed))
        train(model)
        if rank == 0:
            model.eval()
            found[f"seed {seed}"] = model(torch.ones(4, 8)).shape == (4, 4)
            model.train()
        train(model)
    return found


def fully_sharded(rank: int) -> dict[str, Any]:
    """`fully_shard`; one state is saved for all ranks by distributed checkpointing, or gathered, or broadcast, and
    loaded into a model of another key."""
    model = per_rank(net(5))
    fully_shard(model)
    own = train(model) == [key_of(5, rank, call) for call in range(2)]
    expected = [key_of(5, rank, call) for call in range(2, 4)]
    folder = str(Path(sys.argv[2]) / "checkpoint")
    full = StateDictOptions(full_state_dict=True)
    first = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    states = {"sharded": get_model_state_dict(model), "whole": get_model_state_dict(model, options=full)}
    sent = dict(states["whole"]) if rank == 0 else {}
    dcp.save(states["sharded"], checkpoint_id=folder)

    def other(fill: Callable[[Any], Any]) -> bool:
        model = per_rank(net(9))
        fully_shard(model)
        fill(model)
        return train(model) == expected

    def by_dcp(model: Any) -> None:
        state = get_model_state_dict(model)
        dcp.load(state, checkpoint_id=folder)
        set_model_state_dict(model, state)

    return {
        "own": own,
        "resumed": other(lambda model: model.load_state_dict(states["sharded"])),
        "by dcp": other(by_dcp),
        "whole": other(lambda model: set_model_state_dict(model, dict(states["whole"]), options=full)),
        "from the first rank": other(lambda model: set_model_state_dict(model, sent, options=first)),
    }


def fully_sharded_of_old(rank: int) -> dict[str, Any]:
    """`FullyShardedDataParallel`, which with `sync_module_states` gives all ranks the first one's parameters and
    buffers."""
    from torch.distributed.fsdp import _init_utils

    _init_utils._check_module_states_for_sync_module_states = lambda module: None  # it refuses CPUs; gloo does not

    def wrapped(seed: int) -> Any:
        return FullyShardedDataParallel(per_rank(net(seed)), sync_module_states=True, device_id=torch.device("cpu"))

    model, other = wrapped(5), wrapped(9)
    own = train(model) == [key_of(5, rank, call) for call in range(2)]
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        state = {name: value.clone() for name, value in model.state_dict().items()}
    with FullyShardedDataParallel.state_dict_type(other, StateDictType.FULL_STATE_DICT):
        other.load_state_dict(state)
    return {"own": own, "resumed": train(other) == [key_of(5, rank, call) for call in range(2, 4)]}


def per_rank_otherwise(rank: int) -> dict[str, Any]:
    """Recomputed, compiled, copied, in `torch.func`, and by other members."""
    found = {}
    for reentrant in (True, False):
        layer, X = per_rank(net(5))[1], torch.ones(4, 64, requires_grad=True)
        checkpoint(lambda X, layer=layer: layer(X).sin(), X, use_reentrant=reentrant).sum().backward()
        found[f"reentrant={reentrant}"] = keeps(X.grad, key_of(5, rank))
    layer = per_rank(net(5))[1]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for call in range(2):
        X = torch.ones(4, 64, requires_grad=True)
        Y = compiled(X)
        Y.sum().backward()
        found[f"compiled {call}"] = keeps(Y, key_of(5, rank, call)) and keeps(X.grad, key_of(5, rank, call))
    found["compiled, no gradient"] = keeps(compiled(torch.ones(4, 64)), key_of(5, rank, 2))
    found["last_mask"] = md.last_mask(layer, (4, 64)).key == key_of(5, rank, 2)
    found["mask_at"] = md.mask_at(layer, 7, (4, 64)).key == key_of(5, rank, 7)
    found["repr"] = repr(layer) == "Dropout(p=0.5, inplace=False, seed=5, per_rank=True)"
    found["saved"] = layer.state_dict()["stream"].tolist() == [5, 3]
    for name, copied in (("deepcopy", copy.deepcopy), ("pickle", lambda layer: pickle.loads(pickle.dumps(layer)))):
        found[name] = keeps(copied(layer)(torch.ones(4, 64)), key_of(5, rank, 3))
    batched = torch.func.vmap(per_rank(net(5))[1], randomness="different")(torch.ones(4, 6))
    found["vmap"] = keeps(batched, key_of(5, rank))
    X = torch.linspace(-1, 1, 8 * 4 * 6).reshape(8, 4, 6)
    found["after_relu"] = torch.equal(per_rank(net(5))[1].after_relu(X), md.relu_dropout(X, 0.5, key_of(5, rank)))
    for member in (*MEMBERS, md.family.ConcreteDropout(0.4)):
        layer = per_rank(multidrop_torch.layer(member, seed=3))
        learned = getattr(layer, "logit", None)
        expected = multidrop_torch.apply(member, X, key_of(3, rank), learned=learned)
        found[type(member).__name__] = torch.equal(layer(X), expected)
    layer.ranks = None
    found["unmarked"] = torch.equal(layer(X), multidrop_torch.apply(member, X, md.Key(3, 1), learned=learned))
    return found


def per_rank_of_meshes(rank: int) -> dict[str, Any]:
    """The place in a dimension of a mesh, or in a group. Of a tensor that ranks share, all have one place."""
    whole = torch.ones(8, 6)
    mesh = init_device_mesh("cpu", (WORLD, 1), mesh_dim_names=("data", "tensor"))
    found = {}
    for name, ranks in (
        ("all", None),
        ("group", dist.group.WORLD),
        ("backwards", dist.new_group([1, 0])),
        ("data", mesh["data"]),
        ("tensor", mesh["tensor"]),
    ):
        place = {"tensor": 0}.get(name, rank)
        layer = per_rank(net(5), ranks)[1]
        X = distribute_tensor(whole, mesh["data"], [Shard(0)])
        found[f"{name}: own"] = keeps(layer(whole), key_of(5, place))
        found[f"{name}: shared"] = name == "tensor" or keeps(layer(X).full_tensor(), key_of(5, 0, 1))
        found[f"{name}: last_mask"] = md.last_mask(layer).key == key_of(5, 0, layer.stream[1] - 1)
        torch.compiler.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        call = int(layer.stream[1])
        found[f"{name}: compiled"] = name == "tensor" or keeps(compiled(X).full_tensor(), key_of(5, 0, call))
        own = distribute_tensor(whole, mesh["tensor"], [Shard(0)])  # one that no other rank has a part of
        call = int(layer.stream[1])
        found[f"{name}: of one rank"] = keeps(layer(own).to_local(), key_of(5, place, call))
    return found


def shared(rank: int) -> dict[str, Any]:
    """Parts of one tensor: each rank drops by its part of the mask of the whole, whose gradient is the same."""
    mesh = init_device_mesh("cpu", (WORLD,))
    whole = torch.linspace(1, 2, 40).reshape(8, 5)
    expected = md.dropout_layer(whole, 0.5, 3)
    placements = {"rows": Shard(0), "columns": Shard(1), "copies": Replicate()}

    def part(name: str) -> Any:
        return distribute_tensor(whole, mesh, [placements[name]]).requires_grad_()

    def dropped(run: Callable[..., Any], seed: int | None, name: str) -> bool:
        """Whether output and gradient are those of the whole."""
        layer, X = Dropout(0.5, seed=seed), part(name)
        Y = run(layer, X)
        Y.sum().backward()
        mask = (Y.full_tensor() if seed is None else expected) != 0
        right = torch.equal(Y.full_tensor() != 0, mask) and torch.equal(X.grad.full_tensor(), 2.0 * mask)
        return right and repr(layer).startswith("Dropout(p=0.5") and type(Y) is DTensor

    def compiled(layer: Any, X: Any) -> Any:
        torch.compiler.reset()
        return torch.compile(layer, backend="aot_eager", fullgraph=True)(X)

    def selectively(layer: Any, X: Any) -> Any:
        def policy(context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
            saved = operator is torch.ops.aten.sin.default
            return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE

        contexts = functools.partial(create_selective_checkpoint_contexts, policy)
        return checkpoint(lambda X: layer(X) + 0 * X.sin(), X, use_reentrant=False, context_fn=contexts)

    def counted(layer: Any, X: Any) -> Any:
        with FlopCounterMode(display=False):
            return layer(X)

    def watched(layer: Any, X: Any) -> Any:
        with CommDebugMode() as mode:
            Y = layer(X)
        assert mode.get_total_counts() == 0  # a rank draws its part by itself
        return Y

    def seen(layer: Any, X: Any) -> Any:
        Y = layer(X)
        mask = md.last_mask(layer)
        assert torch.equal(Y.full_tensor() != 0, torch.from_numpy(mask.keep()))
        assert mask.shape == (8, 5)
        assert not layer.keyed or md.mask_at(layer, 0).key == mask.key
        return Y

    ways = (seen, compiled, selectively, counted, watched)
    found: dict[str, Any] = {
        f"{run.__name__}, {name}, seed {seed}": dropped(run, seed, name)
        for run in ways
        for name in placements
        for seed in (3, None)
    }
    X = distribute_tensor(whole, mesh, [Shard(1)])
    with torch.no_grad():
        without = torch.compile(Dropout(0.5, seed=3), backend="aot_eager", fullgraph=True)(X)
    found["compiled, no gradient"] = torch.equal(without.full_tensor(), expected)
    with torch.inference_mode():
        found["inference"] = torch.equal(Dropout(0.5, seed=3)(part("rows")).full_tensor(), expected)
    sums = DTensor.from_local(whole / WORLD, mesh, [Partial()])
    found["sum"] = torch.equal(Dropout(0.5, seed=3)(sums).full_tensor(), expected)
    found["in place"] = Dropout(0.5, inplace=True, seed=3)(X) is X and torch.equal(X.full_tensor(), expected)
    signed = (whole - 1.5).requires_grad_()
    md.relu_dropout(signed, 0.5, 3).sum().backward()
    X = distribute_tensor(whole - 1.5, mesh, [Shard(0)]).requires_grad_()
    md.relu_dropout(X, 0.5, 3).sum().backward()
    found["relu"] = torch.equal(X.grad.full_tensor(), signed.grad)
    values = torch.linspace(1, 2, 160).reshape(8, 5, 4)
    X = distribute_tensor(values, mesh, [Shard(0)])
    for member in MEMBERS:
        layer = multidrop_torch.layer(member, seed=3)
        found[type(member).__name__] = torch.equal(layer(X).full_tensor(), multidrop_torch.apply(member, values, 3))
    concrete = multidrop_torch.layer(md.family.ConcreteDropout(0.4), seed=3)
    concrete.logit = nn.Parameter(distribute_tensor(concrete.logit.detach(), mesh, [Replicate()]))
    plain = multidrop_torch.layer(md.family.ConcreteDropout(0.4), seed=3)
    found["ConcreteDropout"] = torch.allclose(concrete(X).full_tensor(), plain(values))
    return found


def sequence_parallel(rank: int) -> dict[str, Any]:
    """A layer in a plan of `parallelize_module`, keyed and not: trained, and compiled."""
    mesh, found = init_device_mesh("cpu", (WORLD,)), {}
    for seed in (3, None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), Dropout(0.5, seed=seed))
        model = parallelize_module(model, mesh, {"1": SequenceParallel()})
        for run in (model, torch.compile(model, backend="aot_eager")):
            Y = run(torch.ones(2, 4, 8))
            Y.sum().backward()
            found[f"{type(run).__name__}, seed {seed}"] = type(Y) is DTensor
        if seed is not None:
            found["stream"] = model[1].stream.tolist() == [3, 2]
    return found


PROGRAMS = (
    replicated,
    unseeded,
    alone,
    fully_sharded,
    fully_sharded_of_old,
    per_rank_otherwise,
    per_rank_of_meshes,
    shared,
    sequence_parallel,
)

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # what torch says of a machine without a network is not what is tested
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group(
        "gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=WORLD, timeout=LONGEST
    )
    found = {program.__name__: program(rank) for program in PROGRAMS}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # at an ordinary exit a thread of gloo's that has not ended yet aborts the process, now and then
