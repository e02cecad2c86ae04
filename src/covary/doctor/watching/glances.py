"""Glances after the window: now and then one round of updates is watched again, for what shows only in a trend.

A glance has a trail of its own, which ends with it; nothing that the window has recorded is touched. Only listeners of
rules that ask for it (`AFTERWARDS`) are told. The time that all glances take stays below a few percent of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from covary.doctor.trail import Trail
from covary.doctor.watching.mode import Watching
from covary.doctor.watching.semantics import Semantics

GAP = 16  # steps of optimizers between two glances, at least
SHARE = 0.02  # of the time since the window, at most,
FREE = 0.15  # beside so many seconds in all
LONGEST = 12  # steps that a glance lasts at most, where the optimizer after whose step it began does not come again


class Glances:
    """Begins and ends glances, where an optimizer's step returns."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.listeners: dict[str, list[Callable[..., None]]] = {}
        self.mode: Watching | None = None
        self._closed: float | None = None
        self._began = 0.0
        self._spent = 0.0
        self._steps = self._left = 0
        self._after: Any = None
        self._patches: Any = None

    def step_begins(self) -> None:
        if self.mode is not None:
            self.mode.paused += 1

    def step_ended(self, optimizer: Any) -> None:
        """Told of each step after the window."""
        if self.mode is not None:
            self.mode.paused = max(0, self.mode.paused - 1)
            self._left -= 1
            if self._left <= 0 or id(optimizer) == self._after:
                self.watch.safely(self.end)
            return
        if not self.listeners:
            return
        now = time.perf_counter()
        if self._closed is None:
            self._closed = now
        self._steps += 1
        if (
            self._steps >= GAP
            and self._spent <= FREE + SHARE * (now - self._closed)
            and not torch._C._len_torch_function_stack()
        ):
            self._steps, self._left, self._after, self._began = 0, LONGEST, id(optimizer), now
            self.watch.safely(self._begin)

    def _begin(self) -> None:
        watch = self.watch
        trail = Trail()
        trail._params, trail.params, trail.serial = watch.trail._params, watch.trail.params, watch.trail.serial
        mode = Watching(trail, self.listeners, lambda *_: None)
        mode.troubles, mode.carries = watch.mode.troubles, False

        def safely(do: Callable[..., None], *args: Any) -> None:
            mode.paused += 1
            try:
                do(*args)
            except Exception as error:
                if len(mode.troubles) < 20:
                    mode.troubles.append(f"glance: {type(error).__name__}: {error}")
            finally:
                mode.paused -= 1

        self._patches = type(watch.patches)()
        shown = SimpleNamespace(trail=trail, mode=mode, mine=watch.mine, safely=safely)
        Semantics(shown).start(self._patches)
        self.mode = mode
        mode.__enter__()

    def end(self) -> None:
        mode = self.mode
        if mode is None:
            return
        mode.trail.open = False
        count = torch._C._len_torch_function_stack()
        if not count or torch._C._get_function_stack_at(count - 1) is not mode:
            self._left = 1  # someone else's mode lies above: try again with the next step
            return
        mode.__exit__(None, None, None)
        self._patches.undo()
        self.watch.trail.serial = max(self.watch.trail.serial, mode.trail.serial)
        self.mode = None
        self._spent += time.perf_counter() - self._began
