"""The fault classes, one file each: what it listens to, its rule, its finding.

A module in this folder has

    CODE        its name in reports
    RANK        which cause is named first where several were found; the lower, the earlier
    EXPLAINS    codes of findings that are consequences of this one, folded into it
    LISTENS     optional: {call of PyTorch: function(case, node, args, kwargs, result)}, told inside the window
    AFTERWARDS  optional: the same, told after the window, now and then (see glances.py); only its own numbers are new
    examine     Case -> the findings

and is found by being here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from covary.doctor.case import Case
from covary.doctor.findings import ORDER, Finding


@functools.cache
def all_rules() -> tuple[ModuleType, ...]:
    """Every rule, by rank."""
    names = sorted(name for _, name, _ in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(sorted(modules, key=lambda rule: rule.RANK))


def listeners(case: Case, when: str = "LISTENS") -> dict[str, list[Callable[..., None]]]:
    """Who wants to be told of which call."""
    told: dict[str, list[Callable[..., None]]] = {}
    for rule in all_rules():
        for call, listener in getattr(rule, when, {}).items():
            told.setdefault(call, []).append(functools.partial(listener, case))
    return told


def examine(case: Case, troubles: list[str] | None = None) -> list[Finding]:
    """All findings, the root cause first, consequences folded away."""
    found: list[tuple[Finding, ModuleType]] = []
    for rule in all_rules():  # by rank, the causes first
        try:
            found += [(finding, rule) for finding in rule.examine(case)]
        except Exception as error:
            if troubles is not None:
                troubles.append(f"rule {rule.CODE}: {type(error).__name__}: {error}")
    kept: list[tuple[Finding, ModuleType]] = []
    for finding, rule in sorted(found, key=lambda one: (one[1].RANK, ORDER[one[0].severity])):
        if not any(_explained(finding, by, other.EXPLAINS) for by, other in kept):
            kept.append((finding, rule))
    kept = [
        one for one in kept if not any(_explained(one[0], by, other.EXPLAINS) for by, other in kept if by is not one[0])
    ]
    kept.sort(key=lambda one: (ORDER[one[0].severity], one[1].RANK))
    return [finding for finding, _ in kept]


def _explained(finding: Finding, by: Finding, codes: frozenset[str]) -> bool:
    same = not finding.keys or not by.keys or bool(finding.keys & by.keys)
    if finding.code == by.code:
        there = finding.site is not None and by.site is not None and finding.site.place == by.site.place
        return there or (bool(finding.keys) and finding.keys <= by.keys)
    return finding.code in codes and same
