"""A sigmoid or tanh that is at its bounds: it is flat there, and nothing behind it gets a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.reading.activations import Record, record, without_gradient
from covary.doctor.trail import Node

CODE = "saturation"
RANK = 54
EXPLAINS = frozenset({"learning-rate", "std-collapse"})

FLAT = 2e-3  # a derivative below this share of its largest is flat,
NOTHING = 1e-7  # and below this there is none in float32


def _slope(slope: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    """A listener for an activation whose derivative follows from its output; `slope` is at most 1."""

    def flat(result: torch.Tensor) -> tuple[float, float]:
        steep = slope(result.float())
        return float((steep < FLAT).float().mean()), float((steep < NOTHING).float().mean())

    def look(case: Case, node: Node, args: Any, kwargs: Any, result: torch.Tensor) -> None:
        record(case, CODE, node, result, flat)

    return look


_tanh = _slope(lambda y: 1 - y.square())
_sigmoid = _slope(lambda y: 4 * y * (1 - y))
_hard_sigmoid = _slope(lambda y: ((y > 0) & (y < 1)).float())
_softsign = _slope(lambda y: (1 - y.abs()).square())


def _look_at_hard(case: Case, node: Node, args: Any, kwargs: Any, result: torch.Tensor) -> None:
    low = args[1] if len(args) > 1 else kwargs.get("min", kwargs.get("min_val", -1.0 if "tanh" in node.op else None))
    high = args[2] if len(args) > 2 else kwargs.get("max", kwargs.get("max_val", 1.0 if "tanh" in node.op else None))
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):

        def flat(y: torch.Tensor) -> tuple[float, float]:
            share = float(((y <= low) | (y >= high)).float().mean())
            return share, share

        record(case, CODE, node, result, flat)


LISTENS = {
    **dict.fromkeys(("tanh", "tanh_"), _tanh),
    **dict.fromkeys(("sigmoid", "sigmoid_"), _sigmoid),
    **dict.fromkeys(("hardtanh", "hardtanh_", "clamp"), _look_at_hard),
    "hardsigmoid": _hard_sigmoid,
    "softsign": _softsign,
}


def examine(case: Case) -> Iterator[Finding]:
    for one in case.memory.get(CODE, {}).values():
        if one.op == "clamp" and not any(len(case.shapes.get(key, ())) > 1 for key in one.keys):
            continue  # a bounded log_std: it may lie at its bound
        if _from_the_start(one) and _trained(case, one):
            yield _finding(case, one, "from the first batch on")
        elif (since := _since(one)) is not None and (
            (_is_wide(one) and _trained(case, one)) or without_gradient(case, one.keys, since, 10)
        ):
            yield _finding(case, one, "after a short while")


def _from_the_start(one: Record) -> bool:
    calls = one.calls
    if len(calls) < 6 or sum(rows for _, rows, _, _ in calls) < 24:
        return False
    most = sum(share >= 0.8 and none >= 0.5 for _, _, share, none in calls)
    return all(share >= 0.8 and none >= 0.5 for _, _, share, none in calls[:4]) and most >= 0.9 * len(calls)


def _trained(case: Case, one: Record) -> bool:
    """Whether an optimizer stepped the layer, and a loss reached it."""
    return sum(bool(one.keys & step.grads.keys()) for step in case.steps) >= 5 and bool(one.keys & case.reached)


def _is_wide(one: Record) -> bool:
    """Whether it is no output but a hidden layer: there, being all at the bounds is no answer to anything."""
    return len(one.shape) > 1 and one.shape[-1] >= 16


def _since(one: Record) -> int | None:
    """From when on nearly every element was flat, to the last call; None if that was not so for long enough."""
    since, calls = None, 0
    for serial, _, share, none in reversed(one.calls):
        if share < 0.95 or none < 0.9:
            break
        since, calls = serial, calls + 1
    return since if calls >= max(4, len(one.calls) // 4) else None


def _finding(case: Case, one: Record, when: str) -> Finding:
    shares = sorted(share for _, _, share, _ in one.calls)
    none = sorted(share for _, _, _, share in one.calls)
    middle = len(shares) // 2
    return Finding(
        CODE,
        "error",
        f"This {one.op} is saturated: {shares[middle]:.0%} of its outputs are at the bounds",
        one.site,
        f"Its inputs are so large that its output is at a bound for nearly every element of every batch, {when}. It "
        f"is flat there, "
        "so almost no gradient passes it, and the layers before it cannot learn.",
        "Bring the inputs to a scale of about 1: normalise the observations (subtract the mean, divide by the std), "
        "initialise the "
        "weights with their default, or put nn.LayerNorm before the activation.",
        case.named(one.keys),
        {
            "at the bounds": round(shares[middle], 3),
            "without any slope": round(none[middle], 3),
            "calls": one.times,
            "shape": list(one.shape),
        },
        True,
        one.keys,
    )
