"""Action space + geometry + covariance + torso -> a module that maps raw observations to densities.

policy = make_policy(observation_space, action_space, PolicyConfig(covariance="full", periodic=(0,)))
density = policy(obs)                                   # obs: (B, O) raw observations, float32
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from covary.distributions import BoxNormal, Categorical, Geometry
from covary.errors import UsageError
from covary.heads import CategoricalHead, GaussianHead, PolicyConfig
from covary.nets import RunningNorm, make_sparse, mlp, width_of

Density: TypeAlias = BoxNormal | Categorical


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


class Policy(nn.Module):
    """(B, O) raw observations -> the density of the action, with its own normaliser inside.

    Attributes:
        normalizer: the running standardisation of observations, or the identity.
        torso: (B, O) -> (B, F), any module.
        head: (B, F) -> the parameters of the density.
    """

    def __init__(self, normalizer: nn.Module, torso: nn.Module, head: GaussianHead | CategoricalHead) -> None:
        super().__init__()
        self.normalizer, self.torso, self.head = normalizer, torso, head

    def forward(self, obs: Tensor) -> Density:
        return self.density(self.normalizer(obs.float()))

    def density(self, x: Tensor) -> Density:
        """The same from observations that are normalised already, so that a critic can share them."""
        return self.head(self.torso(x))

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
    """A policy for `observations` numbers in and a Gymnasium Box or Discrete action space out.

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


def _make_head(
    features: int, action_space: Any, config: PolicyConfig, usual: PolicyConfig
) -> GaussianHead | CategoricalHead:
    kind = type(action_space).__name__
    if kind == "Discrete":
        for name in ("covariance", "bounds", "periodic", "init_std", "covariance_matrix", "state_dependent"):
            if (value := getattr(config, name)) not in (getattr(PolicyConfig(), name), getattr(usual, name)):
                raise UsageError(
                    f"policy.{name} is of a Box of actions; choices have no such thing.",
                    given=f"{value} for {action_space}",
                    fix="leave it out",
                )
        return CategoricalHead(features, int(action_space.n))
    if kind == "Box":
        if not np.issubdtype(action_space.dtype, np.floating):
            raise UsageError(
                "A Box of actions holds floating-point numbers.",
                given=f"dtype {action_space.dtype}",
                fix="Discrete or MultiDiscrete for choices, or a Box of float32",
            )
        geometry = Geometry.box(
            action_space.low.reshape(-1),
            action_space.high.reshape(-1),
            bounds=config.bounds,
            periodic=config.periodic,
        )
        return GaussianHead(features, geometry, config)
    raise UsageError(
        "The action space is a Box or Discrete.",
        given=f"{kind}: {action_space}",
        fix="a wrapper that presents the action as one of them",
    )
