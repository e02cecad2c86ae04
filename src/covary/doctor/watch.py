"""Watching: the hooks that are laid into PyTorch, and into Gymnasium where a script uses it, and taken out again."""

from __future__ import annotations

import copy
import functools
import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from covary.doctor import aftermath, environments, glances, semantics, weights
from covary.doctor.case import Backward, Case, Event, Module, Optimizer, Step
from covary.doctor.mode import Watching
from covary.doctor.names import collect
from covary.doctor.sites import Site, by_the_user, here, site_of, stack, user_frame
from covary.doctor.trail import TRACED, Node, TracedArray, Trail, leaves

# the window: so many calls of backward, and longer where an optimizer has hardly stepped by then (a critic that is
# trained first, say); where the calls are slow, it is seconds since the first that count
FEW, MANY, MOST = 200, 500, 2000
STEPS = 20
SOME_SECONDS, SECONDS = 10.0, 30.0
NODES = 150_000  # calls that are remembered at a time: what bounds the memory
Listeners = dict[str, list[Callable[..., None]]]


class Patches:
    """Attributes that were replaced, so that they can be put back."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, bool]] = []

    def put(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replaces `owner.name` by make(original)."""
        own = name in vars(owner)
        original = getattr(owner, name)
        kept = vars(owner).get(name, original)
        new = make(original)
        if isinstance(kept, staticmethod):
            new = staticmethod(new)
        setattr(owner, name, new)
        self._undo.append((owner, name, kept, own))

    def undo(self) -> None:
        for owner, name, kept, own in reversed(self._undo):
            if own:
                setattr(owner, name, kept)
            else:
                delattr(owner, name)
        self._undo.clear()


class Watch:
    """Lays the hooks, fills a `Case`, and takes the hooks out again.

    listeners: for each of PyTorch's calls by name, who else is told of it, as listener(node, args, kwargs, result).
    on_step(count): called after each step of an optimizer, when the user's call has returned from it.
    """

    def __init__(self, listeners: Listeners | None = None, on_step: Callable[[int], None] | None = None) -> None:
        self.trail = Trail()
        self.case = Case(self.trail)
        self.mode = Watching(self.trail, listeners or {}, self._told)
        self.trail.listeners = self.mode.listeners
        self.on_step = on_step
        self.on_close: Callable[[], None] | None = None
        self.patches = Patches()
        self.thread, self.pid = threading.get_ident(), os.getpid()
        self.first_backward: float | None = None
        self._handles: list[Any] = []
        self._depth = 0
        self._optimizers: weakref.WeakKeyDictionary[Any, Optimizer] = weakref.WeakKeyDictionary()
        self._before: dict[int, Tensor] = {}
        self._modes_on = False
        self._derived: set[int] = set()  # what autograd.grad has been asked to differentiate by
        self._stepping, self._lifted = False, False  # inside an optimizer's own code; the mode taken off for it
        self.semantics = semantics.Semantics(self)
        self.environments = environments.Environments(self)
        self.weights = weights.Weights(self)
        self.aftermath = aftermath.Aftermath(self)
        self.glances = glances.Glances(self)

    # ------------------------------------------------------------------------------------------- putting on and off

    def start(self) -> Watch:
        put, patches = self.patches.put, self.patches
        put(torch.optim.Optimizer, "__init__", self._optimizer_made)
        put(torch.optim.Optimizer, "zero_grad", self._zero_grad)
        put(nn.Module, "zero_grad", self._zero_grad)
        put(nn.Module, "__init__", self._module_made)
        put(torch.autograd, "backward", self._backward)
        put(torch.autograd, "grad", self._autograd_grad)
        for kind in (torch.no_grad, torch.inference_mode, torch.enable_grad, torch.set_grad_enabled):
            put(kind, "__enter__", self._entered)
            put(kind, "__exit__", self._left)
        put(torch.set_grad_enabled, "__init__", self._grad_set)
        put(copy, "deepcopy", self._deepcopy)
        put(torch.Tensor, "__init__", self._tensor_made)
        for name in (
            "FloatTensor",
            "DoubleTensor",
            "LongTensor",
            "IntTensor",
            "BoolTensor",
            "ByteTensor",
            "HalfTensor",
        ):
            put(torch, name, self._legacy)
        for name in ("array", "asarray", "asanyarray", "ascontiguousarray"):
            put(np, name, self._to_array)
        put(torch, "from_numpy", self._from_numpy)
        put(torch, "compile", self._compile)
        put(nn.Module, "load_state_dict", self._load_state_dict)
        put(threading.Thread, "start", self._thread_start)
        self.semantics.start(patches)
        self.environments.start(patches)
        self.weights.start(patches)
        self.aftermath.start(patches)
        self._handles = [
            register_optimizer_step_pre_hook(self._step_begins),
            register_optimizer_step_post_hook(self._step_ended),
        ]
        os.register_at_fork(after_in_child=self._forked)
        self.mode.__enter__()
        self._modes_on = True
        return self

    def close_window(self) -> None:
        """The first window is over: the trail ends, the cheap hooks stay."""
        if not self.trail.open:
            return
        self._name()
        self.trail.open = False
        self._drop_mode()
        self.patches.undo()
        self.patches.put(torch.autograd, "backward", self._backward)
        self.patches.put(copy, "deepcopy", self._deepcopy)
        self.aftermath.start(self.patches)
        if self.on_close is not None:
            self.on_close()

    def _drop_mode(self) -> None:
        self._resume()
        if self._modes_on and _top_mode() is self.mode:
            self.mode.__exit__(None, None, None)
            self._modes_on = False

    def stop(self) -> Case:
        if self.trail.open:
            self._name()
            self.trail.open = False
        self._drop_mode()
        self._safely(self.weights.stop)
        self._safely(self.aftermath.stop)
        self._safely(self.glances.end)
        self.patches.undo()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        return self.case

    def _forked(self) -> None:
        self.trail.open = False
        self.pid = -1

    def _mine(self) -> bool:
        return self.pid != -1 and threading.get_ident() == self.thread

    def _safely(self, do: Callable[..., None], *args: Any) -> None:
        """Nothing that goes wrong in here reaches the user's code."""
        self.mode.paused += 1
        try:
            do(*args)
        except Exception as error:
            if len(self.mode.troubles) < 20:
                self.mode.troubles.append(f"{do.__name__}: {type(error).__name__}: {error}")
        finally:
            self.mode.paused -= 1

    def event(self, kind: str, what: Any = None, more: Any = None, site: Site | None = None) -> Event:
        event = Event(self.trail.tick(), kind, site or here(), what, more)
        if self.trail.open:
            self.case.events.append(event)
        return event

    def _told(self, kind: str, what: Any, *more: Any) -> None:
        """What the mode has seen that is no operation."""
        if kind == "write":
            node = more[0]
            if what in self.case.shapes or self.case.optimizers:
                event = self.event(kind, what, node, node.site)
                self.weights.written.add(what)
            else:
                event = Event(self.trail.tick(), kind, node.site, what, node)
                self.weights.early.append(event)
            event.stack = stack()
        elif kind == "requires_grad":
            self.event(kind, what, more[1], more[0]).stack = stack()
        elif kind == "leaf":
            self.weights.made_by_hand(what)
        elif kind == "gradient written":
            self.event(kind, what, more[1] if len(more) > 1 else None, None).stack = stack()
        else:
            self.event(kind, what, more[1] if len(more) > 1 else None, None)

    def _name(self) -> None:
        if self._mine():
            self._safely(collect, self.case, sys._getframe(1))
            self._safely(self.weights.look)

    # ------------------------------------------------------------------------------------------------- optimizers

    def _optimizer_made(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if self._mine() and optimizer not in self._optimizers:
                self._safely(self._optimizer, optimizer)

        return __init__

    def _optimizer(self, optimizer: Any) -> None:
        groups = optimizer.param_groups
        info = Optimizer(
            type(optimizer).__name__, here(), weakref.ref(optimizer), [], groups[0].get("lr", float("nan")), False
        )
        info.maximize = bool(groups[0].get("maximize", False))
        info.lr = float(info.lr) if not isinstance(info.lr, Tensor) else float(info.lr.item())
        info.params = [self._key(p) for group in groups for p in group["params"]]
        info.groups = tuple(frozenset(self._key(p) for p in group["params"]) for group in groups)
        info.serial, info.ours = self.trail.tick(), by_the_user()
        self._optimizers[optimizer] = info
        self.case.optimizers.append(info)
        self.environments.functions()

    def _key(self, parameter: Tensor) -> int:
        key = self.trail.key(parameter)
        if key not in self.case.shapes:
            self.case.shapes[key] = tuple(parameter.shape)
        return key

    def _zero_grad(self, original: Any) -> Any:
        @functools.wraps(original)
        def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._mine() or not self.trail.open:
                return original(owner, *args, **kwargs)
            self.mode.paused += 1
            try:
                return original(owner, *args, **kwargs)
            finally:
                self.mode.paused -= 1
                self._safely(self._zeroed, owner)

        return zero_grad

    def _zeroed(self, owner: Any) -> None:
        if isinstance(owner, nn.Module):
            keys = frozenset(self._key(p) for p in owner.parameters())
            self.event("zero_grad", None, keys).stack = stack()
        else:
            keys = frozenset(self._key(p) for group in owner.param_groups for p in group["params"])
            self.event("zero_grad", self._optimizers.get(owner), keys).stack = stack()

    def _step_begins(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._mine():
            return
        if not self.trail.open:
            self.glances.step_begins()
            return
        closure = _has_closure(args, kwargs)
        self._safely(self._measure, optimizer, closure)
        if not closure:  # a closure is the user's own code; what else happens inside step is the optimizer's
            self.mode.paused += 1
            self._stepping = True
            if _top_mode() is self.mode:
                self.mode.__exit__(None, None, None)
                self._lifted = True

    def _resume(self) -> None:
        """After a step, also one that raised half-way."""
        if self._stepping:
            self._stepping = False
            self.mode.paused -= 1
        if self._lifted:
            self._lifted = False
            self.mode.__enter__()

    def _measure(self, optimizer: Any, closure: bool) -> None:
        if optimizer not in self._optimizers:
            self._optimizer(optimizer)
        info = self._optimizers[optimizer]
        step = Step(0, here(), info, {}, closure=closure)
        self._before = {}
        grads: list[tuple[int, Tensor]] = []
        with torch.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    key = self._key(p)
                    grad = p.grad
                    step.lrs[key] = float(group.get("lr", float("nan")))
                    if grad is None:
                        step.grads[key] = None
                        continue
                    if grad.is_sparse:
                        grad = grad.coalesce().values()
                    step.grads[key] = 0.0
                    if grad.numel():
                        grads.append((key, grad))
            if grads:
                norms = torch.stack([norm.cpu() for norm in torch._foreach_norm([g for _, g in grads], float("inf"))])
                step.grads.update(zip([key for key, _ in grads], norms.tolist(), strict=True))
            for group in optimizer.param_groups:
                for p in group["params"]:
                    key = self._key(p)
                    if p.numel() <= 65536 and (info.steps < 12 or info.steps % 16 == 0) and step.grads[key]:
                        self._before[key] = p.detach().clone()
                        step.sizes[key] = float(p.abs().max())
        step.serial = self.trail.tick()
        self.case.steps.append(step)
        self.case.events.append(Event(step.serial, "step", step.site, info, step))
        self._safely(self.weights.step_begins, optimizer, info, step)

    def _step_ended(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self._mine():
            return
        self.case.counts["updates"] += 1
        if (info := self._optimizers.get(optimizer)) is not None:
            info.total += 1
            info.lr_latest = max((float(group.get("lr", 0.0)) for group in optimizer.param_groups), default=0.0)
        if self.trail.open:
            self._safely(self._compare, optimizer)
            self._resume()
        else:
            self._safely(self.glances.step_ended, optimizer)
            if info is not None and info.total % 16 == 0:
                self._safely(self.weights.step_late, optimizer)
        if not self._depth:
            self._after_step()

    def _compare(self, optimizer: Any) -> None:
        info = self._optimizers[optimizer]
        info.steps += 1
        info.last_site = here()
        step = self.case.steps[-1]
        for group in optimizer.param_groups:
            for p in group["params"]:
                before = self._before.pop(key, None) if (key := self._key(p)) in self._before else None
                if before is not None:
                    step.kept[key] = float((before == p.detach()).float().mean())
        self._before = {}
        self._safely(self.weights.step_ended, optimizer, info, step)

    def _after_step(self) -> None:
        """Where the user's step returns: the end of the window, and of the run if a number of updates was asked for."""
        case = self.case
        if self.trail.open:
            if case.counts["updates"] == 1:
                self._name()
            if self._seen_enough():
                self.close_window()
        if self.on_step is not None:
            self.on_step(case.counts["updates"])

    def _seen_enough(self) -> bool:
        backwards = self.case.counts["backwards"]
        seconds = 0.0 if self.first_backward is None else time.perf_counter() - self.first_backward
        if seconds > SECONDS or backwards >= MOST:
            return True
        if backwards < (FEW if seconds > SOME_SECONDS else MANY):
            return False
        return all(one.steps >= STEPS for one in self.case.optimizers if one.alive)

    # ------------------------------------------------------------------------------------------------- backward

    def _backward(self, original: Any) -> Any:
        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._mine():
                if self.pid != -1:
                    self._not_seen("backward was called in another thread: its graph was not watched")
                return original(tensors, *args, **kwargs)
            self.case.counts["backwards"] += 1
            if not self.trail.open and not self._depth:
                self._safely(self.aftermath.backward, tensors)
            if not self.trail.open or self._depth:
                return original(tensors, *args, **kwargs)
            if self._stepping:
                self._resume()
            losses = [tensors] if isinstance(tensors, Tensor) else list(tensors)
            self._safely(self._differentiated, losses, kwargs.get("inputs"))
            return self._within(original, tensors, *args, **kwargs)

        return backward

    def _autograd_grad(self, original: Any) -> Any:
        @functools.wraps(original)
        def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._mine() or not self.trail.open or self._depth:
                return original(outputs, inputs, *args, **kwargs)
            if isinstance(inputs, Tensor):
                inputs = [inputs]
            elif not isinstance(inputs, (list, tuple)):
                inputs = list(inputs)
            losses = [outputs] if isinstance(outputs, Tensor) else list(outputs)
            self.case.counts["backwards"] += 1
            self._safely(self._differentiated, losses, inputs)
            result = self._within(original, outputs, inputs, *args, **kwargs)
            self._safely(self._derivative, losses, inputs, result)
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
        self._depth += 1
        self.mode.paused += 1
        try:
            return call(*args, **kwargs)
        finally:
            self.mode.paused -= 1
            self._depth -= 1

    def _differentiated(self, losses: list[Tensor], inputs: Any) -> None:
        if self.first_backward is None:
            self.first_backward = time.perf_counter()
            self.environments.functions()
        site = here()
        only = None
        if inputs is not None:
            wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
            only = frozenset(self._key(one) for one in wanted if one.is_leaf)
        for loss in losses:
            node = self.trail.of(loss)
            variables = list(leaves(loss))
            reached = frozenset(self._key(one) for one in variables)
            dirty = frozenset(self._key(one) for one in variables if only is None and _has_gradient(one))
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
            self._name()  # perhaps no step ever comes

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
            if self.trail.open and self._mine():
                off = not isinstance(context, torch.enable_grad) and not torch.is_grad_enabled()
                quiet = not off or self.mode.paused
                self.trail.grad_off.append(None if quiet else _decorated_or_here(sys._getframe(1)))
            return result

        return __enter__

    def _left(self, original: Any) -> Any:
        @functools.wraps(original)
        def __exit__(context: Any, *args: Any) -> Any:
            if self.trail.open and self._mine() and self.trail.grad_off:
                self.trail.grad_off.pop()
            return original(context, *args)

        return __exit__

    def _grad_set(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(context: Any, mode: bool) -> None:
            original(context, mode)
            if self.trail.open and self._mine():
                context._covary_site = here()
                if not mode and not self.trail.grad_off:
                    self.trail.grad_off.insert(0, here())

        return __init__

    # ----------------------------------------------------------------------------------------- modules and copies

    def _module_made(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(module: Any, *args: Any, **kwargs: Any) -> None:
            original(module, *args, **kwargs)
            if self.trail.open and self._mine() and len(self.case.modules) < 20_000:
                self.case.modules.append(Module(type(module).__name__, weakref.ref(module), stack(), self.trail.tick()))

        return __init__

    def _deepcopy(self, original: Any) -> Any:
        @functools.wraps(original)
        def deepcopy(x: Any, memo: Any = None, *rest: Any) -> Any:
            result = original(x, memo, *rest)
            if memo is None and self._mine():
                if self.trail.open:
                    self._safely(self._copied, x, result)
                else:
                    self._safely(self.weights.copied_late, result)
            return result

        return deepcopy

    def _copied(self, x: Any, result: Any) -> None:
        event = self.event("deepcopy", type(result).__name__, (self._keys_in(x), self._keys_in(result)))
        self.weights.copied(event, result)
        if isinstance(result, nn.Module):
            for module in result.modules():
                self.case.modules.append(
                    Module(type(module).__name__, weakref.ref(module), stack(), self.trail.tick(), copied=True)
                )

    def _keys_in(self, x: Any) -> tuple[int, ...]:
        if isinstance(x, nn.Module):
            return tuple(self._key(p) for p in x.parameters())
        if isinstance(x, dict):
            return tuple(self._key(p) for p in x.values() if isinstance(p, Tensor))
        return ()

    def _load_state_dict(self, original: Any) -> Any:
        @functools.wraps(original)
        def load_state_dict(module: Any, *args: Any, **kwargs: Any) -> Any:
            if self.trail.open and self._mine():
                self._safely(self._loaded, module)
            return original(module, *args, **kwargs)

        return load_state_dict

    def _loaded(self, module: Any) -> None:
        self.event("load_state_dict", self._keys_in(module)).stack = stack()

    # ------------------------------------------------------------------------- tensors that the mode does not see made

    def _tensor_made(self, original: Any) -> Any:
        def __init__(tensor: Any, *args: Any, **kwargs: Any) -> None:
            if type(tensor) is Tensor and args and self.trail.open and self._mine():
                self._safely(self._constructed, tensor, args[0])

        return __init__

    def _constructed(self, tensor: Tensor, data: Any) -> None:
        given = self.trail.of(data)
        node = Node("tensor", here(), (given,), None, tuple(tensor.shape), False, None, self.trail.tick())
        self.trail.put(tensor, node)
        self.mode._tell("tensor", node, (data,), {}, tensor)

    def _legacy(self, original: Any) -> Any:
        watch = self

        class Meta(type):
            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                result = original(*args, **kwargs)
                if args and watch.trail.open and watch._mine():
                    watch._safely(watch._constructed, result, args[0])
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
            if self.trail.open and self._mine():
                self._safely(self._taken, result, array)
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
            if args and self.trail.open and type(result) is np.ndarray and self._mine():
                x = args[0]
                some = x[:16] if type(x) in (list, tuple) else (x,)
                if any(isinstance(one, (Tensor, *TRACED)) or type(one) in (list, tuple) for one in some):
                    return self._carried(original.__name__, x, result)
            return result

        return convert

    def _carried(self, name: str, x: Any, result: Any) -> Any:
        self.mode.paused += 1
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
        finally:
            self.mode.paused -= 1

    # ---------------------------------------------------------------------------------------- what cannot be watched

    def _not_seen(self, what: str) -> None:
        if what not in self.case.unseen:
            self.case.unseen.append(what)

    def _compile(self, original: Any) -> Any:
        @functools.wraps(original)
        def compile(model: Any = None, *args: Any, **kwargs: Any) -> Any:
            if model is None:
                return lambda inner: compile(inner, *args, **kwargs)
            self._not_seen("torch.compile: inside compiled regions only their inputs and outputs were seen")
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
        if not (self.trail.open and self._mine()) or _top_mode() is not self.mode:
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
            if self._mine() and here() is not None:
                self._not_seen("threads: what ran outside the main thread was not watched")
            return original(thread)

        return start


def _has_gradient(leaf: Tensor) -> bool:
    """Whether a gradient lies there that is not all zero."""
    grad = leaf.grad
    if grad is None:
        return False
    if grad.is_sparse:
        return bool(grad._nnz())
    return bool((grad if grad.numel() <= 1_000_000 else grad[:1]).any())


def _around(module: Any, watch: Watch) -> Any:
    """A compiled module, called without the mode."""
    inner = module.forward
    object.__setattr__(module, "forward", lambda *a, **k: watch._whole(inner, a, k, "compiled"))
    return module


def _top_mode() -> Any:
    count = torch._C._len_torch_function_stack()
    return torch._C._get_function_stack_at(count - 1) if count else None


def _decorated_or_here(frame: Any) -> Site | None:
    """The `with` that switched gradients off, or the decorator that did."""
    outer = frame
    while outer is not None and user_frame(outer) is not outer:
        if outer.f_code.co_name == "decorate_context" and "func" in outer.f_locals:
            code = getattr(outer.f_locals["func"], "__code__", None)
            if code is not None:
                from covary.doctor.sites import is_users

                if is_users(code.co_filename):
                    return Site(os.path.abspath(code.co_filename), _decorator_line(code), code.co_name)
            break
        outer = outer.f_back
    return site_of(user_frame(frame))


def _decorator_line(code: Any) -> int:
    import ast

    from covary.doctor.sites import tree

    module = tree(os.path.abspath(code.co_filename))
    for node in ast.walk(module) if module else ():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == code.co_name:
            for decorator in node.decorator_list:
                if code.co_firstlineno <= decorator.lineno <= node.lineno and any(
                    word in ast.unparse(decorator) for word in ("no_grad", "inference_mode", "set_grad_enabled")
                ):
                    return decorator.lineno
    return int(code.co_firstlineno)


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether step was given a closure; the first positional argument that a hook is told of is the optimizer."""
    return any(one is not None for one in args[1:]) or kwargs.get("closure") is not None
