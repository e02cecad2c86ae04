"""Online actor-critic, one-step or with eligibility traces (Sutton & Barto 2018, sec. 13.5), an update after every
step.

    z_actor, z_critic <- 0
    for each step
        a ~ pi(.|s);  take it, see r and s'
        delta    <- r + discount V(s') - V(s)           discount is gamma, 0 where the world stopped
        z_actor  <- z_actor + grad log pi(a|s)
        z_critic <- z_critic + grad V(s)
        ascend   delta z_actor + c grad H(pi(.|s))      actor, at its own learning rate
        ascend   delta z_critic                         critic, at its own learning rate
        z_actor  <- discount lam actor_lam z_actor      lam is 1, or 0 where the episode was cut
        z_critic <- discount lam critic_lam z_critic

With both lambdas 0 the traces are the gradients themselves, and are not kept: the critic descends delta^2 / 2.

Where we differ, and why:

1. Both steps are Adam's, as is usual with neural networks; the book's are plain. Adam is given delta z as its gradient,
   and its moments run over the steps whatever the traces do.
2. The factor gamma^t of the episodic objective is left out, as nearly everyone does (Thomas 2014): states late in an
   episode count as much as early ones.
3. With several environments the step is the mean over them, each with its own delta and its own traces.
4. A truncated episode bootstraps from the value of its true last observation (Pardo 2018).
5. Rewards are divided by the running deviation of the discounted return, this step's included; observations are
   standardised by the statistics of the steps before this one.
6. The entropy's gradient goes into the step and not into the trace: it is no one's to be credited with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary import guard
from covary.errors import check_fields
from covary.nets import Value
from covary.optim import LOOK_EVERY, Adam, descend
from covary.policies import Policy, mean_entropy
from covary.returns import ReturnScale, td_error
from covary.traces import Traces, descend_traced
from covary.types import Rollout

DEFAULTS: dict[str, Any] = {}
"""What policy and critic are made of where the user leaves it open, and it is not what others are made of."""


@dataclass(frozen=True)
class Config:
    """Settings of the online actor-critic."""

    n_envs: int = 1
    """environments stepped together (N)"""
    actor_lr: float = 1e-4
    """learning rate of the actor's Adam"""
    critic_lr: float = 5e-4
    """learning rate of the critic's Adam"""
    gamma: float = 0.99
    """discount"""
    entropy_coef: float = 0.0
    """c, weight of the entropy bonus in nats"""
    actor_lam: float = 0.0
    """lambda of the actor's eligibility trace: 0 is one-step, 1 reaches back to the episode's start"""
    critic_lam: float = 0.0
    """lambda of the critic's eligibility trace: 0 is TD(0), 1 is online Monte Carlo"""
    max_grad_norm: float = 0.5
    """bound on each network's gradient norm; 0 for none"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""

    def __post_init__(self) -> None:
        check_fields(
            self,
            sizes=("n_envs",),
            positive=("actor_lr", "critic_lr"),
            shares=("gamma", "actor_lam", "critic_lam"),
            floors=("entropy_coef", "max_grad_norm"),
        )


class Batch(NamedTuple):
    """One step of B environments, observations normalised."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D) or (B,)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,)
    next_x: Tensor  # (B, O)


class Losses(NamedTuple):
    actor: Tensor
    critic: Tensor


ROUTES = {"actor": ("policy",), "critic": ("critic",)}
"""Which networks each loss may move."""


class Parts(NamedTuple):
    """What the losses are made of."""

    delta: Tensor  # (B,) whose gradient is that of -V(s)
    log_prob: Tensor  # (B,)
    bonus: Tensor | None  # c H, the mean over the batch


def parts(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Parts:
    """generator: of an entropy that is estimated."""
    with torch.no_grad():
        next_value = critic(batch.next_x)
    delta = td_error(batch.reward, batch.discount, critic(batch.x), next_value)
    density = policy.density(batch.x)
    log_prob = density.log_prob_latent(batch.latent)
    bonus = config.entropy_coef * mean_entropy(density, generator) if config.entropy_coef else None
    return Parts(delta, log_prob, bonus)


def combined(of: Parts) -> Losses:
    """The two terms of a step without traces."""
    actor = -(of.delta.detach() * of.log_prob).mean()  # sec. 13.5, delta grad log pi
    return Losses(actor if of.bonus is None else actor - of.bonus, 0.5 * of.delta.square().mean())


def losses(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Losses:
    """The two terms; nothing else is touched."""
    return combined(parts(policy, critic, batch, config, generator))


def between(policy: Policy, critic: Value, batch: Batch) -> dict[str, Tensor]:
    """What stands between the networks' outputs and the losses, row by row."""
    delta = td_error(batch.reward, batch.discount, critic(batch.x), critic(batch.next_x))
    return {"delta": delta, "log_prob": policy.density(batch.x).log_prob_latent(batch.latent)}


class Learner:
    """The networks, their optimizers and what is remembered between steps."""

    online = True
    judges_actions = False
    needs_gaussian = False

    def __init__(self, policy: Policy, critic: Value, config: Config, generator: torch.Generator) -> None:
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon = 1
        self.optimizer = Adam([policy, critic], [config.actor_lr, config.critic_lr])
        self.traces: Traces | None = None
        if config.actor_lam or config.critic_lam:
            lams = (config.actor_lam, config.critic_lam)
            self.traces = Traces(self.optimizer.vector, self.optimizer.segments, lams, config.n_envs)
            self.optimizer.traces = self.traces
        self.optimizers = {"adam": self.optimizer}
        self.networks: dict[str, nn.Module] = {"critic": critic}
        self.memory = None
        self.reward_scale = ReturnScale(config.n_envs)
        self.fast: Any = None  # a covary.fast.path.FastPath; whoever steps the environments calls it in place of update
        self.lap: Callable[[str], None] | None = None  # tells a profile what has just been done
        self.on_nonfinite = "stop"  # at a number that is not finite; or skip: the step is left out
        self.skipped = 0  # steps that were left out
        self.nonfinite: guard.NonFinite | None = None  # why, the last time
        self.refused: tuple[list[int], int] = ([], 0)  # see covary.guard

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        return noise

    def update(self, rollout: Rollout, progress: float) -> dict[str, Tensor]:
        """Raises NonFinite at the first number that is not finite, with nothing applied, unless such steps are left
        out; then {} is returned."""
        reward = rollout.reward
        if self.config.scale_rewards:
            reward = self.reward_scale(reward, self.config.gamma, rollout.lam, rollout.valid)
        normalize = self.policy.normalizer
        obs = rollout.obs[0]
        x = normalize(obs)
        batch = Batch(x, rollout.latent[0], reward[0], rollout.discount[0], normalize(rollout.next_obs[0]))
        happened = rollout.valid[0] > 0
        if not bool(happened.all()):
            if not bool(happened.any()):
                return {}
            batch = Batch(*(part[happened] for part in batch))
            obs = obs[happened]
        try:
            if self.optimizer.steps % LOOK_EVERY == 0 and not guard.finite(self.optimizer.vector):
                raise FloatingPointError("a parameter")
            of = parts(self.policy, self.critic, batch, self.config, self.generator)
            terms = combined(of)
            if self.traces is None:
                descend(
                    terms.actor + terms.critic, self.optimizer, self.config.max_grad_norm
                )  # they share no parameter
            else:
                self._descend(of, happened.nonzero()[:, 0], rollout.discount[0] * rollout.lam[0])
        except FloatingPointError:
            self._refuse(batch)
            return {}
        self.policy.observe(obs)
        return {"actor_loss": terms.actor.detach(), "critic_loss": terms.critic.detach()}

    def _descend(self, of: Parts, environments: Tensor, weight: Tensor) -> None:
        """By the traces of these environments, (B,) of them. weight: discount times lam of all, (N,)."""
        assert self.traces is not None
        scores, delta = of.log_prob - of.delta, of.delta.detach()  # whose gradients are those of log pi + V
        descend_traced(scores, delta, environments, self.optimizer, self.config.max_grad_norm, of.bonus)
        self.traces.decay(environments, weight[environments])

    def refused_step(self, obs: Any, latents: Any, steps: Any, next_obs: Any) -> None:
        """What the fast path calls about a step that it has not learned from: arrays as `covary.fast.online.learn` has
        them, the rewards scaled already."""
        happened = steps[3] > 0
        reward, discount = (torch.from_numpy(steps[row][happened]) for row in (4, 1))
        x, next_x = (self.policy.normalizer(torch.from_numpy(part[happened])) for part in (obs, next_obs))
        self._refuse(Batch(x, torch.from_numpy(latents[happened]), reward, discount, next_x))

    def _refuse(self, batch: Batch) -> None:
        if self.traces is not None:  # what is left out breaks the chain from a step to those it is credited with
            self.traces.start_anew(slice(None))
        guard.examine(
            self,
            batch._asdict(),
            lambda: between(self.policy, self.critic, batch),
            lambda generator: losses(self.policy, self.critic, batch, self.config, generator),
            update=self.optimizer.steps + self.skipped + 1,
        )

    def numbers(self) -> dict[str, Any]:
        return {"reward_scale": self.reward_scale.state(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.reward_scale.load_state(numbers["reward_scale"])
        self.skipped = int(numbers.get("skipped", 0))  # the first runs counted none
