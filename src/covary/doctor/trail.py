"""The trail: which value was computed from which, through PyTorch and out of it, kept beside the values.

A `Node` is one call. It holds no tensor, only where it was made, from what, and its shape; a value leads to its node,
and a node to those of its operands, so what nobody holds any more is forgotten by itself. Tensors are found by identity
(with a weak reference, since identities are recycled); what leaves PyTorch by a subclass of `ndarray`, `float` or `int`
that carries its node on; what loses that subclass on the way, by the bytes of its value.
"""

from __future__ import annotations

import contextlib
import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from covary.doctor.sites import Site, here


class Node:
    """One call that made a value.

    op: its name as PyTorch or NumPy has it, and "parameter", "source" (seen for the first time, from nowhere known),
    "sample", "rsample", "log_prob", "entropy" (of a distribution, whatever it computed inside), "module" never.
    args: operands in order: nodes, numbers, strings, None; tuples of them. kwargs: the same by name, or None.
    grad: whether the value requires a gradient. off: where gradients had been switched off, if they were.
    param: the key of the parameter that this is or aliases. serial: when, counted over all events.
    """

    __slots__ = (
        "__weakref__",
        "args",
        "dtype",
        "grad",
        "inputs",
        "kwargs",
        "off",
        "op",
        "param",
        "serial",
        "shape",
        "site",
        "tags",
    )

    def __init__(
        self,
        op: str,
        site: Site | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        shape: tuple[int, ...] = (),
        grad: bool = False,
        off: Site | None = None,
        serial: int = 0,
        param: int | None = None,
    ) -> None:
        self.op, self.site, self.args, self.kwargs = op, site, args, kwargs
        self.shape, self.grad, self.off, self.serial, self.param = shape, grad, off, serial, param
        self.dtype: Any = None
        self.tags: dict[str, Any] | None = None
        self.inputs: tuple[Node, ...] = (
            tuple(_nodes(args)) if kwargs is None else (*_nodes(args), *_nodes(tuple(kwargs.values())))
        )

    def tag(self, name: str, default: Any = None) -> Any:
        return default if self.tags is None else self.tags.get(name, default)

    def mark(self, **tags: Any) -> Node:
        self.tags = {**(self.tags or {}), **tags}
        return self

    # a node that hangs on a user's value must not be copied or written with it
    def __deepcopy__(self, memo: Any) -> Node:
        return self

    def __copy__(self) -> Node:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(None), ())

    def __repr__(self) -> str:
        return f"<{self.op} {self.shape} line {self.site.line if self.site else '?'}{'' if self.grad else ' no grad'}>"

    def walk(self, enter: Callable[[Node], bool] | None = None) -> Iterator[Node]:
        """This node and all before it, each once, nearest first; `enter(node)` False does not go behind that node."""
        seen, queue = {id(self)}, [self]
        for node in queue:
            yield node
            if enter is None or enter(node):
                for one in node.inputs:
                    if id(one) not in seen:
                        seen.add(id(one))
                        queue.append(one)

    @property
    def is_cut(self) -> bool:
        """Whether the gradient ends here: an operand has one, and the value has none or begins a graph of its own."""
        if self.grad and not self.tag("leaf", False):
            return False
        for one in self.inputs:  # noqa: SIM110  any() of a generator takes twice as long, and this is asked at each call
            if one.grad:
                return True
        return False


def _nodes(args: tuple[Any, ...]) -> Iterator[Node]:
    for one in args:
        if type(one) is Node:
            yield one
        elif type(one) is tuple:
            yield from _nodes(one)


# ------------------------------------------------------------------------------------- values that carry their node


# they ask a ufunc for an array of no dimension by `out=...`, which a subclass's __array_ufunc__ is not told
QUANTILES = ("percentile", "quantile", "nanpercentile", "nanquantile")


class TracedArray(np.ndarray):
    """An array with a trail; everything computed from it by NumPy has one too."""

    node: Node | None = None
    trail: Trail | None = None

    def __array_finalize__(self, source: Any) -> None:
        self.node = getattr(source, "node", None)
        self.trail = getattr(source, "trail", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        plain = [one.view(np.ndarray) if isinstance(one, TracedArray) else one for one in inputs]
        if out is not None:
            kwargs["out"] = tuple(one.view(np.ndarray) if isinstance(one, TracedArray) else one for one in out)
        if isinstance(kwargs.get("where"), TracedArray):
            kwargs["where"] = kwargs["where"].view(np.ndarray)
        result = getattr(ufunc, method)(*plain, **kwargs)
        trail = self.trail or next((one.trail for one in inputs if isinstance(one, TracedArray) and one.trail), None)
        if trail is None or not trail.open:
            return out[0] if out is not None else result
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        if out is not None:
            if isinstance(out[0], TracedArray):
                out[0].node, out[0].trail = trail.made_by_numpy(name, inputs, out[0]), trail
            return out[0]
        made = trail.wrap(result, name, inputs)
        if (
            isinstance(made, TracedArray)
            and made.ndim == 2
            and made.shape[0] == made.shape[1]
            and made.node is not None
        ):
            made.node.mark(shapes=tuple(np.shape(one) for one in plain))  # an operand without a trail has a shape too
        return made

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ in QUANTILES:
            result = func(*plain(args), **plain(kwargs))
        else:
            result = super().__array_function__(func, types, args, kwargs)
        trail = self.trail
        if trail is None or not trail.open:
            return result
        return trail.wrap(result, func.__name__, (*args, *kwargs.values()))

    def __getitem__(self, key: Any) -> Any:
        result = super().__getitem__(key)
        trail = self.trail
        if trail is not None and trail.open and not isinstance(result, TracedArray):
            return trail.wrap(result, "getitem", (self,))
        return result

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value.view(np.ndarray) if isinstance(value, TracedArray) else value)
        if self.trail is not None and self.trail.open:
            self.node = self.trail.made_by_numpy("setitem", (self, value), self, key)

    def item(self, *args: Any) -> Any:
        result = super().item(*args)
        return result if self.trail is None else self.trail.wrap(result, "item", (self,))

    def tolist(self) -> Any:
        result = super().tolist()
        return result if self.trail is None else self.trail.wrap(result, "tolist", (self,))

    def __repr__(self) -> str:
        return repr(self.view(np.ndarray))

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Any:
        copied = self.view(np.ndarray).copy().view(TracedArray)
        copied.node, copied.trail = self.node, self.trail
        return copied


def _arithmetic(name: str) -> Callable[..., Any]:
    reflected = name.startswith("__r") and name != "__round__"
    word = name.strip("_")[1:] if reflected else name.strip("_")
    operation = pow if word == "pow" else getattr(operator, word)  # the built-in one takes a modulus too

    def operate(self: Any, *others: Any) -> Any:
        if others and isinstance(others[0], Tensor):
            return NotImplemented  # the tensor's own reflected method then sees the traced number
        values = [plain(self), *[plain(one) for one in others]]
        result = operation(*reversed(values)) if reflected else operation(*values)
        trail = self.trail
        if (type(result) in SCALARS or type(result) is np.ndarray) and trail is not None and trail.open:
            return trail.wrap(result, word, (*others, self) if reflected else (self, *others))
        return result

    operate.__name__ = name
    return operate


_BINARY = ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod")
_NAMES = [f"__{r}{name}__" for name in _BINARY for r in ("", "r")] + ["__neg__", "__pos__", "__abs__"]


class TracedFloat(float):
    """A float with a trail."""


class TracedInt(int):
    """An int with a trail."""


class TracedFloat32(np.float32):
    """A NumPy float32 with a trail."""


class TracedFloat64(np.float64):
    """A NumPy float64 with a trail."""


SCALARS: dict[type, type] = {float: TracedFloat, int: TracedInt, np.float32: TracedFloat32, np.float64: TracedFloat64}
PLAIN = {traced: kind for kind, traced in SCALARS.items()}
TRACED = (TracedArray, *PLAIN)


def _ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """Without this a subclass of float would count as float64 beside a float32 array, which a float does not."""
    outs = kwargs.pop("out", None)
    if outs is not None:
        kwargs["out"] = tuple(plain(one) for one in outs)
    if "where" in kwargs:
        kwargs["where"] = plain(kwargs["where"])
    result = getattr(ufunc, method)(*[plain(one) for one in inputs], **kwargs)
    if self.trail is None or not self.trail.open or outs is not None:
        return result if outs is None else outs[0]
    return self.trail.wrap(result, ufunc.__name__, inputs)


def _item(self: Any) -> Any:
    result = plain(self).item()
    return result if self.trail is None else self.trail.wrap(result, "item", (self,))


_METHODS: dict[str, Any] = {
    "node": None,
    "trail": None,
    "__array_ufunc__": _ufunc,
    "__reduce__": lambda self: (
        plain(self).__reduce__() if isinstance(self, np.generic) else (PLAIN[type(self)], (plain(self),))
    ),
    "__reduce_ex__": lambda self, protocol: self.__reduce__(),
    "__repr__": lambda self: repr(plain(self)),
    "__copy__": lambda self: self,
    "__deepcopy__": lambda self, memo: self,
}
for _kind, _traced in SCALARS.items():
    # set on each class: a common base beside NumPy's scalar would make arrays of it arrays of objects
    for _name, _method in _METHODS.items():
        setattr(_traced, _name, _method)
    for _name in _NAMES:
        setattr(_traced, _name, _arithmetic(_name))
    if issubclass(_kind, np.generic):
        _traced.item = _item  # type: ignore[attr-defined]


def plain(value: Any) -> Any:
    """The same value without its trail, for code that must see exact types (an environment's step)."""
    if isinstance(value, TracedArray):
        return value.view(np.ndarray)
    kind = PLAIN.get(type(value))
    if kind is not None:
        return kind(float(value)) if kind is not int else int(value)
    if type(value) in (list, tuple):
        return type(value)(plain(one) for one in value)
    if type(value) is dict:
        return {key: plain(one) for key, one in value.items()}
    return value


def leaves(tensor: Tensor) -> Iterable[Tensor]:
    """The leaves that a tensor's own graph leads to, each once."""
    if tensor.grad_fn is None:
        return [tensor] if tensor.requires_grad else []
    found: dict[int, Tensor] = {}
    seen, todo = {tensor.grad_fn}, [tensor.grad_fn]
    while todo:
        function = todo.pop()
        variable = getattr(function, "variable", None)
        if isinstance(variable, Tensor):
            found[id(variable)] = variable
        for following, _ in function.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return found.values()


# ------------------------------------------------------------------------------------------------------- the trail


class Trail:
    """Finds the node of a value, and gives one to what a call has made."""

    def __init__(self) -> None:
        self.open = True
        self.serial = 0
        self._tensors: dict[int, tuple[weakref.ref[Tensor], Node]] = {}
        self._params: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._values: OrderedDict[Any, Node] = OrderedDict()
        self.params: dict[int, weakref.ref[Tensor]] = {}  # by key, in the order in which they were seen
        self.grad_off: list[Site | None] = []  # where gradients were switched off, the innermost last
        self.listeners: dict[str, list[Callable[..., None]]] = {}  # the mode's, for NumPy's calls as "numpy.multiply"
        self.fresh: set[int] = set()  # keys of leaves that were made from other values: no parameters of a network
        self.cuts: dict[
            tuple[Any, ...], Node
        ] = {}  # by place and call, the latest value there at which a gradient ended

    def tick(self) -> int:
        self.serial += 1
        return self.serial

    # ---------------------------------------------------------------------------------------------- parameters

    def key(self, parameter: Tensor) -> int:
        """A number that stays with this parameter, unlike its identity, which may be recycled."""
        known = self._params.get(id(parameter))
        if known is not None and known[0]() is parameter:
            return known[1]
        key = len(self.params)
        reference = weakref.ref(parameter)
        self._params[id(parameter)] = (reference, key)
        self.params[key] = reference
        return key

    def key_if_known(self, tensor: Tensor) -> int | None:
        known = self._params.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    # ------------------------------------------------------------------------------------------------- tensors

    def find(self, tensor: Tensor) -> Node | None:
        known = self._tensors.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def cut(self, node: Node) -> None:
        """Remembers a node if the gradient ends at it."""
        if not node.grad and node.site is not None and node.is_cut:
            self.cuts[node.site.file, node.site.line, node.site.column, node.op] = node

    def put(self, tensor: Tensor, node: Node) -> None:
        key, tensors = id(tensor), self._tensors

        def forget(reference: Any) -> None:
            known = tensors.get(key)
            if known is not None and known[0] is reference:
                del tensors[key]

        tensors[key] = (weakref.ref(tensor, forget), node)

    def of(self, value: Any) -> Any:
        """The node of a traced value or tensor (made if need be); numbers, strings and None stay; the rest is None."""
        if isinstance(value, Tensor):
            known = self._tensors.get(id(value))
            if known is not None and known[0]() is value:
                return known[1]
            return self._first_seen(value)
        kind = type(value)
        if kind is float or kind is int or kind is bool or kind is str or value is None:
            return value
        if kind in PLAIN or kind is TracedArray:
            return value.node
        if kind is tuple or kind is list:
            if len(value) > 4096:
                return None
            return tuple([self.of(one) for one in value])
        if isinstance(value, np.generic):
            return self.matching(value) or float(value) if np.issubdtype(value.dtype, np.number) else None
        if isinstance(value, np.ndarray):
            return self.matching(value)
        return None

    def _first_seen(self, tensor: Tensor) -> Node:
        grad = bool(tensor.requires_grad)
        leaf = grad and tensor.grad_fn is None if grad else isinstance(tensor, torch.nn.Parameter)
        node = Node("parameter" if leaf else "source", None, shape=tuple(tensor.shape), grad=grad, serial=self.serial)
        if leaf:
            node.param = self.key(tensor)
        elif grad and tensor.grad_fn is not None:
            # made where the mode does not see: a custom Function, a compiled region, before the watching began
            node.inputs = tuple(
                [self._first_seen(one) if (known := self.find(one)) is None else known for one in leaves(tensor)]
            )
        self.put(tensor, node)
        return node

    # --------------------------------------------------------------------------------------- out of PyTorch, and back

    def wrap(self, result: Any, op: str, inputs: tuple[Any, ...]) -> Any:
        """What a call outside PyTorch made from traced values, carrying its node."""
        if not self.open:
            return result
        kind = type(result)
        if isinstance(result, np.ndarray):
            traced: Any = result if kind is TracedArray else result.view(TracedArray)
            traced.node, traced.trail = self.made_by_numpy(op, inputs, result), self
            if 0 < result.size <= 64:  # an action, say, that goes into a replay buffer of plain arrays
                self.export(result, traced.node)
            return traced
        if kind in SCALARS:
            wrapped: Any = SCALARS[kind](result)
        elif kind is tuple or kind is list:
            return kind(self.wrap(one, op, inputs) for one in result)
        else:
            return result
        wrapped.node, wrapped.trail = self.made_by_numpy(op, inputs, result), self
        if kind is not int:
            self.export(result, wrapped.node)
        return wrapped

    def reward(self, value: Any) -> Any:
        """A reward as the environment gave it, carrying a node "reward" (a tensor keeps its own, marked)."""
        if isinstance(value, Tensor):
            self.of(value).mark(reward=True)
            return value
        if type(value) in SCALARS or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            shape = tuple(getattr(value, "shape", ()))
            node = Node("reward", here(), shape=shape, serial=self.tick()).mark(reward=True)
            if isinstance(value, np.ndarray):
                traced: Any = value.view(TracedArray)
            else:
                traced = SCALARS[type(value)](value)
            traced.node, traced.trail = node, self
            self.export(value, node)
            return traced
        return value

    def made_by_numpy(self, op: str, inputs: tuple[Any, ...], result: Any, *more: Any) -> Node:
        node = Node(
            op,
            here(),
            tuple([self.of(one) for one in inputs]),
            shape=tuple(getattr(result, "shape", ())),
            serial=self.tick(),
        )
        for listener in self.listeners.get(f"numpy.{op}", ()):
            with contextlib.suppress(Exception):  # never into the user's code
                listener(node, (*inputs, *more), {}, result)
        return node

    def export(self, value: Any, node: Node) -> None:
        """Remembers a value that leaves PyTorch without a trail, so that it is known again when it comes back."""
        for key in _keys(value):
            known = self._values.get(key)
            if known is None or not _made_of(node, known):  # a clip that did not bite has changed nothing
                self._values[key] = node
            self._values.move_to_end(key)
        while len(self._values) > 20_000:
            self._values.popitem(last=False)

    def matching(self, value: Any) -> Node | None:
        """The node of an equal value that has left before; of one of its rows, if not of the whole."""
        if not self._values:
            return None
        for key in _keys(value, rows=True):
            node = self._values.get(key)
            if node is not None:
                return node
        return None


def _made_of(node: Node, known: Node) -> bool:
    """Whether a value comes from a known one, or from what that came from, by a few steps."""
    sources = {id(known), *(id(one) for one in known.inputs)}
    return any(id(one) in sources for one, _ in zip(node.walk(), range(8), strict=False))


_COMMON = {0.0, 1.0, -1.0, 0.5, -0.5, 2.0}


def _keys(value: Any, rows: bool = False) -> Iterator[Any]:
    """What a value is known again by: its float32 bytes; nothing for values as common as 0 and 1."""
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.size == 0 or array.size > 65536:
        return
    array = array.view(np.ndarray).astype(np.float32, copy=False)
    if 1 < array.size <= 64 and all(float(number) in _COMMON for number in array.flat):
        return
    if array.size == 1:
        number = float(array.reshape(()))
        if number not in _COMMON and number == number and not float(number * 4).is_integer():
            yield number
        return
    yield array.tobytes()
    if rows and array.ndim > 1:
        for row in array.reshape(-1, array.shape[-1])[:64]:
            if row.size > 1:
                yield row.tobytes()
            elif row.size == 1:
                yield from _keys(row[0])
    elif rows and array.ndim == 1:
        for one in array[:64]:
            yield from _keys(one)
