"""The scale of a policy runs away: to 0, so that it explores nothing, or without limit, so that it acts at random."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.reading.paths import VIEWS, layer_before, some_backwards, words
from covary.doctor.sites import Site
from covary.doctor.trail import Node
from covary.doctor.watching import semantics

CODE = "std-collapse"
RANK = 56
EXPLAINS = frozenset({"learning-rate"})

SCALES = (
    "scale",
    "base_dist.scale",
    "base_dist.base_dist.scale",
    "_normal.scale",
    "scale_tril",
    "base_dist.scale_tril",
    "covariance_matrix",
)
POSITIVE = words("exp exp_ softplus abs square sigmoid elu pow relu exp2 expm1 sqrt selu clamp_min")
NOISE = words("randn randn_like normal normal_ standard_normal")
THROUGH = VIEWS | words("""
    clamp clamp_ clamp_min clamp_max clip minimum maximum getitem stack cat chunk split diag diag_embed diagonal
""")
COLLAPSED = 2e-3  # of what it was at first
COLLAPSED_IN_SPITE = 1e-5  # of an entropy bonus
COLLAPSED_UNUSED = 2e-3  # in itself, of a scale that nothing is drawn with
EXPLODED = 30.0


@dataclass
class Scale:
    """What a scale was, call by call; logarithms of its smallest and its largest dimension."""

    site: Site | None
    op: str
    keys: frozenset[int]
    bounded: bool
    sampled: bool = False
    times: int = 0
    smallest: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)


def _look(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    given = node.tag("given") or {}
    name = next((one for one in SCALES if isinstance(given.get(one), Node)), None)
    if name is not None:
        value = semantics.parameters(kwargs["distribution"]).get(name)
        if value is not None:
            if name.endswith(("tril", "matrix")):
                value = torch.diagonal(value.detach(), dim1=-2, dim2=-1)
                value = value.sqrt() if name.endswith("matrix") else value
            _note(case, given[name], value, node)


def _look_at_product(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """A sample by hand: mean + std * noise."""
    if len(node.args) != 2 or len(args) != 2:
        return
    for i, one in enumerate(node.args):
        other = node.args[1 - i]
        if type(one) is Node and type(other) is Node and one.op in NOISE and isinstance(args[1 - i], torch.Tensor):
            _note(case, other, args[1 - i], node)


def _look_at_quotient(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """A density by hand: (value - mean) / std"""
    if len(node.args) != 2 or len(args) != 2 or not isinstance(args[1], torch.Tensor):
        return
    difference, scale = node.args
    if type(difference) is not Node or type(scale) is not Node or difference.op not in ("sub", "rsub"):
        return
    if scale.grad and (born := _birth(scale)[0]) is not None and born.op in POSITIVE:
        _note(case, scale, args[1], node)


def _look_at_normal(case: Case, node: Node, args: Any, kwargs: Any, result: Any) -> None:
    """torch.normal(mean, std)"""
    value = args[1] if len(args) > 1 else kwargs.get("std")
    scale = node.args[1] if len(node.args) > 1 else (node.kwargs or {}).get("std")
    if isinstance(value, torch.Tensor) and type(scale) is Node:
        _note(case, scale, value, node)


LISTENS = {
    **dict.fromkeys(("log_prob", "rsample", "sample", "entropy"), _look),
    "mul": _look_at_product,
    "div": _look_at_quotient,
    "normal": _look_at_normal,
}
AFTERWARDS = LISTENS


def _note(case: Case, scale: Node, value: torch.Tensor, use: Node) -> None:
    sampled = use.op not in ("log_prob", "entropy", "div")
    born, bounded = _birth(scale)
    place = born.site if born is not None and born.site is not None else use.site
    keys = _keys(scale)
    if not keys or place is None:
        return
    memory = case.memory.setdefault(CODE, {})
    one = memory.get((place.place, keys))
    if one is None:
        one = memory[place.place, keys] = Scale(place, born.op if born is not None else "", keys, bounded)
    one.sampled |= sampled
    one.times += 1
    if (
        case.trail.open
        and one.times > 8
        and one.times % 8
        and not (sampled and one.times % 4 == 0 and len(one.smallest) < 40)
    ):
        return
    logs = value.detach().float().abs().clamp_min(1e-30).log()
    logs = logs.reshape(-1, logs.shape[-1]).mean(0) if logs.dim() > 1 else logs.reshape(-1)
    low, high = float(logs.min()), float(logs.max())
    if low - low == 0.0 and len(one.smallest) < 4000:
        one.smallest.append(low)
        one.largest.append(high)
        one.updates.append(case.counts["updates"])


def _keys(scale: Node) -> frozenset[int]:
    """The parameters of the layer that the scale comes from, or the one that it is."""
    if scale.param is not None:
        return frozenset((scale.param,))
    layer = layer_before(scale)
    return layer[1] if layer is not None else frozenset()


def _birth(scale: Node) -> tuple[Node | None, bool]:
    """The call that made a scale positive, and whether something keeps it within bounds.

    Where nothing made it positive, the call that took it as it was: the distribution's.
    """
    node, bounded, entrance = scale, False, None
    for _ in range(24):
        if node.op in POSITIVE and node.op != "clamp_min":
            inner = node.inputs[0] if node.inputs else None
            if node.op == "sqrt" and inner is not None:  # of a variance that was made positive before
                made, inner_bounded = _birth(inner)
                if made is not None and made.op in POSITIVE:
                    return made, bounded or inner_bounded
            return node, bounded or node.op == "sigmoid" or _is_bounded(inner)
        if node.op.startswith(("clamp", "clip", "minimum", "maximum", "tanh")):
            bounded = True
        if node.site is not None:
            entrance = node
        before = [one for one in node.inputs if one.grad or one.param is not None] or list(node.inputs)
        if not before or node.param is not None:
            break
        if node.op in THROUGH:
            node = before[0]
        elif node.op in ("add", "mul", "div", "add_", "mul_", "sub") and len(before) == 1:
            floor = [one for one in node.args if isinstance(one, (int, float)) and not isinstance(one, bool)]
            bounded = bounded or (node.op in ("add", "add_") and any(one >= 1e-4 for one in floor))
            node = before[0]
        else:
            break
    return entrance, bounded


def _is_bounded(node: Node | None) -> bool:
    """Whether what goes into exp or softplus is kept within bounds first."""
    for _ in range(12):
        if node is None:
            return False
        if node.op.startswith(("clamp", "clip", "tanh", "sigmoid", "hardtanh")):
            return True
        if node.op in THROUGH or node.op in ("add", "mul", "sub", "div"):
            before = [one for one in node.inputs if one.grad or one.param is not None] or list(node.inputs)
            node = before[0] if before else None
        else:
            return False
    return False


def examine(case: Case) -> Iterator[Finding]:
    held = {key for optimizer in case.optimizers for key in optimizer.params}
    held_up = _with_bonus(case)
    for one in case.memory.get(CODE, {}).values():
        keys = one.keys & held
        if not keys or len(one.smallest) < 8 or one.updates[-1] - one.updates[0] < 20:
            continue
        fall, rise = _change(one.smallest), _change(one.largest)
        last_low, last_high = _typical(one.smallest[-3:]), _typical(one.largest[-3:])
        if not one.sampled and (one.bounded or last_low > math.log(COLLAPSED_UNUSED)):
            continue  # a likelihood alone, where the data may be as exact as that
        if last_low <= math.log(1e-2) and (
            fall <= math.log(COLLAPSED_IN_SPITE if one.keys & held_up else COLLAPSED) or _touches_zero(one)
        ):
            yield _finding(case, one, keys, math.exp(_typical(one.smallest[:3])), math.exp(last_low), "collapses")
        elif rise >= math.log(EXPLODED) and last_high >= math.log(20) and last_high >= max(one.largest) - 1.0:
            yield _finding(
                case, one, keys, math.exp(_typical(one.largest[:3])), math.exp(min(last_high, 80.0)), "explodes"
            )


def _with_bonus(case: Case) -> frozenset[int]:
    """The parameters of scales whose entropy is a part of a loss: a bonus, which holds them up."""
    found: frozenset[int] = frozenset()
    for backward in some_backwards(case, 1, 1):
        for node in backward.loss.walk():
            if node.op == "entropy" and node.grad:
                found = found.union(
                    *(_keys(one) for one in (node.tag("given") or {}).values() if isinstance(one, Node))
                )
    return found


def _touches_zero(one: Scale) -> bool:
    """Whether a scale lies near 0 and comes as good as to 0 now and then, as |x| does where x changes its sign."""
    first, late = _typical(one.smallest[:3]), one.smallest[len(one.smallest) // 2 :]
    return sum(value <= first - math.log(1000) for value in one.smallest) >= 3 and max(late) <= first - math.log(25)


def _typical(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _change(values: list[float]) -> float:
    return _typical(values[-3:]) - _typical(values[:3])


def _finding(case: Case, one: Scale, keys: frozenset[int], first: float, last: float, what: str) -> Finding:
    if what == "collapses":
        told = (
            f"It went from {first:.3g} to {last:.3g}. A policy that narrow always does the same: it sees no other "
            f"action that could be "
            "better, its log-probabilities grow without limit, and the gradient of its mean with them."
        )
    else:
        told = (
            f"It went from {first:.3g} to {last:.3g} and still grows. Nothing that the mean does matters beside "
            f"noise of that size: "
            "the policy acts at random."
        )
    keeps = "" if one.bounded else " Nothing in its parametrisation keeps it within bounds."
    return Finding(
        CODE,
        "error",
        f"The policy's standard deviation {what}",
        one.site,
        told + keeps,
        "Bound it: `std = log_std.clamp(-5, 2).exp()`, or `F.softplus(x) + 0.05`; "
        + (
            "and keep a small entropy bonus, `- 0.01 * dist.entropy().mean()`."
            if what == "collapses"
            else "and lower the entropy bonus."
        ),
        case.named(keys),
        {"first": float(f"{first:.3g}"), "last": float(f"{last:.3g}"), "updates": one.updates[-1], "made by": one.op},
        True,
        keys,
    )
