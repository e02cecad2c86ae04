"""Watching: the hooks that are laid into PyTorch, and into Gymnasium where a script uses it, and taken out again."""

from __future__ import annotations

import copy
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from covary.doctor.case import Case, Event
from covary.doctor.sites import Site, here, stack
from covary.doctor.trail import Trail
from covary.doctor.watching import aftermath, environments, glances, semantics, weights
from covary.doctor.watching.entries import Entries
from covary.doctor.watching.gradients import Gradients
from covary.doctor.watching.mode import Watching, top_mode
from covary.doctor.watching.modules import Modules
from covary.doctor.watching.names import collect
from covary.doctor.watching.patches import Patches
from covary.doctor.watching.updates import Updates

# the window: so many calls of backward, and longer where an optimizer has hardly stepped by then (a critic that is
# trained first, say); where the calls are slow, it is seconds since the first that count
FEW, MANY, MOST = 200, 500, 2000
STEPS = 20
SOME_SECONDS, SECONDS = 10.0, 30.0
Listeners = dict[str, list[Callable[..., None]]]


_WATCHING: weakref.WeakSet[Watch] = weakref.WeakSet()


def _after_fork() -> None:
    for watch in list(_WATCHING):
        watch.forked()


os.register_at_fork(after_in_child=_after_fork)  # once: what is registered is never let go


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
        self.patches, self.lasting = Patches(), Patches()
        self.thread, self.pid = threading.get_ident(), os.getpid()
        self.first_backward: float | None = None
        self._modes_on = False
        self.updates = Updates(self)
        self.gradients = Gradients(self)
        self.modules = Modules(self)
        self.entries = Entries(self)
        self.semantics = semantics.Semantics(self)
        self.environments = environments.Environments(self)
        self.weights = weights.Weights(self)
        self.aftermath = aftermath.Aftermath(self)
        self.glances = glances.Glances(self)

    # ------------------------------------------------------------------------------------------- putting on and off

    def start(self) -> Watch:
        parts = (self.updates, self.gradients, self.modules, self.entries)
        for part in (*parts, self.semantics, self.environments, self.weights, self.aftermath):
            part.start(self.patches)
        self.entries.last(self.lasting)
        _WATCHING.add(self)
        self.mode.__enter__()
        self._modes_on = True
        return self

    def close_window(self) -> None:
        """The first window is over: the trail ends, the cheap hooks stay."""
        if not self.trail.open:
            return
        self.name()
        self.trail.open = False
        self._drop_mode()
        self.patches.undo()
        self.patches.put(torch.autograd, "backward", self.gradients.backward)
        self.patches.put(copy, "deepcopy", self.modules.deepcopy)
        self.aftermath.start(self.patches)
        if self.on_close is not None:
            self.on_close()

    def _drop_mode(self) -> None:
        self.updates.resume()
        if self._modes_on and top_mode() is self.mode:
            self.mode.__exit__(None, None, None)
            self._modes_on = False

    def stop(self) -> Case:
        if self.trail.open:
            self.name()
            self.trail.open = False
        self._drop_mode()
        self.safely(self.weights.stop)
        self.safely(self.aftermath.stop)
        self.safely(self.glances.end)
        self.patches.undo()
        self.lasting.undo()
        self.updates.stop()
        _WATCHING.discard(self)
        return self.case

    def forked(self) -> None:
        """In a child process nothing is watched."""
        self.trail.open = False
        self.pid = -1

    def mine(self) -> bool:
        """Whether this is the thread, and the process, that is watched."""
        return self.pid != -1 and threading.get_ident() == self.thread

    def safely(self, do: Callable[..., None], *args: Any) -> None:
        """Nothing that goes wrong in here reaches the user's code."""
        with self.mode.aside():
            try:
                do(*args)
            except Exception as error:
                if len(self.mode.troubles) < 20:
                    self.mode.troubles.append(f"{do.__name__}: {type(error).__name__}: {error}")

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

    def name(self) -> None:
        """Looks at the user's variables: what a parameter is called, and who holds it."""
        if self.mine():
            self.safely(collect, self.case, sys._getframe(1))
            self.safely(self.weights.look)

    def key(self, parameter: Tensor) -> int:
        """The number by which a parameter is known, whose shape is noted."""
        key = self.trail.key(parameter)
        if key not in self.case.shapes:
            self.case.shapes[key] = tuple(parameter.shape)
        return key

    def not_seen(self, what: str) -> None:
        """What could not be watched is said in the report, once."""
        if what not in self.case.unseen:
            self.case.unseen.append(what)

    def after_step(self) -> None:
        """Where the user's step returns: the end of the window, and of the run if a number of updates was asked for."""
        case = self.case
        if self.trail.open:
            if case.counts["updates"] == 1:
                self.name()
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
