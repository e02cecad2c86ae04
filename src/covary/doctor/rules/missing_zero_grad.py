"""Gradients pile up: no step begins with a fresh one, each has all earlier ones added."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor.case import Case, Optimizer
from covary.doctor.findings import Finding
from covary.doctor.reading.order import Moment, lives, uncalled
from covary.doctor.sites import Site

CODE = "missing-zero-grad"
RANK = 50
EXPLAINS = frozenset({"dead-relu", "saturation", "std-collapse", "learning-rate", "crossed-gradients"})
LEAST = 4  # steps in a row that had old gradients in them


def examine(case: Case) -> Iterator[Finding]:
    stale: dict[Optimizer, dict[int, tuple[int, int]]] = {}
    for key, life in lives(case).items():
        optimizer = case.stepped.get(key)
        if optimizer is None or not case.strength.get(key, 0.0) > 0:
            continue
        counted = _count(key, life)
        if counted[0] >= LEAST and counted[0] >= 0.5 * counted[1]:
            stale.setdefault(optimizer, {})[key] = counted
    for optimizer, counts in stale.items():
        steps = [step for step in case.steps if step.optimizer is optimizer]
        files = {site.file for site in (optimizer.site, steps[-1].site) if site is not None}
        site: Site | None = next(iter(uncalled(files, "zero_grad")), steps[-1].site)
        old, of = max(counts.values())
        first, last = (max(step.grads.get(key) or 0.0 for key in counts) for step in (steps[0], steps[-1]))
        yield Finding(
            CODE,
            "error",
            "The gradients are never set back to zero",
            site,
            f"backward adds to .grad, and nothing empties it between {optimizer.kind}'s steps: {old} of {of} steps "
            "used the sum of gradients from many earlier batches, computed with weights that are long gone.",
            "optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
            case.named(counts),
            {"steps": of, "with old gradients": old, "|gradient| first": first, "|gradient| last": last},
            keys=frozenset(counts),
        )


def _count(key: int, life: list[Moment]) -> tuple[int, int]:
    """How many steps added a new gradient to one that a step before had used already, and of how many."""
    stale = steps = 0
    used = fresh = piled = False  # since the last step: that there was one, that .grad began anew, that it was added to
    for moment in life:
        if moment.kind == "zero":
            fresh = True
        elif moment.kind == "backward":
            if key in moment.backward.dirty:
                piled = True
            else:
                fresh = True
        else:
            if used:
                steps += 1
                stale += piled and not fresh
            used, fresh, piled = True, False, False
    return stale, steps
