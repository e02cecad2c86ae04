"""The actor's loss follows the action into a critic, and the action was drawn by `sample`, which has no gradient."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding
from covary.doctor.reading.terms import canon, examined, grad_params, heads, moved, score, terms, uncut, words
from covary.doctor.sites import Site
from covary.doctor.trail import Node

CODE = "sample-not-rsample"
RANK = 19  # before graph-cut: older, rightful cuts (acting under no_grad) may lead to the same parameters
EXPLAINS = frozenset(
    {"graph-cut", "learning-rate", "saturation", "std-collapse", "wrong-sign", "dead-relu", "optimizer-mismatch"}
)

# some of them have a gradient, and it is 0
DRAWS = words("sample normal bernoulli multinomial poisson")
DISCRETE = words("Categorical OneHotCategorical Bernoulli Multinomial Binomial Geometric Poisson NegativeBinomial")


def examine(case: Case) -> Iterator[Finding]:
    places: dict[Site, tuple[Node, frozenset[int], int, bool]] = {}
    for backward in examined(case):
        for draw, keys in _drawn(case, backward):
            if draw.site is not None:
                _, known, times, _ = places.get(draw.site, (draw, frozenset(), 0, False))
                places[draw.site] = draw, known | keys, times + 1, bool(backward.reached & keys)
    for draw, some, times, partly in places.values():
        yield _finding(case, draw, some, times, partly)


def _drawn(case: Case, backward: Backward) -> Iterator[tuple[Node, frozenset[int]]]:
    """The draws that a loss follows into a judge: a network, or any function if there is no other way to the policy."""
    keys = moved(case, backward)
    if not keys and not backward.loss.grad and case.raised is not None:
        keys = frozenset(key for one in case.optimizers for key in one.params) - case.reached
    keys = keys & case.before(backward.loss)
    if not keys:
        return
    found = terms(backward.loss, uncut)
    for term in found:
        if score(term) is not None and any(
            case.before(factor) or factor.tag("reward", False) for factor in term.factors
        ):
            return  # a weighed log-probability: here `sample` is right
        if canon(term.leaf.op) == "log_prob" and term.factors:
            return
    seen: set[int] = set()
    for term in found:
        judge = heads(term.leaf)
        if any(factor.grad and grad_params(factor) & keys for factor in term.factors) or judge & keys:
            continue
        if not judge and canon(term.leaf.op) in ("log_prob", "entropy"):
            continue
        reached = grad_params(term.leaf, DRAWS) if term.leaf.grad else frozenset()
        for draw in _draws(term.leaf, keys):
            behind = (case.before(draw) & keys) - reached
            lost = behind & case.starved
            if behind and id(draw) not in seen and (judge or lost or case.raised is not None):
                seen.add(id(draw))
                yield draw, behind


def _draws(leaf: Node, keys: frozenset[int]) -> Iterator[Node]:
    """The draws that enter a leaf where a gradient would flow, if they had one, and not through the policy itself."""
    todo, seen = [leaf], {id(leaf)}
    while todo and len(seen) < 3000:
        node = todo.pop()
        if node.op in DRAWS:
            yield node
            continue
        if heads(node) & keys or node.op == "log_prob":
            continue
        for one in node.inputs:
            if id(one) not in seen and uncut(node, one):
                seen.add(id(one))
                todo.append(one)


def _finding(case: Case, draw: Node, keys: frozenset[int], times: int, partly: bool) -> Finding:
    kind = draw.tag("of", "")
    also = (
        "Another term of the loss (an entropy) still reaches the policy, so it moves, but not towards better actions."
        if partly
        else "No other term of the loss reaches the policy, so it never moves."
    )
    if kind in DISCRETE:
        fix = "action = F.gumbel_softmax(logits, hard=True)\n# or over all actions: -(probs * q(states)).sum(-1).mean()"
    elif draw.op == "normal":
        fix = "action = mean + std * torch.randn_like(mean)"
    else:
        fix = "action = dist.rsample()"
    return Finding(
        CODE,
        "error",
        "The action was drawn without a gradient, and the loss needs one through it",
        draw.site,
        f"This loss rates the drawn action, and only through the action can that improve the policy. `{draw.op}` "
        f"returns a number without a history: the rating never reaches the policy. {also}",
        fix,
        case.named(keys),
        {"drawn from": kind or draw.op, "losses examined": times, "policy still reached by another term": partly},
        True,
        keys,
    )
