"""The density of a discrete action, with the same contract as the continuous ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from covary.distributions.box_normal import Drawn


class Categorical(Distribution):
    """K choices.

    Args:
        logits: (*B, K) unnormalised log-probabilities; -inf forbids a choice.

    Raises:
        ValueError: logits without a dimension, or of whole numbers; NaN or +inf logits, or none that is finite (unless
            validate_args is False).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (checked below, with better messages)
    has_rsample = False

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        if logits.dim() < 1 or not logits.is_floating_point():
            raise ValueError(
                f"logits are (*B, K) floating-point numbers.\n  given: {tuple(logits.shape)} of {logits.dtype}"
            )
        super().__init__(logits.shape[:-1], torch.Size(), validate_args=validate_args)
        if self._validate_args and not (logits.isfinite().any(-1).all() and (logits < torch.inf).all()):
            raise ValueError(
                "logits must be finite, or -inf for some choices.\n"
                f"  given: {logits.detach()}\n  cause: a network that has diverged, or a mask that forbids everything"
            )
        self.logits = logits.log_softmax(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Categorical:
        logits = self.logits.expand(torch.Size(batch_shape) + self.logits.shape[-1:])
        new = Categorical(logits, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def probs(self) -> Tensor:
        """(*B, K)"""
        return self.logits.exp()

    @property
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.logits.shape[-1] - 1)

    @property
    def noise_shape(self) -> torch.Size:
        return torch.Size()

    def noise(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """(S*, B*) uniform numbers in [0, 1), what one draw is made of."""
        shape = self._extended_shape(torch.Size(sample_shape))
        device = self.logits.device if generator is None else generator.device
        return torch.rand(shape, generator=generator, dtype=self.logits.dtype, device=device).to(self.logits.device)

    def sample_latent(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Tensor:
        """(S*, B*) index; a choice is its own latent."""
        if noise is None:
            noise = self.noise(sample_shape)
        elif noise.shape != (shape := self._extended_shape(torch.Size(sample_shape))):
            raise ValueError(f"noise is (S*, B*) = {tuple(shape)}.\n  given: {tuple(noise.shape)}")
        cumulative = self.probs.detach().cumsum(-1)
        # u < 1 times the total that rounding left, so a choice of probability 0 at the end is never drawn
        return (cumulative <= (noise.unsqueeze(-1) * cumulative[..., -1:])).sum(-1)

    def to_action(self, latent: Tensor) -> Tensor:
        return latent

    def draw(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Drawn:
        """Index, index again and log-probability. noise: (S*, B*) uniform in [0, 1)."""
        index = self.sample_latent(sample_shape, noise=noise)
        return Drawn(index, index, self.log_prob_latent(index))

    def sample_and_log_prob(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S*, B*) index and its log-probability; the log-probability carries the gradient."""
        action, _, log_prob = self.draw(sample_shape, noise=noise)
        return action, log_prob

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.draw(sample_shape).action

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_latent(value)

    def log_prob_latent(self, latent: Tensor, *, jacobian: bool = True) -> Tensor:
        """(S*, B*) index -> (S*, B*). A choice has no Jacobian to leave out."""
        shape = latent.shape
        if shape != self.batch_shape:
            shape = torch.broadcast_shapes(shape, self.batch_shape)
        index = latent.long().expand(shape).unsqueeze(-1)
        return self.logits.expand(shape + self.logits.shape[-1:]).gather(-1, index).squeeze(-1)

    def entropy(self) -> Tensor:
        """(B*,) nats."""
        p = self.probs
        return -(p * torch.where(p > 0, self.logits, torch.zeros_like(p))).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    @property
    def deterministic_action(self) -> Tensor:
        """(B*,) what a deterministic policy executes: the mode."""
        return self.mode

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError("Choices have no mean.\n  fix: use `mode`, or `probs`")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError("Choices have no variance.\n  fix: use `probs`, or `entropy()`")

    def __repr__(self) -> str:
        return f"Categorical({self.logits.shape[-1]} choices, batch_shape={tuple(self.batch_shape)})"


@register_kl(Categorical, Categorical)
def _kl(p: Categorical, q: Categorical) -> Tensor:
    difference = p.logits - q.logits
    return (p.probs * torch.where(p.probs > 0, difference, torch.zeros_like(difference))).sum(-1)
