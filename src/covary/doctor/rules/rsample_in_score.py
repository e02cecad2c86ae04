"""An action was drawn by `rsample` and its own log-probability is weighed: the gradient to the mean cancels."""

from __future__ import annotations

from collections.abc import Iterator

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding
from covary.doctor.reading.terms import (
    Score,
    Term,
    canon,
    examined,
    grad_params,
    heads,
    is_temperature,
    moved,
    score,
    terms,
    words,
)
from covary.doctor.reading.worth import origins
from covary.doctor.sites import Site
from covary.doctor.trail import Node

CODE = "rsample-in-score"
RANK = 36
EXPLAINS = frozenset({"learning-rate", "std-collapse", "wrong-sign", "saturation"})

NOISE = words("randn randn_like normal standard_normal standard_gamma rand rand_like")


def examine(case: Case) -> Iterator[Finding]:
    found: dict[Site, tuple[Node, set[int], int]] = {}
    numbers: dict[Site, set[float]] = {}
    unweighed: dict[Site, tuple[Node, set[int], int]] = {}
    for backward in examined(case):
        for one, draw, site in _scored(case, backward):
            keys = grad_params(one.term.leaf) & moved(case, backward)
            if not keys:
                continue
            weighed = any(not is_temperature(factor) and _is_data(one, factor) for factor in one.term.factors)
            into = found if weighed else unweighed
            _, known, times = into.get(site, (draw, set(), 0))
            into[site] = draw, known | keys, times + 1
            numbers.setdefault(site, set()).update(one.term.numbers)
    for site, some in unweighed.items():
        if site not in found and len(numbers[site]) >= 3:  # weighed by plain numbers, another each time: returns
            found[site] = some
    for site, (draw, some_keys, times) in found.items():
        yield _finding(case, draw, site, frozenset(some_keys), times)


def _scored(case: Case, backward: Backward) -> Iterator[tuple[Score, Node, Site]]:
    """The log-probabilities in a loss whose value carries a gradient from the very distribution that scores it."""
    found = terms(backward.loss)
    judged: dict[int, bool] = {}
    for term in found:
        one = score(term)
        if one is None or one.value is None or not one.value.grad or one.entropy:
            continue
        draw = _draw(one)
        if draw is None or (site := draw.site) is None:
            continue
        if id(draw) not in judged:
            judged[id(draw)] = _used_otherwise(draw, found, grad_params(term.leaf))
        if not judged[id(draw)]:
            yield one, draw, site


def _draw(one: Score) -> Node | None:
    """Where the scored value was drawn, if from the parameters that score it, with a gradient."""
    assert one.value is not None
    leaf = one.term.leaf
    number = leaf.tag("dist")
    given = {id(node) for node in (leaf.tag("given") or {}).values() if isinstance(node, Node) and node.grad}
    if leaf.op != "log_prob":
        given = {
            id(node)
            for node in leaf.walk(lambda node: node.grad)
            if node.grad and (heads(node) or node.param is not None)
        }
    walked = [node for node, _ in zip(one.value.walk(lambda node: node.grad), range(200), strict=False) if node.grad]
    for node in walked:
        if node.op == "rsample":
            same = number is not None and node.tag("dist") == number
            theirs = {id(other) for other in (node.tag("given") or {}).values()}
            return node if same or theirs & given else None
    for node in walked:  # written by hand: mean + std * noise
        if canon(node.op) in ("add", "addcmul") and any(_noise(other) for other in node.inputs):
            behind = {id(other) for other, _ in zip(node.walk(lambda other: other.grad), range(60), strict=False)}
            return node if behind & given else None
    return None


def _is_data(one: Score, factor: Node) -> bool:
    """Whether a weight may be a return or an advantage, and not the mask of an entropy's estimate, which has a plus."""
    found = origins(factor)
    return bool(found.rewards or found.values) or one.sign < 0


def _noise(node: Node) -> bool:
    return any(
        one.op in NOISE
        for one, _ in zip(node.walk(lambda one: canon(one.op) in ("mul", "div", "neg")), range(6), strict=False)
    )


def _used_otherwise(draw: Node, found: list[Term], keys: frozenset[int]) -> bool:
    """Whether the loss also follows the draw into another network, as SAC and a VAE do."""
    done: set[int] = set()
    for term in found:
        for start in (term.leaf, *term.factors):
            if id(start) in done or not start.grad:
                continue
            done.add(id(start))
            for node in start.walk(lambda one: one.grad and one is not draw):
                other = node.grad and (head := heads(node)) and not head & keys
                if other and any(one is draw for one in node.walk(lambda one: one.grad)):
                    return True
    return False


def _finding(case: Case, draw: Node, site: Site, keys: frozenset[int], times: int) -> Finding:
    call = "`rsample`" if draw.op == "rsample" else "mean + std * noise"
    return Finding(
        CODE,
        "error",
        "The action moves with the policy's mean, and so does its score: their gradients cancel",
        site,
        f"The log-probability of this action is weighed by a return or an advantage, as in REINFORCE, where the action "
        f"is a number that was once drawn. {call} keeps it tied to the policy: when the mean moves, the action moves "
        f"along, the log-probability stays as it is, and its gradient to the mean is exactly 0.",
        "action = dist.sample()      # or dist.log_prob(action.detach())",
        case.named(keys),
        {"losses examined": times, "drawn from": draw.tag("of", "a hand-written Gaussian")},
        True,
        keys,
    )
