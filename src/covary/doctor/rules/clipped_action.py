"""The clipped (or squashed) action is scored by the density of the action before it was clipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from covary.doctor.case import Backward, Case
from covary.doctor.findings import Finding
from covary.doctor.reading import captures
from covary.doctor.reading.terms import (
    EXTREME,
    SELECT,
    Score,
    canon,
    examined,
    grad_params,
    heads,
    moved,
    score,
    sign_of,
    terms,
    words,
)
from covary.doctor.sites import Site
from covary.doctor.trail import Node

CODE = "clipped-action"
RANK = 38
EXPLAINS = frozenset({"std-collapse", "saturation", "learning-rate"})

CLIPS = words("clamp clip clamp_min clamp_max hardtanh")
SQUASHES = words("tanh sigmoid")
EXTREMES = EXTREME | {"max", "min"}
SCALES = words("add sub rsub mul div neg")
UNBOUNDED = words("Normal MultivariateNormal LowRankMultivariateNormal Laplace Cauchy StudentT")
PLENTY = 0.05
LEAST = 0.02  # share of the scored elements that lie at a bound: below this a clip is a precaution


def listen(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """How many of the scored elements are exactly the largest or the smallest of their kind."""
    memory = case.memory.setdefault(CODE, {})
    if node.site is None or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return
    bounds = memory.get(node.site)
    if bounds is None:
        bounds = memory[node.site] = Bounds(_unbounded(kwargs.get("distribution")))
    bounds.calls += 1
    if bounds.unbounded and (bounds.calls <= 8 or bounds.calls % 8 == 0):
        with torch.no_grad():
            bounds.add(args[0].detach())


def clipped(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """How many elements a clamp changes."""
    if node.site is None or not args or not isinstance(args[0], Tensor) or not isinstance(result, Tensor):
        return
    seen = case.memory.setdefault(CODE, {}).setdefault(("clamp", node.site), [0, 0, 0])
    seen[0] += 1
    if (seen[0] <= 8 or seen[0] % 8 == 0) and result is not args[0] and result.shape == args[0].shape:
        with torch.no_grad():
            seen[1] += int((result.detach() != args[0].detach()).sum())
            seen[2] += result.numel()


LISTENS = {"log_prob": listen, "clamp": clipped}


@dataclass
class Bounds:
    """Of the values that were scored at one place: how many share the largest or the smallest value."""

    unbounded: bool
    calls: int = 0
    total: int = 0
    bitten: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, value: Tensor) -> None:
        if not value.numel():
            return
        low, high = float(value.min()), float(value.max())
        self.total += value.numel()
        if value.shape[:-1].numel() > 1 or value.dim() == 1:  # in a batch no two draws are equal, but at a bound
            ends = (low, high) if low < high else (low,)
            counts = [int((value == end).sum()) for end in ends]
            self.bitten += sum(count for count in counts if count > 1)
        if value.numel() == 1 or value.shape[:-1].numel() == 1:
            self.bitten += (low == self.low) + (high == self.high)
        self.low, self.high = min(low, self.low), max(high, self.high)

    @property
    def share(self) -> float:
        return self.bitten / max(1, self.total)


def _unbounded(distribution: Any) -> bool:
    """Whether a density is one of those that know nothing of bounds."""
    for _ in range(4):
        if not isinstance(distribution, Distribution) or type(distribution).__module__.split(".")[0] != "torch":
            return False
        if type(distribution).__name__ in UNBOUNDED:
            return True
        if type(distribution).__name__ != "Independent":
            return False
        distribution = vars(distribution).get("base_dist")
    return False


def examine(case: Case) -> Iterator[Finding]:
    found: dict[Site, tuple[Node, Node, Score, set[int], int]] = {}
    for backward in examined(case):
        for term in terms(backward.loss):
            one = score(term)
            if one is None or one.value is None or not _weighed(one):
                continue
            bounds = case.memory.get(CODE, {}).get(term.leaf.site)
            if term.leaf.op == "log_prob" and (bounds is None or not bounds.unbounded):
                continue
            keys = grad_params(term.leaf) & moved(case, backward)
            change = _changed(case, one.value, keys)
            if change is None and bounds is not None and bounds.share >= PLENTY:
                change = _for_environment(case, keys)  # the way was lost in a buffer; the values tell
            if change is None:
                continue
            if change.op in SQUASHES:
                site = _scored(backward, term.leaf)
            elif (_bites(case, change) if bounds is None else bounds.share) < LEAST:
                continue
            else:
                site = change.site
            if site is not None:
                _, _, _, known, times = found.get(site, (change, term.leaf, one, set(), 0))
                found[site] = change, term.leaf, one, known | keys, times + 1
    for site, (change, leaf, _, some, times) in found.items():
        yield _finding(case, change, leaf, site, frozenset(some), times)


def _for_environment(case: Case, keys: frozenset[int]) -> Node | None:
    """The clip between the policy and what the environment was given."""
    for step in list(case.env_steps)[-40:]:
        change = _changed(case, step.action, keys) if step.action is not None else None
        if change is not None and change.op not in SQUASHES:
            return change
    return None


def _scored(backward: Backward, leaf: Node) -> Site | None:
    """Where a value is scored: of a hand-written density that is a function of its own, where that is called."""
    site = leaf.site
    if site is None or leaf.op == "log_prob":
        return site
    network = next((one for one in leaf.walk(lambda one: one.grad) if heads(one)), None)
    if network is None or network.site is None or network.site.function == site.function:
        return site
    lines = captures.called_at(site.file, site.function)
    around = backward.loss.site.function if backward.loss.site is not None else ""
    home = [line for line in lines if captures.function_at(site.file, line) == around]
    return site.at((home or lines)[0]) if lines else site


def _bites(case: Case, change: Node) -> float:
    """The share of elements that a clip changes; where that was not measured, a guess from its bounds."""
    seen = case.memory.get(CODE, {}).get(("clamp", change.site))
    if seen is not None and seen[2]:
        return float(seen[1] / seen[2])
    numbers = [one for one in (*change.args[1:], *(change.kwargs or {}).values()) if type(one) in (int, float)]
    return 0.0 if any(abs(one) > 3 for one in numbers) else LEAST


def _weighed(one: Score) -> bool:
    """Whether a log-probability is weighed by an advantage or the like; what is never negative makes a regression."""
    if one.entropy or one.value is None:
        return False
    if one.value.grad or not one.term.factors:
        return one.value.grad or bool(one.term.numbers)
    return not all(sign_of(factor) > 0 for factor in one.term.factors)


def _changed(case: Case, value: Node, keys: frozenset[int]) -> Node | None:
    """The clip or squash between a scored value and the draw from the policy that scores it."""
    todo: list[tuple[Node, Node | None]] = [(value, None)]
    seen: set[tuple[int, int]] = set()
    while todo and len(seen) < 600:
        node, change = todo.pop()
        if (id(node), id(change)) in seen:
            continue
        seen.add((id(node), id(change)))
        op = canon(node.op)
        if change is not None and (op in ("sample", "rsample", "normal") or _by_hand(node)):
            if case.before(node) & keys:
                return change
            continue
        if op in CLIPS or op in SQUASHES or (op in EXTREMES and _bounded(case, node, keys)):
            # a clip after a squash goes to a numeric support, and is no change of its own
            change = change or node
            todo += [(one, change) for one in node.inputs if case.before(one) & keys]
        elif op in SELECT or op in SCALES or op in ("float", "int"):
            todo += [(one, change) for one in node.inputs[:64] if case.before(one) & keys]
    return None


def _bounded(case: Case, node: Node, keys: frozenset[int]) -> bool:
    """Whether one operand of a minimum or maximum is a bound."""
    return sum(bool(case.before(one) & keys) for one in node.inputs) == 1 < len(node.inputs)


def _by_hand(node: Node) -> bool:
    """mean + std * noise."""
    if canon(node.op) != "add":
        return False
    for one in node.inputs:
        for i, below in enumerate(one.walk(lambda below: canon(below.op) in ("mul", "add"))):
            if below.op in ("randn", "randn_like", "normal"):
                return True
            if i > 5:
                break
    return False


def _finding(case: Case, change: Node, leaf: Node, site: Site, keys: frozenset[int], times: int) -> Finding:
    bounds = case.memory.get(CODE, {}).get(leaf.site)
    evidence: dict[str, Any] = {
        "changed by": change.op,
        "scored by": leaf.tag("of", "a hand-written Gaussian"),
        "losses examined": times,
    }
    if change.op in SQUASHES:
        where = f" (line {change.site.line})" if change.site is not None else ""
        return Finding(
            CODE,
            "error",
            f"A `{change.op}`-squashed action is scored by the density of the unsquashed one",
            site,
            f"The action was drawn from an unbounded density and then went through `{change.op}`{where}. Its result is "
            "scored by that same density, as if it had been drawn there: the log-probability is of another action than "
            "the one that was taken.",
            "u = dist.sample(); action = torch.tanh(u)\n"
            "log_prob = (dist.log_prob(u) - torch.log(1 - action.pow(2) + 1e-6)).sum(-1)",
            case.named(keys),
            evidence,
            True,
            keys,
        )
    if bounds is not None:
        evidence["share at a bound"] = round(bounds.share, 4)
    return Finding(
        CODE,
        "error" if bounds is None or bounds.share >= PLENTY else "warning",
        "The clipped action is scored, and the policy drew the unclipped one",
        site,
        "The density that scores this action knows nothing of the bounds: it was drawn without them. Where the clip "
        "bites, the score is of an action that was not drawn, and the gradient pushes the mean out of the bounds or "
        "the spread to where it should not be.",
        "env.step(action.clamp(low, high))      # clip what the environment gets; keep and score the action as drawn",
        case.named(keys),
        evidence,
        True,
        keys,
    )
