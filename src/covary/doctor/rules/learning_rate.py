"""The learning rate is 0, or so small that the weights stay what they are."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from covary.doctor import literals
from covary.doctor.case import Case, Optimizer, Step
from covary.doctor.findings import Finding
from covary.doctor.sites import Site, tree
from covary.doctor.weights import Around

CODE = "learning-rate"
RANK = 58
EXPLAINS: frozenset[str] = frozenset()
TINY = 1e-6  # a learning rate above this is nobody's slip
STILL = 3e-7  # of the largest weight: what a step must move to count; float32 itself ends at 6e-8
LEAST = 6  # steps before anything is said


def examine(case: Case) -> Iterator[Finding]:
    for number, optimizer in enumerate(case.optimizers):
        steps = [step for step in case.steps if step.optimizer is optimizer and any(step.grads.values())]
        if len(steps) < LEAST or case.weights is None:
            continue
        rates = [_rate(step) for step in steps]
        around = case.weights.around.get(number, [])
        moved = _moved([one for one in around if any(one.step.grads.values())])
        if moved is None or not all(math.isfinite(rate) for rate in rates):
            continue
        late = _too_late(steps, rates)
        if max(rates) <= TINY and optimizer.lr_latest <= TINY:
            if rates[-1] > rates[0] or optimizer.lr_latest > rates[-1]:
                continue  # a warm-up
            if moved > STILL or moved * max(optimizer.total, 1) > 1e-2:
                continue
            site = optimizer.site and literals.origin(optimizer.site, "lr", 1, optimizer.lr)
        elif late is not None and optimizer.lr_latest <= 1e-3 * rates[0]:
            site = _schedule(optimizer) or optimizer.site
        else:
            continue
        yield _finding(case, optimizer, steps, rates, moved, site, late)


def _rate(step: Step) -> float:
    return max((step.lrs[key] for key, grad in step.grads.items() if grad), default=0.0)


def _moved(around: list[Around]) -> float | None:
    """The largest change in one step, relative to the largest weight that changes or could."""
    change = size = 0.0
    for one in around:
        for key, after in one.after.items():
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
    found = [
        node.lineno
        for node in (ast.walk(module) if module else ())
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("LR", "Scheduler"))
    ]
    return site.at(found[0]) if site is not None and len(found) == 1 else None


def _finding(
    case: Case,
    optimizer: Optimizer,
    steps: list[Step],
    rates: list[float],
    moved: float,
    site: Site | None,
    late: int | None,
) -> Finding:
    keys = frozenset(key for step in steps for key, grad in step.grads.items() if grad)
    if late is not None:
        title = f"The learning rate falls to nothing within {late} steps"
        why = f"It begins at {rates[0]:.3g} and is {rates[late]:.3g} after {late} steps; the rest of the run changes nothing."
        fix = "Let the schedule last as long as the run: scheduler.step() once an epoch, or a slower decay."
    elif max(rates) == 0.0:
        title = f"The learning rate of {optimizer.kind} is 0"
        why = "Each step moves the weights by exactly nothing."
        fix = "lr = 1e-3"
    else:
        title = f"The learning rate of {optimizer.kind} is {max(rates):.3g}"
        why = f"A step moves no weight by more than {moved:.1g} of the largest; float32 resolves 6e-08."
        fix = "lr = 1e-3"
    kept = [share for step in steps for share in step.kept.values()]
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
