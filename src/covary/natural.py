"""The natural step: against the gradient as far as the divergence from where one stands allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from covary.optim import Adam


class NaturalStep(NamedTuple):
    """What `climb` has done."""

    share: float  # of the longest step within the radius; 0 where none was taken
    kl: float  # where it ended
    loss: float  # there
    norm: float  # of the loss's gradient


SHRINK = 0.7  # from each trial of `climb` to the next


def climb(
    terms: Callable[[], tuple[Tensor, Tensor]],
    optimizer: Adam,
    module: int,
    radius: float,
    *,
    damping: float = 0.0,
    iterations: int = 10,
    trials: int = 10,
) -> NaturalStep:
    """One natural step of one of the optimizer's modules: down F^-1 g, as far as the quadratic of the divergence allows
    (Schulman 2015, appendix C), then shrunk until the loss has fallen and the divergence itself is within the radius.

    Args:
        terms: () -> loss and mean KL from the module as it was to the module as it is.
        module: which one, by its place among those that the optimizer was made for.
        damping: is added to F's diagonal while the direction is looked for.
        iterations: of conjugate gradients.
        trials: step lengths, the last of which may fail as well: then nothing moves.

    Raises:
        FloatingPointError: the loss, its gradient or the direction is not finite; nothing was changed.
    """
    parameters, part = optimizer.of(module)

    def flat(of: Tensor, again: bool = False) -> Tensor:
        slopes = torch.autograd.grad(
            of, parameters, retain_graph=True, create_graph=again, allow_unused=True, materialize_grads=True
        )
        return torch.cat([slope.reshape(-1) for slope in slopes])

    loss, kl = terms()
    gradient, slope = flat(loss), flat(kl, again=True)
    norm = float(torch.linalg.vector_norm(gradient))
    if not math.isfinite(float(loss.detach()) + norm):
        raise FloatingPointError(f"a loss of {loss.item()}, its gradient's norm {norm}")

    def fisher(vector: Tensor) -> Tensor:
        return flat(torch.dot(slope, vector))

    direction = conjugate_gradient(lambda v: fisher(v) + damping * v, gradient, iterations)
    curvature = float(torch.dot(direction, fisher(direction)))
    if not math.isfinite(curvature):
        raise FloatingPointError(f"a natural gradient of curvature {curvature}")
    before = float(loss.detach())
    none = NaturalStep(0.0, 0.0, before, norm)
    if curvature <= 0:
        return none
    start, longest = part.clone(), math.sqrt(2 * radius / curvature)  # the paper's beta
    for trial in range(trials):
        share = SHRINK**trial
        with torch.no_grad():
            part.copy_(start - share * longest * direction)
            now, far = (float(term) for term in terms())
        if now < before and far <= radius:  # which NaN is not
            return NaturalStep(share, far, now, norm)
    part.copy_(start)
    return none


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x where A x = b, from v -> A v with A symmetric and positive definite (Hestenes & Stiefel 1952). b: (P,)"""
    x, rest, way = torch.zeros_like(b), b.clone(), b.clone()
    square = enough = torch.dot(rest, rest)
    for _ in range(iterations):
        if square <= 1e-12 * enough:  # what is left is round-off
            break
        image = product(way)
        size = square / torch.dot(way, image)
        x, rest = x + size * way, rest - size * image
        before, square = square, torch.dot(rest, rest)
        way = rest + square / before * way
    return x
