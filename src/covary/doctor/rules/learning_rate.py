"""The learning rate is 0, or so small that the weights stay what they are."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from covary.doctor.case import Case, Optimizer, Step
from covary.doctor.findings import Finding
from covary.doctor.reading import captures, literals
from covary.doctor.sites import Site, tree
from covary.doctor.watching.weights import Around

CODE = "learning-rate"
RANK = 58
EXPLAINS: frozenset[str] = frozenset()
TINY = 1e-6  # a learning rate above this is nobody's slip
STILL = 3e-7  # of the largest weight: what a step must move to count; float32 itself ends at 6e-8
DELIBERATE = 1e-7  # of one group of several
LEAST = 6  # steps before anything is said


def examine(case: Case) -> Iterator[Finding]:
    if case.weights is None:
        return
    for number, optimizer in enumerate(case.optimizers):
        all_steps = [step for step in case.steps if step.optimizer is optimizer]
        groups: dict[float, set[int]] = {}
        for key, rate in (all_steps[0].lrs if all_steps else {}).items():
            groups.setdefault(rate, set()).add(key)
        for first, keys in groups.items():
            if first == 0.0 and len(groups) > 1:
                continue  # a group that is held still beside others that learn
            if first >= DELIBERATE and max(groups) >= 100 * first:
                continue  # fine-tuned beside others that learn: small, and meant
            steps = [step for step in all_steps if any(step.grads.get(key) for key in keys)]
            if len(steps) >= LEAST:
                around = case.weights.around.get(number, [])
                yield from _judge(case, optimizer, frozenset(keys), steps, around, len(groups) > 1)


def _judge(
    case: Case, optimizer: Optimizer, keys: frozenset[int], steps: list[Step], around: list[Around], grouped: bool
) -> Iterator[Finding]:
    """One group of parameters that share a learning rate."""
    rates = [max((step.lrs[key] for key in keys if key in step.lrs), default=0.0) for step in steps]
    moved = _moved(around, keys)
    if moved is None or not all(math.isfinite(rate) for rate in rates):
        return
    late = _too_late(steps, rates)
    latest = rates[-1] if grouped else optimizer.lr_latest
    if max(rates) <= TINY and latest <= TINY:
        if rates[-1] > rates[0] or latest > rates[-1]:
            return  # a warm-up
        if moved > STILL or moved * max(optimizer.total, 1) > 1e-2:
            return
        site = _schedule(optimizer) if not grouped and optimizer.lr > TINY else None
        site = site or (optimizer.site and literals.origin(optimizer.site, "lr", 1, rates[0]))
    elif late is not None and latest <= 1e-3 * rates[0]:
        site = _schedule(optimizer) or optimizer.site
    else:
        return
    yield _finding(case, optimizer, keys, rates, moved, site, late, steps)


def _moved(around: list[Around], keys: frozenset[int]) -> float | None:
    """The largest change in one step, relative to the largest weight."""
    change = size = 0.0
    for one in around:
        for key, after in one.after.items():
            if key in keys and one.step.grads.get(key):
                change = max(change, float(abs(after - one.before[key]).max()))
                size = max(size, float(abs(one.before[key]).max()))
    return change / size if size else None


def _too_late(steps: list[Step], rates: list[float]) -> int | None:
    """After how many steps a schedule has let the rate fall to nothing, if nearly all of the run is still to come."""
    if len(steps) < 60 or rates[0] <= TINY:
        return None
    gone = next((i for i, rate in enumerate(rates) if max(rates[i:]) <= min(TINY, 1e-3 * rates[0])), None)
    return gone if gone is not None and gone < 0.3 * len(rates) else None


def _schedule(optimizer: Optimizer) -> Site | None:
    """The one place that makes a schedule, if there is but one."""
    site = optimizer.site
    module = tree(site.file) if site is not None else None
    found = [captures.line_of(node) for node in (ast.walk(module) if module else ()) if _schedules(node)]
    return site.at(found[0]) if site is not None and len(found) == 1 else None


def _schedules(node: ast.AST) -> bool:
    """Whether something makes a schedule, or sets a rate by hand: group["lr"] = …"""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).endswith(("LR", "Scheduler"))
    if isinstance(node, (ast.Assign, ast.AugAssign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        key = target.slice if isinstance(target, ast.Subscript) else None
        return isinstance(key, ast.Constant) and key.value == "lr"
    return False


def _finding(
    case: Case,
    optimizer: Optimizer,
    keys: frozenset[int],
    rates: list[float],
    moved: float,
    site: Site | None,
    late: int | None,
    steps: list[Step],
) -> Finding:
    fix = "lr = 1e-3"
    if late is not None:
        title = f"The learning rate falls to nothing within {late} steps"
        why = f"It begins at {rates[0]:.3g} and is {rates[late]:.3g} after {late} steps; what follows changes nothing."
        fix = "Let the schedule last as long as the run: scheduler.step() once an epoch, or a slower decay."
    elif max(rates) == 0.0:
        title = f"The learning rate of {optimizer.kind} is 0"
        why = "Each step moves the weights by exactly nothing."
    else:
        title = f"The learning rate of {optimizer.kind} is {max(rates):.3g}"
        why = f"A step moves no weight by more than {moved:.1g} of the largest; float32 resolves 6e-08."
    kept = [step.kept[key] for step in steps for key in keys if key in step.kept]
    return Finding(
        CODE,
        "error",
        title,
        site,
        f"{why} There is a gradient, and after {optimizer.total} steps the weights are what they were.",
        fix,
        case.named(keys),
        {
            "learning rate": rates[-1],
            "largest relative change in a step": moved,
            "share of elements that stayed the same": sum(kept) / len(kept) if kept else 1.0,
            "steps": optimizer.total,
        },
        keys=keys,
    )
