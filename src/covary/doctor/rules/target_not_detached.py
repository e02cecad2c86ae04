"""A target or an advantage carries a gradient: the loss moves the very value that it should hold still."""

from __future__ import annotations

import linecache
import re
from collections import defaultdict
from collections.abc import Iterator

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding, Severity
from covary.doctor.reading import terms
from covary.doctor.reading.paths import words
from covary.doctor.reading.terms import Term, canon
from covary.doctor.sites import Site
from covary.doctor.trail import Node

CODE = "target-not-detached"
RANK = 40
EXPLAINS = frozenset({"crossed-gradients", "wrong-sign", "done-mask"})

# what keeps a value what it is: a probability or a gate, which may be meant to learn, is none
PLAIN = terms.SELECT | terms.REDUCE | words("neg add sub rsub mul div minimum maximum where")
Hits = dict[tuple[str, int], list[tuple[Node, frozenset[int]]]]


def examine(case: Case) -> Iterator[Finding]:
    targets: Hits = defaultdict(list)
    advantages: Hits = defaultdict(list)
    for backward in terms.examined(case):
        moved = terms.moved(case, backward)
        if not moved:
            continue
        for node, keys in _targets(case, backward, moved):
            if node.site is not None:
                targets[node.site.place].append((node, keys))
        for node, keys in _advantages(case, backward, moved):
            if node.site is not None:
                advantages[node.site.place].append((node, keys))
    for place, hits in sorted(targets.items(), key=lambda item: item[1][0][0].serial):
        if not _says_residual(place[0]):
            yield _finding(case, hits, "target")
    for _, hits in sorted(advantages.items(), key=lambda item: item[1][0][0].serial):
        yield _finding(case, hits, "advantage")


# ----------------------------------------------------------------------------------------- targets of a regression


def _targets(case: Case, backward: Backward, moved: frozenset[int]) -> Iterator[tuple[Node, frozenset[int]]]:
    """Where a bootstrapped target with a gradient is formed, and the parameters that it moves."""
    for parts in _differences(backward.loss):
        plain = [one for one in parts if terms.heads(one.leaf) and not one.factors and not _discount(one)]
        for one in parts:
            heads = terms.heads(one.leaf)
            if not heads or not (one.factors or _discount(one)):
                continue
            if not any(other.sign == -one.sign and other.leaf.grad and _another(other, one) for other in plain):
                continue
            formed = _formed(case, one)
            keys = terms.grad_params(one.leaf) & moved & backward.reached
            if formed is not None and keys and _moves_itself(one, plain, keys):
                yield formed, keys


def _differences(loss: Node) -> Iterator[list[Term]]:
    """Every difference that a loss squares (or the like), as a sum of signed leaves with a gradient."""
    for term in terms.terms(loss):
        leaf = term.leaf
        if canon(leaf.op) in terms.SQUARED and len(leaf.args) > 1:
            a, b = leaf.args[:2]
            if type(a) is Node and type(b) is Node and a.grad and b.grad:
                turned = [Term(one.leaf, -one.sign, one.factors, one.numbers, one.link) for one in terms.terms(b)]
                yield terms.terms(a) + turned
            continue
        inner = terms.squared(leaf) if canon(leaf.op) != "abs" else leaf.args[0]
        if type(inner) is Node and inner.grad:
            yield terms.terms(inner)


def _discount(one: Term) -> bool:
    return any(0.3 <= abs(number) < 1 for number in one.numbers)


def _another(other: Term, one: Term) -> bool:
    """Whether two leaves are two calls of networks, or two parts of one call's output."""
    if other.leaf is not one.leaf:
        return True
    above = [
        next((node for node in term.path() if canon(node.op) in ("getitem", "select", "narrow")), None)
        for term in (other, one)
    ]
    return above[0] is not None and above[1] is not None and above[0] is not above[1]


def _formed(case: Case, one: Term) -> Node | None:
    """The sum of the discounted value and something without a gradient: a reward rather than a network's value."""
    sums = [node for node in one.path() if node is not one.leaf and _adds_constant(node)]
    for node in sums:
        free = [other for other in node.args[:2] if type(other) is not Node or not other.grad]
        if any(type(other) is not Node or not case.carried(other) for other in free):
            return node
    return sums[0] if sums else None


def _adds_constant(node: Node, depth: int = 0) -> bool:
    if canon(node.op) not in ("add", "sub", "rsub") or depth > 6:
        return False
    return any(
        type(other) in (int, float) or (type(other) is Node and (not other.grad or _adds_constant(other, depth + 1)))
        for other in node.args[:2]
    )


def _moves_itself(one: Term, plain: list[Term], keys: frozenset[int]) -> bool:
    """Whether the target moves the predicted network's own output, or a policy that is stepped with this loss."""
    heads = terms.heads(one.leaf)
    if any(terms.heads(other.leaf) == heads for other in plain):
        return bool(heads & keys)
    predicted = frozenset().union(*(terms.grad_params(other.leaf) for other in plain))
    return bool(keys - predicted)


def _says_residual(file: str) -> bool:
    """Whether the file says that it wants the gradient of the whole Bellman residual."""
    text = "".join(linecache.getlines(file)).lower()
    return (
        re.search(
            r"residual[\s_-]*gradient|bellman[\s_-]*residual|full[\s_-]*gradient|gradient[\s_-]*td|\bgtd|\btdc\b", text
        )
        is not None
    )


# -------------------------------------------------------------------------------------- advantages of an actor's loss


def _advantages(case: Case, backward: Backward, moved: frozenset[int]) -> Iterator[tuple[Node, frozenset[int]]]:
    """Where an advantage with a gradient is formed that weighs a log-probability, and the parameters that it moves."""
    for term in terms.terms(backward.loss):
        if not term.factors or terms.score(term) is None:
            continue
        policy = terms.grad_params(term.leaf)
        for factor in term.factors:
            if not factor.grad or (terms.is_scalar(factor) and terms.is_temperature(factor)):
                continue
            for one in terms.terms(factor):
                heads = terms.heads(one.leaf)
                keys = (terms.grad_params(one.leaf) - policy) & moved & backward.reached
                if (
                    not heads
                    or not heads & keys
                    or any(canon(node.op) not in PLAIN for node in one.path() if node is not one.leaf)
                ):
                    continue
                yield _formed(case, one) or _product(term, factor) or factor, keys


def _product(term: Term, factor: Node) -> Node | None:
    """Where the factor is multiplied."""
    return next((node for node in term.path() if any(one is factor for one in node.args)), None)


def _finding(case: Case, hits: list[tuple[Node, frozenset[int]]], what: str) -> Finding:
    site: Site | None = hits[0][0].site
    keys = frozenset().union(*(one[1] for one in hits))
    if what == "target":
        title = "The target carries a gradient"
        told = (
            "The value of the next state in this target is still connected to the network. The regression therefore "
            "not only moves the "
            "prediction towards the target; it also moves the target towards the prediction, which is another, much "
            "slower and biased "
            "learning rule (a residual gradient) than the temporal difference that it looks like."
        )
        fix = "Form the target under `with torch.no_grad():`, or detach: `reward + gamma * next_value.detach()`."
        severity: Severity = "warning"
    else:
        title = "The advantage carries a gradient"
        told = (
            "The advantage multiplies the log-probability and is still connected to the critic. The actor's loss "
            "therefore trains the "
            "critic too: it lowers or raises the values so that the actor's loss gets smaller, not so that they "
            "become right."
        )
        fix = "Use it as a constant in the actor's loss: `-(log_prob * advantage.detach()).mean()`."
        severity = "error"
    evidence = {"formed by": hits[0][0].op, "times seen": len(hits)}
    return Finding(CODE, severity, title, site, told, fix, case.named(keys), evidence, True, keys)
