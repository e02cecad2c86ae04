"""The first number that is not finite: where it was born, told before it spreads.

Whoever meets a loss or a gradient's norm that is not finite applies nothing and hands the very minibatch to `examine`.
That goes through it again in the order in which its numbers come to be: what goes in, the parameters, what each layer
gives, the terms of the loss, the gradients on their way back. Then it raises, or counts it and lets training go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary.birthplace import Birth, find, unrepeated
from covary.errors import UsageError

PATIENCE = 100
"""Minibatches left out in a row before training stops all the same: nothing would be learned any more."""


class NonFinite(UsageError):
    """Training met a number that is not finite, and was stopped before it was learned from.

    Attributes:
        where: kind, value, what, network, layer, term, update, epoch and minibatch, as JSON can hold them.
        batch: the minibatch that it was met in, by the names of its parts.
    """

    def __init__(self, birth: Birth, batch: Mapping[str, Tensor], **place: int | None) -> None:
        at = [f"{name} {number:,}" for name, number in place.items() if number is not None]
        super().__init__(
            "Training must stay finite.",
            given=", ".join([f"{birth.value} in {birth.what}", *at]),
            cause=birth.cause,
            fix=birth.fix,
        )
        self.where: dict[str, Any] = {
            **{name: getattr(birth, name) for name in ("kind", "what", "network", "layer", "term")},
            "value": str(birth.value),  # JSON has no NaN
            **{name: place.get(name) for name in ("update", "epoch", "minibatch")},
        }
        self.batch: dict[str, NDArray[Any]] = {name: part.detach().cpu().numpy().copy() for name, part in batch.items()}


def examine(
    learner: Any,
    batch: Mapping[str, Tensor],
    rows: Callable[[], Mapping[str, Any]],
    losses: Callable[[torch.Generator], Any] | None = None,
    *,
    derived: Mapping[str, Tensor] | None = None,
    **place: int | None,
) -> None:
    """Finds out why a learner refused a minibatch, and has it left out where the learner is to leave such out.

    Args:
        learner: with policy, critic, optimizer, optimizers, generator, fast, on_nonfinite, skipped, nonfinite and
            refused: every optimizer's steps at that time, and how many were left out in a row.
        batch, rows, losses, derived: as `find` takes them; losses gets a generator that draws the same numbers again.
        place: update, epoch and minibatch, from 1.

    Raises:
        NonFinite: the learner is to stop, or leaving out would not help.
    """
    networks = {"policy": learner.policy, **learner.networks}
    generator = torch.Generator(learner.generator.device).set_state(learner.generator.get_state())
    rate = max(learner.optimizer.rates) * learner.optimizer.scale
    terms = partial(losses, generator) if losses is not None else None
    birth = find(networks, batch, rows, terms, rate=rate, derived=derived)
    birth = birth or unrepeated(networks, learner.fast.gradient if learner.fast is not None else None)
    _refuse(learner, NonFinite(birth, {**batch, **(derived or {})}, **place))


def _refuse(learner: Any, error: NonFinite) -> None:
    """Counts a minibatch that is left out; or raises.

    A parameter that is not finite stays so whatever is left out, and so does a learner that refused everything for a
    long time: both raise.
    """
    steps, (before, in_a_row) = [each.steps for each in learner.optimizers.values()], learner.refused
    # a critic that steps before the policy is refused makes no whole update
    in_a_row = 1 if all(now > then for now, then in zip(steps, before, strict=False)) else in_a_row + 1
    learner.refused, learner.nonfinite = (steps, in_a_row), error
    if learner.on_nonfinite != "skip" or error.where["kind"] == "parameter" or in_a_row >= PATIENCE:
        raise error
    learner.skipped += 1


def finite(*tensors: Tensor) -> bool:
    """Whether every number is finite; the host waits once for a device, where all are."""
    total = tensors[0].sum()
    for x in tensors[1:]:
        total = total + x.sum()
    return math.isfinite(total.item()) or all(bool(x.isfinite().all()) for x in tensors)  # the sum itself may overflow


def check_policy(policy: nn.Module, obs: Tensor) -> None:
    """Says why a policy gives numbers that are not finite for raw observations (N, O), if it does.

    Raises:
        NonFinite: naming the parameter or the layer.
    """
    networks = {"policy": policy}
    if birth := find(networks, {"obs": obs}, lambda: {"density": policy(obs)}):
        raise NonFinite(birth, {"obs": obs})
