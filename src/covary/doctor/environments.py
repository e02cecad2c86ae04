"""What environments say: every outermost `step` and `reset`, of Gymnasium's where it is imported and of the user's own classes.

Gymnasium is never imported from here; the hooks are laid when the script imports it.
"""

from __future__ import annotations

import builtins
import functools
import sys
import weakref
from collections import deque
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from covary.doctor.case import EnvStep
from covary.doctor.sites import is_users
from covary.doctor.trail import Node, plain


class Environments:
    """Records what `step` returns, where it looks like an environment's answer."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.depth = 0
        self.steps: deque[EnvStep] = deque(maxlen=20_000)
        self._ids: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._patches: Any = None
        self._hooked: set[str] = set()
        watch.case.env_steps = self.steps

    def start(self, patches: Any) -> None:
        self._patches = patches
        patches.put(builtins, "__build_class__", self._class_built)
        patches.put(builtins, "__import__", self._imported)
        self._gymnasium()

    def _imported(self, original: Any) -> Any:
        @functools.wraps(original)
        def __import__(name: str, *args: Any, **kwargs: Any) -> Any:
            result = original(name, *args, **kwargs)
            if name.startswith("gym") and not self._hooked:
                self._gymnasium()
            return result

        return __import__

    def _gymnasium(self) -> None:
        for library in ("gymnasium", "gym"):
            module = sys.modules.get(library)
            if module is None or library in self._hooked or not hasattr(module, "make"):
                continue
            self._hooked.add(library)
            vector = getattr(sys.modules.get(f"{library}.vector"), "VectorEnv", None)
            for root in (module.Env, vector):
                if root is None:
                    continue
                todo = [root]
                while todo:
                    kind = todo.pop()
                    todo += kind.__subclasses__()
                    self.lay(kind)
                self._later(root)

    def _later(self, root: Any) -> None:
        lay = self.lay

        def later(original: Any) -> Any:
            def __init_subclass__(cls: Any, **kwargs: Any) -> None:
                super(root, cls).__init_subclass__(**kwargs)
                lay(cls)

            return classmethod(__init_subclass__)

        self._patches.put(root, "__init_subclass__", later)

    def _class_built(self, original: Any) -> Any:
        @functools.wraps(original)
        def __build_class__(body: Any, name: str, *bases: Any, **kwargs: Any) -> Any:
            kind = original(body, name, *bases, **kwargs)
            try:
                if (
                    isinstance(kind, type)
                    and "step" in vars(kind)
                    and not issubclass(kind, (nn.Module, Optimizer, LRScheduler))
                    and is_users(body.__code__.co_filename)
                ):
                    self.lay(kind)
            except Exception:
                pass
            return kind

        return __build_class__

    def lay(self, kind: Any) -> None:
        method = vars(kind).get("step")
        if callable(method) and not hasattr(method, "_covary"):
            self._patches.put(kind, "step", self._step)
        method = vars(kind).get("reset")
        if callable(method) and not hasattr(method, "_covary"):
            self._patches.put(kind, "reset", self._reset)

    def _step(self, original: Any) -> Any:
        @functools.wraps(original)
        def step(env: Any, *args: Any, **kwargs: Any) -> Any:
            watch = self.watch
            if self.depth or not watch._mine():
                return original(env, *args, **kwargs)
            if not watch.trail.open:
                return original(env, *args, **kwargs)
            self.depth += 1
            try:
                result = original(env, *[plain(one) for one in args], **{key: plain(one) for key, one in kwargs.items()})
            finally:
                self.depth -= 1
            watch._safely(self._note, env, args or tuple(kwargs.values()), result)
            return result

        step._covary = True  # type: ignore[attr-defined]
        return step

    def _reset(self, original: Any) -> Any:
        @functools.wraps(original)
        def reset(env: Any, *args: Any, **kwargs: Any) -> Any:
            watch = self.watch
            if not self.depth and watch._mine() and watch.trail.open:
                watch._safely(self._note_reset, env)
            return original(env, *args, **kwargs)

        reset._covary = True  # type: ignore[attr-defined]
        return reset

    def _number(self, env: Any) -> int:
        try:
            return self._ids.setdefault(env, len(self._ids))
        except TypeError:
            return -1

    def _note_reset(self, env: Any) -> None:
        self.watch.case.counts["env resets"] += 1
        self.watch.event("env reset", self._number(env))

    def _note(self, env: Any, args: Any, result: Any) -> None:
        if not isinstance(result, tuple) or not 2 <= len(result) <= 6 or not args:
            return
        reward, terminated, truncated = (result[1] if len(result) > 2 else None), None, None
        if len(result) >= 5:
            terminated, truncated = result[2], result[3]
        elif len(result) >= 3:
            terminated = result[2]
        if terminated is not None and not _is_flag(terminated):
            return
        case = self.watch.case
        case.counts["env steps"] += 1
        action = self.watch.trail.of(args[0])
        record = EnvStep(
            self._number(env), action if isinstance(action, Node) else None, _kept(reward), _kept(terminated), _kept(truncated)
        )
        if len(self.steps) > 512 and self.steps[-512].action is not None:
            self.steps[-512].action = None
        self.steps.append(record)
        self.watch.event("env step", record)


def _is_flag(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return True
    if isinstance(value, (int, float)):
        return value in (0, 1)
    dtype = getattr(value, "dtype", None)
    return dtype is not None and ("bool" in str(dtype) or "float" in str(dtype) or "int" in str(dtype))


def _kept(value: Any) -> Any:
    """A small copy: numbers, flags and short arrays as they are, tensors as arrays."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return np.array(value[:64]) if value.ndim == 1 else None
    return value if isinstance(value, (bool, int, float, np.generic)) else None
