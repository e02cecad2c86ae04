"""Backward, autograd.grad, and where gradients were switched off."""

from __future__ import annotations

import ast
import functools
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from covary.doctor.case import Backward, Event
from covary.doctor.sites import Site, here, is_users, site_of, tree, user_frame
from covary.doctor.trail import Node, leaves

if TYPE_CHECKING:
    from covary.doctor.watching.patches import Patches
    from covary.doctor.watching.watch import Watch


NODES = 150_000  # calls that are remembered at a time: what bounds the memory


class Gradients:
    """Fills the case's backwards, each with the parameters that autograd's own graph leads to."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.trail, self.case, self.mode = watch, watch.trail, watch.case, watch.mode
        self.depth = 0
        self._derived: set[int] = set()  # what autograd.grad has been asked to differentiate by

    def start(self, patches: Patches) -> None:
        patches.put(torch.autograd, "backward", self.backward)
        patches.put(torch.autograd, "grad", self._autograd_grad)
        for kind in (torch.no_grad, torch.inference_mode, torch.enable_grad, torch.set_grad_enabled):
            patches.put(kind, "__enter__", self._entered)
            patches.put(kind, "__exit__", self._left)
        patches.put(torch.set_grad_enabled, "__init__", self._grad_set)

    def backward(self, original: Any) -> Any:
        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.watch.mine():
                if self.watch.pid != -1:
                    self.watch.not_seen("backward was called in another thread: its graph was not watched")
                return original(tensors, *args, **kwargs)
            self.case.counts["backwards"] += 1
            if not self.trail.open and not self.depth:
                self.watch.aftermath.backward(tensors)
            if not self.trail.open or self.depth:
                return original(tensors, *args, **kwargs)
            if self.watch.updates.stepping:
                self.watch.updates.resume()
            losses = [tensors] if isinstance(tensors, Tensor) else list(tensors)
            self.watch.safely(self._differentiated, losses, kwargs.get("inputs"))
            return self._within(original, tensors, *args, **kwargs)

        return backward

    def _autograd_grad(self, original: Any) -> Any:
        @functools.wraps(original)
        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.watch.mine() or not self.trail.open or self.depth:
                return original(outputs, inputs, *args, **kwargs)
            if isinstance(inputs, Tensor):
                inputs = [inputs]
            elif not isinstance(inputs, (list, tuple)):
                inputs = list(inputs)
            losses = [outputs] if isinstance(outputs, Tensor) else list(outputs)
            self.case.counts["backwards"] += 1
            self.watch.safely(self._differentiated, losses, inputs)
            result = self._within(original, outputs, inputs, *args, **kwargs)
            self.watch.safely(self._derivative, losses, inputs, result)
            return result

        return grad

    def _derivative(self, losses: list[Tensor], inputs: Any, result: Any) -> None:
        """A derivative by an input is a value of its own, which keeps its history only with create_graph=True.

        By a parameter it is a gradient, and where it goes is the business of whoever steps.
        """
        given = tuple(self.trail.of(one) for one in losses)
        for by, one in zip(inputs, result, strict=True):
            key = self.trail.key_if_known(by)
            if isinstance(one, Tensor) and (key is None or (key not in self._derived and not self._is_held(key))):
                node = Node("autograd.grad", here(), given, None, tuple(one.shape), one.requires_grad, None,
                            self.trail.tick())  # fmt: skip
                self.trail.put(one, node)
                self.trail.cut(node)
            if key is not None:
                self._derived.add(key)

    def _is_held(self, key: int) -> bool:
        return any(key in optimizer.params for optimizer in self.case.optimizers)

    def _within(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        self.depth += 1
        try:
            with self.mode.aside():
                return call(*args, **kwargs)
        finally:
            self.depth -= 1

    def _differentiated(self, losses: list[Tensor], inputs: Any) -> None:
        if self.watch.first_backward is None:
            self.watch.first_backward = time.perf_counter()
            self.watch.environments.functions()
        site = here()
        only = None
        if inputs is not None:
            wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
            only = frozenset(self.watch.key(one) for one in wanted if one.is_leaf)
        for loss in losses:
            node = self.trail.of(loss)
            variables = list(leaves(loss))
            reached = frozenset(self.watch.key(one) for one in variables)
            dirty = frozenset(self.watch.key(one) for one in variables if only is None and _has_gradient(one))
            if only is not None:
                reached &= only
            value = (
                float(loss.detach()) if loss.numel() == 1 else float("nan") if not bool(loss.isfinite().all()) else 0.0
            )
            record = Backward(self.trail.tick(), site, node, value, reached, only, dirty)
            self.case.backwards.append(record)
            self.case.events.append(Event(record.serial, "backward", site, record))
        self._forget()
        if self.case.counts["backwards"] == 2 and not self.case.counts["updates"]:
            self.watch.name()  # perhaps no step ever comes

    def _forget(self) -> None:
        """Keeps the memory bounded: the trails of old losses go, those of the first two of each site stay."""
        if self.trail.serial < NODES:
            return
        seen: Counter[Site | None] = Counter()
        for one in self.case.backwards[:-2]:
            seen[one.site] += 1
            if seen[one.site] > 2 and self.trail.serial - one.serial > NODES and one.loss.op != "forgotten":
                one.loss = Node("forgotten", one.loss.site)

    # ------------------------------------------------------------------------------------- switching gradients off

    def _entered(self, original: Any) -> Any:
        @functools.wraps(original)
        def __enter__(context: Any) -> Any:
            result = original(context)
            if self.trail.open and self.watch.mine():
                off = not isinstance(context, torch.enable_grad) and not torch.is_grad_enabled()
                quiet = not off or self.mode.paused
                self.trail.grad_off.append(None if quiet else _decorated_or_here(sys._getframe(1)))
            return result

        return __enter__

    def _left(self, original: Any) -> Any:
        @functools.wraps(original)
        def __exit__(context: Any, *args: Any) -> Any:
            if self.trail.open and self.watch.mine() and self.trail.grad_off:
                self.trail.grad_off.pop()
            return original(context, *args)

        return __exit__

    def _grad_set(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(context: Any, mode: bool) -> None:
            original(context, mode)
            if self.trail.open and self.watch.mine():
                context._covary_site = here()
                if not mode and not self.trail.grad_off:
                    self.trail.grad_off.insert(0, here())

        return __init__


def _has_gradient(leaf: Tensor) -> bool:
    """Whether a gradient lies there that is not all zero."""
    grad = leaf.grad
    if grad is None:
        return False
    if grad.is_sparse:
        return bool(grad._nnz())
    return bool((grad if grad.numel() <= 1_000_000 else grad[:1]).any())


def _decorated_or_here(frame: Any) -> Site | None:
    """The `with` that switched gradients off, or the decorator that did."""
    outer = frame
    while outer is not None and user_frame(outer) is not outer:
        if outer.f_code.co_name == "decorate_context" and "func" in outer.f_locals:
            code = getattr(outer.f_locals["func"], "__code__", None)
            if code is not None and is_users(code.co_filename):
                return Site(os.path.abspath(code.co_filename), _decorator_line(code), code.co_name)
            break
        outer = outer.f_back
    return site_of(user_frame(frame))


def _decorator_line(code: Any) -> int:
    module = tree(os.path.abspath(code.co_filename))
    for node in ast.walk(module) if module else ():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
            for decorator in node.decorator_list:
                if code.co_firstlineno <= decorator.lineno <= node.lineno and any(
                    word in ast.unparse(decorator) for word in ("no_grad", "inference_mode", "set_grad_enabled")
                ):
                    return decorator.lineno
    return int(code.co_firstlineno)
