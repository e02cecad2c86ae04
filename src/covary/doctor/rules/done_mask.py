"""The done mask is inverted, or forgotten: the target goes on past the end of an episode, or goes on only there."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor import bootstraps, flags
from covary.doctor.bootstraps import Group
from covary.doctor.case import Case
from covary.doctor.endings import GOES_ON, TERMINAL
from covary.doctor.findings import Finding

CODE = "done-mask"
RANK = 44
EXPLAINS: frozenset[str] = frozenset({"truncation"})
LISTENS = bootstraps.LISTENS


def examine(case: Case) -> Iterator[Finding]:
    groups = bootstraps.found(case)
    for group in groups:
        if group.masked and is_inverted(case, group):
            yield _inverted(case, group)
            return
    if any(group.masked or group.unclear for group in groups):
        return  # whoever masks one target knows of masks
    for group in groups:
        if (evidence := forgotten(case, group)) is not None:
            yield _forgotten(case, group, evidence)
            return


# ---------------------------------------------------------------------------------------------------------- inverted


def is_inverted(case: Case, group: Group) -> bool:
    """Terminal states are bootstrapped from, and those that go on are not."""
    ended, ended_through = group.share(TERMINAL)
    going, going_through = group.share(GOES_ON)
    if ended + going >= 12 and going >= 8:
        return going_through < 0.2 and (ended_through > 0.8 if ended else going_through == 0.0 and going >= 64)
    if group.kept + group.dropped < 64:
        return False
    flags_seen = list(bootstraps.ends(case))
    if len(flags_seen) < 20:
        return False
    over = sum(done or limit for done, limit in flags_seen) / len(flags_seen)
    through = group.kept / (group.kept + group.dropped)
    return 0 < over < 0.35 and through <= 2 * over + 0.05 and through < 0.5 * (1 - over)


def _inverted(case: Case, group: Group) -> Finding:
    ended, going = group.share(TERMINAL), group.share(GOES_ON)
    through = group.kept / max(group.kept + group.dropped, 1)
    return Finding(
        CODE,
        "error",
        "The done mask is inverted: only the ends of episodes are bootstrapped from",
        group.at,
        f"Of the values of next states, {through:.0%} got through the mask here, and those are the ones after which nothing "
        "comes. For every other state the target is the reward of one step alone, so the value never learns what comes later.",
        "The mask must be 0 at a terminal state and 1 elsewhere: target = reward + gamma * (1 - terminated) * next_value.",
        case.named(group.keys),
        {
            "bootstrapped": f"{through:.1%}",
            **({"at terminal states": f"{ended[1]:.0%} of {ended[0]}"} if ended[0] else {}),
            **({"at others": f"{going[1]:.0%} of {going[0]}"} if going[0] else {}),
        },
        keys=group.keys,
    )


# --------------------------------------------------------------------------------------------------------- forgotten


def forgotten(case: Case, group: Group) -> str | None:
    """What shows that terminal states are bootstrapped from; None where nothing does."""
    outcomes = case.memory["endings"]["outcomes"]
    lengths = outcomes.lengths
    if len(lengths) < 2 or outcomes.timed:
        return None
    told_apart = any(where[1] is not None for where in outcomes.layouts.values())
    if not told_apart and len(set(lengths)) == 1 and lengths[0] > 1:
        return None  # always after as many steps: a time limit, which is no end
    ended, through = group.share(TERMINAL)
    going, _ = group.share(GOES_ON)
    if ended >= 2 and through == 1.0 and going:
        return f"{ended} values of terminal states entered the target in full"
    if ended or going:
        return None
    batched = [one for one in group.times if one.size > 1 and one.whole and not one.stored]
    if len(lengths) < 3 or len(batched) < max(3, len(group.times) // 2):
        return None
    said = flags.read(group.site.file, outcomes.layouts, outcomes.functions, frozenset((group.site.line,)))
    if said.guards:
        return None
    return f"{len(lengths)} episodes ended, and no factor, condition or branch stands between the value and the target"


def _forgotten(case: Case, group: Group, evidence: str) -> Finding:
    return Finding(
        CODE,
        "error",
        "The done mask is missing: the target goes on past the end of the episode",
        group.at,
        f"The target is the reward plus a discounted value of the next state, at terminal states too ({evidence}). Nothing "
        "comes after those, so their value is never learned, and what it happens to be leaks into all values before it.",
        "Multiply by 1 - terminated: target = reward + gamma * (1 - terminated) * next_value.",
        case.named(group.keys),
        {"observed": evidence, "targets": sum(one.size for one in group.times)},
        keys=group.keys,
    )
