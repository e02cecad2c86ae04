"""The order of zero_grad, backward and step, as each parameter lived through it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from covary.doctor.case import Backward, Case, Event, Step
from covary.doctor.sites import Site, tree

RENEWS = frozenset(
    ("none", "zero_", "set", "fill_", "copy_", "zero")
)  # ways of writing a gradient that end the old one


@dataclass(slots=True)
class Moment:
    """What happened to one parameter's gradient: "zero", "backward" or "step"."""

    kind: str
    serial: int
    site: Site | None
    event: Event

    @property
    def backward(self) -> Backward:
        return self.event.what

    @property
    def step(self) -> Step:
        return self.event.more


def lives(case: Case) -> dict[int, list[Moment]]:
    """By parameter, what happened to its gradient, in order."""
    found: dict[int, list[Moment]] = {}
    for event in case.events:
        kind, keys = _concerns(event)
        for key in keys:
            found.setdefault(key, []).append(Moment(kind, event.serial, event.site, event))
    return found


def _concerns(event: Event) -> tuple[str, frozenset[int]]:
    if event.kind == "zero_grad":
        return "zero", event.more
    if event.kind == "gradient written" and event.what is not None and event.more in RENEWS:
        return "zero", frozenset((event.what,))
    if event.kind == "backward" and event.what.only is None:
        return "backward", event.what.reached
    if event.kind == "step":
        return "step", frozenset(event.more.grads)
    return "", frozenset()


def by_hand(case: Case) -> frozenset[int]:
    """Parameters that someone writes to again and again once there are gradients: steps by hand, or copies."""
    first = case.backwards[0].serial if case.backwards else 0
    times: dict[int, int] = {}
    for event in case.events:
        if event.kind == "write" and event.serial > first:
            times[event.what] = times.get(event.what, 0) + 1
    return frozenset(key for key, count in times.items() if count > 1)


def uncalled(files: Iterator[str] | set[str], method: str) -> list[Site]:
    """Statements that name a method and do not call it: `optimizer.step`."""
    found = []
    for file in files:
        module = tree(file)
        for node in ast.walk(module) if module else ():
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Attribute) and node.value.attr == method:
                found.append(Site(file, node.lineno, "", node.col_offset, node.end_lineno or node.lineno))
    return found
