"""Which way a weight points: whether a return, an advantage or a target grows with what the environment paid."""

from __future__ import annotations

import ast
import linecache
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from covary.doctor.reading.terms import REDUCE, canon, heads, is_scalar, operands, sign_of, words
from covary.doctor.sites import Site, statement, tree
from covary.doctor.trail import Node


@dataclass(slots=True)
class Origins:
    """What a number was made of, and with what sign.

    rewards: by sign, when the latest was paid. values: outputs of networks, as (sign, whether discounted). entered:
    what came in from outside of PyTorch; others: the rest; by (sign, whether discounted), when the latest was made.
    scores: signs of log-probabilities. cost: a reward is called a cost.
    """

    rewards: dict[int, int] = field(default_factory=dict)
    values: set[tuple[int, bool]] = field(default_factory=set)
    entered: dict[tuple[int, bool], int] = field(default_factory=dict)
    others: dict[tuple[int, bool], int] = field(default_factory=dict)
    scores: set[int] = field(default_factory=set)
    cost: bool = False

    @property
    def alone(self) -> set[int]:
        """The sign of what is neither reward nor value: undiscounted, if there is such, and the latest (a baseline is
        older than what it is subtracted from)."""
        some = self.entered or self.others
        some = {key: serial for key, serial in some.items() if not key[1]} or some
        return {sign for (sign, _), serial in some.items() if serial == max(some.values())}

    @property
    def paid(self) -> int:
        """The sign of the latest reward."""
        up, down = self.rewards.get(1, -1), self.rewards.get(-1, -1)
        return 0 if self.cost else (up > down) - (up < down)


_ENTRIES = words("from_numpy tensor as_tensor setitem source")
_NOTHING = words("zeros zeros_like empty empty_like parameter zero full log_prob entropy new_zeros")


def origins(weight: Node, most: int = 3000) -> Origins:
    """What a weight, a return or a target was made of, through cuts too."""
    found = Origins()
    todo: list[tuple[Node, int, bool]] = [(weight, 1, False)]
    seen: set[Any] = set()
    while todo and most:
        most -= 1
        node, sign, less = todo.pop()
        if not sign or (id(node), sign, less) in seen:
            continue
        seen.add((id(node), sign, less))
        if node.op == "reward" or node.tag("reward", False):
            found.cost = found.cost or is_cost(node.site)
            found.rewards[sign] = max(found.rewards.get(sign, 0), node.serial)
            continue
        if heads(node):
            found.values.add((sign, less))
            continue
        if node.op == "log_prob":
            found.scores.add(sign)
            continue
        below = operands(node)
        if node.op in _ENTRIES:
            found.entered[sign, less] = max(found.entered.get((sign, less), 0), node.serial)
        if not below:
            if canon(node.op) not in _NOTHING:
                found.others[sign, less] = max(found.others.get((sign, less), 0), node.serial)
            continue
        if canon(node.op) in ("add", "sub", "rsub"):
            for i, one in enumerate(node.args[:2]):
                if type(one) in (int, float) and abs(one) > 1e-5:  # perhaps a reward that was not seen to be one
                    turned = (canon(node.op), i) in (("sub", 1), ("rsub", 0))
                    found.others.setdefault((-sign if turned else sign, less), node.serial)
        summary, masks = _summary(node), node.tag("keeps", {})
        for child, direction, factor, number in below:
            if child is not summary and not any(node.args[i] is child for i in masks):
                by = direction * ((sign_of(factor) or 1) if factor is not None else 1)
                todo.append((child, sign * by, less or _shrinks(number if factor is None else factor)))
    if todo and len(found.rewards) > 1:
        found.rewards = {1: 0, -1: 0}  # not all was looked at: which was paid last is not known
    return found


def _shrinks(by: Any, depth: int = 0) -> bool:
    """Whether a product is with a discount: a number below 1, perhaps times a mask."""
    if type(by) in (int, float):
        return 0 < abs(by) < 1
    if type(by) is not Node or canon(by.op) != "mul" or depth > 3:
        return False
    return any(_shrinks(one, depth + 1) for one in by.args)


def points(weight: Node) -> int:
    """Whether a weight grows with what was paid: +1 for a return or an advantage, -1 for its opposite, 0 unknown."""
    found = origins(weight)
    if found.rewards:
        return found.paid
    baseline = {sign for sign, less in found.values if not less}
    if len(baseline) != 1 or (weight.site is not None and speaks_of_costs(weight.site.file)):
        return 0
    sign = baseline.pop()  # without a bootstrap it may be anything that is to be small: a tour's length
    return -sign if -sign in found.alone and (-sign, True) in found.values else 0


def pays(target: Node) -> int:
    """Whether a regression's target grows with what was paid: rewards, or something and a discounted value."""
    found = origins(target)
    if found.rewards:
        return found.paid
    if target.site is None or speaks_of_costs(target.site.file):
        return 0
    grows = (1, True) in found.values and found.alone == {1} and not any(sign < 0 for sign, _ in found.values)
    return 1 if grows else 0


def called(weight: Node, site: Site | None) -> int:
    """The same by names, where a reward was not seen to be one: the line that weighs calls it a return, a reward or an
    advantage, a network's output is at most subtracted from it, and nowhere does the file turn such a thing round."""
    if site is None or _turns(site.file):
        return 0
    line = statement(site.file, site.line)
    names = {name for node in ast.walk(line) if (name := _name(node))} if line is not None else set()
    if not any(_PAID.fullmatch(name) for name in names):
        return 0
    signs: set[int] = set()
    for one, sign in _here(weight, site.line):
        found = origins(one)
        if found.rewards or any(value * sign > 0 for value, _ in found.values):
            return 0
        if found.entered or found.others:
            signs.add(sign)
    return signs.pop() if len(signs) == 1 else 0


def _here(weight: Node, line: int) -> list[tuple[Node, int]]:
    """What a weight is made of in its own line: each part as it comes from elsewhere, and its sign."""
    todo: list[tuple[Node, int]] = [(weight, 1)]
    found: list[tuple[Node, int]] = []
    while todo and len(found) < 50:
        node, sign = todo.pop()
        below = operands(node) if node.site is not None and node.site.line == line else None
        if not below:
            found.append((node, sign))
            continue
        summary = _summary(node)
        todo += [(child, sign * by) for child, by, _, _ in below if child is not summary]
    return found


_PAID = re.compile(
    r"(?i:rews?|rewards?|\w*_?rewards?|rets?|\w*returns?|adv|advs|\w*advantages?|gaes?|rtg\w*|reward_to_go)|R|Rs|G|Gs|G_t|R_t|rs?"
)
_SMALLER = re.compile(r"cost|regret|penalt|minimi[sz]|tour|_len|makespan|distance|opponent|adversar|player")


@lru_cache(maxsize=64)
def _turns(file: str) -> bool:
    """Whether a file may want something to be small, or negates what it calls a return."""
    if _SMALLER.search("".join(linecache.getlines(file)).lower()):
        return True
    for node in ast.walk(tree(file) or ast.Module([], [])):
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            turned: ast.expr = node.operand
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            turned = node.right
        else:
            continue
        while isinstance(turned, (ast.Subscript, ast.Call)):  # returns[i], returns.detach()
            inside = turned.value if isinstance(turned, ast.Subscript) else turned.func
            turned = inside.value if isinstance(inside, ast.Attribute) and isinstance(turned, ast.Call) else inside
        if _PAID.fullmatch(_name(turned)) and not _centred(node):
            return True
    return False


def _centred(node: ast.expr) -> bool:
    """x - x.mean()."""
    return isinstance(node, ast.BinOp) and ast.unparse(node.right).startswith(ast.unparse(node.left))


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _summary(node: Node) -> Node | None:
    """Of a difference, the operand that only summarises the other: the mean in x - x.mean()."""
    if canon(node.op) not in ("sub", "rsub") or len(node.args) < 2:
        return None
    a, b = node.args[:2]
    if type(a) is not Node or type(b) is not Node:
        return None
    for one, other in ((b, a), (a, b)):
        if is_scalar(one) and not is_scalar(other):
            return one
        if canon(one.op) in REDUCE and any(x is other for x, _ in zip(one.walk(), range(6), strict=False)):
            return one
    return None


@lru_cache(maxsize=512)
def is_cost(site: Site | None) -> bool:
    """Whether the number that an environment returned may be a cost, by what the source calls it."""
    found = statement(site.file, site.line) if site is not None else None
    target = found.targets[0] if isinstance(found, ast.Assign) else None
    if not isinstance(target, ast.Tuple) or len(target.elts) < 2:
        return site is not None and speaks_of_costs(site.file)
    name = ast.unparse(target.elts[1]).lower()
    if any(word in name for word in ("cost", "penal", "loss", "regret")):
        return True
    return (
        len(target.elts) < 5
        and re.search(r"(^|\W)r(\d?|_\w*|t)(\W|$)|rew|score|gain|pay|profit|bonus|util", name) is None
    )


@lru_cache(maxsize=64)
def speaks_of_costs(file: str) -> bool:
    """Whether a file speaks of costs: then a smaller number may well be the better one."""
    source = "".join(linecache.getlines(file)).lower()
    return re.search(r"costs?\b|\bcost|_cost|regret|minimi[sz]", source) is not None


@lru_cache(maxsize=64)
def speaks_of_rivals(file: str) -> bool:
    """Whether a file speaks of an adversary, who may well want the rewards to be small."""
    return re.search(r"advers|opponent|attack|minimax|zero.sum", "".join(linecache.getlines(file)).lower()) is not None
