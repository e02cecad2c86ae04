"""The done mask is inverted, or forgotten: the target goes on past the end of an episode, or goes on only there."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from covary.doctor import sites
from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.reading import bootstraps, flags, masks
from covary.doctor.reading.bootstraps import Bootstrap, Group
from covary.doctor.sites import Site
from covary.doctor.watching.endings import GOES_ON, TERMINAL, Outcomes, stepping

CODE = "done-mask"
RANK = 44
EXPLAINS: frozenset[str] = frozenset({"truncation"})
LISTENS = masks.LISTENS


def examine(case: Case) -> Iterator[Finding]:
    groups = bootstraps.found(case)
    for group in groups:
        if group.masked and is_inverted(case, group):
            yield _inverted(case, group)
            return
    for group in groups:
        if group.masked and not group.unclear and is_let_through(case, group):
            ended = group.share(TERMINAL)[0]
            why = f"{ended} values of terminal states entered it in full: the mask is made of another flag"
            yield _forgotten(case, group, why)
            return
    if any(group.masked or group.unclear for group in groups):
        return  # whoever masks one target knows of masks
    for group in groups:
        if (evidence := forgotten(case, group)) is not None:
            branch = _branch(group) if group.table[TERMINAL, True] and not group.table[GOES_ON, True] else None
            yield _inverted_branch(case, group, branch) if branch is not None else _forgotten(case, group, evidence)
            return


# ---------------------------------------------------------------------------------------------------------- inverted


def is_inverted(case: Case, group: Group) -> bool:
    """Terminal states are bootstrapped from, and those that go on are not."""
    ended, ended_through = group.share(TERMINAL)
    going, going_through = group.share(GOES_ON)
    if ended and going >= 8:
        return going_through < 0.2 and ended_through > 0.8
    if group.kept + group.dropped < 64 or not group.kept:
        return False  # where nothing ever gets through, the discount itself may be 0
    steps = list(bootstraps.ends(case))
    through = group.kept / (group.kept + group.dropped)
    if not steps:  # no environment was seen: what is bootstrapped from once in a while can only be the ends
        constant = all(one.cut and not one.unclear for one in group.times) and stepping(group.site.file, nested=True)
        return bool(constant) and group.kept + group.dropped >= 256 and 0 < through <= 0.2
    if len(steps) < 20:
        return False
    over = sum(done or limit for done, limit in steps) / len(steps)
    return 0 < over < 0.35 and through <= 2 * over + 0.05 and through < 0.5 * (1 - over)


def _inverted(case: Case, group: Group) -> Finding:
    ended, going = group.share(TERMINAL), group.share(GOES_ON)
    through = group.kept / max(group.kept + group.dropped, 1)
    line = flags.misnamed(group.at.file, group.at.line)
    return Finding(
        CODE,
        "error",
        "The done mask is inverted: only the ends of episodes are bootstrapped from",
        group.at if line is None else group.at.at(line),
        f"Of the values of next states, {through:.1%} get through the mask: those after which nothing comes. "
        "For every other state the target is the reward of one step alone, so what comes later is never learned.",
        "The mask must be 0 at a terminal state and 1 elsewhere: reward + gamma * (1 - terminated) * next_value.",
        case.named(group.keys),
        {
            "bootstrapped": f"{through:.1%}",
            **({"at terminal states": f"{ended[1]:.0%} of {ended[0]}"} if ended[0] else {}),
            **({"at others": f"{going[1]:.0%} of {going[0]}"} if going[0] else {}),
        },
        keys=group.keys,
    )


def _branch(group: Group) -> Site | None:
    """The `if` that chooses between a target that bootstraps and one that does not."""
    module, line = sites.tree(group.site.file), group.site.line
    around = [
        node.test.lineno
        for node in (ast.walk(module) if module else ())
        if isinstance(node, (ast.If, ast.IfExp)) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return group.site.at(max(around)) if around else None


def _inverted_branch(case: Case, group: Group, site: Site) -> Finding:
    ended, _ = group.share(TERMINAL)
    return Finding(
        CODE,
        "error",
        "The branch on the end of the episode is inverted: only terminal states are bootstrapped from",
        site,
        f"All {ended} values of next states that entered the target belong to terminal states, after which nothing "
        "comes. For every other state it is the reward of one step alone, so what comes later is never learned.",
        "Swap the branches: target = reward if terminated else reward + gamma * next_value.",
        case.named(group.keys),
        {"bootstrapped at terminal states": ended, "at others": 0},
        keys=group.keys,
    )


# --------------------------------------------------------------------------------------------------------- forgotten


def told(outcomes: Outcomes) -> bool:
    """Whether what was called an end was one, and not a time limit: always after as many steps."""
    if outcomes.timed or len(outcomes.lengths) < 2 or outcomes.ignored > len(outcomes.lengths) // 2:
        return False
    apart = any(where[1] is not None for where in outcomes.layouts.values())
    return apart or len(set(outcomes.lengths)) > 1 or outcomes.lengths[0] == 1


def is_let_through(case: Case, group: Group) -> bool:
    """A mask stands there, and every terminal state gets through it (the flags were swapped, say)."""
    outcomes = case.memory["endings"]["outcomes"]
    ended, through = group.share(TERMINAL)
    going, going_through = group.share(GOES_ON)
    seen = ended >= 8 and through == 1.0 and going >= 20 and going_through > 0.9
    return seen and not outcomes.vector and told(outcomes)


def forgotten(case: Case, group: Group) -> str | None:
    """What shows that terminal states are bootstrapped from; None where nothing does."""
    outcomes = case.memory["endings"]["outcomes"]
    if not told(outcomes):
        return None
    ended, through = group.share(TERMINAL)
    if ended >= 2 and through == 1.0:
        return f"{ended} values of terminal states entered it in full"
    if group.depth > outcomes.longest > 1 and all(one.stored for one in group.times):
        return f"a sum over {group.depth} steps, where the longest episode had {outcomes.longest}, runs on across ends"
    if ended or group.table:
        return None
    # what became of a state is not known: nothing may stand between the values and the targets of whole batches
    batched = [one for one in group.times if _is_batch(one)]
    if len(outcomes.lengths) < 3 or len(batched) < max(3, len(group.times) // 2):
        return None
    if not group.paid and not outcomes.functions:
        return None
    said = flags.read(group.site.file, outcomes.layouts, outcomes.functions, frozenset((group.site.line,)))
    if said.guards:
        return None
    return f"{len(outcomes.lengths)} episodes ended; no factor, condition or branch stands between value and target"


def _is_batch(one: Bootstrap) -> bool:
    """One number for each transition, from one call of the network, as a constant."""
    shape = one.node.shape
    column = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    return column and one.size > 1 and one.whole and one.cut and not one.stored


def _forgotten(case: Case, group: Group, evidence: str) -> Finding:
    deepest, first = max(group.times, key=lambda one: one.depth), group.times[0].inner
    return Finding(
        CODE,
        "error",
        "The done mask is missing: the target goes on past the end of the episode",
        first if deepest.depth > 1 and first is not None else group.at,  # where a recursion takes its first value
        f"The target is the reward plus a discounted value of the next state, at terminal states too ({evidence}). "
        "Nothing comes after those, so their value is never learned, and it leaks into all values before it.",
        "Multiply by 1 - terminated: target = reward + gamma * (1 - terminated) * next_value.",
        case.named(group.keys),
        {
            **({"terminal states": seen} if (seen := group.table[TERMINAL, True]) else {}),
            "targets": sum(one.size for one in group.times),
        },
        keys=group.keys,
    )
