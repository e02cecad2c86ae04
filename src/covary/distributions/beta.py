"""Beta laws on the bounded dimensions of a box (Chou, Maturana & Scherer 2017), by their logits.

    y ~ Beta(alpha, beta),   a = low + w y,   latent x = logit(y) = log G_1 - log G_2,   G ~ Gamma(alpha), Gamma(beta)
    log p(x) = alpha log sigmoid(x) + beta log sigmoid(-x) - log B(alpha, beta)

Nothing saturates: where y is 0 or 1 in float32, x is not, and is never inverted. Sums whose terms cancel where alpha
and beta are large are in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.nn import functional as F

from covary.distributions.box_normal import Drawn, _BoxSupport, _broadcast
from covary.distributions.geometry import Geometry

TRIES = 8
"""Of Marsaglia & Tsang's rejection, drawn ahead: at alpha = 1, the worst, 0.048 fail each, and all of them 3e-11."""


class _LogGamma(torch.autograd.Function):
    """log G, G ~ Gamma(shape), in float64. shape (*B), normal (S*, B*, TRIES, 2).

    Forward: Marsaglia & Tsang 2000, fig. 1, the uniform number being Phi of the second normal one. Where no try is
    accepted, which happens in 3e-11 of the draws, G is their d. Backward: the implicit gradient, d log G / d shape
    (Figurnov 2018, eq. 5), which does not depend on how G was drawn.
    """

    @staticmethod
    def forward(ctx: Any, shape: Tensor, normal: Tensor) -> Tensor:
        d = (shape - 1 / 3).unsqueeze(-1)
        x, u = normal.double().unbind(-1)
        root = 1 + x / (9 * d).sqrt()
        log_v = 3 * root.clamp(min=1e-30).log()
        accepted = (root > 0) & (torch.special.log_ndtr(u) < 0.5 * x.square() + d * (1 - log_v.exp() + log_v))
        first = accepted.int().argmax(-1, keepdim=True)
        log_v = torch.where(accepted.any(-1), log_v.gather(-1, first).squeeze(-1), torch.zeros_like(log_v[..., 0]))
        log_g = d.squeeze(-1).log() + log_v
        ctx.save_for_backward(shape, log_g)
        return log_g

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        shape, log_g = ctx.saved_tensors
        g = log_g.exp()
        slope = torch._standard_gamma_grad(shape.expand_as(g).contiguous(), g) / g
        return (grad * slope).sum_to_size(shape.shape), None


class Beta(Distribution):
    """Independent Beta laws on a box, dimension by dimension.

    Args:
        alpha, beta: (*B, D), at least 1: above, the density is 0 at the bounds and has one peak.
        geometry: a box of squashed dimensions; [0, 1] when left out.

    Raises:
        ValueError: shapes that do not fit, parameters below 1 or not finite (unless validate_args is False), a
            geometry of other kinds.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (checked below, with better messages)
    has_rsample = True

    def __init__(
        self, alpha: Tensor, beta: Tensor, *, geometry: Geometry | None = None, validate_args: bool | None = None
    ) -> None:
        if alpha.dim() < 1 or beta.dim() < 1 or alpha.shape[-1] != beta.shape[-1]:
            raise ValueError(f"alpha and beta are (*B, D).\n  given: {tuple(alpha.shape)} and {tuple(beta.shape)}")
        d = alpha.shape[-1]
        self.geometry = geometry or Geometry.box([0.0] * d, [1.0] * d)
        if self.geometry.kinds != ("squash",) * d:
            raise ValueError(
                f"A Beta is on a box of {d} finite intervals.\n  given: {self.geometry}\n"
                "  fix:   Geometry.box(low, high) with finite bounds; other dimensions by a Product"
            )
        batch = _broadcast(alpha.shape[:-1], beta.shape[:-1], "beta")
        super().__init__(batch, torch.Size((d,)), validate_args=validate_args)
        if self._validate_args:
            for name, x in (("alpha", alpha), ("beta", beta)):
                if not x.is_floating_point() or not bool((x.isfinite() & (x >= 1)).all()):
                    raise ValueError(
                        f"{name} is finite and 1 or above.\n  given: {x.detach()}\n"
                        "  cause: a network that has diverged, or an output that was not passed through "
                        "1 + softplus(.)"
                    )
        self.alpha, self.beta = alpha.expand(*batch, d), beta.expand(*batch, d)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Beta:
        shape = (*batch_shape, *self.event_shape)
        new = Beta(self.alpha.expand(shape), self.beta.expand(shape), geometry=self.geometry, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def support(self) -> constraints.Constraint:
        return _BoxSupport(self.geometry)

    # --- sampling and scoring

    @property
    def noise_shape(self) -> torch.Size:
        return torch.Size((self.event_shape[0] * 2 * TRIES * 2,))

    def noise(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """(S*, B*, 32 D) standard normal numbers, what one draw is made of: `TRIES` pairs for each of two gammas."""
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.noise_shape))
        device = self.alpha.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, dtype=self.alpha.dtype, device=device).to(self.alpha.device)

    def sample_latent(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Tensor:
        """(S*, B*, D) the logit of an action, reparametrised by implicit gradients; `to_action` maps it."""
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.noise_shape))
        if noise is None:
            noise = self.noise(sample_shape)
        elif noise.shape != shape:
            raise ValueError(f"noise is (S*, B*, 32 D) = {tuple(shape)}.\n  given: {tuple(noise.shape)}")
        normal = noise.unflatten(-1, (self.event_shape[0], 2, TRIES, 2))
        log_g: Tensor = _LogGamma.apply(torch.stack(self._double(), -1), normal)
        return (log_g[..., 0] - log_g[..., 1]).to(self.alpha.dtype)

    def to_action(self, latent: Tensor) -> Tensor:
        """(..., D) logit -> action."""
        return self.geometry.to_action(latent)

    def draw(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Drawn:
        """An action, its logit and its log-probability; noise: as `noise` draws it."""
        latent = self.sample_latent(sample_shape, noise=noise)
        return Drawn(self.to_action(latent), latent, self.log_prob_latent(latent))

    def sample_and_log_prob(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S*, B*, D) action and (S*, B*) log-probability, scored from its logit: exact at saturation."""
        action, _, log_prob = self.draw(sample_shape, noise=noise)
        return action, log_prob

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.draw(sample_shape).action

    def log_prob(self, value: Tensor) -> Tensor:
        """(S*, B*, D) action -> (S*, B*). An action at a bound is scored as the nearest number inside."""
        if self._validate_args:
            if isinstance(value, Tensor) and not value.is_floating_point():
                raise ValueError(f"An action is floating-point.\n  given: {value.dtype}\n  fix:   action.float()")
            self._validate_sample(value)
        return self.log_prob_latent(self.geometry.from_action(value))

    def log_prob_latent(self, latent: Tensor, *, jacobian: bool = True) -> Tensor:
        """Log-probability of the action whose logit is given. (S*, B*, D) -> (S*, B*).

        jacobian: whether log |da/dx|, which depends on the logit alone, is taken off.
        """
        if self._validate_args and latent.shape[-1:] != self.event_shape:
            raise ValueError(f"latent is (S*, B*, D), D = {self.event_shape[0]}.\n  given: {tuple(latent.shape)}")
        (a, b), x = self._double(), latent.double()
        each = a * F.logsigmoid(x) + b * F.logsigmoid(-x) - _log_beta(a, b)
        if jacobian:
            each = each - self.geometry.log_slope(x)
        return each.sum(-1).to(self.alpha.dtype)

    def entropy(self) -> Tensor:
        """(B*,) nats."""
        a, b = self._double()
        each = _log_beta(a, b) - (a - 1) * torch.digamma(a) - (b - 1) * torch.digamma(b)
        each = each + (a + b - 2) * torch.digamma(a + b)
        return (each + self._width.log()).sum(-1).to(self.alpha.dtype)

    def _double(self) -> tuple[Tensor, Tensor]:
        return self.alpha.double(), self.beta.double()

    @property
    def _width(self) -> Tensor:
        """(D,) of the box."""
        c = self.geometry.constants(self.alpha.double())
        return c.high - c.low

    # --- points

    @property
    def mean(self) -> Tensor:
        """(B*, D) expected action."""
        a, b = self._double()
        return self.to_action((a.log() - b.log()).to(self.alpha.dtype))

    @property
    def mode(self) -> Tensor:
        """(B*, D) where the density is highest; the centre where it is flat."""
        a, b = ((x - 1).clamp(min=1e-30) for x in self._double())
        return self.to_action((a.log() - b.log()).to(self.alpha.dtype))

    @property
    def median(self) -> Tensor:
        raise NotImplementedError("The median of a Beta has no closed form.\n  fix: use `mean`, or `mode`")

    @property
    def variance(self) -> Tensor:
        """(B*, D) of the action."""
        a, b = self._double()
        share = a / (a + b)
        return (self._width.square() * share * (1 - share) / (a + b + 1)).to(self.alpha.dtype)

    @property
    def deterministic_action(self) -> Tensor:
        """(B*, D) what a deterministic policy executes: the mean."""
        return self.mean

    def __repr__(self) -> str:
        return f"Beta({self.event_shape[0]} dimensions, batch_shape={tuple(self.batch_shape)})"


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


@register_kl(Beta, Beta)
def _kl(p: Beta, q: Beta) -> Tensor:
    if p.geometry != q.geometry:
        raise NotImplementedError("KL between densities on different boxes is infinite or has no closed form.")
    (a, b), (c, d) = p._double(), q._double()
    each = _log_beta(c, d) - _log_beta(a, b) + (a - c) * torch.digamma(a) + (b - d) * torch.digamma(b)
    each = each + (c - a + d - b) * torch.digamma(a + b)
    return each.sum(-1).to(p.alpha.dtype)
