"""Every private name of MXNet that this backend uses, each behind a function that says why it is needed.

MXNet may move any of them. Then `found` raises an error that names what is missing, so that no result changes silently.
C functions and overridden methods are looked up at import, the others at use.
"""

from __future__ import annotations

import ctypes
import itertools
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_int, c_int64, c_void_p
from typing import Any, TypeAlias

import mxnet as mx
import mxnet.base as base
from mxnet import gluon

Array: TypeAlias = mx.nd.NDArray
"""Either kind of array: `mx.np.ndarray` is a subclass."""


def found(owner: Any, name: str) -> Any:
    """Looks up an attribute that MXNet 1.9.1 has.

    Raises:
        RuntimeError: where this MXNet lacks it.
    """
    try:
        return getattr(owner, name)
    except AttributeError:
        where = getattr(owner, "__name__", None) or type(owner).__name__
        raise RuntimeError(
            f"mxnet: expected {where}.{name}, as version 1.9.1 has it; got version {mx.__version__} without it"
        ) from None


def c_function(name: str) -> Any:
    """Looks up a function of MXNet's C interface. That is public, but the handle of its library is not. The attributes
    of an array give the same, but take two to six times as long, which is longer than a small dropout."""
    return found(found(base, "_LIB"), name)


_check, _handles, _Handle = (found(base, name) for name in ("check_call", "c_handle_array", "NDArrayHandle"))
_get_dtype, _get_context, _get_data = map(c_function, ("MXNDArrayGetDType", "MXNDArrayGetContext", "MXNDArrayGetData"))
_create, _wait_to_write = map(c_function, ("MXNDArrayCreateEx64", "MXNDArrayWaitToWrite"))

_NAMES = {0: "float32", 1: "float64", 2: "float16"}  # by the type codes of the C interface
_CODES = {name: code for code, name in _NAMES.items()}


def name_of(X: Array) -> str:
    """The name of an array's type; "" for one that dropout is not defined for."""
    code = c_int()
    _check(_get_dtype(X.handle, ctypes.byref(code)))
    return _NAMES.get(code.value, "")


def place_of(X: Array) -> tuple[int, int]:
    """An array's context: its kind, as in `mx.Context.devstr2type`, and its number."""
    kind, number = c_int(), c_int()
    _check(_get_context(X.handle, ctypes.byref(kind), ctypes.byref(number)))
    return kind.value, number.value


def address_of(X: Array) -> int:
    """The address of an array's first element."""
    pointer = c_void_p()
    _check(_get_data(X.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def wait_to_write(X: Array) -> None:
    """Waits until no operator reads or writes an array. The public `wait_to_read` does not wait for readers."""
    _check(_wait_to_write(X.handle))


def empty(kind: type[Array], shape: tuple[int, ...], name: str, place: tuple[int, int]) -> Array:
    """Allocates an array of a kind, shape, type and context, in a fifth of the time of the public `mx.nd.empty`."""
    handle, ndim = _Handle(), len(shape)
    sizes = (c_int64 * ndim)(*shape)
    _check(_create(sizes, ndim, *place, 0, _CODES[name], ctypes.byref(handle)))
    return kind(handle)


Gradient: TypeAlias = Callable[[Array, str, Array], None]
"""Writes a gradient. Takes the array to write to, how (one of `_REQUESTS`), and the gradient of the output."""

_REQUESTS = ("null", "write", "inplace", "add")


def record(Y: Array, inputs: Sequence[tuple[Array, Gradient]]) -> Array:
    """Records for autograd that Y was computed from `inputs`, each with the function that writes its gradient.

    The public `mx.autograd.Function` allocates an array for each gradient, and ignores `grad_req="add"`.

    Returns:
        Y.
    """
    arrays = [X for X, _ in inputs]
    if any(Y is X for X in arrays):  # an empty array is given back: nothing to record
        return Y
    number = next(_numbers)
    states = (c_void_p * 2)(number, number)
    callbacks = _CallbackList(2, _CALLBACKS, ctypes.cast(states, POINTER(c_void_p)))
    recorded[number] = [gradient for _, gradient in inputs], callbacks
    _check(_record(len(arrays), _handles(arrays), 1, _handles([Y]), ctypes.byref(callbacks)))
    return Y


_record, _CallbackList = c_function("MXCustomFunctionRecord"), found(base, "MXCallbackList")
_numbers = itertools.count(1)
recorded: dict[int, tuple[list[Gradient], Any]] = {}
"""The callbacks by the number that MXNet calls them with, until it calls `_forget`. C keeps no reference to them."""


@CFUNCTYPE(c_int, c_int, c_int, POINTER(c_void_p), POINTER(c_int), c_int, c_void_p)
def _backward(_: int, __: int, handles: Any, requests: Any, ___: int, number: int) -> bool:
    try:
        gradients, _callbacks = recorded[number]
        dY, *targets = (mx.nd.NDArray(ctypes.cast(handles[i], _Handle)) for i in range(1 + len(gradients)))
        with mx.util.np_shape(True):
            for index, (gradient, target) in enumerate(zip(gradients, targets, strict=True)):
                gradient(target, _REQUESTS[requests[index]], dY)
    except Exception:  # cannot pass through C; MXNet raises its own for False
        traceback.print_exc()
        return False
    return True


@CFUNCTYPE(c_int, c_void_p)
def _forget(number: int) -> bool:
    recorded.pop(number, None)
    return True


_Callback: Any = CFUNCTYPE(c_int)
_callbacks = (_Callback * 2)(ctypes.cast(_backward, _Callback), ctypes.cast(_forget, _Callback))
_CALLBACKS = ctypes.cast(_callbacks, POINTER(_Callback))


@contextmanager
def dense_operators() -> Iterator[None]:
    """Within this context `mx.operator.register` makes operators whose arrays are all dense and classic.

    Works around an MXNet bug: the backward pass of every operator uses the dependencies that the operator traced last
    declared. It then asks arrays that were not kept for their storage type, and raises.
    """
    theirs = found(mx.operator, "_ndarray_cls")
    mx.operator._ndarray_cls = lambda handle, writable=True, stype=0: mx.nd.NDArray(handle, writable=writable)
    try:
        with mx.util.np_array(False):  # else operators get NumPy arrays
            yield
    finally:
        mx.operator._ndarray_cls = theirs


for _step in ("_finish_deferred_init", "_init_impl", "_check_and_get", "_reduce"):
    found(gluon.Parameter, _step)


class Parameter(gluon.Parameter):
    """A Gluon parameter whose subclass keeps the value until arrays are needed.

    Gluon has no public hooks into initialization and saving, nor into what a `gluon.Trainer` reads. Its private methods
    are overridden here. They are looked up first: an override that nothing calls would leave zeros for the value.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self._data: Any
        self._deferred_init: Any
        for each in ("_data", "_deferred_init", "_trainer"):
            found(self, each)

    def value(self) -> Array:
        """The present value: new arrays begin with it, and it is saved."""
        raise NotImplementedError(f"{type(self).__name__}.value")  # each subclass' own

    def placed(self, value: Array) -> None:
        """Called after new arrays were made with a value."""
        raise NotImplementedError(f"{type(self).__name__}.placed")  # each subclass' own

    def begin(self, ctx: mx.Context | list[mx.Context] | None) -> None:
        """Allocates the arrays, if there are none yet."""
        if self._data is None:
            self.initialize(ctx=ctx)

    @property
    def arrays(self) -> list[Array] | None:
        """The arrays, one for each context; None before they are allocated."""
        return self._data

    @property
    def neighbours(self) -> Sequence[gluon.Parameter]:
        """All parameters of this one's `gluon.Trainer`."""
        return found(self._trainer, "_params") if self._trainer else ()

    def _finish_deferred_init(self) -> None:  # the end of `initialize`
        if self._deferred_init:
            self._deferred_init = (*self._deferred_init[:3], self.value())
        super()._finish_deferred_init()

    def _init_impl(self, data: Array, ctx_list: Any) -> None:  # allocates the arrays
        super()._init_impl(data, ctx_list)
        self.placed(data)

    def _check_and_get(self, arr_list: Any, ctx: Any) -> Any:  # read by `data` and by a `gluon.Trainer`
        if arr_list is None:
            self.begin(ctx if isinstance(ctx, mx.Context) else None)
            arr_list = self._data
        if ctx is list:  # for a trainer: copies, since it writes the first into the others
            return [array.copy() for array in arr_list]
        return super()._check_and_get(arr_list, ctx)

    def _reduce(self) -> Array:  # read by `save_parameters`
        return self.value()


def contexts_of(params: Sequence[gluon.Parameter]) -> list[mx.Context]:
    """The contexts of parameters, each once, also of those whose initialization is deferred. The public `list_ctx`
    raises an error for a parameter that is not initialized."""
    begun = [param for param in params if initialized(param) or found(param, "_deferred_init")]
    return list(dict.fromkeys(ctx for param in begun for ctx in param.list_ctx()))


def initialized(param: gluon.Parameter) -> bool:
    """Whether a parameter has arrays. The public `data` raises an error where it has none."""
    return found(param, "_data") is not None


def forget_parameter(block: gluon.HybridBlock, name: str) -> None:
    """Removes the parameter that is the attribute `name` of a block. Gluon can only add parameters."""
    full = getattr(block, name).name
    registered, named = found(block.params, "_params"), found(block, "_reg_params")
    del registered[full], named[name]
    delattr(block, name)


def hooked(block: gluon.Block) -> bool:
    """Whether a block has forward hooks. Gluon has no public list of them."""
    return bool(found(block, "_forward_hooks") or found(block, "_forward_pre_hooks"))


def is_active(block: gluon.HybridBlock) -> bool:
    """Whether a block is hybridized. Gluon has no public way to ask."""
    return found(block, "_active")


def set_active(block: gluon.HybridBlock, active: bool) -> None:
    """Hybridizes one block, or stops it. The public `hybridize` also switches its children and drops their programs."""
    found(block, "_active")
    block._active = active


def children_of(block: gluon.Block) -> dict[str, gluon.Block]:
    """The children of a block, by name; none for a `Net`. The public iteration over a container gives no names."""
    return dict(found(block, "_children")) if isinstance(block, gluon.Block) else {}


Convolution = found(gluon.nn.conv_layers, "_Conv")
"""The base class of Gluon's convolutions. It has no public name."""


def layout_of(block: gluon.Block) -> str:
    """The layout of a convolution, such as "NCHW". Gluon keeps it in the operator's settings."""
    return found(block, "_kwargs")["layout"]


def activation_of(block: gluon.Block) -> str | None:
    """The name of the activation that a layer ends with, such as "relu"; None without one."""
    activation = getattr(block, "act", None)
    return None if activation is None else found(activation, "_act_type")


def flattens(block: gluon.nn.Dense) -> bool:
    """Whether a dense layer flattens its input to (n, features). Gluon keeps no public copy of the argument."""
    return found(block, "_flatten")


def channel_axis(block: gluon.Block) -> int:
    """The axis of the channels of a normalization layer. Gluon keeps it in the operator's settings, but for
    `GroupNorm`, where it is the second."""
    return 1 if isinstance(block, gluon.nn.GroupNorm) else found(block, "_kwargs")["axis"]


def dropout_settings(block: gluon.nn.Dropout) -> tuple[Any, Any]:
    """The rate and the axes of Gluon's own `Dropout`. It keeps no public copy of them."""
    return found(block, "_rate"), found(block, "_axes")


def set_dropout(block: gluon.nn.Dropout, rate: float, axes: tuple[int, ...]) -> None:
    """Sets the rate and the axes of Gluon's own `Dropout`, in a block that becomes one."""
    dropout_settings(gluon.nn.Dropout(rate, axes))  # raises where Gluon has other names for them
    block._rate, block._axes = rate, axes


RecurrentLayer = found(gluon.rnn.rnn_layer, "_RNNLayer")
"""The base class of Gluon's recurrent layers. It has no public name."""


def dropout_of(block: gluon.Block) -> float:
    """The rate of dropout between the layers of an `RNN`, `LSTM` or `GRU`. Gluon keeps no public copy of it."""
    return found(block, "_dropout")


CELL_RATES = ("_rate",)
"""The attributes of a `gluon.rnn.DropoutCell` that hold rates; look them up with `found`."""


def graph_of(block: gluon.SymbolBlock) -> mx.sym.Symbol:
    """The graph that a `SymbolBlock` runs. Gluon's public `export` only writes it to a file."""
    return found(block, "_cached_graph")[1]


def function_of(block: gluon.nn.Lambda | gluon.nn.HybridLambda) -> Callable[..., Any]:
    """The function that a lambda block calls. Gluon keeps no public copy of the argument."""
    if isinstance(block, gluon.nn.Lambda):
        return found(block, "_func_impl")
    function = found(block, "_func")
    of_name = function.__module__ == gluon.nn.HybridLambda.__module__  # Gluon wraps an operator given by name
    return getattr(mx.nd, found(block, "_func_name")) if of_name else function


def forget_program(block: gluon.HybridBlock) -> None:
    """Has a hybridized block traced again by its next call. The public `hybridize` also switches its children."""
    found(block, "_clear_cached_op")()
