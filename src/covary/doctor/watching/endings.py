"""How episodes end: which states were terminal, which were only where a time limit cut, and which went on.

A state is known again by the bytes of its observation, so that what a network is later given can be told apart.
"""

from __future__ import annotations

import ast
import functools
from typing import Any

import numpy as np

from covary.doctor.sites import tree

GOES_ON, TERMINAL, LIMIT, MIXED = 1, 2, 3, 4
_MOST = 200_000


class Outcomes:
    """What became of each observation.

    kinds: by the observation's key, one of the constants above; MIXED where it was one thing once and another later.
    widths: lengths of the observations seen. layouts: where an answer of step holds its flags, by its length.
    functions: plain functions of the script that answer as step does. timed: some observation counts the time.
    lengths: of each episode that ended by itself, how many steps it had; longest: of all, however they ended.
    """

    def __init__(self, case: Any) -> None:
        self.kinds: dict[int, int] = {}
        self.widths: set[int] = set()
        self.layouts: dict[int, tuple[int, int | None, int]] = {}
        self.functions: dict[str, tuple[int, int | None, int]] = {}
        self.lengths: list[int] = []
        self.longest = 0
        self.vector = False
        self.next_step = False  # of a vector of environments, that the step after an end is the reset
        self.ignored = 0  # steps that the script went on with after what was called an end, without a reset
        self._over: dict[int, bool] = {}  # of environments that are reset at all: whether the last step was an end
        self.cuts = 0  # episodes that the script itself ended, by a reset in their midst
        self._last: dict[int, tuple[int, bool]] = {}
        self._steps: dict[int, Any] = {}
        self._clocks: dict[int, _Clock] = {}
        case.memory["endings"] = {"outcomes": self}

    @property
    def timed(self) -> bool:
        return any(clock.ticks for clock in self._clocks.values())

    def begun(self, env: int, result: Any) -> None:
        """A reset: what it returned is a state to go on from; the last one, if it was no end, was cut by the script."""
        self._over[env] = False
        last = self._last.pop(env, None)
        if last is not None:
            self.cuts += 1
            key, new = last
            self.kinds[key] = LIMIT if new else MIXED
        self._steps.pop(env, None)
        if env in self._clocks:
            self._clocks[env].last = None
        for row in self._rows(result[0] if isinstance(result, tuple) and result else result, None):
            self._mark(row, GOES_ON)

    def stepped(self, record: Any, observation: Any, where: Any) -> None:
        if where is not None:
            self.layouts[where[2]] = where
        done, limit = record.terminated, record.limit
        if done is None:
            return
        many = None if np.ndim(done) == 0 else len(done)
        self.vector |= many is not None
        self._count(record.env, done, record.truncated, limit)
        rows = self._rows(observation, many)
        if many is None:
            self.ignored += self._over.get(record.env, False)
            if record.env in self._over:
                self._over[record.env] = bool(done)
            kind = LIMIT if limit else TERMINAL if done else GOES_ON
            self._last.pop(record.env, None)
            if rows:
                new = self._mark(rows[0], kind)
                if kind == GOES_ON:
                    self._last[record.env] = rows[0], new
                self._clocks.setdefault(record.env, _Clock()).see(observation, kind != GOES_ON)
            return
        for i, row in enumerate(rows[: len(done)]):
            self._mark(row, LIMIT if limit is not None and limit[i] else TERMINAL if done[i] else GOES_ON)

    def _count(self, env: int, done: Any, truncated: Any, limit: Any) -> None:
        """The lengths of episodes, but for those that a limit ended."""
        steps = np.atleast_1d(self._steps.get(env, 0)) + 1
        ended = np.atleast_1d(np.asarray(done, dtype=bool))
        if steps.shape != ended.shape:
            steps = np.ones(ended.shape, dtype=int)
        self.longest = max(self.longest, int(steps.max()))
        by_limit = np.zeros_like(ended) if limit is None else np.atleast_1d(limit)
        if len(self.lengths) < 10_000:
            self.lengths += [int(n) for n in steps[ended & ~by_limit]]
        over = (
            ended | by_limit
            if truncated is None
            else ended | by_limit | np.atleast_1d(np.asarray(truncated, dtype=bool))
        )
        self._steps[env] = np.where(over, 0, steps)

    def _rows(self, observation: Any, many: int | None) -> list[int]:
        """The keys of an observation, or of each row of many."""
        if many is not None:
            if getattr(observation, "ndim", 0) < 2 or len(observation) != many or many > 512:
                return []
            if hasattr(observation, "detach"):
                observation = observation.detach().cpu().numpy()  # once, and not row by row
            return [key for one in observation for key in self._rows(one, None)]
        array = _array(observation)
        if array is None or not 0 < array.size <= 4096:
            return []
        self.widths.add(array.size)
        return [key_of(array)]

    def _mark(self, key: int, kind: int) -> bool:
        """Notes what became of a state; whether it had not been seen before."""
        known = self.kinds.get(key)
        if known is None:
            if len(self.kinds) < _MOST:
                self.kinds[key] = kind
            return True
        if known != kind:
            self.kinds[key] = MIXED
        return False


class _Clock:
    """Whether some column of the observations moves by the same amount at each step: it tells the time."""

    def __init__(self) -> None:
        self.last: Any = None
        self.by: Any = None
        self.steady: Any = None
        self.count = 0

    @property
    def ticks(self) -> bool:
        return self.count >= 20 and bool(self.steady.any())

    def see(self, observation: Any, over: bool) -> None:
        now = _array(observation)
        if now is None or now.size > 4096:
            return
        if self.last is not None and self.last.shape == now.shape:
            by = now - self.last
            if self.by is None:
                self.by, self.steady = by, by != 0
            elif self.by.shape == by.shape:
                self.steady &= np.isclose(by, self.by, rtol=1e-3, atol=1e-7)
                self.count += 1
        self.last = None if over else now


def _array(value: Any) -> Any:
    """An observation as a flat float32 array, or None where it is none of numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)) and not (value and isinstance(value[0], (int, float, np.generic))):
        return None
    if not isinstance(value, (np.ndarray, list, tuple)):
        return None
    try:
        array = np.array(value, dtype=np.float32).view(np.ndarray)
    except (TypeError, ValueError):
        return None
    return array.ravel() if array.ndim else None


def key_of(row: Any) -> int:
    """What a float32 row is known again by."""
    return hash((row + 0.0).tobytes())  # -0.0 is 0.0


@functools.cache
def stepping(file: str, nested: bool = False) -> tuple[str, ...]:
    """The functions of a file, of nested ones too, that return three to six values, as an environment's step does."""
    module = tree(file)
    found = []
    for node in (ast.walk(module) if nested else module.body) if module else ():
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
            if any(isinstance(one, ast.Tuple) and 3 <= len(one.elts) <= 6 for one in returned):
                found.append(node.name)
    return tuple(found)
