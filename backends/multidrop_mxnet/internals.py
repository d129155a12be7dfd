"""Every private name of MXNet that this backend uses, each behind a function that says why.

MXNet promises none of them. Where a version lacks one, `found` raises an error that names it; nothing goes on with
another result. C functions and overridden methods are looked up at import, the rest at use.
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
    """An attribute that MXNet 1.9.1 has.

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
    """A function of MXNet's C interface, which is public; only the handle of its library is not. The attributes of an
    array give the same in two to six times the time, longer than a small dropout takes."""
    return found(found(base, "_LIB"), name)


_check, _handles, _Handle = (found(base, name) for name in ("check_call", "c_handle_array", "NDArrayHandle"))
_get_dtype, _get_context, _get_data = map(c_function, ("MXNDArrayGetDType", "MXNDArrayGetContext", "MXNDArrayGetData"))
_create, _wait_to_write = map(c_function, ("MXNDArrayCreateEx64", "MXNDArrayWaitToWrite"))

_NAMES = {0: "float32", 1: "float64", 2: "float16"}  # by the numbers that C gives types
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
    """Where an array's memory begins."""
    pointer = c_void_p()
    _check(_get_data(X.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def wait_to_write(X: Array) -> None:
    """Waits until nothing reads or writes an array. The public `wait_to_read` does not wait for readers."""
    _check(_wait_to_write(X.handle))


def empty(kind: type[Array], shape: tuple[int, ...], name: str, place: tuple[int, int]) -> Array:
    """A new array of a kind, shape, type and context; `mx.nd.empty` in a fifth of its time."""
    handle, ndim = _Handle(), len(shape)
    sizes = (c_int64 * ndim)(*shape)
    _check(_create(sizes, ndim, *place, 0, _CODES[name], ctypes.byref(handle)))
    return kind(handle)


Gradient: TypeAlias = Callable[[Array, str, Array], None]
"""Writes a gradient: (where to, how, which is one of `_REQUESTS`, and the gradient of the output)."""

_REQUESTS = ("null", "write", "inplace", "add")


def record(Y: Array, inputs: Sequence[tuple[Array, Gradient]]) -> Array:
    """Records for autograd that Y was computed from `inputs`, each of which comes with what writes its gradient.

    The public `mx.autograd.Function` does the same through a new array, and cannot add to a gradient that is there
    (`grad_req="add"`).
    """
    arrays = [X for X, _ in inputs]
    if any(Y is X for X in arrays):  # empty, and nothing to record
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
"""What MXNet refers to by number, until it calls `_forget`."""


@CFUNCTYPE(c_int, c_int, c_int, POINTER(c_void_p), POINTER(c_int), c_int, c_void_p)
def _backward(_: int, __: int, handles: Any, requests: Any, ___: int, number: int) -> bool:
    try:
        gradients, _callbacks = recorded[number]
        dY, *targets = (mx.nd.NDArray(ctypes.cast(handles[i], _Handle)) for i in range(1 + len(gradients)))
        with mx.util.np_shape(True):
            for index, (gradient, target) in enumerate(zip(gradients, targets, strict=True)):
                gradient(target, _REQUESTS[requests[index]], dY)
    except Exception:  # C cannot receive it; MXNet raises when it is told that there was one
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
    """Within it, `mx.operator.register` makes operators whose arrays are all dense, of the classic kind.

    Works around an MXNet bug: in the backward pass it takes the dependencies that the operator traced last declared for
    those of every operator, and raises for an array among them that was not kept, which has no storage type.
    """
    theirs = found(mx.operator, "_ndarray_cls")
    mx.operator._ndarray_cls = lambda handle, writable=True, stype=0: mx.nd.NDArray(handle, writable=writable)
    try:
        with mx.util.np_array(False):  # else operators get the other kind of array
            yield
    finally:
        mx.operator._ndarray_cls = theirs


for _step in ("_finish_deferred_init", "_init_impl", "_check_and_get", "_reduce"):
    found(gluon.Parameter, _step)


class Parameter(gluon.Parameter):
    """A Gluon parameter whose value its subclass keeps until arrays are needed.

    Gluon has no public hooks for initialization, for saving and for what a `gluon.Trainer` reads. Its private steps are
    overridden here, each looked up first: a step of another name would never be called, and the value would be zeros.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self._data: Any
        self._deferred_init: Any
        for each in ("_data", "_deferred_init", "_trainer"):
            found(self, each)

    def value(self) -> Array:
        """The present value, which is saved, and which new arrays begin with."""
        raise NotImplementedError(f"{type(self).__name__}.value")  # each subclass' own

    def placed(self, value: Array) -> None:
        """Called when there are new arrays, with the value that they were given."""
        raise NotImplementedError(f"{type(self).__name__}.placed")  # each subclass' own

    def begin(self, ctx: mx.Context | list[mx.Context] | None) -> None:
        """Makes the arrays, if there are none yet."""
        if self._data is None:
            self.initialize(ctx=ctx)

    @property
    def arrays(self) -> list[Array] | None:
        """The arrays, one a context; None before there are any."""
        return self._data

    @property
    def neighbours(self) -> Sequence[gluon.Parameter]:
        """The parameters of the `gluon.Trainer` that this one is trained by."""
        return found(self._trainer, "_params") if self._trainer else ()

    def _finish_deferred_init(self) -> None:  # the end of `initialize`
        if self._deferred_init:
            self._deferred_init = (*self._deferred_init[:3], self.value())
        super()._finish_deferred_init()

    def _init_impl(self, data: Array, ctx_list: Any) -> None:  # makes the arrays
        super()._init_impl(data, ctx_list)
        self.placed(data)

    def _check_and_get(self, arr_list: Any, ctx: Any) -> Any:  # read by `data` and by a `gluon.Trainer`
        if arr_list is None:
            self.begin(ctx if isinstance(ctx, mx.Context) else None)
            arr_list = self._data
        if ctx is list:  # a trainer gets copies, since it writes the first of them into the others
            return [array.copy() for array in arr_list]
        return super()._check_and_get(arr_list, ctx)

    def _reduce(self) -> Array:  # read by `save_parameters`
        return self.value()


def contexts_of(params: Sequence[gluon.Parameter]) -> list[mx.Context]:
    """All contexts that parameters are initialized on, or are to be, each once. The public `list_ctx` raises an error
    for a parameter that is not initialized."""
    begun = [param for param in params if initialized(param) or found(param, "_deferred_init")]
    return list(dict.fromkeys(ctx for param in begun for ctx in param.list_ctx()))


def initialized(param: gluon.Parameter) -> bool:
    """Whether a parameter has arrays. The public `data` raises an error where it has none."""
    return found(param, "_data") is not None


def forget_parameter(block: gluon.HybridBlock, name: str) -> None:
    """Removes the parameter that is the attribute `name` of a block. Gluon can only add parameters."""
    full = getattr(block, name).name
    del found(block.params, "_params")[full], found(block, "_reg_params")[name]
    delattr(block, name)


def hooked(block: gluon.Block) -> bool:
    """Whether a call of a block runs hooks. Gluon has no public way to see them."""
    return bool(found(block, "_forward_hooks") or found(block, "_forward_pre_hooks"))


def is_active(block: gluon.HybridBlock) -> bool:
    """Whether a block runs as a program. Gluon has no public way to ask."""
    return found(block, "_active")


def set_active(block: gluon.HybridBlock, active: bool) -> None:
    """Has a block run as a program, or not. The public `hybridize` also switches all blocks within, and forgets
    programs."""
    found(block, "_active")
    block._active = active


def children_of(block: gluon.Block) -> dict[str, gluon.Block]:
    """The blocks within a block, by name; none in a `Net`. The public iteration over containers gives no names."""
    return dict(found(block, "_children")) if isinstance(block, gluon.Block) else {}


Convolution = found(gluon.nn.conv_layers, "_Conv")
"""The base class of Gluon's convolutions, which has no public name."""


def layout_of(block: gluon.Block) -> str:
    """How a convolution takes images, such as "NCHW". Gluon keeps it in the operator's settings."""
    return found(block, "_kwargs")["layout"]


def activation_of(block: gluon.Block) -> str | None:
    """The name of the activation that a layer ends with, such as "relu"; None without one."""
    activation = getattr(block, "act", None)
    return None if activation is None else found(activation, "_act_type")


def flattens(block: gluon.nn.Dense) -> bool:
    """Whether a dense layer takes (n, …) as (n, product of the rest). Gluon keeps no public copy of the argument."""
    return found(block, "_flatten")


def channel_axis(block: gluon.Block) -> int:
    """The axis that a normalization takes for channels. Gluon keeps it in the operator's settings, but for `GroupNorm`,
    which takes the second."""
    return 1 if isinstance(block, gluon.nn.GroupNorm) else found(block, "_kwargs")["axis"]


def dropout_settings(block: gluon.nn.Dropout) -> tuple[Any, Any]:
    """The rate and the axes of Gluon's own layer, which keeps no public copy of them."""
    return found(block, "_rate"), found(block, "_axes")


def set_dropout(block: gluon.nn.Dropout, rate: float, axes: tuple[int, ...]) -> None:
    """Sets the rate and the axes of Gluon's own layer, of which a block was made."""
    dropout_settings(gluon.nn.Dropout(rate, axes))  # fails where Gluon keeps them by other names
    block._rate, block._axes = rate, axes


RecurrentLayer = found(gluon.rnn.rnn_layer, "_RNNLayer")
"""The base class of Gluon's recurrent layers, which has no public name."""


def dropout_of(block: gluon.Block) -> float:
    """The probability with which a recurrent layer drops between its layers. Gluon keeps no public copy of it."""
    return found(block, "_dropout")


CELL_RATES = ("_rate",)
"""The attributes of a `gluon.rnn.DropoutCell` that hold probabilities, to be looked up by `found`."""


def graph_of(block: gluon.SymbolBlock) -> mx.sym.Symbol:
    """The graph that a block runs. Gluon gives it to files alone (`export`)."""
    return found(block, "_cached_graph")[1]


def function_of(block: gluon.nn.Lambda | gluon.nn.HybridLambda) -> Callable[..., Any]:
    """The function that a block calls. Gluon keeps no public copy of the argument."""
    if isinstance(block, gluon.nn.Lambda):
        return found(block, "_func_impl")
    function = found(block, "_func")
    of_name = function.__module__ == gluon.nn.HybridLambda.__module__  # Gluon's own, around an operator
    return getattr(mx.nd, found(block, "_func_name")) if of_name else function


def forget_program(block: gluon.HybridBlock) -> None:
    """Has a hybridized block traced anew in its next call. The public `hybridize` also switches all blocks within."""
    found(block, "_clear_cached_op")()
