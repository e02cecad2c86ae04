"""Where values enter PyTorch, or pass it, out of the mode's sight: old constructors, NumPy, compiled code, threads."""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from covary.doctor.sites import by_the_user, here
from covary.doctor.trail import PLAIN, QUANTILES, TRACED, Node, TracedArray, plain
from covary.doctor.watching.mode import top_mode

if TYPE_CHECKING:
    from covary.doctor.watching.patches import Patches
    from covary.doctor.watching.watch import Watch


LEGACY = ("FloatTensor", "DoubleTensor", "LongTensor", "IntTensor", "BoolTensor", "ByteTensor", "HalfTensor")


class Entries:
    """Carries the trail on where the mode is told nothing, and says so where nothing can be carried on."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.trail, self.case, self.mode = watch, watch.trail, watch.case, watch.mode

    def start(self, patches: Patches) -> None:
        patches.put(torch.Tensor, "__init__", self._tensor_made)
        for name in LEGACY:
            patches.put(torch, name, self._legacy)
        for name in ("array", "asarray", "asanyarray", "ascontiguousarray"):
            patches.put(np, name, self._to_array)
        for name in ("where", "select", "result_type", "full_like", *QUANTILES):
            patches.put(np, name, self._with_scalars)
        patches.put(torch, "from_numpy", self._from_numpy)
        patches.put(torch, "compile", self._compile)
        patches.put(threading.Thread, "start", self._thread_start)

    def last(self, patches: Patches) -> None:
        """What stays until the end: a traced number that is written to a file is written as the number that it is."""
        patches.put(torch, "save", self._written)
        patches.put(pickle, "dump", self._written)
        patches.put(pickle, "dumps", self._written)

    def _written(self, original: Any) -> Any:
        @functools.wraps(original)
        def write(obj: Any, *args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(RecursionError):  # a structure that holds itself
                obj = plain(obj)
            return original(obj, *args, **kwargs)

        return write

    def _tensor_made(self, original: Any) -> Any:
        def __init__(tensor: Any, *args: Any, **kwargs: Any) -> None:
            if type(tensor) is Tensor and args and self.trail.open and self.watch.mine():
                self.watch.safely(self._constructed, tensor, args[0])

        return __init__

    def _constructed(self, tensor: Tensor, data: Any) -> None:
        given = self.trail.of(data)
        node = Node("tensor", here(), (given,), None, tuple(tensor.shape), False, None, self.trail.tick())
        self.trail.put(tensor, node)
        self.mode._tell("tensor", node, (data,), {}, tensor)

    def _legacy(self, original: Any) -> Any:
        entries = self

        class Meta(type):
            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                result = original(*args, **kwargs)
                if args and entries.trail.open and entries.watch.mine():
                    entries.watch.safely(entries._constructed, result, args[0])
                return result

            def __instancecheck__(cls, instance: Any) -> bool:
                return isinstance(instance, original)

            def __getattr__(cls, name: str) -> Any:
                return getattr(original, name)

        return Meta(original.__name__, (), {"__module__": "torch", "__doc__": original.__doc__})

    def _from_numpy(self, original: Any) -> Any:
        @functools.wraps(original)
        def from_numpy(array: Any) -> Any:
            result = original(array)
            if self.trail.open and self.watch.mine():
                self.watch.safely(self._taken, result, array)
            return result

        return from_numpy

    def _taken(self, tensor: Tensor, array: Any) -> None:
        given = self.trail.of(array)
        if given is not None:
            self.trail.put(
                tensor, Node("from_numpy", here(), (given,), None, tuple(tensor.shape), False, None, self.trail.tick())
            )

    def _to_array(self, original: Any) -> Any:
        @functools.wraps(original)
        def convert(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if args and self.trail.open and type(result) is np.ndarray and self.watch.mine():
                x = args[0]
                some = x[:16] if type(x) in (list, tuple) else (x,)
                if any(isinstance(one, (Tensor, *TRACED)) or type(one) in (list, tuple) for one in some):
                    return self._carried(original.__name__, x, result)
            return result

        return convert

    def _with_scalars(self, original: Any) -> Any:
        """Beside a float32 array a Python float is weak, and a subclass of float is not: it goes in as it was."""
        change = plain if original.__name__ in QUANTILES else _weak

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if change is _weak and not any(type(one) in PLAIN for one in _flat(args)):
                return original(*args, **kwargs)
            result = original(*change(args), **kwargs)
            if self.trail.open and self.watch.mine() and type(result) is np.ndarray:
                return self._carried(original.__name__, args, result)
            return result

        return call

    def _carried(self, name: str, x: Any, result: Any) -> Any:
        with self.mode.aside():
            try:
                given = self.trail.of(x)
                node = Node(name, here(), (given,), None, tuple(result.shape), False, None, self.trail.tick())
                if not node.inputs:
                    return result
                traced = result.view(TracedArray)
                traced.node, traced.trail = node, self.trail
                return traced
            except Exception:
                return result

    # ---------------------------------------------------------------------------------------- what cannot be watched

    def _compile(self, original: Any) -> Any:
        @functools.wraps(original)
        def compile(model: Any = None, *args: Any, **kwargs: Any) -> Any:
            if model is None:
                return lambda inner: compile(inner, *args, **kwargs)
            self.watch.not_seen("torch.compile: inside compiled regions only their inputs and outputs were seen")
            if isinstance(model, nn.Module):
                return _around(original(model, *args, **kwargs), self)
            made = original(model, *args, **kwargs)

            @functools.wraps(model)
            def call(*a: Any, **k: Any) -> Any:
                return self._whole(made, a, k, "compiled")

            return call

        return compile

    def _whole(self, call: Any, args: Any, kwargs: Any, op: str) -> Any:
        """A call that is seen from outside alone: the mode is taken off for it."""
        if not (self.trail.open and self.watch.mine()) or top_mode() is not self.mode:
            return call(*args, **kwargs)
        given = tuple(self.trail.of(one) for one in args)
        self.mode.__exit__(None, None, None)
        try:
            result = call(*args, **kwargs)
        finally:
            self.mode.__enter__()
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, Tensor):
                node = Node(op, here(), given, None, tuple(one.shape), one.requires_grad, None, self.trail.tick())
                self.trail.put(one, node)
        return result

    def _thread_start(self, original: Any) -> Any:
        @functools.wraps(original)
        def start(thread: Any) -> Any:
            if self.watch.mine() and by_the_user():
                self.watch.not_seen("threads: what ran outside the main thread was not watched")
            return original(thread)

        return start


def _flat(args: Any) -> Iterator[Any]:
    """Arguments, and those in lists of arguments."""
    for one in args:
        if type(one) in (list, tuple):
            yield from one
        else:
            yield one


def _weak(args: Any) -> Any:
    """Arguments with plain numbers in place of traced ones; arrays as they are."""
    if type(args) in (list, tuple):
        return type(args)(_weak(one) for one in args)
    return plain(args) if type(args) in PLAIN else args


def _around(module: Any, entries: Entries) -> Any:
    """A compiled module, called without the mode."""
    inner = module.forward
    object.__setattr__(module, "forward", lambda *a, **k: entries._whole(inner, a, k, "compiled"))
    return module
