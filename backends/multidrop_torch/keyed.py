"""The position of a layer in its stream of masks, as a part of a torch module's saved state."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multidrop import checks
from multidrop.spec.keys import Key
from multidrop.view import Drawing, Drawn, before, not_a_layer

from . import internals, position
from .gpu import positions
from .position import calls, key_at, move, position_of
from .ranks import at_place, place_among


class Keyed(Drawn, nn.Module):
    """Base class of the dropout layers.

    A keyed layer takes a key from its stream in each training-mode forward. The stream is a plain tensor, on the CPU
    or with its module on a GPU, and no buffer: what casts, broadcasts or averages a module's buffers leaves it alone.
    `state_dict` has a copy of it as `stream`, int64 (seed, next call) in two's complement, and `load_state_dict` takes
    it from there. A state without one, such as that of an `nn.Dropout`, leaves the layer where it is. So does one whose
    `stream` is floating: an average over several states, which names no mask.

    An unkeyed layer has no state, and passes over a `stream` in one that it loads.

    Attributes:
        stream: the position; None for a layer that follows torch's generator. Write to it in place.
        ranks: the ranks among which `per_rank` has this one find its place, () for all; None where all drop alike.
    """

    stream: Tensor | None
    ranks: tuple[int, ...] | None = None
    converted: type[nn.Module]  # the class that `convert` replaced
    keyed: bool
    member: Any
    p: Any

    def _key_by(self, key: Key | None) -> None:
        """Has the layer's stream continue from `key`; None: the layer follows torch's generator."""
        with torch.inference_mode(False), internals.without_transforms():  # whose tensors cannot be written to later
            position = None if key is None else position_of(key)
        stream: Tensor | None = vars(self).get("stream")
        if position is not None and stream is not None:
            move(stream, position)  # a program that is compiled holds this tensor
            return
        if hasattr(self, "stream"):
            del self.stream
        if position is not None:
            self.register_buffer("stream", None)  # for Hugging Face, which loads what is a parameter or a buffer
        vars(self)["stream"], self.keyed = position, position is not None
        if position is None or type(position) is Tensor:  # and not what stands for one, as under a FakeTensorMode
            self._move(torch.get_default_device())  # where a module that is built now has its weights

    def __setattr__(self, name: str, value: Any) -> None:
        """Copies a position that Hugging Face's `from_pretrained` has read. Other memory that a tool sets in the place
        of the stream's holds anything."""
        if name == "stream":
            if self.stream is not None and internals.is_read(value):
                move(self.stream, value)
        else:
            super().__setattr__(name, value)

    @internals.overrides
    def _apply(self, fn: Any, recurse: bool = True) -> Keyed:
        """Moves the stream to and from a GPU with the module: there a layer takes its masks without the host."""
        super()._apply(fn, recurse)
        if self.stream is None:
            self._move(fn(torch.empty(0, device="cpu")).device)
        elif type(self.stream) is Tensor:
            self._move(fn(torch.empty(0, device=self.stream.device)).device)
        return self

    def _move(self, place: torch.device) -> None:
        """Moves the stream to the CPU or a GPU; other devices leave it where it is."""
        if self.stream is None:
            calls.prepare(place)
        elif place.type in ("cpu", "cuda") and place != self.stream.device:
            key = key_at(self.stream)
            with torch.inference_mode(False):
                vars(self)["stream"] = self.stream.to(place)
            if place.type == "cuda":
                positions.follow(self.stream, key)

    def __delattr__(self, name: str) -> None:
        if name == "stream" and self.keyed:
            del vars(self)[name]
        super().__delattr__(name)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The module's buffers. For `recurse=False` also a placeholder of the stream: `set_model_state_dict` asks each
        module this way where the first rank's state is to reach all others, and sends what a module names alone. It has
        no dimension, so that its device is not compared with the weights'."""
        yield from super().named_buffers(prefix, recurse, remove_duplicate)
        if self.stream is not None and not recurse:
            yield f"{prefix}.stream" if prefix else "stream", self.stream[0]

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The module's buffers, without the placeholder: what asks for these wants to move them."""
        for _, buffer in super().named_buffers(recurse=recurse):
            yield buffer

    def __prepare_scriptable__(self) -> nn.Module:
        """Is called by `torch.jit.script`.

        Raises:
            TypeError: always, because TorchScript compiles Python and does not know this library's.
        """
        raise TypeError(
            f"obj: expected layers that TorchScript compiles; got {checks.shown(self)}: call "
            "multidrop.restore(model) before torch.jit.script, or use torch.jit.trace or torch.export"
        )

    def __getstate__(self) -> dict[str, Any]:
        """With the position as an array: torch's pickling would share a tensor's memory with the process that it sends
        it to, and processes that move one counter repeat masks."""
        state = dict(self.__dict__)
        if type(self.stream) is Tensor:  # and not what stands for one, as under a FakeTensorMode
            state["stream"] = self.stream.cpu().numpy().copy()
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Keyed:
        """As of any module, and the position is where the layer's is: `__getstate__` takes it to the host."""
        made: Keyed = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        if type(self.stream) is Tensor:
            made._move(self.stream.device)
        return made

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        held = vars(self)
        if "stream" not in held:  # pickled by a former version, whose stream was a buffer
            buffer = internals.former_buffer(self, "stream")
            if self.keyed:
                self.register_buffer("stream", None)
            held["stream"] = buffer if self.keyed else None
        if isinstance(held["stream"], np.ndarray):
            held["stream"] = torch.from_numpy(held["stream"])

    @internals.overrides
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.stream is not None:
            destination[prefix + "stream"] = self.stream.clone()  # what averages states in place leaves the layer alone

    @internals.overrides
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        name = prefix + "stream"
        position = state_dict.pop(name, None)  # which torch would report: it knows parameters and buffers alone
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        if position is None:
            return
        state_dict[name] = position
        if self.stream is None or not isinstance(position, Tensor) or position.is_meta or position.is_floating_point():
            return
        if position.dtype != torch.int64 or position.shape != (2,):
            error_msgs: list[str] = rest[-1]
            came = f"{position.dtype} of shape {tuple(position.shape)}"
            error_msgs.append(f"{name}: expected a position, torch.int64 of shape (2,); got {came}")
            return
        move(self.stream, position.to_local() if hasattr(position, "to_local") else position)

    def extra_repr(self) -> str:
        if self.stream is None:
            return super().extra_repr()
        marked = "" if self.ranks is None else ", per_rank=True"
        return f"{super().extra_repr()}, seed={key_at(self.stream).seed}{marked}"


def drawing(layer: nn.Module, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a dropout layer draws; see `multidrop.view`."""
    if not isinstance(layer, Keyed):
        raise not_a_layer(layer)
    mask, known, drawn = vars(layer).get("last", (None, None, 0))
    if layer.stream is None:
        key = None
        # A program may have run the layer since, and left no trace of it.
        last = None if mask is None or drawn != calls.drawn_in_programs else position.known(mask.key)
    else:
        key = key_at(layer.stream)
        if layer.ranks is not None:
            place = vars(layer).get("place")  # that of its last input, which several ranks may hold
            key = at_place(key, place_among(layer.ranks, ()) if place is None else place)
        last = before(key)
    last_p = None
    if mask is not None and position.known(mask.key) == last:  # else a program ran since, which Python did not see
        last_p = mask.p
        shape = known if shape is None else shape
    shape = None if shape is None else tuple(shape)
    axes = layer._axes_for(shape)  # before p, which a layer that has no mask may lack
    return Drawing(checks.probability("p", layer.p), last, key, shape, axes, last_p)
