"""Every private name of torch that this backend uses: why it is needed, and what happens without it.

A name that torch moves or removes is an error that says so (`missing`), or a slower way that is described here. It is
never a wrong mask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils import checkpoint


def missing(name: str) -> RuntimeError:
    """The error for a part of torch that has moved."""
    return RuntimeError(
        f"torch: expected {name}, which multidrop needs; got torch {torch.__version__}, which lacks it: install a "
        "version of torch that the tests of multidrop run with"
    )


def find(name: str) -> Any:
    """The object at a dotted path in `torch`; a function that raises `missing` where it is not there."""
    try:
        return attrgetter(name)(torch)
    except AttributeError:

        def refuse(*_: Any, **__: Any) -> Any:
            raise missing(f"torch.{name}")

        return refuse


graph_task: Callable[[], int] = find("_C._current_graph_task_id")
"""The number of the backward pass that runs in this thread; -1 outside of one. It tells a recomputed forward from a
first one. Without it a keyed layer refuses to run."""

saved_tensors_hooks: Callable[[bool], Any] = find("_C._autograd._top_saved_tensors_default_hooks")
"""The innermost `saved_tensors_hooks` in force, or None. Non-reentrant checkpointing runs a part under such hooks.
Without it a keyed layer refuses to run."""

dispatch_modes: Callable[[], int] = find("_C._len_torch_dispatch_stack")
"""How many dispatch modes are active. Some of them trace what runs (see `traces`). Without it every call refuses."""

jit_traces: Callable[[], bool] = getattr(torch._C, "_is_tracing", torch.jit.is_tracing)
"""Whether `torch.jit.trace` runs. Without it torch's public function tells the same, in more time."""


def exports() -> bool:
    """Whether `torch.export` traces. In whatever Dynamo of torch 2.11 traces, torch's public function says so, and a
    compiled program would take its masks in more operators. Without torch's flag that function tells."""
    try:
        return torch.compiler._is_exporting_flag
    except AttributeError:
        return torch.compiler.is_exporting()


transforms: Callable[[], bool] = find("_C._are_functorch_transforms_active")
"""Whether a transform of `torch.func` is active, under which tensors are wrapped. Without it every call refuses."""

is_wrapped: Callable[[Tensor], bool] = find("_C._functorch.is_functorch_wrapped_tensor")
"""Whether a transform of `torch.func` wraps a tensor, whose memory cannot be reached then. Without it transforms and
backward passes refuse."""

is_legacy_batched: Callable[[Tensor], bool] = find("_C._functorch.is_legacy_batchedtensor")
"""Whether a gradient stands for several, as `is_grads_batched=True` makes it; no autograd function takes such a tensor.
Without it backward passes refuse."""

is_batched: Callable[[Tensor], bool] = find("_C._functorch.is_batchedtensor")
"""Whether a tensor is an example of a batch that `vmap` goes through."""

level_of: Callable[[Tensor], int] = find("_C._functorch.maybe_get_level")
"""The level of the transform that wraps a tensor."""

unwrapped: Callable[[Tensor], Tensor] = find("_C._functorch.get_unwrapped")
"""What a wrapped tensor wraps. Without these three, calls within transforms refuse."""

without_transforms: Callable[[], AbstractContextManager[None]] = find("_C._DisableFuncTorch")
"""Suspends `torch.func`: a stream is read and moved as plain memory, once for all examples of a `vmap`. Without it
calls within transforms refuse."""

without_modes: Callable[[], AbstractContextManager[None]] = find("_C._DisableTorchDispatch")
"""Suspends dispatch modes: moving a stream is no part of what a mode counts, records or caches. Selective checkpointing
counts operators, and a recomputed forward moves no stream. Without it streams outside of CPU memory refuse."""


def _public_stream(index: int) -> int:
    return torch.cuda.current_stream(index).cuda_stream


raw_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", _public_stream)
"""The handle of a GPU's current stream, on which kernels are launched. Without it torch's public stream gives the same
handle, in ten times the time."""


stream_captures: Callable[[], bool] = getattr(
    torch._C, "_cuda_isCurrentStreamCapturing", torch.cuda.is_current_stream_capturing
)
"""Whether the current CUDA stream records what runs into a graph. Without it torch's public function tells the same, in
more time."""


def interpreters() -> list[Any]:
    """The transforms of `torch.func` in force. They tell the `randomness` that a `vmap` was given; without them a
    `vmap` refuses, for it may have been told to allow nothing random."""
    try:
        from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
    except ImportError:
        raise missing("torch._functorch.pyfunctorch.retrieve_all_functorch_interpreters") from None
    found: list[Any] = retrieve_all_functorch_interpreters()
    return found


def functionalizes() -> bool:
    """Whether the innermost transform of `torch.func` is `functionalize`. Without torch's name for it False: torch then
    raises, for it has no rule for autograd functions there."""
    return transforms() and "Functionalize" in str(interpreters()[-1].key())


def forward_mode() -> bool:
    """Whether forward-mode differentiation is active, which plain autograd functions do not support. Without torch's
    number for it, every call takes the slower functions, which support all modes."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def traces() -> bool:
    """Whether a dispatch mode traces what runs, or runs it without memory: make_fx, functionalization and fake tensors.
    Other modes watch real tensors, and an eager call stays what it is. Without torch's list of the former, all count as
    tracing: right values, but checkpointing then fails where a mode is around the forward alone."""
    try:
        keys, mode = torch._C._TorchDispatchModeKey, torch._C._get_dispatch_mode
        return any(mode(key) is not None for key in (keys.FAKE, keys.PROXY, keys.FUNCTIONAL))
    except AttributeError:
        return True


def traced_nodes() -> Any:
    """The nodes of the graph that a program is traced into; None where none is. In them stands what a program that
    recomputes parts of itself may recompute. Without torch's function tracing refuses."""
    try:
        from torch.fx.experimental.proxy_tensor import get_proxy_mode
    except ImportError:
        raise missing("torch.fx.experimental.proxy_tensor.get_proxy_mode") from None
    mode: Any = get_proxy_mode()
    return None if mode is None else mode.tracer.graph.nodes


def saved(nodes: Iterable[Any]) -> None:
    """Has a program keep the results of nodes, where it would compute them again in its backward pass. Under another
    name than `recompute` torch would not see the mark, and a stream would move twice: a test compares the masks."""
    for node in nodes:
        if "recompute" in node.meta:
            node.meta["recompute"] = checkpoint.CheckpointPolicy.MUST_SAVE


def is_one_of_several(X: Tensor) -> bool:
    """Whether a view may not be written to with a gradient: it is one output of several, or was made without
    gradients. Without torch's record of it False, and torch's own error comes after a mask was taken."""
    try:
        autograd = torch._C._autograd
        return bool(autograd._get_creation_meta(X) != autograd.CreationMeta.DEFAULT)
    except AttributeError:
        return False


version_of: Callable[[Tensor], int | None] = attrgetter("_version") if hasattr(Tensor, "_version") else lambda X: None
"""How often a tensor was written to. Without it None: the host does not count the calls of layers on a GPU, which then
take their masks by the GPU alone, in more time."""


def base_of(X: Tensor) -> Tensor | None:
    """What a view is a view of. Without it None, and torch's own error comes after a mask was taken."""
    base: Tensor | None = getattr(X, "_base", None)
    return base


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def is_hooked(module: nn.Module) -> bool:
    """Whether someone watches a module's calls: hooks on it or on all modules, or a `forward` of its own instance.
    Without torch's names for them True: a ReLU and a dropout then run as two operators."""
    own, everywhere = vars(module), vars(nn.modules.module)
    try:
        watched = any(own[name] or everywhere[f"_global{name}"] for name in _HOOKS)
    except KeyError:
        return True
    return bool(watched) or "forward" in own


def has_forward_hook(module: nn.Module, hook: Callable[..., Any]) -> bool:
    """Whether a module has a forward hook. Without torch's name for them False: the hook, which may run twice, is
    registered again."""
    return hook in getattr(module, "_forward_hooks", {}).values()


def recurrent_names(module: nn.RNNBase) -> list[str]:
    """The names of a recurrent module's weights, in the order in which it computes with them. Without it a recurrent
    module refuses dropped weights."""
    try:
        return list(module._flat_weights_names)
    except AttributeError:
        raise missing("torch.nn.RNNBase._flat_weights_names") from None


def set_recurrent_weights(module: nn.RNNBase, weights: list[Tensor]) -> None:
    """Replaces the tensors that a recurrent module computes with, which no public name reaches: torch's functions read
    this list, not the parameters. Without it a recurrent module refuses dropped weights."""
    if "_flat_weights" not in vars(module):
        raise missing("torch.nn.RNNBase._flat_weights")
    module._flat_weights = [*weights]


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside of a compiled one, whose own hooks are not called. Without torch's name for it the module
    itself: a comparison then sees no layers run, and says so."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` or `Module.compile` compiles a module or one within it. Without torch's names for what it
    compiled, False: a training run then does not note that its first epoch includes compiling."""
    names = ("_orig_mod", "_compiled_call_impl")
    return any(getattr(module, name, None) is not None for module in model.modules() for name in names)


def keras_layers(layer: Any) -> list[Any]:
    """A Keras layer, where Keras runs on torch, and all layers within it. Without Keras' name for them the layer alone:
    a report on what was not converted then names it, and none of those within."""
    return list(getattr(layer, "_flatten_layers", lambda: [layer])())


Method = TypeVar("Method", bound=Callable[..., Any])
Function = TypeVar("Function", bound=Callable[..., Any])


def overrides(method: Method) -> Method:
    """Marks a method that takes the place of a private one of `nn.Module`, which moves a module, reads and writes its
    part of a state dict, or names it when it is printed. Without the private one torch would call neither, and
    positions would be lost in silence: importing the backend is an error then."""
    if not hasattr(nn.Module, method.__name__):
        raise missing(f"torch.nn.Module.{method.__name__}")
    return method


def constant_in_programs(function: Function) -> Function:
    """Has `torch.compile` call a function while it traces, instead of tracing it. This is what
    `torch.compiler.assume_constant_result` does, which imports torch's compiler, and Triton with it, at once. Without
    torch's name for the mark the function is traced, which is an error for one that registers operators."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # what torch looks for
    return function


def former_buffer(module: nn.Module, name: str) -> Any:
    """Removes a buffer that is in a module by its pickled state, and gives it back: former versions of the backend kept
    positions so. Without torch's name for buffers it is a KeyError, and the module does not load."""
    return vars(module)["_buffers"].pop(name)


def is_read(value: Any) -> bool:
    """Whether Hugging Face's `from_pretrained` has read a tensor from a file, and not only made memory for it. Without
    its mark False: layers of a loaded model begin where they were built."""
    return bool(getattr(value, "_is_hf_initialized", False))


DropoutBase: Any = getattr(nn.modules.dropout, "_DropoutNd", nn.Module)
"""Base class of torch's dropout layers, by which other packages find them in a model. Without it a layer is still a
subclass of torch's of its name."""

Convolution: type[nn.Module] = nn.modules.conv._ConvNd
"""Base class of torch's convolutions."""

BatchNorm: type[nn.Module] = nn.modules.batchnorm._NormBase
"""Base class of torch's batch and instance norms. Without these two, importing the backend is an AttributeError: a
comparison would mistake their weights."""


def checkpointed_parts() -> tuple[list[Any], tuple[Any, Any] | None]:
    """The parts of a forward that `torch.utils.checkpoint` runs in this thread, found by names in its frames and hooks,
    for it tells nobody. Without them this raises, or finds nothing, and then the recomputed forward raises.

    Returns:
        What torch keeps of each part that runs for the first time (the context of an autograd function, or a frame of
        its own); then that of the part which is recomputed around them, with what identifies this recomputation, or
        None where nothing is recomputed.
    """
    first: list[Any] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename == checkpoint.__file__:
            held = frame.f_locals
            if code.co_name == "backward" and "ctx" in held:
                return first, (held["ctx"], graph_task())
            if code.co_name == "unpack_hook" and "frame" in held:
                return first + _hooked(first), (held["frame"], held["gid"])
            if code.co_name == "forward" and "ctx" in held:
                first.append(held["ctx"])
            elif code.co_name == "checkpoint":
                generator = held.get("gen")
                if generator is not None and generator.gi_frame is not None:
                    first.append(generator.gi_frame.f_locals["new_frame"])
                elif not first:
                    raise missing("the locals `gen` or `ctx` of torch.utils.checkpoint")
        frame = frame.f_back
    return first + _hooked(first), None


def _hooked(known: list[Any]) -> list[Any]:
    """The part whose hooks on saved tensors are in force, where no frame led to it: one that is not run by a call, as
    in a module that checkpoints itself."""
    hooks = saved_tensors_hooks(True)
    code = getattr(hooks[0], "__code__", None) if hooks else None
    if code is None or code.co_filename != checkpoint.__file__:
        return []
    held = dict(zip(code.co_freevars, (cell.cell_contents for cell in hooks[0].__closure__ or ()), strict=True))
    if "frame" not in held and "target_frame_ref" not in held:  # the latter is of a recomputation
        raise missing("the variable `frame` of the hooks of torch.utils.checkpoint")
    part = held.get("frame")
    return [] if part is None or any(part is other for other in known) else [part]


def jagged_class() -> Any:
    """The class of jagged nested tensors, which has no public name. Without it such a tensor meets operators that it
    does not know, which is an error of torch's."""
    module: Any = sys.modules.get("torch.nested._internal.nested_tensor")
    return getattr(module, "NestedTensor", None)


def values_of(X: Any) -> Tensor:
    """The values of a jagged tensor in the order in which they lie, for an operator below autograd. Without torch's
    name for them the operator gets no tensor, and raises."""
    values: Tensor = X._values
    return values


def with_values(X: Any, values: Tensor) -> Tensor:
    """A jagged tensor like X, of other values, made by the protocol that `torch.compile` takes it apart by: no public
    function keeps its lengths and its ragged dimension. Without torch's name for the values, torch raises."""
    names, context = X.__tensor_flatten__()
    parts = {name: getattr(X, name) for name in names} | {"_values": values}
    made: Tensor = type(X).__tensor_unflatten__(parts, context | {"requires_grad": False}, X.shape, X.stride())
    return made


def nothing_compiled() -> AbstractContextManager[Any]:
    """Runs compiled modules and functions eagerly. Where torch's compiler, whose import takes seconds, was not imported
    yet, nothing is compiled."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
