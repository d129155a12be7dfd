"""The dropout layers as torch modules: each takes the place of torch's of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multidrop import checks
from multidrop.spec.keys import Key
from multidrop.streams import layer_key
from multidrop.view import Drawing, before, not_a_layer

from . import functional
from .autograd import masked_next
from .functional import NAME, check_floating
from .ops import key_at, position_of, rectified


class _DropoutNd(nn.modules.dropout._DropoutNd):
    """What all of them are. Each is a subclass of torch's of its name, so that what looks for those in a model, to
    change their rates or modes, finds these.

    A keyed layer keeps its position as the buffer `stream`, int64 (seed, call) as two's complement, so that
    `state_dict` carries it; a state without one, such as that of an `nn.Dropout`, loads too and leaves it as it is.

    Args:
        p: the probability that an element, or a channel, is dropped, in [0, 1].
        inplace: whether the result is written over the input.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator.

    Raises:
        ValueError: for a bad probability or seed.
    """

    stream: Tensor
    unplaced: Key  # the position of a stream on the meta device, which has no memory for it
    converted: bool  # where `convert` made the layer

    def __init__(self, p: float = 0.5, inplace: bool = False, *, seed: int | Key | None = None) -> None:
        super().__init__(checks.probability("p", p), inplace)
        self._key_by(layer_key(NAME, seed))

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

    def _drop(self, X: Tensor, axes: tuple[int, ...] = (), inplace: bool = False) -> Tensor:
        """X through the next mask."""
        p = checks.probability("p", self.p)
        # Noted past `nn.Module`, whose attributes take a microsecond.
        return masked_next(X, p, self.stream, self.keyed, 0, axes, inplace=inplace, note=self.__dict__)

    @staticmethod
    def _axes(ndim: int) -> tuple[int, ...]:
        """Along which one decision holds for all elements of an input of so many dimensions."""
        return ()

    def __setattr__(self, name: str, value: Any) -> None:
        """A stream that loses its memory leaves its position in `unplaced`. One that is given memory, which holds
        anything, takes it from there, unless Hugging Face's `from_pretrained` says that it has read what it gives."""
        if name == "stream" and value.is_meta != self.stream.is_meta:
            if value.is_meta:
                self.unplaced = key_at(self.stream)
            elif not getattr(value, "_is_hf_initialized", False):
                value = position_of(self.unplaced).to(value.device)
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _DropoutNd:
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


class Dropout(_DropoutNd, nn.Dropout):
    """Zeroes each element with probability p in training mode and scales the others by 1/(1 − p); passes the input on
    in evaluation mode."""

    def forward(self, input: Tensor) -> Tensor:
        check_floating(input)
        return self._drop(input, inplace=self.inplace) if self.training else input

    def after_relu(self, X: Tensor) -> Tensor:
        """The layer's output for max(X, 0), in one pass."""
        check_floating(X)
        if not self.training:
            return rectified(X)
        p = checks.probability("p", self.p)
        return masked_next(X, p, self.stream, self.keyed, relu=True, note=self.__dict__)


class _FeatureDropout(_DropoutNd):
    """Drops whole channels."""

    _dropout: Callable[..., Tensor]  # the function of the same name, which takes what draws

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._dropout(input, self.p, self.training, self.inplace, drop=self._drop)


class Dropout1d(_FeatureDropout, nn.Dropout1d):
    """Drops whole channels of (n, c, l), or of (c, l), with probability p in training mode."""

    _dropout = staticmethod(functional.dropout1d)
    _axes = staticmethod(functional.axes1d)


class Dropout2d(_FeatureDropout, nn.Dropout2d):
    """Drops whole channels of (n, c, h, w) with probability p in training mode; like torch's, it takes three dimensions
    for (n, c, l)."""

    _dropout = staticmethod(functional.dropout2d)
    _axes = staticmethod(functional.spatial_axes)


class Dropout3d(_FeatureDropout, nn.Dropout3d):
    """Drops whole channels of (n, c, d, h, w), or of (c, d, h, w), with probability p in training mode."""

    _dropout = staticmethod(functional.dropout3d)
    _axes = staticmethod(functional.axes3d)


class AlphaDropout(_FeatureDropout, nn.AlphaDropout):
    """Dropout for SELU networks: a dropped element becomes SELU's lower limit, and all are scaled and moved so that a
    mean of 0 and a variance of 1 stay. Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 30
    (2017), section 2."""

    _dropout = staticmethod(functional.alpha_dropout)


class FeatureAlphaDropout(_FeatureDropout, nn.FeatureAlphaDropout):
    """`AlphaDropout` of whole channels."""

    _dropout = staticmethod(functional.feature_alpha_dropout)
    _axes = staticmethod(functional.spatial_axes)


def drawing(layer: nn.Module, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a dropout layer draws; see `multidrop.view`."""
    if not isinstance(layer, _DropoutNd):
        raise not_a_layer(layer)
    key = key_at(layer.stream)
    last, last_p = before(key), None
    mask, known = layer.__dict__.get("last", (None, None))
    if mask is not None and mask.key == last:  # else a program ran since, of which Python saw nothing
        last_p = mask.p
        shape = known if shape is None else shape
    shape = None if shape is None else tuple(shape)
    try:
        axes = () if shape is None else layer._axes(len(shape))
    except RuntimeError as error:  # torch's own kind, for inputs
        raise ValueError(f"shape: expected that of an input of {checks.shown(layer)}; got {shape}") from error
    return Drawing(checks.probability("p", layer.p), last, key if layer.keyed else None, shape, axes, last_p)
