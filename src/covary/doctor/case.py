"""The case: what was seen of a run, as the rules read it. Nothing in here holds a tensor."""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from covary.doctor.sites import Site
from covary.doctor.trail import Node, Trail

# what is made of a value by these tells which, or how large a thing, and no longer how much
CHOICES = frozenset(
    [
        "sample",
        "rsample",
        "argmax",
        "argmin",
        "multinomial",
        "bernoulli",
        "one_hot",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "lt",
        "gt",
        "le",
        "ge",
        "eq",
        "ne",
        "isin",
        "nonzero",
        "sign",
        "searchsorted",
        "bucketize",
        "argsort",
        "normal",
        "numpy.argmax",
        "numpy.argmin",
        "len",
        "bool",
    ]
)


@dataclass(slots=True)
class Backward:
    """One call of backward (or autograd.grad).

    loss: the trail's node of what was differentiated. value: of a scalar loss, as a number.
    reached: keys of the parameters that autograd's own graph leads to (AccumulateGrad). only: where autograd.grad or
    `inputs=` asked for some alone, their keys.
    """

    serial: int
    site: Site | None
    loss: Node
    value: float
    reached: frozenset[int]
    only: frozenset[int] | None = None
    dirty: frozenset[int] = frozenset()  # those of `reached` that had a gradient already, to which this was added


@dataclass(slots=True)
class Step:
    """One call of an optimizer's step, inside the window.

    grads: parameter key -> largest |gradient| before the step, None where .grad was None.
    kept: parameter key -> share of elements that are bit for bit what they were (only where a gradient was not 0).
    sizes: parameter key -> largest |value| before the step.
    lrs: learning rate of each parameter.
    """

    serial: int
    site: Site | None
    optimizer: Optimizer
    grads: dict[int, float | None]
    kept: dict[int, float] = field(default_factory=dict)
    sizes: dict[int, float] = field(default_factory=dict)
    lrs: dict[int, float] = field(default_factory=dict)
    closure: bool = False


@dataclass(slots=True, eq=False)
class Optimizer:
    """An optimizer, and where it was made."""

    kind: str
    site: Site | None
    ref: weakref.ref[Any]
    params: list[int]
    lr: float
    maximize: bool
    steps: int = 0  # inside the window
    total: int = 0  # over the whole run
    serial: int = 0
    groups: tuple[frozenset[int], ...] = ()  # its parameter groups
    last_site: Site | None = None
    ours: bool = True  # made by the user's own line; False where a library's made it, which then trains in its own way
    lr_latest: float = 0.0  # at the latest step of the whole run, the largest of its groups

    @property
    def alive(self) -> bool:
        return self.ref() is not None


@dataclass(slots=True, eq=False)
class Module:
    """A module, and the user's frames in which it was made, the innermost first; copy_of: that it is a deepcopy."""

    kind: str
    ref: weakref.ref[nn.Module]
    made: tuple[Site, ...]
    serial: int
    copied: bool = False


@dataclass(slots=True)
class Event:
    """What happened, when. kind: zero_grad, backward, step, env step, env reset, write (to a parameter, outside its
    optimizer), requires_grad, gradient written, deepcopy, load_state_dict, distribution."""

    serial: int
    kind: str
    site: Site | None
    what: Any = None  # Backward, Step, Optimizer, parameter key, ...
    more: Any = None
    stack: tuple[Site, ...] = ()  # the user's frames, where more than the innermost matters


@dataclass(slots=True)
class EnvStep:
    """What an environment said to one action; arrays of a vector environment as they are."""

    env: int
    action: Node | None
    reward: Any
    terminated: Any
    truncated: Any  # None where step tells no truncation apart
    limit: Any = None  # whether a time limit alone ended it, as far as anyone has told (a wrapped environment, say)


@dataclass
class Case:
    """All that the rules may ask."""

    trail: Trail
    started: float = field(default_factory=time.perf_counter)
    events: list[Event] = field(default_factory=list)
    backwards: list[Backward] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    module_names: dict[int, str] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # over the whole run: updates, backwards, env steps
    memory: dict[str, dict[Any, Any]] = field(
        default_factory=dict
    )  # what a rule's listener gathered, by the rule's code
    unseen: list[str] = field(default_factory=list)  # what could not be watched, said in the report
    script: str = ""
    env_steps: Any = ()  # the latest `EnvStep`s
    weights: Any = None  # a `Weights`: who made and who holds them, their values around each step
    raised: BaseException | None = None
    raised_at: Site | None = None
    _before: dict[int, tuple[Node, frozenset[int]]] = field(default_factory=dict)
    _live: dict[int, tuple[Node, frozenset[int]]] = field(default_factory=dict)
    _carried: dict[int, tuple[Node, frozenset[int]]] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------ questions of all rules

    def name(self, key: int) -> str:
        """A parameter as the user would name it."""
        return self.names.get(key) or f"parameter {key} of shape {self.shapes.get(key, ())}"

    def param(self, key: int) -> Tensor | None:
        reference = self.trail.params.get(key)
        return None if reference is None else reference()

    @cached_property
    def stepped(self) -> dict[int, Optimizer]:
        """Each parameter that an optimizer has stepped in the window, and the last such optimizer."""
        return {key: step.optimizer for step in self.steps for key in step.grads}

    @cached_property
    def reached(self) -> frozenset[int]:
        """Every parameter that a backward of the window has reached."""
        return frozenset().union(*(one.reached for one in self.backwards))

    @cached_property
    def strength(self) -> dict[int, float]:
        """The largest |gradient| that a step of the window saw, by parameter; absent where .grad was always None."""
        largest: dict[int, float] = {}
        for step in self.steps:
            for key, size in step.grads.items():
                if size is not None:
                    largest[key] = max(largest.get(key, 0.0), size) if size == size else float("nan")
        return largest

    @cached_property
    def starved(self) -> frozenset[int]:
        """Parameters that were stepped, and never with a gradient: none ever, or zero to rounding."""
        typical = sorted(value for value in self.strength.values() if value > 0)
        least = 1e-9 * typical[len(typical) // 2] if typical else 0.0
        return frozenset(
            key
            for key in self.stepped
            if not self.strength.get(key, 0.0) > least and self.strength.get(key, 0.0) == self.strength.get(key, 0.0)
        )

    def refresh(self) -> None:
        """Lets go of what was concluded, where more has been seen since."""
        for name in ("stepped", "reached", "strength", "starved"):
            self.__dict__.pop(name, None)
        self.memory.pop("movers", None)

    def named(self, keys: Any) -> list[str]:
        return [self.name(key) for key in sorted(keys)]

    def before(self, node: Node) -> frozenset[int]:
        """The parameters from which a value was computed, through cuts too."""
        return _behind(node, self._before, lambda one: one.inputs)

    def live(self, node: Node) -> frozenset[int]:
        """The parameters that a gradient which arrives at this value would reach: through no cut."""
        return _behind(node, self._live, lambda one: [other for other in one.inputs if other.grad])

    def carried(self, node: Node) -> frozenset[int]:
        """The parameters whose numbers this value carries, through cuts too, but not through a choice that they made:
        an action that was drawn or picked, and what an environment written in PyTorch answered to it."""
        return _behind(node, self._carried, lambda one: () if one.op in CHOICES else one.inputs)


def _behind(
    node: Node, known: dict[int, tuple[Node, frozenset[int]]], before: Callable[[Node], Sequence[Node]]
) -> frozenset[int]:
    todo = [node]
    while todo:
        one = todo[-1]
        if id(one) in known:
            todo.pop()
            continue
        inputs = before(one)
        missing = [other for other in inputs if id(other) not in known]
        if missing:
            todo += missing
            continue
        todo.pop()
        sets = {known[id(other)][1] for other in inputs}
        own = frozenset() if one.param is None else frozenset((one.param,))
        keys = next(iter(sets)) | own if len(sets) == 1 else own.union(*sets)
        # equal sets are kept once: a long trail has thousands of nodes with the same parameters behind them
        known[id(one)] = (one, next(iter(sets)) if len(sets) == 1 and keys == next(iter(sets)) else keys)
    return known[id(node)][1]
