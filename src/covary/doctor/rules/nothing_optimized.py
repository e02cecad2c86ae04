"""Nothing was optimized: the script ended, or was stopped, before any optimizer made a step."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor.case import Case
from covary.doctor.findings import Finding

CODE = "nothing-optimized"
RANK = 90
EXPLAINS: frozenset[str] = frozenset()


def examine(case: Case) -> Iterator[Finding]:
    if case.counts["updates"] or any(event.kind == "write" for event in case.events if _has_gradient(case, event.what)):
        return
    made = len(case.optimizers)
    yield Finding(
        CODE,
        "note",
        "Nothing was optimized",
        case.optimizers[-1].site if made else None,
        f"{made} optimizers were made and {case.counts['backwards']} gradients computed, but no optimizer made a step "
        "while the doctor watched, so there was nothing to judge.",
        "Run it for longer, or give the script the arguments with which it trains.",
        evidence={
            "optimizers": made,
            "backwards": case.counts["backwards"],
            "environment steps": case.counts["env steps"],
        },
    )


def _has_gradient(case: Case, key: int) -> bool:
    return key in case.reached
