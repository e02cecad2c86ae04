"""Optimizers: what each holds, its zero_grad, and what each step finds and does."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from covary.doctor.case import Event, Optimizer, Step
from covary.doctor.sites import by_the_user, here, stack
from covary.doctor.watching.mode import top_mode

if TYPE_CHECKING:
    from covary.doctor.watching.patches import Patches
    from covary.doctor.watching.watch import Watch


EVERY = 16  # steps after the window between two looks at an optimizer


class Updates:
    """Fills the case's optimizers and steps.

    Inside of a step the mode is taken off: it is the optimizer's own arithmetic, unless a closure of the user's runs.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch, self.trail, self.case, self.mode = watch, watch.trail, watch.case, watch.mode
        self.optimizers: weakref.WeakKeyDictionary[Any, Optimizer] = weakref.WeakKeyDictionary()
        self.stepping, self._lifted = False, False  # inside an optimizer's own code; the mode taken off for it
        self._before: dict[int, Tensor] = {}
        self._handles: list[Any] = []

    def start(self, patches: Patches) -> None:
        patches.put(torch.optim.Optimizer, "__init__", self._optimizer_made)
        patches.put(torch.optim.Optimizer, "zero_grad", self._zero_grad)
        patches.put(nn.Module, "zero_grad", self._zero_grad)
        self._handles = [
            register_optimizer_step_pre_hook(self._step_begins),
            register_optimizer_step_post_hook(self._step_ended),
        ]

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _optimizer_made(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if self.watch.mine() and optimizer not in self.optimizers:
                self.watch.safely(self._optimizer, optimizer)

        return __init__

    def _optimizer(self, optimizer: Any) -> None:
        groups = optimizer.param_groups
        info = Optimizer(
            type(optimizer).__name__, here(), weakref.ref(optimizer), [], groups[0].get("lr", float("nan")), False
        )
        info.maximize = bool(groups[0].get("maximize", False))
        info.lr = float(info.lr) if not isinstance(info.lr, Tensor) else float(info.lr.item())
        info.params = [self.watch.key(p) for group in groups for p in group["params"]]
        info.groups = tuple(frozenset(self.watch.key(p) for p in group["params"]) for group in groups)
        info.serial, info.ours = self.trail.tick(), by_the_user()
        self.optimizers[optimizer] = info
        self.case.optimizers.append(info)
        self.watch.environments.functions()

    def _zero_grad(self, original: Any) -> Any:
        @functools.wraps(original)
        def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.watch.mine() or not self.trail.open:
                return original(owner, *args, **kwargs)
            with self.mode.aside():
                result = original(owner, *args, **kwargs)
                self.watch.safely(self._zeroed, owner)
            return result

        return zero_grad

    def _zeroed(self, owner: Any) -> None:
        if isinstance(owner, nn.Module):
            keys = frozenset(self.watch.key(p) for p in owner.parameters())
            self.watch.event("zero_grad", None, keys).stack = stack()
        else:
            keys = frozenset(self.watch.key(p) for group in owner.param_groups for p in group["params"])
            self.watch.event("zero_grad", self.optimizers.get(owner), keys).stack = stack()

    def _step_begins(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self.watch.mine():
            return
        if not self.trail.open:
            self.watch.glances.step_begins()
            return
        closure = _has_closure(args, kwargs)
        self.watch.safely(self._measure, optimizer, closure)
        if not closure:  # a closure is the user's own code; what else happens inside step is the optimizer's
            self.mode.paused += 1
            self.stepping = True
            if top_mode() is self.mode:
                self.mode.__exit__(None, None, None)
                self._lifted = True

    def resume(self) -> None:
        """After a step, also one that raised half-way."""
        if self.stepping:
            self.stepping = False
            self.mode.paused -= 1
        if self._lifted:
            self._lifted = False
            self.mode.__enter__()

    def _measure(self, optimizer: Any, closure: bool) -> None:
        if optimizer not in self.optimizers:
            self._optimizer(optimizer)
        info = self.optimizers[optimizer]
        step = Step(0, here(), info, {}, closure=closure)
        self._before = {}
        grads: list[tuple[int, Tensor]] = []
        with torch.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    key = self.watch.key(p)
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
                    key = self.watch.key(p)
                    if p.numel() <= 65536 and (info.steps < 12 or info.steps % 16 == 0) and step.grads[key]:
                        self._before[key] = p.detach().clone()
                        step.sizes[key] = float(p.abs().max())
        step.serial = self.trail.tick()
        self.case.steps.append(step)
        self.case.events.append(Event(step.serial, "step", step.site, info, step))
        self.watch.safely(self.watch.weights.step_begins, optimizer, info, step)

    def _step_ended(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self.watch.mine():
            return
        self.case.counts["updates"] += 1
        info = self.optimizers.get(optimizer)
        if info is not None:
            info.total += 1
        if self.trail.open:
            self.watch.safely(self._compare, optimizer)
            self.resume()
        else:
            self.watch.glances.step_ended(optimizer)
            if info is not None and info.total % EVERY == 0:
                self.watch.safely(self.watch.weights.step_late, optimizer)
        if info is not None and (self.trail.open or info.total % EVERY == 0):
            info.lr_latest = max((float(group.get("lr", 0.0)) for group in optimizer.param_groups), default=0.0)
        if not self.watch.gradients.depth:
            self.watch.after_step()

    def _compare(self, optimizer: Any) -> None:
        info = self.optimizers[optimizer]
        info.steps += 1
        info.last_site = here()
        step = self.case.steps[-1]
        for group in optimizer.param_groups:
            for p in group["params"]:
                before = self._before.pop(key, None) if (key := self.watch.key(p)) in self._before else None
                if before is not None:
                    step.kept[key] = float((before == p.detach()).float().mean())
        self._before = {}
        self.watch.safely(self.watch.weights.step_ended, optimizer, info, step)


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether step was given a closure; the first positional argument that a hook is told of is the optimizer."""
    return any(one is not None for one in args[1:]) or kwargs.get("closure") is not None
