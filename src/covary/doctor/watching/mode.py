"""Sees every call of PyTorch that Python makes, and writes the trail."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from covary.doctor.sites import here
from covary.doctor.trail import SCALARS, Node, TracedArray, Trail


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IGNORED = _words(
    "shape size dim ndim ndimension numel nelement device dtype layout requires_grad grad_fn is_leaf is_contiguous "
    "stride storage_offset is_cuda is_sparse is_quantized is_mps is_meta is_complex is_floating_point is_nested names "
    "_version retains_grad retain_grad register_hook data_ptr element_size __len__ __hash__ __format__ __repr__ "
    "__str__ __dir__ __reduce_ex__ __setstate__ __contains__ backward is_same_size storage untyped_storage "
    "_typed_storage is_inference is_pinned is_shared share_memory_ type_ get_device result_type is_tensor is_storage "
    "broadcast_shapes itemsize nbytes _is_view is_conj is_neg is_signed __deepcopy__ _backward_hooks _base output_nr "
    "allclose equal is_nonzero isreal promote_types can_cast finfo set_default_dtype __bool__ __index__"
)
VIEWS = _words(
    "data detach view view_as reshape squeeze unsqueeze flatten T mT H permute transpose t expand select narrow "
    "__getitem__ ravel diagonal unflatten contiguous alias swapaxes movedim"
)
_IN_PLACE = _words("__iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ipow__ __ifloordiv__ __imod__ __setitem__")
_SAME = {  # one word each
    "__add__": "add", "__radd__": "add", "__mul__": "mul", "__rmul__": "mul", "multiply": "mul", "__sub__": "sub",
    "subtract": "sub", "__rsub__": "rsub", "__truediv__": "div", "true_divide": "div", "divide": "div",
    "__div__": "div", "__rtruediv__": "rdiv", "__rdiv__": "rdiv", "__neg__": "neg", "negative": "neg", "__pow__": "pow",
    "square": "square", "__rpow__": "rpow", "__matmul__": "matmul", "__rmatmul__": "rmatmul", "absolute": "abs",
    "__abs__": "abs",
    "__lt__": "lt", "__gt__": "gt", "__le__": "le", "__ge__": "ge", "__eq__": "eq", "__ne__": "ne", "clip": "clamp",
    "__iadd__": "add_", "__isub__": "sub_", "__imul__": "mul_", "__itruediv__": "div_", "__idiv__": "div_",
    "__ipow__": "pow_", "special_expit": "sigmoid", "concat": "cat", "concatenate": "cat",
    "__and__": "bitwise_and", "__or__": "bitwise_or", "__xor__": "bitwise_xor", "__invert__": "bitwise_not",
    "__getitem__": "getitem", "__setitem__": "setitem", "__float__": "float", "__int__": "int", "__array__": "numpy",
    "__bool__": "bool", "__complex__": "complex", "__index__": "int",
}  # fmt: skip
TO_PYTHON = frozenset(("item", "tolist", "numpy", "float", "int"))


def _name(func: Any) -> str:
    name = getattr(func, "__name__", "")
    if func is torch.autograd.grad:
        return "autograd.grad"
    if name in ("__get__", "__set__", "__delete__"):
        name = getattr(getattr(func, "__self__", None), "__name__", "") + ("" if name == "__get__" else "=")
    return name


class Names(dict[Any, str]):
    """The name of each function that PyTorch hands to a mode, worked out once; "" for those that tell nothing."""

    def __missing__(self, func: Any) -> str:
        name = _name(func)
        name = _SAME.get(name, name) if name == "requires_grad=" or name.rstrip("=") not in IGNORED else ""
        self[func] = name
        return name


class _Aside:
    """A context in which a mode sees nothing. A class, and no generator: it is entered several times an update."""

    __slots__ = ("lifted", "mode")

    def __init__(self, mode: Watching) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self.mode.paused += 1
        self.lifted = top_mode() is self.mode
        if self.lifted:
            self.mode.__exit__(None, None, None)

    def __exit__(self, *error: object) -> None:
        if self.lifted:
            self.mode.__enter__()
        self.mode.paused -= 1


class Watching(TorchFunctionMode):
    """Hands every call, after it was made, to the trail; never raises into the user's code."""

    def __init__(
        self, trail: Trail, listeners: dict[str, list[Callable[..., None]]], event: Callable[..., None]
    ) -> None:
        super().__init__()
        self.trail, self.listeners, self.event = trail, listeners, event
        self.names = Names()
        self.carries = True  # whether numbers and arrays that leave PyTorch carry their nodes on
        self.paused = 0  # inside an optimizer's own step, say
        self.calls = 0
        self.troubles: list[str] = []  # what went wrong in here: said in the report, never raised

    def aside(self) -> _Aside:
        """Out of the way for a while: taken off where it lies on top, which costs less than being asked to no end."""
        return _Aside(self)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused or not self.trail.open:
            return func(*args, **kwargs)
        name = self.names[func]
        if not name:
            return func(*args, **kwargs)
        before = None
        try:
            if name[-1] == "_" or name == "setitem":
                written = args[0] if args else kwargs.get("tensor")  # torch.nn.init hands it on by name
                if isinstance(written, Tensor):
                    before = self.trail.of(written)
        except Exception:
            pass
        result = func(*args, **kwargs)
        try:
            self.calls += 1
            if before is not None and not args:
                args, kwargs = (written,), {key: one for key, one in kwargs.items() if key != "tensor"}
            return self.record(name, args, kwargs, result, before)
        except Exception as error:
            if len(self.troubles) < 20:
                self.troubles.append(f"{name}: {type(error).__name__}: {error}")
            return result

    def record(self, name: str, args: Any, kwargs: Any, result: Any, before: Node | None) -> Any:
        trail = self.trail
        if name[-1] == "=":
            self._set(name[:-1], args)
            return result
        given = tuple([trail.of(one) for one in args])
        named = {key: trail.of(one) for key, one in kwargs.items()} if kwargs else None
        off = trail.grad_off[-1] if trail.grad_off and not torch.is_grad_enabled() else None
        if name == "requires_grad_":
            self.event("requires_grad", trail.key(args[0]), here(), bool((*args, *kwargs.values(), True)[1]))
            self._leaf(args[0])
            return result
        if before is not None:
            given = (before, *given[1:])
            target = args[0]
            node = Node(
                name, here(), given, named, tuple(target.shape), target.requires_grad, off, trail.tick(), before.param
            )
            trail.put(target, node)
            if before.param is not None:
                self.event("write", before.param, node)
            elif before.op == "grad":
                node.op, node.tags = "grad", {"of": before.tag("of")}
                self.event("gradient written", before.tag("of"), node, name)
            self._tell(name, node, args, kwargs, target)
            return result
        if isinstance(result, Tensor):
            self._made(name, given, named, off, result, args, kwargs)
            return result
        if isinstance(result, (tuple, list)):
            for i, one in enumerate(result):
                if isinstance(one, Tensor):
                    own = given[i : i + 1] if name == "broadcast_tensors" else given
                    self._made(name, own, named, off, one, args, kwargs)
                elif isinstance(one, (tuple, list)):
                    for inner in one:
                        if isinstance(inner, Tensor):
                            self._made(name, given, named, off, inner, args, kwargs)
            if name == "tolist":
                return self._left(name, given, result)
            return result
        if name in TO_PYTHON:
            return self._left(name, given, result)
        return result

    def _made(self, name: str, given: Any, named: Any, off: Any, result: Tensor, args: Any, kwargs: Any) -> None:
        trail = self.trail
        param = None
        if name in VIEWS or name == "getitem":
            param = getattr(given[0], "param", None) if given else None
            if args and result is args[0]:
                return
        grad = result.requires_grad
        node = Node(name, here(), given, named, tuple(result.shape), grad, off, trail.tick(), param)
        if name == "grad" and args and isinstance(args[0], Tensor):
            node.tags = {"of": trail.key_if_known(args[0])}
            node.inputs = ()
        elif result.is_leaf and grad and name not in VIEWS and not result._is_view():
            if trail.key_if_known(result) is not None:
                return
            node.mark(leaf=True)  # a tensor made with requires_grad=True
            node.param = trail.key(result)
            self.event("leaf", node.param)
            if _from_a_network(node):
                trail.fresh.add(node.param)
        trail.put(result, node)
        trail.cut(node)
        self._tell(name, node, args, kwargs, result)

    def _left(self, name: str, given: Any, result: Any) -> Any:
        """A value leaves PyTorch: it carries its node on where its type may be a subclass, else it is remembered."""
        trail = self.trail
        if not self.carries:
            return result
        node = Node(name, here(), given, None, tuple(getattr(result, "shape", ())), False, None, trail.tick())
        if not any(one.op != "source" or one.grad for one in node.inputs):
            node.inputs = ()
        trail.cut(node)
        if isinstance(result, np.ndarray):
            trail.export(result, node)
            if name == "numpy" and result.dtype.kind in "fiub":
                traced = result.view(TracedArray)
                traced.node, traced.trail = node, trail
                return traced
            return result
        if name in ("item", "tolist"):
            return _carry(result, node, trail)
        trail.export(result, node)
        return result

    def _set(self, name: str, args: Any) -> None:
        target = args[0]
        if name == "requires_grad":
            self.event("requires_grad", self.trail.key(target), here(), bool(args[1]))
            self._leaf(target)
        elif name == "data":
            key = self.trail.key_if_known(target)
            source = self.trail.of(args[1])
            if key is not None:
                given, shape, grad = (self.trail.of(target), source), tuple(target.shape), target.requires_grad
                node = Node("data=", here(), given, None, shape, grad, None, self.trail.tick(), key)
                self.event("write", key, node)
        elif name == "grad":
            key = self.trail.key_if_known(target)
            if key is not None:
                self.event("gradient written", key, None, "none" if args[1] is None else "set")

    def _leaf(self, tensor: Tensor) -> None:
        """A tensor that was made by hand, and is a parameter from now on (or no longer)."""
        node = self.trail.of(tensor)
        if tensor.is_leaf and type(node) is Node:
            node.grad = tensor.requires_grad
            if node.grad and node.param is None:
                node.mark(leaf=True)
                node.param = self.trail.key(tensor)
                if _from_a_network(node):
                    self.trail.fresh.add(node.param)
                self.event("leaf", node.param)
            while node.inputs and node.param is not None and node.inputs[0].param == node.param:
                node = node.inputs[0]  # it before it was written to, at its initialisation say: that was no cut
                node.grad = tensor.requires_grad

    def _tell(self, name: str, node: Node, args: Any, kwargs: Any, result: Any) -> None:
        for listener in self.listeners.get(name, ()):
            listener(node, args, kwargs, result)


def _from_a_network(node: Node) -> bool:
    """Whether a leaf was made of what some parameter has made, through cuts too: then it is none of a network's."""
    return any(one is not node and (one.grad or one.param is not None) for one in itertools.islice(node.walk(), 3000))


def _carry(value: Any, node: Node, trail: Trail) -> Any:
    if type(value) in SCALARS:
        traced: Any = SCALARS[type(value)](value)
        trail.export(value, node)
    elif type(value) is list:
        return [_carry(one, node, trail) for one in value]
    else:
        return value
    traced.node, traced.trail = node, trail
    return traced


def top_mode() -> Any:
    """The function mode that is asked first."""
    count = torch._C._len_torch_function_stack()
    return torch._C._get_function_stack_at(count - 1) if count else None
