"""Advantage actor-critic, synchronous (Mnih et al. 2016, arXiv:1602.01783, algorithm S3 without its threads).

    repeat
        run the policy for T steps in N environments
        R_t <- r_t + discount_t R_{t+1},  where the rollout ends or an episode was cut: r_t + discount_t V(s_{t+1})
        ascend   E[log pi(a|s) (R - V(s))] + c H(pi)                       the advantage is held
        descend  E[(R - V(s))^2] / 2

Where we differ, and why:

1. The N environments are stepped together and the update is one step along the mean of all T x N gradients, in place
   of threads that overwrite each other (what OpenAI Baselines named A2C): the same estimate, and the same bits again.
2. The step is Adam's, in place of RMSProp's with shared statistics.
3. Actor and critic share nothing; each one's gradient is clipped by its own norm, so that a large value error cannot
   drown the policy's gradient.
4. The returns are lambda-returns, lambda 1 by default: the paper's n-step ones. They bootstrap from the true last
   observation of a truncated episode (Pardo 2018).
5. The density scored is exact on the action space, from the latent that is kept beside the action; its Jacobian, which
   has no gradient, is left out.
6. Rewards are divided by the running deviation of the discounted return; observations are standardised by statistics
   that change only between updates. The first rollout's own observations set them before its update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from covary import guard
from covary.advantages import Estimates, estimate
from covary.errors import check_fields
from covary.nets import Value
from covary.optim import Adam, descend
from covary.policies import Policy, mean_entropy
from covary.returns import ReturnScale
from covary.types import Rollout

DEFAULTS: dict[str, Any] = {}
"""What policy and critic are made of where the user leaves it open, and it is not what others are made of."""


@dataclass(frozen=True)
class Config:
    """Settings of A2C."""

    n_envs: int = 8
    """environments stepped together (N). Mnih 2016: 16 threads"""
    horizon: int = 5
    """steps of each between updates (T). Mnih 2016, sec. 8: 5"""
    actor_lr: float = 7e-4
    """learning rate of the actor's Adam. Mnih 2016 draws RMSProp's, of both, from 1e-4 to 1e-2"""
    critic_lr: float = 7e-4
    """learning rate of the critic's Adam"""
    anneal: bool = True
    """whether the learning rates fall linearly to 0 over the run, as in Mnih 2016"""
    gamma: float = 0.99
    """discount. Mnih 2016: 0.99"""
    lam: float = 1.0
    """lambda of the returns: 1 is Mnih 2016's n-step return, 0 is TD(0)"""
    entropy_coef: float = 0.0
    """c, weight of the entropy bonus in nats. Mnih 2016: 0.01 for choices, 1e-4 for Gaussians"""
    normalize_advantage: bool = False
    """whether advantages are standardised over the batch. Mnih 2016: no"""
    max_grad_norm: float = 0.5
    """bound on each network's gradient norm; 0 for none"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""

    def __post_init__(self) -> None:
        check_fields(
            self,
            sizes=("n_envs", "horizon"),
            positive=("actor_lr", "critic_lr"),
            shares=("gamma", "lam"),
            floors=("entropy_coef", "max_grad_norm"),
        )


class Batch(NamedTuple):
    """B transitions, observations normalised."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D) or (B,)
    advantage: Tensor  # (B,)
    target: Tensor  # (B,) returns


class Losses(NamedTuple):
    actor: Tensor
    critic: Tensor
    entropy: Tensor


ROUTES = {"actor": ("policy",), "critic": ("critic",), "entropy": ("policy",)}
"""Which networks each loss may move."""


def losses(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Losses:
    """The three terms over one batch; nothing else is touched. generator: of an entropy that is estimated."""
    density = policy.density(batch.x)
    log_prob = density.log_prob_latent(batch.latent, jacobian=False)
    actor = torch.dot(log_prob, batch.advantage) / -len(log_prob)  # sec. 4, grad log pi(a|s) (R - V(s))
    value_loss = 0.5 * F.mse_loss(critic(batch.x), batch.target)  # algorithm S3, d(R - V(s))^2
    if not config.entropy_coef:
        return Losses(actor, value_loss, torch.zeros(()))
    return Losses(actor, value_loss, -config.entropy_coef * mean_entropy(density, generator))


def between(policy: Policy, batch: Batch) -> dict[str, Tensor]:
    """What stands between the policy's output and its loss, row by row."""
    return {"log_prob": policy.density(batch.x).log_prob_latent(batch.latent, jacobian=False)}


class Learner:
    """The networks, their optimizer and what is remembered between updates."""

    online = False
    judges_actions = False
    needs_gaussian = False

    def __init__(self, policy: Policy, critic: Value, config: Config, generator: torch.Generator) -> None:
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon = config.horizon
        self.optimizer = Adam([policy, critic], [config.actor_lr, config.critic_lr], eps=1e-5)
        self.optimizers = {"adam": self.optimizer}
        self.networks: dict[str, nn.Module] = {"critic": critic}
        self.memory = None
        self.reward_scale = ReturnScale(config.n_envs)
        self.updates = 0
        self.fast: Any = None  # a covary.fast.path.FastPath that takes the step
        self.lap: Callable[[str], None] | None = None  # tells a profile what has just been done
        self.on_nonfinite = "stop"  # at a number that is not finite; or skip: the update is left out
        self.skipped = 0  # updates that were left out, and rollouts of which some rows were
        self.nonfinite: guard.NonFinite | None = None  # why, the last time
        self.refused: tuple[list[int], int] = ([], 0)  # see covary.guard

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        return noise

    def update(self, rollout: Rollout, progress: float) -> dict[str, Any]:
        """Raises NonFinite at the first number that is not finite, with nothing applied, unless such updates are left
        out; then {} is returned."""
        c = self.config
        if not bool(rollout.valid.any()):
            return {}
        if self.updates == 0:  # before any step, so that the first update sees observations of order one
            self._observe(rollout)
        made = self.fast.estimate(rollout) if self.fast is not None else None
        made = made or estimate(self, rollout)  # which names what is not finite
        if not len(made.value):
            return {}
        if self.lap is not None:
            self.lap("targets")
        self.optimizer.share = 1 - progress if c.anneal else 1.0
        seen = self._step(made)
        if self.updates > 0:
            self._observe(rollout)
        self.updates += 1
        if not seen:
            return {}
        return {
            **seen,
            "learning_rate": c.actor_lr * self.optimizer.share * self.optimizer.scale,
        }

    def _observe(self, rollout: Rollout) -> None:
        if self.fast is not None:
            self.fast.observe(rollout)
        else:
            self.policy.observe(rollout.obs[rollout.valid > 0])

    def _step(self, made: Estimates) -> dict[str, Any]:
        """Both networks' steps. Losses and norms of gradients; {} where a number was not finite."""
        c, batch = self.config, Batch(made.x, made.latent, made.advantage, made.target)
        names = ("actor_loss", "critic_loss", "actor_grad_norm", "critic_grad_norm")
        try:
            if self.fast is not None:
                return dict(zip(names, self.fast.whole(made), strict=True))
            terms = losses(self.policy, self.critic, batch, c, self.generator)
            loss = terms.actor + terms.critic
            if c.entropy_coef:
                loss = loss + terms.entropy
            norms = descend(loss, self.optimizer, c.max_grad_norm)
        except FloatingPointError:
            self._refuse(batch)
            return {}
        return dict(zip(names, (terms.actor.detach(), terms.critic.detach(), *norms), strict=True))

    def _refuse(self, batch: Batch) -> None:
        guard.examine(
            self,
            batch._asdict(),
            lambda: between(self.policy, batch),
            lambda generator: losses(self.policy, self.critic, batch, self.config, generator),
            update=self.updates + 1,
        )

    def numbers(self) -> dict[str, Any]:
        return {"updates": self.updates, "reward_scale": self.reward_scale.state(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.updates = int(numbers["updates"])
        self.reward_scale.load_state(numbers["reward_scale"])
        self.skipped = int(numbers.get("skipped", 0))
