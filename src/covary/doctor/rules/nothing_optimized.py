"""Nothing was optimized: the script ended, or was stopped, before any optimizer made a step."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor.case import Case
from covary.doctor.findings import Finding

CODE = "nothing-optimized"
RANK = 90
EXPLAINS: frozenset[str] = frozenset()


def examine(case: Case) -> Iterator[Finding]:
    by_hand = any(event.what in case.reached for event in case.events if event.kind == "write")
    if case.counts["updates"] or by_hand:
        return
    made = len(case.optimizers)
    yield Finding(
        CODE,
        "note",
        "Nothing was optimized",
        case.optimizers[-1].site if made else None,
        f"{made} optimizer{'' if made == 1 else 's'} and {case.counts['backwards']} backward calls were seen, but no "
        "step of an optimizer, so there was nothing to judge."
        + (" What was not seen is said below." if case.unseen else ""),
        "Train in the main thread of the script's own process while the doctor watches."
        if case.unseen
        else "Run it for longer, or give the script the arguments with which it trains.",
        evidence={
            "optimizers": made,
            "backwards": case.counts["backwards"],
            "environment steps": case.counts["env steps"],
        },
    )
