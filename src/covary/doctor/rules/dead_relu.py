"""A ReLU that is 0 for every element of every batch: nothing behind it gets a gradient any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from covary.doctor.case import Case
from covary.doctor.findings import Finding
from covary.doctor.reading.activations import Record, record, without_gradient
from covary.doctor.trail import Node

CODE = "dead-relu"
RANK = 52
EXPLAINS = frozenset({"saturation", "std-collapse", "learning-rate"})
DEAD = 0.995  # share of zeros: a stray element that lives helps nobody


def _zero(result: torch.Tensor) -> tuple[float, float]:
    share = float((result <= 0).float().mean())
    return share, share


def _look(case: Case, node: Node, args: Any, kwargs: Any, result: torch.Tensor) -> None:
    record(case, CODE, node, result, _zero)


def _look_at_clamp(case: Case, node: Node, args: Any, kwargs: Any, result: torch.Tensor) -> None:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    if low is not None and high is None and not isinstance(low, torch.Tensor) and low == 0:
        record(case, CODE, node, result, _zero)


def _look_at_maximum(case: Case, node: Node, args: Any, kwargs: Any, result: torch.Tensor) -> None:
    if len(args) == 2 and all(isinstance(one, torch.Tensor) for one in args):
        other = args[1] if args[0].requires_grad else args[0]
        if not other.requires_grad and other.numel() <= 65536 and not bool(other.any()):
            record(case, CODE, node, result, _zero)


LISTENS = dict.fromkeys(("relu", "relu_", "relu6", "threshold"), _look) | {
    "clamp": _look_at_clamp,
    "clamp_": _look_at_clamp,
    "clamp_min": _look_at_clamp,
    "clamp_min_": _look_at_clamp,
    "maximum": _look_at_maximum,
    "max": _look_at_maximum,
}


def examine(case: Case) -> Iterator[Finding]:
    for one in case.memory.get(CODE, {}).values():
        since = _dead_since(one)
        if since is not None and without_gradient(case, one.keys, since):
            yield _finding(case, one)


def _dead_since(one: Record) -> int | None:
    """From when on every call that was looked at was 0 everywhere; None if that was not so for long enough."""
    alive = max((i for i, (_, _, share, _) in enumerate(one.calls) if share < DEAD), default=-1)
    dead = one.calls[alive + 1 :]
    if len(dead) < 4 or sum(rows for _, rows, _, _ in dead) < 24:
        return None
    # of the calls between those that were looked at, some at the beginning may have let something through
    return dead[0][0] - 1 if alive < 0 else dead[len(dead) // 3][0]


def _finding(case: Case, one: Record) -> Finding:
    first = one.calls[0][2]
    from_start = all(share >= DEAD for _, _, share, _ in one.calls)
    when = "from the first call on" if from_start else "after a short while"
    return Finding(
        CODE,
        "error",
        "This ReLU is dead: its output is 0 for whole batches",
        one.site,
        f"Every element of its output is 0, {when}. Where a ReLU is 0 its derivative is 0 too, so the layers before "
        f"it get no "
        "gradient and cannot bring it back, while the loss is not small.",
        "On an output layer: no activation (values and Q may be negative). On a hidden layer: mend the bias or the "
        "scale of the "
        "inputs, lower the learning rate, or use nn.LeakyReLU().",
        case.named(one.keys),
        {"zero at first": round(first, 3), "zero at last": 1.0, "calls": one.times, "shape": list(one.shape)},
        True,
        one.keys,
    )
