"""What an optimizer has learned is overwritten between its steps: by old values, random ones, or another network's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from covary.doctor.case import Case, Event, Optimizer
from covary.doctor.findings import Finding
from covary.doctor.reading import captures, copies
from covary.doctor.reading.copies import Origin
from covary.doctor.sites import Site, first_own, statement
from covary.doctor.watching.weights import Around

CODE = "weights-overwritten"
RANK = 22
EXPLAINS = frozenset({"target-network", "learning-rate", "missing-zero-grad", "std-collapse"})
LEAST = 3  # times that it happens between two steps of the same optimizer
OFTEN = 6  # times that the same later copy comes back
KINDS = {
    "old": "by values that they had before",
    "fresh": "by new initial values",
    "other": "by the values of a network that does not learn",
}


@dataclass
class Undone:
    """One place that overwrites: when, which parameters, by what."""

    kind: str
    events: list[Event] = field(default_factory=list)
    times: set[int] = field(default_factory=set)
    keys: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)
    pure: bool = True
    values: dict[int, list[np.ndarray]] = field(default_factory=dict)
    first: dict[int, np.ndarray] = field(default_factory=dict)  # before the optimizer's first step
    kept: list[float] = field(default_factory=list)


def examine(case: Case) -> Iterator[Finding]:
    if case.weights is None:
        return
    writes: dict[int, list[Event]] = {}
    for event in case.events:
        if event.kind == "write" and case.strength.get(event.what, 0.0) > 0:
            writes.setdefault(event.what, []).append(event)
    if not writes:
        return
    for number, around in case.weights.around.items():
        optimizer = case.optimizers[number]
        found: dict[tuple[str, Site | None], Undone] = {}
        for key, events in writes.items():
            if key in optimizer.params:
                _follow(case, key, events, around, found)
        for (kind, _), undone in found.items():
            if _is_fault(case, kind, undone):
                yield _finding(case, optimizer, kind, undone)


def _follow(
    case: Case, key: int, events: list[Event], around: list[Around], found: dict[tuple[str, Site | None], Undone]
) -> None:
    """What became of the progress of one parameter, from write to write."""
    seen = [one for one in around if key in one.before and key in one.after]
    start = seen[0].before[key] if seen else None
    serials = [one.step.serial for one in around]
    for i, event in enumerate(events):
        if not any(serial < event.serial for serial in serials) or event.serial > serials[-1]:
            continue
        previous = max(serial for serial in serials if serial < event.serial)
        following = min(serial for serial in serials if serial > event.serial)
        if i + 1 < len(events) and events[i + 1].serial < following:
            continue  # written again before the next step: that one counts
        origin = copies.origin(event.more, key, previous)
        before = next((one for one in seen if one.step.serial == previous), None)
        after = next((one for one in seen if one.step.serial == following), None)
        kind = _kind(case, origin)
        if kind is None:
            if after is not None:
                start = after.before[key]
            continue
        undone = found.setdefault((kind, event.site), Undone(kind))
        undone.events.append(event)
        undone.keys.add(key)
        undone.others |= origin.others
        undone.pure &= origin.pure and not origin.own
        undone.times.add(previous)
        if after is None:
            continue
        now = after.before[key]
        undone.values.setdefault(key, []).append(now)
        if key in around[0].before:
            undone.first[key] = around[0].before[key]
        if before is not None and start is not None:
            progress = before.after[key] - start
            size = float(progress @ progress)
            if size > 0:
                undone.kept.append(float((now - start) @ progress) / size)
            if kind == "fresh":
                undone.kept[-1:] = [_alike(before.after[key], now)]
        start = now


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """How much of a parameter is still there: its correlation with what it was."""
    if one.size < 8 or not np.std(one) or not np.std(other):
        return float(np.allclose(one, other))
    return float(np.corrcoef(one, other)[0, 1])


def _kind(case: Case, origin: Origin) -> str | None:
    if origin.others:
        learned = any(case.strength.get(key, 0.0) > 0 for key in origin.others)
        return None if learned else "other"
    if origin.own:
        return None  # clamped, scaled, made noisy: made of what the step had left
    if origin.random or not (origin.old or origin.unknown):
        return "fresh"
    return "old"


def _is_fault(case: Case, kind: str, undone: Undone) -> bool:
    times, kept = len(undone.times), sorted(undone.kept)
    lost = bool(kept) and kept[len(kept) // 2] < 0.3
    if kind == "fresh":
        return times >= LEAST and bool(kept) and kept[len(kept) // 2] < 0.5
    if kind == "old":
        # a copy from before the first step; a later one may be the best so far, to which a run goes back now and then,
        # but not again and again to the very same
        same = all(np.array_equal(first, one) for key, first in undone.first.items() for one in undone.values[key])
        again = all(np.array_equal(many[0], one) for many in undone.values.values() for one in many)
        return bool(undone.first) and ((same and times >= LEAST) or (again and times >= OFTEN))
    if _follows(case, undone):
        return times >= LEAST and lost
    target = any(case.before(one.loss) & undone.others for one in case.backwards[-30:])
    return (undone.pure and times >= (1 if target else LEAST)) or (times >= LEAST and (lost or target))


def _follows(case: Case, undone: Undone) -> bool:
    """Whether the other network takes up what this one learns (an average, say, or one that is in charge)."""
    steps = case.steps[0].serial
    return any(
        event.kind == "write"
        and event.what in undone.others
        and event.serial > steps
        and copies.origin(event.more, event.what, event.serial - 1).others & undone.keys
        for event in case.events
    )


def _finding(case: Case, optimizer: Optimizer, kind: str, undone: Undone) -> Finding:
    site = _line(case, undone)
    kept = sorted(undone.kept)
    steps = len([one for one in case.steps if one.optimizer is optimizer])
    learned = f"; of the progress since the last time, {max(kept[len(kept) // 2], 0.0):.0%} is left" if kept else ""
    fix = {
        "old": "Restore a copy only once, after training; a copy of the best weights must be renewed as they improve.",
        "fresh": "Initialise the network once, before the loop.",
        "other": "Copy the other way round: target.load_state_dict(online.state_dict())",
    }[kind]
    return Finding(
        CODE,
        "error",
        f"What {optimizer.kind} has learned is overwritten {KINDS[kind]}",
        site,
        f"Between {optimizer.kind}'s steps this line wrote to {len(undone.keys)} of its parameters, "
        f"{len(undone.times)} times in {steps} steps, {KINDS[kind]}{learned}.",
        fix,
        case.named(undone.keys),
        {"times": len(undone.times), "steps": steps, "progress left": kept[len(kept) // 2] if kept else None},
        keys=frozenset(undone.keys | undone.others),
    )


def _line(case: Case, undone: Undone) -> Site | None:
    """The innermost line, unless it is a helper's: one that writes elsewhere rightly, or one that does nothing else."""
    event = undone.events[-1]
    place = event.site.place if event.site else None
    others = tuple(
        one.stack
        for one in (*case.weights.early, *case.events)
        if one.kind == "write" and one.site is not None and one.site.place == place
        if one.what not in undone.keys or one in case.weights.early
    )
    site = first_own(event.stack, others) if others else event.site
    if undone.kind == "fresh" and site is not None and site == event.site and len(event.stack) > 1 and _is_helper(site):
        return event.stack[1]
    return site


def _is_helper(site: Site) -> bool:
    """Whether a line stands in a function that initialises what it was given, as for `apply`."""
    function = next(iter(captures.enclosing(site.file, site.line, (ast.FunctionDef, ast.Lambda))), None)
    if not isinstance(function, (ast.FunctionDef, ast.Lambda)) or captures.in_network(site):
        return False
    names = {node.id for node in ast.walk(statement(site.file, site.line) or function) if isinstance(node, ast.Name)}
    trains = any(isinstance(node, ast.Attribute) and node.attr in ("backward", "step") for node in ast.walk(function))
    return bool(names & set(captures.parameters(function))) and not trains
