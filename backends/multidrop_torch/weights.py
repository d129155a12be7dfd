"""Drops a module's weights, as parametrizations of `torch.nn.utils.parametrize`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize

from multidrop import checks
from multidrop.family import Member, checked
from multidrop.spec.keys import Key, as_key

from . import internals
from .member_layers import layer

Module = TypeVar("Module", bound=nn.Module)


def drop_weights(module: Module, member: Member, *names: str, seed: int | Key | None = None) -> Module:
    """Makes a module compute with dropped weights in training mode, in place; each forward draws a new mask.

        drop_weights(nn.Linear(8, 8), family.DropConnect(0.5), seed=1)
        drop_weights(nn.Embedding(100, 8), family.EmbeddingDropout(0.1), seed=1)

    Each weight gets a layer of the member as a parametrization: `torch.nn.utils.parametrize` lists and removes it, the
    state dict has the weight under `parametrizations.<name>.original`, and each access to the weight in training mode
    takes a call of the layer's stream. A recurrent module reads its weights by other ways: it holds the layers as
    `<name>_dropout`, keeps its parameters, and takes one call in each forward.

    Args:
        module: any module with weights of its own, such as Linear, Conv1d to Conv3d, Embedding, LSTM and GRU.
        member: a member that takes a weight as X.
        names: the weights' names; by default `weight`, and in a recurrent module the hidden-to-hidden weights (S.
            Merity et al., "Regularizing and optimizing LSTM language models", ICLR 2018, section 2).
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator. With
            several weights, each gets the key folded in with its name.

    Returns:
        The module.

    Raises:
        ValueError: for an object that is no member, a name that no weight has, a weight of a recurrent module that is
            dropped already, a bad seed, or a module with sparse gradients.
    """
    member = checked(member)
    own = dict(module.named_parameters(recurse=False))
    chosen = names or _default(own)
    if not chosen or not own.keys() >= set(chosen):
        raise ValueError(f"names: expected some of {', '.join(own) or 'none'}; got {checks.shown(names)}")
    if taken := [name for name in chosen if hasattr(module, name + _DROPS)]:
        raise ValueError(f"names: expected weights that nothing drops yet; got {', '.join(taken)}")
    if getattr(module, "sparse", False):
        raise ValueError(f"module: expected one with sparse=False; got {checks.shown(module)}")
    key = None if seed is None else as_key(seed, "seed")
    for name in chosen:
        drops = layer(member, seed=key and (key if len(chosen) == 1 else key.fold_in(name))).train(module.training)
        drops.drops_weights = True
        if isinstance(module, nn.RNNBase):
            module.add_module(name + _DROPS, drops)
        else:
            parametrize.register_parametrization(module, name, drops, unsafe=True)  # the check would take a call
    if isinstance(module, nn.RNNBase) and not internals.has_forward_hook(module, _dropped):
        module.register_forward_pre_hook(_drop)
        module.register_forward_hook(_dropped, always_call=True)
    return module


def _default(names: Collection[str]) -> tuple[str, ...]:
    hidden = tuple(name for name in names if name.startswith("weight_hh"))
    return hidden or tuple(name for name in names if name == "weight")


_DROPS = "_dropout"


def _drop(module: nn.RNNBase, inputs: object) -> None:
    """Replaces the tensors that a recurrent module computes with."""
    weights = []
    for name in internals.recurrent_names(module):
        drop, weight = getattr(module, name + _DROPS, None), getattr(module, name)
        weights.append(weight if drop is None else drop(weight))
    internals.set_recurrent_weights(module, weights)


def _dropped(module: nn.RNNBase, inputs: object, output: object) -> None:
    """Puts the parameters back: dropped weights hold the graph, and cannot be copied."""
    internals.set_recurrent_weights(module, [getattr(module, name) for name in internals.recurrent_names(module)])
