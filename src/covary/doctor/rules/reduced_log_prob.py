"""The log-probabilities of a batch were summed or averaged before each met its own advantage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.reading.paths import VIEWS, consumers, operands, some_backwards, words
from covary.doctor.trail import Node

CODE = "reduced-log-prob"
RANK = 32
EXPLAINS = frozenset({"wrong-sign", "std-collapse", "target-not-detached"})

PRODUCTS = frozenset(("mul", "mul_"))
REDUCERS = words("sum mean nansum nanmean")
LOSSES = words("cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits gaussian_nll_loss")
LOGARITHMS = (
    words("log_prob log_softmax log logsumexp logsigmoid cross_entropy nll_loss binary_cross_entropy_with_logits")
    | LOSSES
)
# what a log-probability passes on its way to the advantage, once it is one number: a ratio's difference and exp too
PLAIN = words("neg add sub rsub mul exp clamp add_ sub_ neg_ mul_") | VIEWS
LINEAR = words("neg add sub rsub mul div sum mean stack cat min minimum max maximum clamp add_ sub_ mul_ where") | VIEWS


def _look(case: Case, node: Node, args: Any, kwargs: Any, result: torch.Tensor) -> None:
    """Notes the range of what one number is multiplied with: is it an advantage?"""
    if node.grad and result.numel() > 1 and len(args) == 2:
        one, other = args
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and 1 in (one.numel(), other.numel()):
            values = (other if one.numel() == 1 else one).detach()
            low, high = float(values.min()), float(values.max())
            mask = low >= 0 and bool(
                ((values == low) | (values == high)).all()
            )  # such as 0 and 1: of samples that count
            node.mark(low=low, high=high, mask=mask)


LISTENS = {"mul": _look, "mul_": _look}


def examine(case: Case) -> Iterator[Finding]:
    hits: dict[tuple[str, int], list[tuple[Node, Node, Node, frozenset[int]]]] = defaultdict(list)
    for backward in some_backwards(case):
        nodes = list(backward.loss.walk(lambda one: one.grad))
        after = consumers(nodes)
        times: dict[tuple[int, Any], list[tuple[Node, Node, Any]]] = defaultdict(list)
        for node in nodes:
            if node.op not in PRODUCTS or not node.grad or len(node.args) != 2:
                continue
            for one, other in (node.args, node.args[::-1]):
                if type(one) is not Node or not one.grad or math.prod(one.shape) != 1:
                    continue
                if (reducer := _reducer(one)) is None or reducer.site is None:
                    continue
                source = _source(reducer)
                if type(other) is not Node or not other.shape or math.prod(other.shape) == 1:
                    times[id(reducer), node.site and node.site.place].append((node, reducer, other))
                    if type(other) is Node and _averaged_advantage(case, other, source.shape) and _is_log(source) \
                            and _linear(node, after):  # fmt: skip
                        hits[reducer.site.place].append((reducer, source, node, case.before(source)))
                    continue
                if not _fits(source.shape, other.shape, reducer) or not _linear(node, after):
                    continue
                low, high = node.tag("low", 0.0), node.tag("high", 0.0)
                advantage = low < 0 < high
                if low == high or (node.tag("mask") and reducer.op in LOSSES):
                    continue
                if _is_log(source) or (advantage and not other.grad):
                    hits[reducer.site.place].append((reducer, source, node, case.before(source)))
        for node in nodes:
            if node.op in PRODUCTS and (reducer := _averaged_along(node)) is not None and _linear(node, after):
                hits[reducer.site.place].append((reducer, _source(reducer), node, case.before(reducer)))  # type: ignore[union-attr]
        for many in times.values():
            node, reducer, _ = many[0]
            source = _source(reducer)
            weights = {other if isinstance(other, float) else id(other) for _, _, other in many}
            if len(weights) > 2 and len(weights) >= min(8, source.shape[0] if source.shape else 3) and _is_log(source) \
                    and all(_varies(other) for _, _, other in many):  # fmt: skip
                hits[reducer.site.place].append((reducer, source, node, case.before(source)))  # type: ignore[union-attr]
    for found in hits.values():
        keys = frozenset().union(*(one[3] for one in found)) & case.stepped.keys()
        if keys:
            yield _finding(case, found, keys)


def _averaged_along(product: Node) -> Node | None:
    """A mean of log-probabilities (T, N) along one dimension, (T, 1), that meets advantages of the full shape (T, N).

    A sum in its place may be meant: of a trajectory's log-probabilities, times each of its rewards."""
    for one, other in (product.args, product.args[::-1]) if len(product.args) == 2 else ():
        if type(one) is not Node or type(other) is not Node or not one.grad or other.grad or len(other.shape) < 2:
            continue
        if len(one.shape) == len(other.shape) and one.shape == other.shape:
            continue
        for node in islice(one.walk(lambda below: below.grad and (below.op in PLAIN or below.op == "stack")), 20):
            if node.op not in REDUCERS or node.site is None or not _is_log(source := _source(node)):
                continue
            along = node.op in ("mean", "nanmean") and math.prod(node.shape) > 1 and source.shape == other.shape
            each = math.prod(node.shape) == 1 and source.shape == other.shape[1:]  # a list of means, one for each step
            if along or each:
                return node
    return None


def _varies(other: Any) -> bool:
    """Whether a factor may be one of many returns, and not a coefficient that stands in the code."""
    return isinstance(other, float) or (
        type(other) is Node and other.op in ("getitem", "unbind", "item", "tolist", "source")
    )


def _source(reducer: Node) -> Node:
    """What was reduced."""
    if reducer.op == "add":
        return reducer
    values = [one for one in reducer.inputs if math.prod(one.shape) > 1] or list(reducer.inputs)
    return values[0]


def _reducer(scalar: Node) -> Node | None:
    """The call that made one number out of a batch, behind plain arithmetic on that number."""
    todo = [scalar]
    seen: set[int] = set()
    for node in todo:
        if id(node) in seen or len(seen) > 40:
            continue
        seen.add(id(node))
        values = [one for one in operands(node) if one.grad]
        if node.op == "log_prob" and _whole_batch(node):
            return node
        if node.op in REDUCERS | LOSSES and any(len(one.shape) and one.shape[0] > 1 for one in values):
            return node if math.prod(node.shape) == 1 else None
        if node.op in ("add", "add_") and _summands(node) > 2:
            return node  # Python's own sum over a list
        if node.op in PLAIN:
            todo += [one for one in values if math.prod(one.shape) == 1]
    return None


def _whole_batch(node: Node) -> bool:
    """Whether a distribution takes a batch of actions for one event: Independent(Normal(…), 2)."""
    value = node.args[1] if len(node.args) > 1 else None
    return type(value) is Node and len(value.shape) > 1 and value.shape[0] > 1 and not node.shape


def _summands(node: Node) -> int:
    """How many log-probabilities of one number each a chain of additions at one place adds up."""
    count, todo = 0, [node]
    for one in todo:
        if (
            one.op in ("add", "add_")
            and one.site is not None
            and node.site is not None
            and one.site.place == node.site.place
        ):
            todo += list(operands(one))
        elif one.grad and math.prod(one.shape) == 1 and _is_log(one):
            count += 1
    return count


def _fits(source: tuple[int, ...], weights: tuple[int, ...], reducer: Node) -> bool:
    if reducer.op in ("add", "add_"):
        return _summands(reducer) == weights[0]
    return bool(source) and source[0] > 1 and (source[0] == weights[0] or math.prod(source) == math.prod(weights))


def _is_log(source: Node) -> bool:
    """Whether a value is made of log-probabilities: of a distribution's, or by hand; an entropy is not."""
    nodes = source.walk(lambda one: one.op not in ("log_prob", "entropy", "linear", "matmul"))
    for node in islice(nodes, 60):
        if node.op == "entropy":
            return False
        if node.op in LOGARITHMS and node.grad:
            return True
    return False


def _averaged_advantage(case: Case, other: Node, shape: tuple[int, ...]) -> bool:
    """Whether the other factor is a mean that a critic has a part in; the mean of returns alone is a return."""
    while other.op in PLAIN and other.op not in ("mul", "add", "sub", "rsub") and other.inputs:
        other = other.inputs[0]
    if other.op not in ("mean", "sum") or not other.inputs or not other.inputs[0].shape or not shape:
        return False
    many = other.inputs[0]
    normalised = many.op == "div" and any(one.op == "std" for one in islice(many.walk(), 8))
    return many.shape[0] == shape[0] and (normalised or bool(case.before(other) & case.stepped.keys()))


def _linear(node: Node, after: dict[int, list[Node]]) -> bool:
    """Whether the product goes into the loss by sums and constant factors alone."""
    seen, queue = {id(node)}, [node]
    for one in queue:
        for user in after.get(id(one), ()):
            if id(user) not in seen:
                if user.op not in LINEAR:
                    return False
                seen.add(id(user))
                queue.append(user)
    return True


def _finding(case: Case, found: list[tuple[Node, Node, Node, frozenset[int]]], keys: frozenset[int]) -> Finding:
    reducer, source, product, _ = found[0]
    shape, weights = list(source.shape), [list(one.shape) for one in operands(product) if math.prod(one.shape) > 1]
    how = {"mean": "averages", "nanmean": "averages"}.get(reducer.op, "averages" if reducer.op in LOSSES else "sums")
    return Finding(
        CODE,
        "error",
        "The log-probabilities are reduced over the batch before they meet the advantage",
        reducer.site,
        f"`{reducer.op}` {how} the log-probabilities of the whole batch{f' ({shape})' if source.shape else ''} to "
        f"one number, and that one number is "
        "multiplied by the advantages. What remains is the mean of the advantages: no action is made likelier "
        "because it was better "
        "than another, and with normalised advantages the gradient is 0.",
        "Reduce over the action's dimensions alone, `log_prob.sum(-1)`, multiply by the advantage, and then take the "
        "mean: "
        "`-(log_prob * advantage).mean()`.",
        case.named(keys),
        {
            "reduced by": reducer.op,
            "from": shape,
            "advantages": weights[0] if weights else [],
            "times seen": len(found),
        },
        True,
        keys,
    )
