"""The done mask is inverted, or forgotten: the target goes on past the end of an episode, or goes on only there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from covary.doctor import bootstraps, flags, sites
from covary.doctor.bootstraps import Bootstrap, Group
from covary.doctor.case import Case
from covary.doctor.endings import GOES_ON, TERMINAL, Outcomes
from covary.doctor.findings import Finding
from covary.doctor.sites import Site

CODE = "done-mask"
RANK = 44
EXPLAINS: frozenset[str] = frozenset({"truncation"})
LISTENS = bootstraps.LISTENS

# which of two lines is named where a flag and its opposite were mixed up, nothing else
_OPPOSITE = re.compile(r"not_?done|non_?term|not_?term|mask|alive|cont\b|continu|nonterminal", re.IGNORECASE)
_FLAG = re.compile(r"done|term|over|end|dead|flag", re.IGNORECASE)


def examine(case: Case) -> Iterator[Finding]:
    groups = bootstraps.found(case)
    for group in groups:
        if group.masked and is_inverted(case, group):
            yield _inverted(case, group)
            return
    for group in groups:
        if group.masked and not group.unclear and is_let_through(case, group):
            ended = group.share(TERMINAL)[0]
            evidence = (
                f"{ended} values of terminal states entered the target in full: what masks it is no flag of theirs"
            )
            yield _forgotten(case, group, evidence)
            return
    if any(group.masked or group.unclear for group in groups):
        return  # whoever masks one target knows of masks
    for group in groups:
        if (evidence := forgotten(case, group)) is not None:
            branch = _branch(group) if not group.table[GOES_ON, True] else None
            yield _inverted_branch(case, group, branch) if branch is not None else _forgotten(case, group, evidence)
            return


# ---------------------------------------------------------------------------------------------------------- inverted


def is_inverted(case: Case, group: Group) -> bool:
    """Terminal states are bootstrapped from, and those that go on are not."""
    ended, ended_through = group.share(TERMINAL)
    going, going_through = group.share(GOES_ON)
    if ended and going >= 8:
        return going_through < 0.2 and ended_through > 0.8
    if group.kept + group.dropped < 64:
        return False
    flags_seen = list(bootstraps.ends(case))
    if len(flags_seen) < 20:
        return False
    over = sum(done or limit for done, limit in flags_seen) / len(flags_seen)
    through = group.kept / (group.kept + group.dropped)
    return 0 < over < 0.35 and through <= 2 * over + 0.05 and through < 0.5 * (1 - over)


def _misnamed(group: Group) -> Site | None:
    """Where a flag as it is was given the name of its opposite (`not_done = done`), if the target multiplies by that name."""
    module, statement = sites.tree(group.at.file), sites.statement(group.at.file, group.at.line)
    if module is None or statement is None:
        return None
    names = {name for node in ast.walk(statement) if (name := _name(node))}
    for loop in ast.walk(module):  # for r, m in zip(rewards, masks)
        if isinstance(loop, (ast.For, ast.comprehension)) and {_name(one) for one in ast.walk(loop.target)} & names:
            names |= {name for one in ast.walk(loop.iter) if (name := _name(one))}
    names = {name for name in names if _OPPOSITE.search(name)}
    if any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Constant) and _name(node.right) in names
           for node in ast.walk(statement)):  # fmt: skip
        return None
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "append"
            and node.args
        ):
            target, value = node.func.value, node.args[0]
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and node is not statement:
            target = node.targets[0].value if isinstance(node.targets[0], ast.Subscript) else node.targets[0]
            value = node.value
        else:
            continue
        parts = list(ast.walk(value))
        turned = any(
            isinstance(one, (ast.UnaryOp, ast.Sub, ast.IfExp)) or (_name(one) or "").startswith("logical_n")
            for one in parts
        )
        flag = any((name := _name(one)) and _FLAG.search(name) and not _OPPOSITE.search(name) for one in parts)
        if _name(target) in names and flag and not turned:
            return group.at.at(node.lineno)
    return None


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _inverted(case: Case, group: Group) -> Finding:
    ended, going = group.share(TERMINAL), group.share(GOES_ON)
    through = group.kept / max(group.kept + group.dropped, 1)
    return Finding(
        CODE,
        "error",
        "The done mask is inverted: only the ends of episodes are bootstrapped from",
        _misnamed(group) or group.at,
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


def is_let_through(case: Case, group: Group) -> bool:
    """A mask stands there, and every terminal state gets through it (the flags were swapped, say)."""
    outcomes = case.memory["endings"]["outcomes"]
    ended, through = group.share(TERMINAL)
    going, going_through = group.share(GOES_ON)
    return bool(
        ended >= 8 and through == 1.0 and going >= 20 and going_through > 0.9 and not outcomes.vector and told(outcomes)
    )


def told(outcomes: Outcomes) -> bool:
    """Whether what was called an end was one, and not a time limit: always after as many steps."""
    if outcomes.timed or len(outcomes.lengths) < 2:
        return False
    apart = any(where[1] is not None for where in outcomes.layouts.values())
    return apart or len(set(outcomes.lengths)) > 1 or outcomes.lengths[0] == 1


def forgotten(case: Case, group: Group) -> str | None:
    """What shows that terminal states are bootstrapped from; None where nothing does."""
    outcomes = case.memory["endings"]["outcomes"]
    lengths = outcomes.lengths
    if not told(outcomes):
        return None
    ended, through = group.share(TERMINAL)
    going, _ = group.share(GOES_ON)
    if ended >= 2 and through == 1.0:
        return f"{ended} values of terminal states entered the target in full"
    if group.depth > outcomes.longest > 1 and all(one.stored for one in group.times):
        return f"a sum over {group.depth} steps runs on across the ends of episodes, the longest of which had {outcomes.longest}"
    if ended or going:
        return None
    batched = [
        one for one in group.times if one.size > 1 and one.whole and not one.stored and one.cut and _is_column(one)
    ]
    if len(lengths) < 3 or len(batched) < max(3, len(group.times) // 2):
        return None
    said = flags.read(group.site.file, outcomes.layouts, outcomes.functions, frozenset((group.site.line,)))
    if said.guards:
        return None
    return f"{len(lengths)} episodes ended, and no factor, condition or branch stands between the value and the target"


def _where(group: Group) -> Site:
    """Where the mask should enter: in the sum, or where the value was taken that a recursion begins with."""
    deepest = max(group.times, key=lambda one: one.depth)
    first = group.times[0].inner
    return first if deepest.depth > 1 and first is not None else group.at


def _branch(group: Group) -> Site | None:
    """The `if` that chooses between a target that bootstraps and one that does not."""
    module = sites.tree(group.site.file)
    found: ast.If | ast.IfExp | None = None
    for node in ast.walk(module) if module else ():
        if isinstance(node, (ast.If, ast.IfExp)) and node.lineno <= group.site.line <= (node.end_lineno or node.lineno):
            if found is None or node.lineno >= found.lineno:
                found = node
    return group.site.at(found.test.lineno) if found is not None else None


def _inverted_branch(case: Case, group: Group, site: Site) -> Finding:
    ended, _ = group.share(TERMINAL)
    return Finding(
        CODE,
        "error",
        "The branch on the end of the episode is inverted: only terminal states are bootstrapped from",
        site,
        f"All {ended} values of next states that entered the target belong to terminal states, after which nothing comes. For "
        "every other state the target is the reward of one step alone, so the value never learns what comes later.",
        "Swap the branches: target = reward if terminated else reward + gamma * next_value.",
        case.named(group.keys),
        {"bootstrapped at terminal states": ended, "at others": 0},
        keys=group.keys,
    )


def _is_column(one: Bootstrap) -> bool:
    """One number for each transition."""
    return len(one.node.shape) == 1 or (len(one.node.shape) == 2 and one.node.shape[1] == 1)


def _forgotten(case: Case, group: Group, evidence: str) -> Finding:
    return Finding(
        CODE,
        "error",
        "The done mask is missing: the target goes on past the end of the episode",
        _where(group),
        f"The target is the reward plus a discounted value of the next state, at terminal states too ({evidence}). Nothing "
        "comes after those, so their value is never learned, and what it happens to be leaks into all values before it.",
        "Multiply by 1 - terminated: target = reward + gamma * (1 - terminated) * next_value.",
        case.named(group.keys),
        {"observed": evidence, "targets": sum(one.size for one in group.times)},
        keys=group.keys,
    )
