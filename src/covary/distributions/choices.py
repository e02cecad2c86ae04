"""Several choices at once, independent of each other: a MultiDiscrete or a MultiBinary action."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence, register_kl

from covary.distributions.box_normal import Drawn
from covary.distributions.categorical import Categorical


class Choices(Distribution):
    """D independent choices.

    Args:
        logits: (*B, D, K) unnormalised log-probabilities of each; -inf forbids a choice, also where a dimension has
            fewer than K. Bernoullis are K = 2 with logits (0, l).

    Raises:
        ValueError: fewer than two dimensions; what Categorical refuses (unless validate_args is False).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (Categorical checks)
    has_rsample = False

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        if logits.dim() < 2:
            raise ValueError(f"logits are (*B, D, K).\n  given: {tuple(logits.shape)}")
        self.each = Categorical(logits, validate_args=validate_args)
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Choices:
        new = Choices(self.logits.expand(*batch_shape, *self.logits.shape[-2:]), validate_args=False)
        new._validate_args = new.each._validate_args = self._validate_args
        return new

    @property
    def logits(self) -> Tensor:
        """(*B, D, K) log-probabilities."""
        return self.each.logits

    @property
    def probs(self) -> Tensor:
        """(*B, D, K)"""
        return self.each.probs

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(self.each.support, 1)

    @property
    def noise_shape(self) -> torch.Size:
        return self.event_shape

    def noise(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """(S*, B*, D) uniform numbers in [0, 1), what one draw is made of."""
        return self.each.noise(sample_shape, generator)

    def sample_latent(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Tensor:
        """(S*, B*, D) indices; a choice is its own latent."""
        return self.each.sample_latent(sample_shape, noise=noise)

    def to_action(self, latent: Tensor) -> Tensor:
        return latent

    def draw(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Drawn:
        """Indices, indices again and log-probability. noise: (S*, B*, D) uniform in [0, 1)."""
        index = self.sample_latent(sample_shape, noise=noise)
        return Drawn(index, index, self.log_prob_latent(index))

    def sample_and_log_prob(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S*, B*, D) indices and their log-probability, (S*, B*), which carries the gradient."""
        action, _, log_prob = self.draw(sample_shape, noise=noise)
        return action, log_prob

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.draw(sample_shape).action

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_latent(value)

    def log_prob_latent(self, latent: Tensor, *, jacobian: bool = True) -> Tensor:
        """(S*, B*, D) indices -> (S*, B*). Choices have no Jacobian to leave out."""
        if self._validate_args and latent.shape[-1:] != self.event_shape:
            raise ValueError(f"latent is (S*, B*, D), D = {self.event_shape[0]}.\n  given: {tuple(latent.shape)}")
        return self.each.log_prob_latent(latent).sum(-1)

    def entropy(self) -> Tensor:
        """(B*,) nats."""
        return self.each.entropy().sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.each.mode

    @property
    def deterministic_action(self) -> Tensor:
        """(B*, D) what a deterministic policy executes: the mode."""
        return self.each.mode

    @property
    def mean(self) -> Tensor:
        return self.each.mean

    @property
    def variance(self) -> Tensor:
        return self.each.variance

    def __repr__(self) -> str:
        d, k = self.logits.shape[-2:]
        return f"Choices({d} of up to {k}, batch_shape={tuple(self.batch_shape)})"


@register_kl(Choices, Choices)
def _kl(p: Choices, q: Choices) -> Tensor:
    return kl_divergence(p.each, q.each).sum(-1)
