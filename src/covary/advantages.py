"""How a rollout becomes what it is learned from: an advantage and a target for every step that happened."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from covary import guard
from covary.returns import gae
from covary.types import Rollout


class Estimates(NamedTuple):
    """B transitions, observations normalised."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D) or (B,)
    log_prob: Tensor  # (B,) under the policy as it is now, up to the geometry's Jacobian
    advantage: Tensor  # (B,)
    target: Tensor  # (B,) lambda-returns
    value: Tensor  # (B,)


def log_probs(learner: Any, x: Tensor, latent: Tensor) -> Tensor:
    """log pi(latent | x) up to the geometry's Jacobian, which depends on the latent alone. x: (B, O). -> (B,)"""
    if learner.fast is not None:
        scored: Tensor = learner.fast.log_probs(x, latent)
        return scored
    scored = learner.policy.density(x).log_prob_latent(latent, jacobian=False)
    return scored


@torch.no_grad()
def estimate(learner: Any, rollout: Rollout) -> Estimates:
    """Advantages, targets, log-probabilities and values of the steps that happened, flattened.

    Args:
        learner: with policy, critic, optimizer, reward_scale, updates, fast and all that `guard.examine` takes; and a
            config with gamma, lam, scale_rewards and normalize_advantage.

    Raises:
        NonFinite: a number that is not finite, and the learner stops at such; else its row is left out.
    """
    config, normalize, critic = learner.config, learner.policy.normalizer, learner.critic
    x = normalize(rollout.obs).flatten(0, 1)
    value = critic(x).view_as(rollout.reward)
    # Where a step led is where the next one starts, but at the end of the rollout and where an episode was cut.
    elsewhere = rollout.lam == 0
    elsewhere[-1] = True
    next_value = torch.cat([value[1:], value[-1:]])
    next_value[elsewhere] = critic(normalize(rollout.next_obs[elsewhere]))
    reward = rollout.reward
    if config.scale_rewards:
        reward = learner.reward_scale(reward, config.gamma, rollout.lam, rollout.valid)
    advantage = gae(reward, rollout.discount, config.lam * rollout.lam, value, next_value)
    log_prob = log_probs(learner, x, rollout.latent.flatten(0, 1))
    flat = [x, rollout.latent.flatten(0, 1), log_prob]
    flat += [advantage.flatten(), (advantage + value).flatten(), value.flatten()]
    if not bool(rollout.valid.all()):
        flat = [part[rollout.valid.flatten() > 0] for part in flat]
    x, latent, log_prob, advantage, target, value = flat
    if not guard.finite(learner.optimizer.vector, x, latent, log_prob, target):  # A_t + V is finite where both are
        happened = rollout.valid.flatten() > 0
        given = {"x": x, "latent": latent, "reward": reward.flatten()[happened]}
        given["next_x"] = normalize(rollout.next_obs).flatten(0, 1)[happened]
        made = {"value": value, "log_prob": log_prob, "target": target, "advantage": advantage}
        _refuse_rows(learner, given, made)
        kept = torch.stack([part.reshape(len(part), -1).isfinite().all(-1) for part in flat]).all(0)
        x, latent, log_prob, advantage, target, value = (part[kept] for part in flat)
    if config.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
    return Estimates(x, latent, log_prob, advantage, target, value)


def _refuse_rows(learner: Any, given: dict[str, Tensor], made: dict[str, Tensor]) -> None:
    """Where what minibatches are made of is not finite already."""

    def again() -> dict[str, Tensor]:
        values = {"value": learner.critic(given["x"]), "next_value": learner.critic(given["next_x"])}
        density = learner.policy.density(given["x"])
        return values | {"log_prob": density.log_prob_latent(given["latent"], jacobian=False)}

    guard.examine(learner, given, again, derived=made, update=learner.updates + 1)


def explained_variance(target: Tensor, value: Tensor) -> Tensor:
    """The share of the targets' variance that the values already told, (B,) and (B,): 1 is all, 0 none."""
    return 1 - (target - value).var(correction=0) / (target.var(correction=0) + 1e-12)
