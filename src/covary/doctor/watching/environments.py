"""What environments say: every outermost `step` and `reset`, of Gymnasium's and of the user's own classes.

Gymnasium is never imported from here; the hooks are laid when the script imports it.
"""

from __future__ import annotations

import builtins
import functools
import os
import sys
import types
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
from covary.doctor.watching.endings import Outcomes, stepping


class Environments:
    """Records what `step` returns, where it looks like an environment's answer."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.depth = 0
        self.steps: deque[EnvStep] = deque(maxlen=20_000)
        self._ids: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._patches: Any = None
        self._hooked: set[str] = set()
        self._told: Any = None  # the flags of the environment inside of the one that is stepping
        self.outcomes = Outcomes(watch.case)
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
            if self.depth or not watch.mine():
                result = original(env, *args, **kwargs)
                if self.depth and watch.mine():
                    watch.safely(self._inner, result)
                return result
            if not watch.trail.open:
                return original(env, *args, **kwargs)
            self.depth += 1
            self._told = None
            try:
                result = original(
                    env, *[plain(one) for one in args], **{key: plain(one) for key, one in kwargs.items()}
                )
            finally:
                self.depth -= 1
            watch.safely(self._note, env, args or tuple(kwargs.values()), result)
            return self._paid(result)

        step._covary = True  # type: ignore[attr-defined]
        return step

    def _paid(self, result: Any) -> Any:
        """The same answer, with a reward that carries a node ("reward"), so that what is computed from it is known."""
        if not isinstance(result, tuple):
            return result
        long = 3 <= len(result) <= 5 and _is_flag(result[2])
        if not long and not (len(result) == 2 and _is_reward(result[1], result[0])):
            return result
        try:
            answer = (result[0], self.watch.trail.reward(result[1]), *result[2:])
            return answer if type(result) is tuple else type(result)._make(answer)  # type: ignore[attr-defined]
        except Exception:
            return result

    def _reset(self, original: Any) -> Any:
        @functools.wraps(original)
        def reset(env: Any, *args: Any, **kwargs: Any) -> Any:
            watch = self.watch
            outermost = not self.depth and watch.mine() and watch.trail.open
            if outermost:
                watch.safely(self._note_reset, env)
            result = original(env, *args, **kwargs)
            if outermost:
                watch.safely(self.outcomes.begun, self._number(env), result)
            return result

        reset._covary = True  # type: ignore[attr-defined]
        return reset

    def _number(self, env: Any) -> int:
        try:
            return self._ids.setdefault(env, len(self._ids))
        except TypeError:
            return -1

    def functions(self) -> None:
        """Listens to the script's own functions that answer as an environment's `step` does."""
        main = sys.modules.get("__main__")
        file = os.path.abspath(getattr(main, "__file__", None) or "")
        for name in stepping(file) if main is not None else ():
            function = vars(main).get(name)
            if isinstance(function, types.FunctionType) and not hasattr(function, "_covary"):
                self._patches.put(main, name, self._function)

    def _function(self, original: Any) -> Any:
        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            watch = self.watch
            if self.depth or not watch.mine() or not watch.trail.open:
                return original(*args, **kwargs)
            steps = watch.case.counts["env steps"]
            result = original(*args, **kwargs)
            if steps == watch.case.counts["env steps"] and type(result) is tuple:
                watch.safely(self._note_function, original, args, result)
            return result

        step._covary = True  # type: ignore[attr-defined]
        return step

    def _note_function(self, function: Any, args: Any, result: Any) -> None:
        where = layout(result)
        if where is None or not args or not is_answer(result, where):
            return
        self.outcomes.functions[function.__name__] = where
        self._note(function, args, result)

    def _inner(self, result: Any) -> None:
        """What an environment inside of a wrapper said of its end."""
        where = layout(result) if type(result) is tuple else None
        if where is not None and where[1] is not None:
            self._told = (_kept(result[where[0]]), _kept(result[where[1]]))

    def _note_reset(self, env: Any) -> None:
        self.watch.case.counts["env resets"] += 1
        self.watch.event("env reset", self._number(env))

    def _note(self, env: Any, args: Any, result: Any) -> None:
        if not isinstance(result, tuple) or not 2 <= len(result) <= 6 or not args:
            return
        reward, terminated, truncated = (result[1] if len(result) > 2 else None), None, None
        where = layout(result)
        if where is not None:
            reward, terminated = result[where[0] - 1], result[where[0]]
            truncated = None if where[1] is None else result[where[1]]
        elif len(result) > 2:
            return
        case = self.watch.case
        case.counts["env steps"] += 1
        action = self.watch.trail.of(args[0])
        record = EnvStep(
            self._number(env),
            action if isinstance(action, Node) else None,
            _kept(reward),
            _kept(terminated),
            _kept(truncated),
        )
        told = (record.terminated, record.truncated) if record.truncated is not None else self._told
        if told is not None and told[1] is not None:
            record.limit = np.logical_and(told[1], np.logical_not(told[0]))
        self.outcomes.stepped(record, result[0], where)
        if self.outcomes.vector and "NEXT" in str((getattr(env, "metadata", None) or {}).get("autoreset_mode")).upper():
            self.outcomes.next_step = True
        if len(self.steps) > 512 and self.steps[-512].action is not None:
            self.steps[-512].action = None
        self.steps.append(record)
        self.watch.event("env step", record)


def layout(result: Any) -> tuple[int, int | None, int] | None:
    """Where in an answer its flags stand: of the termination, of the truncation if there is one; and its length."""
    if not isinstance(result, tuple) or not 3 <= len(result) <= 6:
        return None
    flags = [i for i in range(2, len(result)) if _is_bool(result[i])]
    if flags:
        return flags[0], flags[0] + 1 if flags[0] + 1 in flags else None, len(result)
    if not _is_flag(result[2]):
        return None
    return 2, 3 if len(result) >= 5 and _is_flag(result[3]) else None, len(result)


def is_answer(result: tuple[Any, ...], where: tuple[int, int | None, int]) -> bool:
    """Whether a plain function's tuple reads as (observation, reward, done, …) beyond doubt."""
    reward, done = result[where[0] - 1], result[where[0]]
    if isinstance(reward, (bool, np.bool_)) or _is_bool(reward):
        return False
    if isinstance(reward, (int, float, np.generic)):
        return (_is_bool(done) and not hasattr(done, "__len__")) or (isinstance(done, (int, float)) and done in (0, 1))
    if getattr(reward, "ndim", 0) < 1 or getattr(reward, "shape", None) != getattr(done, "shape", ()):
        return False
    return _is_bool(done) or (_binary(done) and not _binary(reward))


def _binary(value: Any) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or "bool" in str(getattr(value, "dtype", ""))


def _is_reward(value: Any, observation: Any) -> bool:
    """Whether the second of two answers is a reward: a number, or one for each row of the observation."""
    if isinstance(value, (float, np.floating)):
        return True
    if getattr(value, "requires_grad", False) or "float" not in str(getattr(value, "dtype", "")):
        return False
    rows, shape = tuple(getattr(observation, "shape", ()))[:1], tuple(value.shape)
    return shape in ((), rows, (*rows, 1))


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
