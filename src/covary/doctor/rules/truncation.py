"""A time limit is treated as an end: states that were only cut off are not bootstrapped from."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor.case import Case
from covary.doctor.findings import Finding, Severity
from covary.doctor.reading import bootstraps, flags
from covary.doctor.reading.bootstraps import Group
from covary.doctor.reading.flags import Said
from covary.doctor.sites import Site
from covary.doctor.watching.endings import GOES_ON, LIMIT

CODE = "truncation"
RANK = 46
EXPLAINS: frozenset[str] = frozenset()


def examine(case: Case) -> Iterator[Finding]:
    outcomes = case.memory.get("endings", {}).get("outcomes")
    if outcomes is None or outcomes.timed:
        return  # where the state tells the time, the limit is part of the task
    groups = bootstraps.found(case)
    if not groups:
        return
    said = {
        group.site.file: flags.read(
            group.site.file, outcomes.layouts, outcomes.functions, _lines(groups, group.site.file)
        )
        for group in groups
    }
    if any(one.apart for one in said.values()):
        return  # truncation is looked at by itself: what is missing may be added there
    steps = list(bootstraps.ends(case))
    ended, limited = sum(done for done, _ in steps), sum(limit for _, limit in steps)
    for group in groups:
        one = said[group.site.file]
        stopped = group.share(LIMIT)
        site = _site(group, one)
        if not limited and not one.clocks:
            continue  # the script's own resets alone: what it does at them may be the task
        if is_seen(case, group) and not (
            outcomes.vector and (_from_a_rollout(group) or (not outcomes.next_step and _acted_on(case, groups)))
        ):
            evidence = f"of {stopped[0]} states at which a time limit had cut, {1 - stopped[1]:.0%} got no value"
            yield _finding(case, group, site, "warning", evidence)
            return
        if not one.merges or limited + outcomes.cuts < 1:
            continue
        if one.branches and limited >= 2 and not group.masked and not stopped[0] and not (ended and one.alone):
            evidence = f"{limited} episodes were cut by a time limit, and no value of where they were cut was ever used"
            yield _finding(case, group, site, "warning", evidence)
            return
        if limited >= 2 and group.dropped and not (ended and one.alone):
            if (stopped[0] and stopped[1] > 0.2) or group.kept < group.dropped:
                continue
            severity: Severity = "note" if outcomes.vector else "warning"
            evidence = f"{limited} episodes were cut by a time limit, {ended} ended by themselves"
            yield _finding(case, group, site, severity, evidence)
            return
    for group in groups:
        one = said[group.site.file]
        if one.merges and not one.alone and not limited and (group.masked or one.branches):
            yield _finding(case, group, _site(group, one), "note", "no time limit was reached while this was watched")
            return


def is_seen(case: Case, group: Group) -> bool:
    """States at which only a time limit had cut were met in a target, and switched off like terminal ones."""
    stopped, through = group.share(LIMIT)
    going, going_through = group.share(GOES_ON)
    return stopped >= 3 and through <= 0.2 and going >= 10 and going_through >= 0.8


def _lines(groups: list[Group], file: str) -> frozenset[int]:
    return frozenset(group.site.line for group in groups if group.site.file == file)


def _site(group: Group, said: Said) -> Site:
    """Where the flags become one, else where that flag enters the target."""
    lines = said.merges or said.clocks or said.bare or said.together
    return group.at.at(lines[0]) if lines else group.at


def _from_a_rollout(group: Group) -> bool:
    return any(one.stored for one in group.times)


def _acted_on(case: Case, groups: list[Group]) -> bool:
    """Whether a state at which an episode was cut is acted on too: then it is the first of the next."""
    targets = {id(node) for group in groups for one in group.times for node in _all(one.networks)}
    return any(id(node) not in targets for node in case.memory.get("bootstraps", {}).get("limited", ()))


def _all(networks: list[bootstraps.Node]) -> Iterator[bootstraps.Node]:
    for one in networks:
        for i, node in enumerate(one.walk()):
            yield node
            if i > 400:
                break


def _finding(case: Case, group: Group, site: Site, severity: Severity, evidence: str) -> Finding:
    stopped, going = group.share(LIMIT), group.share(GOES_ON)
    return Finding(
        CODE,
        severity,
        "A time limit counts as an end of the episode in the target",
        site,
        "Where `truncated` is True the task would have gone on: only the clock has cut it. The target stops there as "
        f"at a terminal state ({evidence}), so the same state is worth little or much depending on a clock that the "
        "network cannot see.",
        "Stop bootstrapping at `terminated` alone; end the loop at `terminated or truncated`.",
        case.named(group.keys),
        {
            "targets without the next value": group.dropped,
            **({"cut by a time limit": stopped[0], "going on": going[0]} if stopped[0] else {}),
        },
        keys=group.keys,
    )
