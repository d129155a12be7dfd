"""The position of a layer in its stream of masks, as a part of a torch module's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multidrop import checks
from multidrop.spec.keys import Key
from multidrop.view import Drawing, before, not_a_layer

from .ops import key_at, known, position_of


class Keyed(nn.Module):
    """Base class of the layers that take a key in each training-mode forward.

    A keyed layer keeps its position as the buffer `stream`, int64 (seed, call) as two's complement, so that
    `state_dict` carries it; a state without one, such as that of an `nn.Dropout`, loads too and leaves it as it is.
    """

    stream: Tensor
    unplaced: Key  # the position of a stream on the meta device, which has no memory for it
    converted: type[nn.Module]  # the class that `convert` replaced
    keyed: bool
    p: Any

    def _key_by(self, key: Key | None) -> None:
        """Has the layer's stream go on from `key`; None: it is to follow torch's generator."""
        with torch.inference_mode(False):  # whose tensors can take no state later
            position = position_of(key or Key(0)).to(torch.get_default_device())
        if key is not None and getattr(self, "keyed", False):
            self.stream.copy_(position)
        else:
            self.keyed = key is not None
            self.register_buffer("stream", position, persistent=self.keyed)
        if self.stream.is_meta:  # and holds nothing
            self.unplaced = key or Key(0)

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        """Along which one decision holds for all elements of an input of that shape, () where none is known; TypeError
        where the layer has no mask."""
        raise NotImplementedError(f"{type(self).__name__}._axes_for")  # each layer's own

    def __setattr__(self, name: str, value: Any) -> None:
        """A stream that loses its memory leaves its position in `unplaced`. One that is given memory, which holds
        anything, takes it from there, unless Hugging Face's `from_pretrained` says that it has read what it gives."""
        if name == "stream" and value.is_meta != self.stream.is_meta:
            if value.is_meta:
                self.unplaced = key_at(self.stream)
            elif not getattr(value, "_is_hf_initialized", False):
                value = position_of(self.unplaced).to(value.device)
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Keyed:
        before = self.stream
        super()._apply(fn, recurse)
        after = self.stream
        if type(before) is type(after) is Tensor:  # and not what stands for one, as that of a FakeTensorMode
            # Its device alone is taken: its type may be that of the weights, its memory without what was there.
            self._buffers["stream"], device = before, after.device
            self.stream = torch.empty_like(before, device=device) if before.is_meta else before.to(device)
        if self.stream.device.type == "cpu" and self.stream.is_shared():
            # `share_memory` is for weights: processes that move one counter repeat masks
            self.stream = self.stream.clone()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """With the position as an array, for torch's own pickling would share a tensor with the process it goes to."""
        state = self.__dict__ | {"_buffers": dict(self._buffers)}
        if type(self.stream) is Tensor and self.stream.device.type == "cpu":
            state["_buffers"]["stream"] = self.stream.numpy().copy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        stream = self._buffers["stream"]
        if isinstance(stream, np.ndarray):
            self._buffers["stream"] = torch.from_numpy(stream)  # wherever new tensors are

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        assign = local_metadata.get("assign_to_params_buffers", False)
        if assign and self.stream.is_meta:
            self.stream = position_of(self.unplaced)
        if self.keyed:
            name = prefix + "stream"
            stream = state_dict.setdefault(name, self.stream)
            if isinstance(stream, Tensor) and stream.dtype != torch.int64:
                error_msgs: list[str] = rest[-1]
                error_msgs.append(f"{name}: expected a position, of torch.int64; got {stream.dtype}")
                state_dict[name] = self.stream
            elif assign and isinstance(stream, Tensor):
                state_dict[name] = stream.clone()  # for layers that hold one tensor move one position
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        return super().extra_repr() + (
            f", seed={key_at(self.stream).seed}" if self.keyed and not self.stream.is_meta else ""
        )


def drawing(layer: nn.Module, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a dropout layer draws; see `multidrop.view`."""
    if not isinstance(layer, Keyed):
        raise not_a_layer(layer)
    key = key_at(layer.stream)
    last, last_p = before(key), None
    mask, noted = layer.__dict__.get("last", (None, None))
    if mask is not None and known(mask.key) == last:  # else a program ran since, of which Python saw nothing
        last_p = mask.p
        shape = noted if shape is None else shape
    shape = None if shape is None else tuple(shape)
    axes = layer._axes_for(shape)
    return Drawing(checks.probability("p", layer.p), last, key if layer.keyed else None, shape, axes, last_p)
