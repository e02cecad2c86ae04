"""What activations put out: gathered while the script trains, for the rules about dead and saturated ones."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from covary.doctor.case import Case
from covary.doctor.reading.paths import layer_before
from covary.doctor.sites import Site, is_users, site_of, statement, tree
from covary.doctor.trail import Node

MODULES = os.path.join("torch", "nn", "modules", "")


@dataclass
class Record:
    """One activation behind one layer: what its outputs were like, call by call.

    site: the activation's own line; where a container called it, the line that made it. keys: the layer's parameters.
    calls: (serial, rows, share of elements that are flat, share whose derivative is exactly 0), of some of its calls.
    """

    site: Site
    op: str
    keys: frozenset[int]
    calls: list[tuple[int, int, float, float]] = field(default_factory=list)
    times: int = 0
    shape: tuple[int, ...] = ()


def record(
    case: Case, code: str, node: Node, result: torch.Tensor, flat: Callable[[torch.Tensor], tuple[float, float]]
) -> None:
    """Measures one call of an activation that a gradient passes: the first dozen of each, then each eighth."""
    if not node.grad or node.site is None or not result.is_floating_point() or not result.numel():
        return
    layer = layer_before(node)
    if layer is None:
        return
    keys = layer[1]
    memory = case.memory.setdefault(code, {})
    key = (node.site.place, node.site.column, node.op, keys)
    known = memory.get(key)
    if known is None:
        known = memory[key] = Record(_made(case) or node.site, node.op, keys, shape=tuple(result.shape))
    known.times += 1
    if known.times <= 12 or known.times % 8 == 0:
        share, exact = flat(result.detach())
        known.calls.append((node.serial, result.shape[0] if result.dim() > 1 else 1, share, exact))
        if len(known.calls) > 400:
            del known.calls[12::2]


def _made(case: Case) -> Site | None:
    """Where the running module was made, if a container or a loop over layers called it: no line that names it."""
    frame, module, contained = sys._getframe(2), None, False
    while frame is not None and not is_users(frame.f_code.co_filename):
        name = frame.f_code.co_filename
        if MODULES in name:
            if module is None and name.endswith("activation.py"):
                module = frame.f_locals.get("self")
            elif name.endswith("container.py"):
                contained = True
        frame = frame.f_back  # type: ignore[assignment]
    if module is None or not (contained or (frame is not None and _in_a_loop_over_layers(site_of(frame)))):
        return None
    return next((one.made[0] for one in reversed(case.modules) if one.made and one.ref() is module), None)


def _in_a_loop_over_layers(site: Site | None) -> bool:
    """Whether a line calls a name that a `for` has bound: `for layer in self.layers: x = layer(x)`."""
    line = statement(site.file, site.line) if site is not None else None
    module = tree(site.file) if site is not None else None
    if line is None or module is None or site is None:
        return False
    called = {one.func.id for one in ast.walk(line) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}
    return any(
        isinstance(one, ast.For) and one.lineno <= site.line <= (one.end_lineno or one.lineno)
        and called & {name.id for name in ast.walk(one.target) if isinstance(name, ast.Name)}
        for one in ast.walk(module)
    )  # fmt: skip


def without_gradient(case: Case, keys: frozenset[int], since: int, least_steps: int = 8) -> bool:
    """Whether steps after a moment saw no gradient in these parameters, though a loss reached them and was large."""
    weights = [key for key in keys if len(case.shapes.get(key, ())) > 1] or list(keys)
    steps = [step for step in case.steps if step.serial > since and any(key in step.grads for key in weights)]
    if len(steps) < least_steps or not any(one.serial > since and one.reached & keys for one in case.backwards):
        return False
    typical = max((case.strength.get(key, 0.0) for key in weights), default=0.0)
    least = 1e-7 * typical
    some = sum(any((step.grads.get(key) or 0.0) > least for key in weights) for step in steps)
    return some <= 0.03 * len(steps) and not _loss_is_small(case, keys)


def _loss_is_small(case: Case, keys: frozenset[int]) -> bool:
    """Whether the losses that these parameters stand behind have come down to nothing (a hinge that is satisfied)."""
    values = [abs(one.value) for one in case.backwards if one.reached & keys and one.value == one.value]
    if len(values) < 4:
        return False
    tail = sorted(values[-max(4, len(values) // 4) :])
    return tail[len(tail) // 2] <= 1e-4 * values[0] or tail[-1] < 1e-6
