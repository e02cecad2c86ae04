"""A term of a loss has the wrong sign: the optimizer makes the rewarded actions rarer, or the entropy smaller."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding, Severity
from covary.doctor.reading.terms import (
    SELECT,
    Term,
    canon,
    errors,
    examined,
    grad_params,
    heads,
    moved,
    movers,
    score,
    sign_of,
    terms,
    words,
)
from covary.doctor.reading.worth import called, origins, pays, points, speaks_of_rivals
from covary.doctor.sites import Site, statement
from covary.doctor.trail import Node

CODE = "wrong-sign"
RANK = 48
EXPLAINS: frozenset[str] = frozenset({"std-collapse", "saturation"})

JOINS = words("stack cat vstack hstack concatenate tensor as_tensor")


@dataclass
class Verdicts:
    """What was judged of one kind of term: +1 a wrong sign, -1 a right one."""

    signs: list[int] = field(default_factory=list)
    keys: frozenset[int] = frozenset()
    site: Site | None = None
    inverted: bool = False  # the loss has its minus, its weight is what is turned round


def examine(case: Case) -> Iterator[Finding]:
    if any(_negates(event.site) for event in case.events if event.kind == "gradient written"):
        return
    verdicts: dict[tuple[str, frozenset[int]], Verdicts] = {}
    critics: dict[frozenset[int], int] = {}
    for backward in examined(case):
        optimizers = movers(case).get(id(backward), frozenset())
        ways = {optimizer.maximize for optimizer in optimizers}
        if len(ways) != 1:
            continue
        _judge(case, backward, -1 if ways.pop() else 1, verdicts, critics)
    right = [keys for (kind, keys), some in verdicts.items() if kind == "actor" and set(some.signs) == {-1}]
    for (kind, keys), some in verdicts.items():
        if set(some.signs) != {1} or some.site is None:
            continue
        if kind == "actor" and (any(not keys & other for other in right) or speaks_of_rivals(some.site.file)):
            continue  # two players, one against the other
        yield _finding(case, kind, some)


@functools.lru_cache(maxsize=64)
def _negates(site: Site | None) -> bool:
    """Whether a line that writes gradients turns them round: it climbs."""
    found = statement(site.file, site.line) if site is not None else None
    if found is None:
        return False
    minus = any(isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) for node in ast.walk(found))
    return minus or "neg" in ast.unparse(found)


def _judge(
    case: Case,
    backward: Backward,
    way: int,
    verdicts: dict[tuple[str, frozenset[int]], Verdicts],
    critics: dict[frozenset[int], int],
) -> None:
    keys = moved(case, backward)
    own: list[tuple[Term, frozenset[int]]] = []
    for term in terms(backward.loss):
        if term.sign and (mine := _reached(case, term.leaf) & keys):
            own.append((term, mine))
    acting = False  # whether the loss has a term that makes good actions likelier
    entropies: list[tuple[Term, frozenset[int], int]] = []
    for term, mine in own:
        found = score(term)
        if found is not None:
            if found.entropy:
                entropies.append((term, mine, -found.sign * way))
                continue
            pointing = [(factor, up) for factor in term.factors if (up := points(factor))] or [
                (factor, up) for factor in term.factors if (up := called(factor, _meeting(term, factor)))
            ]
            acting = acting or bool(pointing) or (bool(term.factors) and _is_ratio(term))
            if len(pointing) == 1:
                factor, up = pointing[0]
                site, inverted = _root(term, factor), up < 0 and found.sign * way < 0
                if inverted:
                    site = _turned(factor) or site
                elif found.sign == term.sign:
                    site = _swapped(term, factor) or site
                _note(verdicts, ("actor", mine), found.sign * up * way, site, inverted)
            elif not term.factors and found.value is not None and found.value.grad:
                entropies.append((term, mine, -found.sign * way))  # log-probability of its own sample: minus an entropy
        elif canon(term.leaf.op) == "entropy":
            entropies.append((term, mine, term.sign * way))
        elif (head := heads(term.leaf)) and not head & keys:
            if head not in critics:
                critics[head] = _critic(case, head)
            if critics[head] and all(sign_of(factor) > 0 for factor in term.factors):
                acting = True
                _note(
                    verdicts,
                    ("judged", mine),
                    term.sign * way * critics[head],
                    _root(term, None, backward.loss.site),
                    False,
                )
    for term, side, target in errors(backward.loss):
        for fitted, aim in ((side, target), (target, side)):
            if term.sign > 0 and fitted.grad and not aim.grad and (verdict := _soft(aim)):
                _note(verdicts, ("soft target", grad_params(fitted) & keys), verdict, _added(aim), False)
    for term, mine, verdict in entropies:
        if acting and all(sign_of(factor) > 0 for factor in term.factors):
            _note(verdicts, ("entropy", mine), verdict, _joined(term), False)


def _reached(case: Case, leaf: Node) -> frozenset[int]:
    return grad_params(leaf) if leaf.grad else frozenset()


def _note(
    verdicts: dict[tuple[str, frozenset[int]], Verdicts],
    key: tuple[str, frozenset[int]],
    sign: int,
    site: Site | None,
    inverted: bool,
) -> None:
    some = verdicts.setdefault(key, Verdicts(keys=key[1]))
    some.signs.append(sign)
    if sign > 0:
        some.site, some.inverted = site, inverted


def _critic(case: Case, head: frozenset[int]) -> int:
    """Whether a network is fitted to something that grows with the rewards."""
    found = set()
    for backward in examined(case, 2):
        if not head & moved(case, backward):
            continue
        for term, one, other in errors(backward.loss):
            for side, target in ((one, other), (other, one)):
                if side.grad and term.sign > 0 and any(heads(inner.leaf) & head for inner in terms(side, most=200)):
                    found.add(pays(target))
    found.discard(0)
    return found.pop() if len(found) == 1 else 0


def _meeting(term: Term, factor: Node) -> Site | None:
    """Where a log-probability meets its weight."""
    return next((node.site for node in term.path() if any(one is factor for one in node.inputs)), None)


def _is_ratio(term: Term) -> bool:
    return any(canon(node.op) == "exp" for node in term.path())


def _swapped(term: Term, factor: Node) -> Site | None:
    """Where a log-probability is subtracted before it meets its weight: a ratio that stands on its head."""
    before = term.leaf
    for node in list(term.path())[1:]:
        if any(one is factor for one in node.inputs):
            return None
        place = {"sub": 1, "rsub": 0}.get(canon(node.op))
        if place is not None and len(node.args) > place and node.args[place] is before:
            return node.site
        before = node
    return None


def _soft(target: Node) -> int:
    """Of a target with a discounted next value: +1 where it adds the next log-probability, -1 where it subtracts it."""
    found = origins(target)
    if len(found.scores) != 1 or found.cost or pays(target) <= 0 or (1, True) not in found.values:
        return 0
    return next(iter(found.scores))


def _added(target: Node) -> Site | None:
    """Where a log-probability is added to a value."""
    for node in target.walk():
        if canon(node.op) in ("add", "sub", "rsub") and any(_is_score(one) for one in node.inputs):
            return node.site
    return target.site


def _is_score(node: Node) -> bool:
    for _ in range(8):
        if node.op == "log_prob":
            return True
        if canon(node.op) == "mul":
            node = max(node.inputs, key=lambda one: math.prod(one.shape), default=node)
        elif node.inputs and (canon(node.op) in SELECT or canon(node.op) in ("sum", "sub", "mean")):
            node = node.inputs[0]
        else:
            return False
    return False


def _root(term: Term, factor: Node | None, home: Site | None = None) -> Site | None:
    """Where a term is finished: the last call on its way up before it is added to others or put into a list.

    factor: what it is multiplied by, where it begins to be a term. home: of the loss; a network's own sums count not.
    """
    site, begun = term.leaf.site, factor is None and _together(term.leaf.site, home)
    before = term.leaf
    for node in list(term.path())[1:]:
        op = canon(node.op)
        if begun and (op in JOINS or (op in ("add", "sub", "rsub") and _others(node, before))):
            break
        begun = begun or (factor in node.inputs if factor is not None else _together(node.site, home))
        if op not in SELECT or begun:
            site = node.site or site
        before = node
    return site


def _together(site: Site | None, home: Site | None) -> bool:
    return home is None or (site is not None and (site.file, site.function) == (home.file, home.function))


def _others(node: Node, before: Node) -> bool:
    return any(one is not before and one.grad and one.param is None for one in node.inputs)


def _joined(term: Term) -> Site | None:
    """Where a term is added to the rest of its loss."""
    before = term.leaf
    for node in list(term.path())[1:]:
        if canon(node.op) in ("add", "sub", "rsub") and any(
            one is not before and one.grad and not _within(one, term.leaf) for one in node.inputs
        ):
            return node.site
        before = node
    return before.site


def _within(node: Node, leaf: Node) -> bool:
    """Whether a value is no other term than the leaf's own: built on what is right under it, like log-Jacobians."""
    below = {id(one) for one in leaf.inputs} | {id(leaf)}
    return any(
        id(one) in below for one, _ in zip(node.walk(lambda one: one.grad and not heads(one)), range(12), strict=False)
    ) and not any(heads(one.leaf) for one in terms(node, most=100))


def _turned(factor: Node) -> Site | None:
    """Where a weight was made as baseline minus return."""
    for node in factor.walk():
        if canon(node.op) in ("sub", "rsub", "neg") and node.site is not None:
            return node.site
    return None


def _finding(case: Case, kind: str, some: Verdicts) -> Finding:
    severity: Severity = "error"
    if kind == "entropy":
        severity = "warning"
        title = "The entropy's term has the wrong sign: the loss falls when the policy stops exploring"
        explanation = (
            "This adds the policy's entropy, or subtracts its log-probability: it should be the other way round. "
            "Minimising it makes the policy deterministic as fast as it can, before it knows which action is good."
        )
        fix = "loss = policy_loss - coefficient * entropy      # and for SAC: (alpha * log_prob - q).mean()"
    elif kind == "soft target":
        severity = "warning"
        title = "The entropy's term has the wrong sign in the target: what is surprising is rated lower"
        explanation = (
            "The target adds the log-probability of the next action, so the critic learns that actions which the "
            "policy seldom takes are worth less. A bonus for entropy subtracts it."
        )
        fix = "target = reward + gamma * (1 - done) * (next_q - alpha * next_log_prob)"
    elif kind == "judged":
        title = "The actor's loss has the wrong sign: it looks for the actions that its critic rates lowest"
        explanation = (
            "The critic is fitted to rewards, so its output is to be made large, and this loss, which is minimised, "
            "is that output without a minus. Every step moves the actor towards worse actions."
        )
        fix = "actor_loss = -critic(states, actor(states)).mean()"
    elif some.inverted:
        title = "The advantage is turned round: rewarded actions become rarer"
        explanation = (
            "The loss has its minus, but what the log-probability is multiplied by grows with the baseline and falls "
            "with the rewards. Every step makes the actions rarer that were better than expected."
        )
        fix = "advantage = returns - values.detach()"
    else:
        title = "The policy's loss has the wrong sign: rewarded actions become rarer"
        explanation = (
            "The loss is minimised, and it is the log-probability times a weight that grows with the rewards, without "
            "a minus. Every step makes the actions rarer that were better than expected."
        )
        fix = "actor_loss = -(log_prob * advantage.detach()).mean()"
    evidence = {"losses examined": len(some.signs), "wrong in": len(some.signs)}
    return Finding(CODE, severity, title, some.site, explanation, fix, case.named(some.keys), evidence, True, some.keys)
