"""Action space + geometry + covariance + torso -> a module that maps raw observations to densities.

policy = make_policy(observation_space, action_space, PolicyConfig(covariance="full", periodic=(0,)))
density = policy(obs)                                   # obs: (B, O) raw observations, float32
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import kl_divergence

from covary.distributions import Beta, BoxNormal, Categorical, Choices, Geometry, Product, latent_kl
from covary.errors import UsageError
from covary.heads import CategoricalHead, GaussianHead, PolicyConfig, each_of
from covary.more_heads import BetaHead, ChoicesHead, Head, ProductHead
from covary.nets import RunningNorm, make_sparse, mlp, width_of

Density: TypeAlias = BoxNormal | Categorical | Beta | Choices | Product


def mean_entropy(density: Density, generator: torch.Generator | None = None) -> Tensor:
    """Mean entropy in nats; where it has no closed form, estimated from eight samples each.

    The estimate's gradient is the score function's, - E[(log p - b) grad log p], which is right for point masses too,
    where a reparametrised one is not (b, the samples' mean, takes variance away).
    """
    try:
        return density.entropy().mean()
    except NotImplementedError:
        with torch.no_grad():
            latent = density.sample_latent((8,), noise=density.noise((8,), generator))
        log_prob = density.log_prob_latent(latent)
        value = log_prob.detach()
        weight = (value - value.mean(0)) * (8 / 7)  # each sample is in its own mean
        return -(value + weight * (log_prob - value)).mean()


def divergence(p: Density, q: Density) -> Tensor:
    """KL(p || q) in nats, (B*,): exact where it has a closed form; else that of the latents, which is never less. Of
    independent parts it is their sum."""
    try:
        return kl_divergence(p, q)
    except NotImplementedError:
        if isinstance(p, Product) and isinstance(q, Product):
            parts: Any = zip(p.parts, q.parts, strict=True)
            return torch.stack([divergence(a, b) for a, b in parts]).sum(0)
        assert isinstance(p, BoxNormal)
        assert isinstance(q, BoxNormal)
        return latent_kl(p, q)


class Policy(nn.Module):
    """(B, O) raw observations -> the density of the action, with its own normaliser inside.

    Attributes:
        normalizer: the running standardisation of observations, or the identity.
        torso: (B, O) -> (B, F), any module.
        head: (B, F) -> the parameters of the density.
    """

    def __init__(self, normalizer: nn.Module, torso: nn.Module, head: Head) -> None:
        super().__init__()
        self.normalizer, self.torso, self.head = normalizer, torso, head

    def forward(self, obs: Tensor) -> Density:
        return self.density(self.normalizer(obs.float()))

    def density(self, x: Tensor) -> Density:
        """The same from observations that are normalised already, so that a critic can share them."""
        density: Density = self.head(self.torso(x))
        return density

    def observe(self, obs: Tensor) -> None:
        """Shows the normaliser raw observations (..., O); it changes here and nowhere else."""
        if isinstance(self.normalizer, RunningNorm):
            self.normalizer.update(obs.reshape(-1, obs.shape[-1]))


def make_policy(
    observations: int,
    action_space: Any,
    config: PolicyConfig | None = None,
    *,
    torso: nn.Module | None = None,
    one_hot: bool = False,
    usual: PolicyConfig | None = None,
) -> Policy:
    """A policy for `observations` numbers in and a Gymnasium Box, Discrete, MultiDiscrete or MultiBinary action space
    out.

    Args:
        torso: any module (B, O) -> (B, F) in place of the multilayer perceptron that `config` describes.
        one_hot: whether observations are one-hot, which are not normalised.
        usual: what nobody asked for: settings of a Box that are these are no mistake where there are choices.

    Raises:
        UsageError: bounds, periodic or a covariance that do not fit the action space, a torso of the wrong shape.
    """
    config = config or PolicyConfig()
    body = torso if torso is not None else mlp(observations, config.hidden, config.activation, config.layer_norm)
    try:
        features = width_of(body, observations)
        head = _make_head(features, action_space, config, usual or PolicyConfig())
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    if config.init == "sparse":
        for network in (head,) if torso is not None else (body, head):
            make_sparse(network)
    normalizer = RunningNorm(observations) if config.normalize_obs and not one_hot else nn.Identity()
    return Policy(normalizer, body, head)


def _make_head(features: int, action_space: Any, config: PolicyConfig, usual: PolicyConfig) -> Head:
    kind = type(action_space).__name__
    if kind in ("Discrete", "MultiDiscrete", "MultiBinary"):
        of_a_box = ("covariance", "rank", "bounds", "periodic", "init_std", "mean_scale", "covariance_matrix")
        for name in (*of_a_box, "state_dependent"):
            if (value := getattr(config, name)) not in (getattr(PolicyConfig(), name), getattr(usual, name)):
                raise UsageError(
                    f"policy.{name} is of a Box of actions; choices have no such thing.",
                    given=f"{value} for {action_space}",
                    fix="leave it out",
                )
        if 0 in (action_space.shape or ()):
            raise UsageError("An action holds at least one choice.", given=action_space)
        if kind == "Discrete":
            return CategoricalHead(features, int(action_space.n))
        sizes = None if kind == "MultiBinary" else [int(n) for n in action_space.nvec.reshape(-1)]
        return ChoicesHead(features, math.prod(action_space.shape), sizes)
    if kind == "Box":
        if not np.issubdtype(action_space.dtype, np.floating):
            raise UsageError(
                "A Box of actions holds floating-point numbers.",
                given=f"dtype {action_space.dtype}",
                fix="Discrete or MultiDiscrete for choices, or a Box of float32",
            )
        return _make_box(features, action_space.low.reshape(-1), action_space.high.reshape(-1), config)
    raise UsageError(
        "The action space is a Box, Discrete, MultiDiscrete or MultiBinary.",
        given=f"{kind}: {action_space}",
        fix="a wrapper that presents the action as one of them",
    )


def _make_box(features: int, low: NDArray[Any], high: NDArray[Any], config: PolicyConfig) -> Head:
    """A Gaussian; a Beta; or both side by side, where `bounds` names some dimensions beta."""
    d = len(low)
    words: tuple[Any, ...] = (config.bounds,) * d if isinstance(config.bounds, str) else config.bounds
    if len(words) not in (1, d):
        raise UsageError(
            f"policy.bounds is one word, or one for each of the {d} dimensions.", given=", ".join(map(str, words))
        )
    named = "beta" in words
    plain: Any = ["squash" if word == "beta" else word for word in words] if named else config.bounds
    for i, word in enumerate(words):
        if word == "beta" and not math.isfinite(float(high[i]) - float(low[i])):
            raise UsageError(
                'bounds="beta" needs finite bounds.',
                given=f"dimension {i} with low {low[i]}, high {high[i]}",
                fix='one word for each dimension, "auto" for this one; or finite bounds in the environment',
            )
    geometry = Geometry.box(low, high, bounds=plain, periodic=config.periodic)
    words = words * d if len(words) == 1 else words
    betas = [i for i in range(d) if words[i] == "beta" and geometry.kinds[i] != "wrap"]
    if not betas:
        return GaussianHead(features, geometry, config if not named else replace(config, bounds=tuple(plain)))
    rest = [i for i in range(d) if i not in betas]
    _check_beta(config, betas, rest)
    if config.covariance in ("lowrank", "full"):
        geometry.check_full()
    std = each_of(config.init_std, d)
    beta = BetaHead(features, geometry.part(betas), _some(std, betas))
    if not rest:
        return beta
    theirs = replace(config, bounds=tuple(plain[i % len(plain)] for i in rest), init_std=_some(std, rest))
    gaussian = GaussianHead(features, geometry.part(rest), theirs)
    return ProductHead([gaussian, beta], [rest, betas], geometry)


def _some(std: tuple[float | None, ...], columns: list[int]) -> Any:
    """`init_std` of these dimensions: None, as all are then, is one word for all."""
    each = tuple(std[i] for i in columns)
    return None if None in each else each


def _check_beta(config: PolicyConfig, betas: list[int], rest: list[int]) -> None:
    """Raises UsageError where a covariance would have to be that of a Beta."""
    if config.covariance in ("lowrank", "full") and len(rest) < 2:
        raise UsageError(
            "A covariance couples Gaussian dimensions; a Beta is independent of all others.",
            given=f'covariance="{config.covariance}" and bounds="beta" for dimensions {tuple(betas)}, '
            f"which leaves {len(rest)} to couple",
            fix='bounds="squash", which is exact under any covariance; or covariance="diagonal"',
        )
    if config.covariance == "fixed" and not rest:
        raise UsageError(
            "A Beta learns its own spread; a fixed covariance is a Gaussian's.",
            given='covariance="fixed" and bounds="beta" for every dimension',
            fix='bounds="squash" with the fixed covariance, or leave covariance out',
        )
