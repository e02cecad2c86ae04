"""What becomes of the weights: who made them, who holds them, their values around each step, who calls a network.

A few numbers of a few parameters stand for all of them; nothing is drawn at random. The only tensors that are held are
one parameter of each network that no optimizer steps, so that it can be said at the end whether it ever changed.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from covary.doctor.case import Case, Event, Optimizer, Step
from covary.doctor.sites import Site, here, is_users, site_of, stack
from covary.doctor.trail import Node
from covary.doctor.watching import semantics

_NUMBERS = 32  # elements of a parameter that stand for it
_KEYS = 4  # parameters of an optimizer that stand for all, beside those that someone writes to
_HELD = 24


@dataclass(slots=True)
class Around:
    """One step: some elements of some parameters before it, and right after it."""

    step: Step
    before: dict[int, np.ndarray]
    after: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(slots=True)
class Tree:
    """A module: all its parameters, and those of each of its children by name."""

    kind: str
    keys: frozenset[int]
    children: dict[str, frozenset[int]]


@dataclass(slots=True)
class Loose:
    """What a module holds in an attribute without having registered it. registered: the keys that it has registered."""

    kind: str
    attribute: str
    holder: str
    keys: frozenset[int]
    registered: frozenset[int]


@dataclass(slots=True)
class Call:
    """A place in the user's code that calls a network. nodes: of some of the results, the latest last."""

    site: Site
    keys: frozenset[int]
    count: int = 0
    nodes: list[Node] = field(default_factory=list)


class Weights:
    """Laid by a `Watch`, read by the rules as `case.weights`."""

    def __init__(self, watch: Any) -> None:
        self.watch = watch
        self.born: dict[int, tuple[int, tuple[Site, ...]]] = {}  # when and where a parameter was made or copied
        self.trees: dict[frozenset[int], Tree] = {}
        self.loose: list[Loose] = []
        self.shared: dict[tuple[int, int], tuple[Site, ...]] = {}  # pairs of parameters that are the same memory
        self.around: dict[int, list[Around]] = {}  # by the optimizer's number in case.optimizers
        self.calls: dict[tuple[CodeType, int, frozenset[int]], Call] = {}
        self.late_copies: Counter[tuple[str, int]] = Counter()  # copies of modules after the window, by place
        self.written: set[int] = set()
        self.thawed: set[int] = set()  # parameters that were trainable at some step after the window
        self.early: list[Event] = []  # writes to parameters before there was an optimizer: mostly their initial values
        self._held: dict[int, tuple[Tensor, np.ndarray]] = {}
        self._changed: dict[int, bool] | None = None
        self._keys: weakref.WeakKeyDictionary[nn.Module, frozenset[int]] = weakref.WeakKeyDictionary()
        self._users: dict[CodeType, bool] = {}
        self._counts: Counter[tuple[CodeType, int]] = Counter()
        watch.case.weights = self

    @property
    def case(self) -> Case:
        return self.watch.case

    def start(self, patches: Any) -> None:
        patches.put(nn.Module, "register_parameter", self._registered)
        patches.put(nn.Module, "__call__", self._call)

    # --------------------------------------------------------------------------------------------------- who made them

    def _registered(self, original: Any) -> Any:
        @functools.wraps(original)
        def register_parameter(module: Any, name: str, param: Any) -> None:
            original(module, name, param)
            if param is not None and self.watch.trail.open and self.watch.mine():
                self.watch.safely(self._was_born, param)

        return register_parameter

    def _was_born(self, param: Tensor) -> None:
        trail = self.watch.trail
        self.born.setdefault(trail.key(param), (trail.tick(), stack(2)))

    def made_by_hand(self, key: int) -> None:
        """A tensor that was made with requires_grad=True: a parameter without a module."""
        self.born.setdefault(key, (self.watch.trail.serial, stack(2)))

    def copied(self, event: Event, result: Any) -> None:
        """A deepcopy: its parameters were made there."""
        event.stack = stack(3)
        for key in event.more[1]:
            self.born.setdefault(key, (event.serial, event.stack))

    def copied_late(self, result: Any) -> None:
        site = here(2)
        if isinstance(result, nn.Module) and site is not None:
            self.late_copies[site.place] += 1

    # --------------------------------------------------------------------------------------------------- who holds them

    def look(self) -> None:
        """Notes which parameters belong together; called while the user's variables are alive."""
        key = self.watch.key
        for record in self.case.modules:
            module = record.ref()
            if module is None or len(self.trees) > 4000:
                continue
            keys = frozenset(key(p) for p in module.parameters())
            if keys and keys not in self.trees:
                named = module.named_children()
                children = {name: frozenset(key(p) for p in child.parameters()) for name, child in named}
                for name, parameter in module._parameters.items():
                    if parameter is not None:
                        children[name] = frozenset((key(parameter),))
                self.trees[keys] = Tree(record.kind, keys, children)
            self._look_for_loose(record.kind, module, keys)
        self._look_for_shared()
        self._hold()

    def _look_for_shared(self) -> None:
        places: dict[tuple[int, torch.Size], int] = {}
        for number, reference in list(self.watch.trail.params.items()):
            parameter = reference()
            if parameter is None or parameter.ndim < 2 or not parameter.numel() or len(self.shared) > 64:
                continue
            other = places.setdefault((parameter.data_ptr(), parameter.shape), number)
            if other != number:
                self.shared.setdefault((other, number), self.born.get(number, (0, ()))[1])

    def _look_for_loose(self, kind: str, module: nn.Module, keys: frozenset[int]) -> None:
        for name, value in list(vars(module).items()):
            if name.startswith("_") or not isinstance(value, (list, tuple, set, dict, Tensor)):
                continue
            found = frozenset(self.watch.key(p) for p in _parameters(value)) - keys
            if found and not any(one.keys == found and one.attribute == name for one in self.loose):
                self.loose.append(Loose(kind, name, type(value).__name__, found, keys))

    def _hold(self) -> None:
        """Keeps one parameter of each network that no optimizer holds."""
        steppers = {key for optimizer in self.case.optimizers for key in optimizer.params}
        for keys in sorted(self.trees, key=len, reverse=True):
            if keys & steppers or any(held in keys for held in self._held) or len(self._held) >= _HELD:
                continue
            candidates = [(p.ndim < 2, p.numel(), key, p) for key in keys if (p := self.case.param(key)) is not None]
            for _, _, key, parameter in sorted(candidates, key=lambda one: one[:3])[:1]:
                if (numbers := some_of(parameter)) is not None:
                    self._held[key] = parameter, numbers

    def changed(self, keys: frozenset[int]) -> bool | None:
        """Whether a network that no optimizer holds has changed since the first update; None where nobody looked."""
        if self._changed is not None:
            told = [self._changed[key] for key in keys if key in self._changed]
            return any(told) if told else None
        told = [self._differs(*self._held[key]) for key in keys if key in self._held]
        return any(told) if told else None

    @staticmethod
    def _differs(parameter: Tensor, then: np.ndarray) -> bool:
        now = some_of(parameter)
        if now is None or now.shape != then.shape:
            return True
        return bool(np.abs(now - then).max() > 1e-6 * (np.abs(then).max() + 1e-12))

    def stop(self) -> None:
        """The run is over: what was held goes."""
        self._changed = {key: self._differs(*one) for key, one in self._held.items()}
        self._held.clear()

    # ------------------------------------------------------------------------------------------------ around each step

    def step_begins(self, optimizer: Any, info: Optimizer, step: Step) -> None:
        many = self.around.setdefault(self.case.optimizers.index(info), [])
        if len(many) >= 400:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        chosen = [p for p in parameters if p.ndim > 1] or parameters
        chosen = [chosen[i * len(chosen) // _KEYS] for i in range(_KEYS)] if len(chosen) > _KEYS else chosen
        written = [p for p in parameters if self.watch.key(p) in self.written][:_HELD] if self.written else []
        seen = {self.watch.key(p): p for p in (*chosen, *written)}
        many.append(Around(step, {key: one for key, p in seen.items() if (one := some_of(p)) is not None}))

    def step_ended(self, optimizer: Any, info: Optimizer, step: Step) -> None:
        many = self.around.get(self.case.optimizers.index(info), [])
        if not many or many[-1].step is not step:
            return
        for key in many[-1].before:
            parameter = self.case.param(key)
            if parameter is not None and (now := some_of(parameter)) is not None:
                many[-1].after[key] = now

    def step_late(self, optimizer: Any) -> None:
        """A step after the window, now and then."""
        self.thawed.update(
            self.watch.key(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad
        )

    # ---------------------------------------------------------------------------------------------- who calls a network

    def _call(self, original: Any) -> Any:
        watch, users = self.watch, self._users

        @functools.wraps(original)
        def __call__(module: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(module, *args, **kwargs)
            if watch.trail.open:
                frame = sys._getframe(1)
                code = frame.f_code
                known = users.get(code)
                if known is None:
                    known = users[code] = is_users(code.co_filename)
                if known and watch.mine():
                    watch.safely(self._called, module, frame, result)
            return result

        return __call__

    def _called(self, module: nn.Module, frame: Any, result: Any) -> None:
        place = frame.f_code, frame.f_lasti
        self._counts[place] += 1
        if self._counts[place] > 12 and self._counts[place] % 8:
            return
        keys = self._keys.get(module)
        if keys is None:
            keys = self._keys[module] = frozenset(self.watch.key(p) for p in module.parameters())
        if not keys:
            return
        call = self.calls.get((*place, keys))
        if call is None:
            site = site_of(frame)
            if site is None or len(self.calls) > 2000:
                return
            call = self.calls[(*place, keys)] = Call(site, keys)
        call.count += 1
        node = next((node for one in _tensors(result) if (node := self.watch.trail.find(one)) is not None), None)
        if node is not None:
            call.nodes = [*call.nodes[-5:], node]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value[:4]:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values())[:4])
    elif isinstance(value, Distribution):
        yield from semantics.parameters(value).values()


def _parameters(value: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf:
            yield value
    elif depth < 3 and isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) <= 256:
        for one in value.values() if isinstance(value, dict) else value:
            yield from _parameters(one, depth + 1)


def some_of(parameter: Tensor) -> np.ndarray | None:
    """A few elements, evenly spread."""
    values = parameter.detach()
    if not values.is_contiguous() or not values.numel() or not values.is_floating_point():
        return None
    apart = max(1, values.numel() // _NUMBERS)
    if values.dtype in (torch.float32, torch.float64) and values.device.type == "cpu":
        return np.array(values.numpy().reshape(-1)[::apart][:_NUMBERS], dtype=np.float64)
    return np.array(values.view(-1)[::apart][:_NUMBERS].double().cpu().numpy())
