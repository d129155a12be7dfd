"""Functions on torch tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from multidrop import checks
from multidrop.family.alpha_dropout import lifted
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

from . import draw, programs
from .autograd import masked, masked_next
from .on_host import NAMES
from .position import calls
from .position import draw_key as draw_key

NAME = "torch"
LAYOUTS = {torch.strided, torch.jagged}

Drop: TypeAlias = Callable[[Tensor, tuple[int, ...], bool], Tensor]
"""Draws a mask and drops by it: (X, axes that share a decision, in place)."""


def tensor(data: Any, dtype: str | None = None, name: str = "X") -> Tensor:
    """A tensor of host data: of `dtype`, or else of the type that `torch.as_tensor` gives it (which shares the memory
    of a NumPy array, unless it cannot: see `multidrop.checks.host_array`). `name` is the argument's, for errors."""
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(getattr(torch, dtype))
    return checks.host_tensor(_from_host, data, dtype, name)


def _from_host(data: Any, dtype: str | None) -> Tensor:
    if isinstance(data, np.ndarray) and data.dtype.name == "bfloat16":  # of the ml_dtypes package, unknown to torch
        data = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
    return torch.as_tensor(data, dtype=None if dtype is None else getattr(torch, dtype))


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def dropout_layer(
    X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> Tensor:
    """`multidrop.dropout_layer` for tensors, differentiable any number of times.

    Args:
        X: tensor of any shape, layout and device; float16, bfloat16, float32 or float64.
        dropout: p, in [0, 1].
        key: names the mask; without one, the next key after `multidrop.manual_seed`, or one from torch's generator.
        start: the index of X's first element.
        axes: the axes along which elements share one decision.

    Returns:
        A tensor of X's shape, type and device; X itself at p = 0.

    Raises:
        ValueError: for a bad probability, key, start or axes.
        TypeError: for a tensor that is not floating.
        RuntimeError: without a key, in a backward pass after `multidrop.manual_seed`.
    """
    return _dropout(X, dropout, key, start, axes, relu=False)


def relu_dropout(X: Tensor, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Tensor:
    """`multidrop.relu_dropout` for tensors. Args, result and errors are those of `dropout_layer`. In compiled programs
    and within `torch.func`, ReLU and dropout run separately."""
    return _dropout(X, dropout, key, start, (), relu=True)


def _dropout(
    X: Tensor, dropout: float, key: int | Key | None, start: int, axes: int | Sequence[int], relu: bool
) -> Tensor:
    if not isinstance(X, Tensor):
        X = tensor(X)
    check_floating(X)
    p, count = checks.probability("dropout", dropout), X.numel()
    axes = checks.axes(axes, X.ndim)
    if axes:
        count = math.prod(masks.drawn_shape(X.shape, axes))
    start = checks.span(start, count)
    if key is None:
        return masked_next(X, p, calls.stream, start, axes, relu=relu)
    return masked(X, Mask(p, as_key(key), start, axes), relu=relu)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout`.

    Args:
        input: tensor of any shape; float16, bfloat16, float32 or float64.
        p: the probability that an element is dropped, in [0, 1].
        training: whether to drop at all.
        inplace: whether to write the result over `input`.
        drop: drops by a mask that it draws, a function of (input, axes, inplace); without one, the mask is the next
            after `multidrop.manual_seed`, or named by torch's generator.

    Returns:
        A tensor of the input's shape and type; the input itself outside of training.

    Raises:
        ValueError: for a bad probability.
        TypeError: for a tensor that is not floating.
    """
    check_floating(input)
    p = checks.probability("p", p)
    return _dropping(drop, p)(input, (), inplace) if training else input


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout1d`: drops whole channels of (n, c, l) or (c, l). Args and result are
    those of `dropout`.

    Raises:
        RuntimeError: for another number of dimensions.
    """
    check_floating(input)
    axes1d(input.ndim)  # raises, as torch's does, outside of training too
    return _feature_dropout(input, p, training, inplace, drop, axes1d)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout2d`: drops whole channels of (n, c, h, w). Args and result are those
    of `dropout`. Like torch's, it warns of another number of dimensions, and reads three as (n, c, l)."""
    check_floating(input)
    if input.ndim == 3:
        _warn(
            "dropout2d: Received a 3-D input to dropout2d, assuming that channel-wise 1D dropout behavior is desired, "
            "as torch does: it is taken for (n, c, l). Use dropout1d for that, and unsqueeze(0) for (c, h, w)",
        )
    elif input.ndim != 4:
        _warn_of("dropout2d", input.ndim, "3D or 4D")
    return _feature_dropout(input, p, training, inplace, drop, spatial_axes)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.dropout3d`: drops whole channels of (n, c, d, h, w) or (c, d, h, w). Args
    and result are those of `dropout`. Like torch's, it warns of another number of dimensions."""
    check_floating(input)
    if input.ndim not in (4, 5):
        _warn_of("dropout3d", input.ndim, "4D or 5D")
    return _feature_dropout(input, p, training, inplace, drop, axes3d)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.alpha_dropout`. Args and result are those of `dropout`."""
    check_floating(input)
    return _alpha_dropout(input, p, training, inplace, drop, ())


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, drop: Drop | None = None
) -> Tensor:
    """In the place of `torch.nn.functional.feature_alpha_dropout`: the same for whole channels, of (n, c, …)."""
    check_floating(input)
    return _alpha_dropout(input, p, training, inplace, drop, spatial_axes(input.ndim))


def axes1d(ndim: int) -> tuple[int, ...]:
    """The axes along which `dropout1d` shares decisions."""
    if ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {ndim}D input; it takes (c, l) and (n, c, l)"
        )
    return spatial_axes(ndim, 2 if ndim == 3 else 1)


def axes3d(ndim: int) -> tuple[int, ...]:
    """The axes along which `dropout3d` shares decisions."""
    return spatial_axes(ndim, 1 if ndim == 4 else 2)


def spatial_axes(ndim: int, first: int = 2) -> tuple[int, ...]:
    """The axes after those of the batch and the channels."""
    if ndim < first:
        raise RuntimeError(f"X: expected a batch and channels, at least {first} dimensions; got {ndim}")
    return tuple(range(first, ndim))


def _feature_dropout(
    X: Tensor, p: float, training: bool, inplace: bool, drop: Drop | None, axes: Callable[[int], tuple[int, ...]]
) -> Tensor:
    p = checks.probability("p", p)
    return _dropping(drop, p)(X, axes(X.ndim), inplace) if training else X


def _alpha_dropout(
    X: Tensor, p: float, training: bool, inplace: bool, drop: Drop | None, axes: tuple[int, ...]
) -> Tensor:
    """The formula of `multidrop.family.AlphaDropout`, computed in the type that the member computes in."""
    p = checks.probability("p", p)
    if not training:
        return X
    drop = _dropping(drop, p)
    if p == 0.0:
        return drop(X, axes, inplace)  # which takes a call, and is X
    wide = X if X.dtype == torch.float64 else X.float()
    Y = programs.unless_evaluated(X, lifted(wide, p, lambda Z: drop(Z, axes, False)).to(X.dtype))
    return X.copy_(Y) if inplace else Y


def _dropping(given: Drop | None, p: float) -> Drop:
    """The function that is given; without one, one that drops by the masks of calls without a key."""
    if given is not None:  # and not `or`: torch.compile of torch 2.11 knows no truth of a method
        return given

    def drop(X: Tensor, axes: tuple[int, ...], inplace: bool) -> Tensor:
        return masked_next(X, p, calls.stream, 0, axes, inplace=inplace)

    return drop


def _warn_of(name: str, ndim: int, expected: str) -> None:
    _warn(f"{name}: Received a {ndim}-D input to {name}, which torch means to give up; expected {expected}", 4)


def _warn(text: str, stacklevel: int = 3) -> None:
    if not torch.compiler.is_compiling():  # a whole graph has no place for warnings
        warnings.warn(text, stacklevel=stacklevel)


def check_floating(X: Tensor, name: str = "X") -> None:
    """Raises TypeError, with torch's remedy, where X is no floating tensor. `name` is the argument's."""
    try:
        known = X.dtype in NAMES and X.layout in LAYOUTS
    except AttributeError:  # as of a list; a check of the type first would cost every call
        known = False
    if not known:
        if isinstance(X, torch.fx.Proxy):
            raise TypeError(
                f"{name}: expected a tensor; got a torch.fx.Proxy: torch.fx cannot hold a mask's position: call "
                "multidrop.restore(model) before it traces the model, or use torch.export"
            )
        if not isinstance(X, Tensor):
            raise checks.not_floating(checks.shown(X), f"torch.as_tensor({name})", name)
        remedy = f"{name}.float()"
        if X.is_quantized:
            remedy = (
                f"{name}.dequantize(), or put torch's own layers back with multidrop.restore(model) before you quantize"
            )
        checks.floating(str(X.dtype).removeprefix("torch."), remedy, name)
        raise TypeError(
            f"{name}: expected a tensor of strided or jagged layout; got {X.layout}: convert it with {name}.to_dense()"
        )


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """`multidrop.keep_mask` as a bool tensor on `device`."""
    return draw.keep_mask(shape, dropout, key, start, device)
