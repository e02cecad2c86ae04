"""A loss uses what a network said while acting (log-probability, value or action), and not what it says now."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from covary.doctor.case import Backward, Case, Optimizer
from covary.doctor.findings import Finding
from covary.doctor.reading.terms import (
    REDUCE,
    SELECT,
    SQUARED,
    Term,
    anyhow,
    canon,
    examined,
    heads,
    moved,
    movers,
    operands,
    score,
    squared,
    terms,
    words,
)
from covary.doctor.rules.graph_cut import cuts_below
from covary.doctor.sites import Site, stack
from covary.doctor.trail import Node

CODE = "stored-value"
RANK = 18
EXPLAINS = words(
    "graph-cut sample-not-rsample rsample-in-score wrong-sign learning-rate optimizer-mismatch saturation std-collapse "
    "dead-relu"
)

PLAIN = SELECT | REDUCE | {"neg", "float", "int"}
SUMS = words("add sub rsub neg mul div mean sum stack cat")


def listen(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """From where a network was called: its first layer stands in `forward`, and the answer is the call."""
    if node.site is not None and node.site.function != "<module>":
        node.mark(calls=stack(1, 5))


LISTENS = {"linear": listen, "cat": listen}


@dataclass
class Suspect:
    """A value that a loss takes from the past. kind: "log-probability", "value" or "action"; "cut" if it is not old."""

    kind: str
    site: Site
    keys: frozenset[int]
    certain: bool = True


class Phases:
    """When the script acted, and when it stepped."""

    def __init__(self, case: Case) -> None:
        self.acts = [event.serial for event in case.events if event.kind == "env step"]
        self.steps: dict[Optimizer, list[int]] = {}
        for step in case.steps:
            self.steps.setdefault(step.optimizer, []).append(step.serial)

    def acted(self, since: int, until: int) -> bool | None:
        """Whether an environment made a step between; None where none was ever seen."""
        return _between(self.acts, since, until) if self.acts else None

    def stepped(self, case: Case, backward: Backward, since: int) -> bool:
        """Whether a backward's own optimizer has made a step since."""
        some = movers(case).get(id(backward), frozenset())
        return any(_between(self.steps.get(optimizer, []), since, backward.serial) for optimizer in some)

    def last_act(self, until: int) -> int:
        i = bisect_right(self.acts, until)
        return self.acts[i - 1] if i else 0


def _between(serials: list[int], since: int, until: int) -> bool:
    i = bisect_right(serials, since)
    return i < len(serials) and serials[i] < until


def examine(case: Case) -> Iterator[Finding]:
    phases = Phases(case)
    looked: Counter[Site | None] = Counter()
    found: dict[Site, tuple[list[Suspect], Backward]] = {}
    for backward in examined(case):
        looked[backward.site] += 1
        suspects = {one.site: one for one in (*_dead_terms(case, phases, backward), *_action(case, phases, backward))}
        for one in suspects.values():
            found.setdefault(one.site, ([], backward))[0].append(one)
    for site, (some, backward) in found.items():
        share = len(some) / looked[backward.site]
        if share > 0.5 if some[0].kind != "cut" else share >= 1:
            yield _finding(case, site, some)


# ------------------------------------------------------------- terms of a loss without a gradient: log-probs and values


def _dead_terms(case: Case, phases: Phases, backward: Backward) -> Iterator[Suspect]:
    stepped = moved(case, backward) or frozenset(key for one in case.optimizers for key in one.params)
    for core in _cores(backward.loss):
        for kind, leaf, path in _stored(core):
            keys = case.before(leaf) & stepped
            if not keys:
                continue
            cut = next((node for node in path if not node.grad), leaf)
            site = _entry(path, phases.last_act(backward.serial)) or core.site
            if site is None:
                continue
            acted = phases.acted(cut.serial, backward.serial)
            same = (one for one, _ in zip(core.walk(), range(3000), strict=False) if one.op == leaf.op)
            many = sum(one.site == leaf.site for one in same) > 1
            if (
                phases.stepped(case, backward, cut.serial)
                or _again(phases, backward, keys, cut, leaf.off is not None)
                or (leaf.off is not None and acted is not False and many)
            ):
                yield Suspect(kind, site, keys)
            elif kind == "log-probability" and (leaf.grad or leaf.off is not None) and not keys & case.starved:
                # other terms still reach the policy: graph-cut, which looks for starved parameters, is silent
                place = cut.off or cut.site
                if place is not None:
                    yield Suspect("cut", place, keys)


def _again(phases: Phases, backward: Backward, keys: frozenset[int], cut: Node, off: bool) -> bool:
    """Whether the loss also holds a fresh answer of the same network, given after acting."""
    since = max(cut.serial, phases.last_act(backward.serial))
    if (phases.acts and since == cut.serial) or (not phases.acts and not off):
        return False
    answers = backward.loss.walk(lambda one: one.grad)
    return any(node.grad and node.serial > since and bool(heads(node) & keys) for node in answers)


def _cores(loss: Node) -> Iterator[Node]:
    """The parts of a sum of losses that carry no gradient and are more than a constant beside the others."""
    todo, seen = [loss], {id(loss)}
    while todo and len(seen) < 2000:
        node = todo.pop()
        op = canon(node.op)
        if not node.grad and ((op not in SUMS and op not in PLAIN) or (op == "mul" and _is_product(node))):
            yield node
            continue
        if op in SUMS or op in PLAIN:
            for child, _, factor, _ in operands(node) or ():
                if factor is None and id(child) not in seen:
                    seen.add(id(child))
                    todo.append(child)


def _is_product(node: Node) -> bool:
    return any(factor is not None for _, _, factor, _ in operands(node) or ())


def _stored(core: Node) -> Iterator[tuple[str, Node, list[Node]]]:
    """What a dead term was made of: its kind, the network's answer, and the way from there up to the term."""
    op = canon(core.op)
    inner = squared(core)
    if op in SQUARED or inner is not None:
        sides = core.args[:2] if op in SQUARED else ()
        while inner is not None and canon(inner.op) in SELECT and type(inner.args[0]) is Node:
            inner = inner.args[0]
        if inner is not None and canon(inner.op) in ("sub", "rsub"):
            sides, core = inner.args[:2], inner
        direct = [found for side in sides if type(side) is Node and (found := _direct(side)) is not None]
        if len(direct) == 1:
            leaf, path = direct[0]
            yield "value", leaf, [*path, core]
        return
    oldest: dict[Site | None, Term] = {}
    for term in terms(core, anyhow, 20_000, once=True):
        one = score(term)
        if one is not None and not one.entropy and term.factors:
            known = oldest.setdefault(term.leaf.site, term)
            if term.leaf.serial < known.leaf.serial:
                oldest[term.leaf.site] = term
    for term in oldest.values():
        yield "log-probability", term.leaf, list(term.path())


def _direct(node: Node) -> tuple[Node, list[Node]] | None:
    """The network's output that a value is, perhaps gathered and selected but nothing else; and the way up from it."""
    path = [node]
    for _ in range(4000):
        node = path[-1]
        if heads(node):
            return node, path[::-1]
        op = canon(node.op)
        if op not in SELECT and op not in ("float", "int"):
            return None
        below = [child for child, *_ in operands(node) or ()] or list(node.inputs[:1])
        if op == "setitem":
            below.reverse()
        if not below:
            return None
        path.append(below[0])
    return None


def _entry(path: list[Node], acted: int) -> Site | None:
    """Where a stored value enters: the first thing that is done with it once acting was over."""
    after = False
    for node in path[1:]:
        after = after or not node.grad
        if after and canon(node.op) not in PLAIN and node.serial > acted and node.site is not None:
            return node.site
    return None


# -------------------------------------------------------------------------- an actor that is judged by what it did once


def _action(case: Case, phases: Phases, backward: Backward) -> Iterator[Suspect]:
    keys = moved(case, backward) & case.starved
    if not keys or backward.reached & moved(case, backward):
        return
    judges = [term for term in terms(backward.loss) if (head := heads(term.leaf)) and not head & keys]
    if not judges:
        return
    behind = keys & case.before(backward.loss)
    cuts = [node for node, _ in cuts_below(backward, behind, case) if node.site is not None] if behind else []
    if cuts:
        site = _call(backward.loss, {id(node) for node in cuts})
        if site is not None and all(_past(case, phases, backward, node) for node in cuts):
            yield Suspect("action", site, behind)
        return
    # the way was lost in a buffer: then the loss must rest on nobody but the judge, and the actor have only acted
    others = frozenset(key for one in case.optimizers if not set(one.params) & keys for key in one.params)
    acting = [node for node in case.trail.cuts.values() if case.before(node) & keys]
    site = _call(backward.loss, None) if acting and backward.reached and backward.reached <= others else None
    past = all(_past(case, phases, backward, node) or node.serial > backward.serial for node in acting)
    if site is not None and phases.acts and past:
        yield Suspect("action", site, keys, certain=False)


def _past(case: Case, phases: Phases, backward: Backward, node: Node) -> bool:
    return phases.stepped(case, backward, node.serial) or bool(phases.acted(node.serial, backward.serial))


def _call(loss: Node, cuts: set[int] | None) -> Site | None:
    """In the function that makes the loss, the line that hands the stored action to the critic."""
    if loss.site is None:
        return None
    above: dict[int, Node] = {}
    start: Node | None = None
    for node in loss.walk():
        for one in node.inputs:
            above.setdefault(id(one), node)
        if cuts is not None and id(node) in cuts:
            start = node
            break
    first: Node | None = None
    while start is not None and first is None:
        start = above.get(id(start))
        first = start if start is not None and (start.grad or start.tag("calls")) else None
    if first is None:
        layers = [node for node in loss.walk(lambda one: one.grad) if node.tag("calls") and node.grad]
        first = layers[-1] if layers else None
    home = (loss.site.file, loss.site.function)
    for site in (first.tag("calls") or (first.site,)) if first is not None else ():
        if site is not None and (site.file, site.function) == home:
            return site
    return loss.site


def _finding(case: Case, site: Site, some: list[Suspect]) -> Finding:
    kind, keys = some[0].kind, frozenset[int]().union(*(one.keys for one in some))
    again = "      # evaluate it again, with a gradient\n"
    if kind == "cut":
        return Finding(
            "graph-cut",
            "error",
            "The gradient ends here: the log-probability in the policy's loss is a plain number",
            site,
            "The policy's part of this loss has no gradient: its log-probability lost its history here. Other terms "
            "(an entropy, a value) still move these parameters, but no action becomes likelier for being good.",
            "Keep the tensor: join log-probabilities with torch.stack(...), and do not detach them.",
            case.named(keys),
            {"cut": "log_prob", "losses examined": len(some)},
            True,
            keys,
        )
    if kind == "value":
        title = "The value that the critic gave while acting is compared with the return, and not what it says now"
        fix = f"values = critic(states){again}value_loss = (returns - values).pow(2).mean()"
    elif kind == "action":
        title = "The actor's loss rates the stored action, and not what the actor would do now"
        fix = "actor_loss = -critic(states, actor(states)).mean()"
    else:
        title = "The log-probability from the buffer stands where that of the present policy belongs"
        fix = f"log_prob = policy(states).log_prob(actions){again}ratio = (log_prob - old_log_prob).exp()"
    return Finding(
        CODE,
        "error",
        title,
        site,
        f"This {kind} was computed earlier, while the script acted, and kept as a number without a history. The loss "
        "has no gradient through it, so the network that gave it learns nothing from this part of the loss.",
        fix,
        case.named(keys),
        {"stored": kind, "losses examined": len(some)},
        all(one.certain for one in some),
        keys,
    )
