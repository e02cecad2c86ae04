"""Stream AC(lambda): an online actor-critic without a learning rate to tune (Elsayed, Vasan & Mahmood 2024,
arXiv:2410.14606, algorithms 1 to 6).

    networks start sparse; z_actor, z_critic <- 0
    for each step
        a ~ pi(.|s);  take it, see r and s'             observations standardised, rewards scaled
        delta    <- r + discount V(s') - V(s)           discount is gamma, 0 where the world stopped
        z_critic <- z_critic + grad V(s)
        z_actor  <- z_actor + grad [log pi(a|s) + tau sign(delta) H(pi(.|s))]
        for both networks w with their z and kappa      algorithm 3, ObGD
            w <- w + alpha delta z / max(1, alpha kappa max(|delta|, 1) ||z||_1)
        z        <- discount lam lambda z               lam is 1, or 0 where the episode was cut

One set of settings is meant for every task. There is one environment, no memory of steps and no batch.

Where we differ, and why:

1. A truncated episode bootstraps from the value of its true last observation; its traces and its discounted return
   end there all the same.
2. Observations are standardised by the statistics of the steps before this one, from the tenth on, and clipped to +-10:
   the house's normaliser, which acting and learning share.
3. Scaled rewards are clipped to +-10, and the deviation is that of all returns so far, this step's included.
4. Continuous actions are the house's: on a bounded Box a squashed Gaussian whose deviation depends on the state, in
   place of an unbounded one whose actions the environment clips. The entropy H is that of the action itself. A bound
   on ||z||_1 makes steps depend on the scale of what is learned: one unit of output moves the mean by 4 in the latent,
   which is where a squash comes near to its bound, as the authors' unit comes near to theirs.
5. Of a row with few inputs one weight at least is not 0 at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary import guard
from covary.errors import UsageError, check_fields
from covary.nets import Value
from covary.optim import LOOK_EVERY
from covary.policies import Policy, mean_entropy
from covary.returns import ReturnScale, td_error
from covary.traces import ObGD, climb_traced
from covary.types import Rollout

DEFAULTS: dict[str, Any] = {
    "policy.hidden": (128, 128),
    "policy.activation": "leaky_relu",
    "policy.layer_norm": True,
    "policy.init": "sparse",
    "policy.state_dependent": True,
    "policy.mean_scale": 4.0,
    "critic.hidden": (128, 128),
    "critic.activation": "leaky_relu",
    "critic.layer_norm": True,
    "critic.init": "sparse",
}
"""What policy and critic are made of where the user leaves it open. Elsayed 2024, sec. 3 and appendix B; but the scale
of the mean is ours."""


@dataclass(frozen=True)
class Config:
    """Settings of Stream AC."""

    n_envs: int = 1
    """environments stepped together: one, whose stream it is"""
    alpha: float = 1.0
    """step size where no bound is met. Elsayed 2024: 1"""
    actor_kappa: float = 3.0
    """how far the actor's step stays below overshooting. Elsayed 2024: 3"""
    critic_kappa: float = 2.0
    """how far the critic's step stays below overshooting. Elsayed 2024: 2"""
    gamma: float = 0.99
    """discount. Elsayed 2024: 0.99"""
    lam: float = 0.8
    """lambda of both eligibility traces. Elsayed 2024: 0.8"""
    entropy_coef: float = 0.01
    """tau, weight of the entropy bonus in nats. Elsayed 2024: 0.01"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""

    def __post_init__(self) -> None:
        check_fields(
            self,
            sizes=("n_envs",),
            positive=("alpha", "actor_kappa", "critic_kappa"),
            shares=("gamma", "lam"),
            floors=("entropy_coef",),
        )
        if self.n_envs > 1:
            raise UsageError(
                "stream_ac learns from one stream of steps, each by its own delta and step size.",
                given=f"{self.n_envs} environments",
                fix="n_envs 1; or --algo actor_critic with actor_lam and critic_lam, which takes several",
            )


class Batch(NamedTuple):
    """One step, B = 1, observations normalised."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D) or (B,)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,)
    next_x: Tensor  # (B, O)


class Losses(NamedTuple):
    actor: Tensor
    critic: Tensor


class Parts(NamedTuple):
    """What the losses are made of."""

    delta: Tensor  # (B,) whose gradient is that of -V(s)
    log_prob: Tensor  # (B,)
    entropy: Tensor | None  # its mean in nats


ROUTES = {"actor": ("policy",), "critic": ("critic",)}
"""Which networks each loss may move."""


def parts(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Parts:
    """generator: of an entropy that is estimated."""
    with torch.no_grad():
        next_value = critic(batch.next_x)
    delta = td_error(batch.reward, batch.discount, critic(batch.x), next_value)
    density = policy.density(batch.x)
    entropy = mean_entropy(density, generator) if config.entropy_coef else None
    return Parts(delta, density.log_prob_latent(batch.latent), entropy)


def combined(of: Parts, tau: float) -> Losses:
    """Of whose gradients a step along a trace of this one state is a multiple."""
    delta = of.delta.detach()
    actor = -(delta * of.log_prob).mean()
    if of.entropy is not None:
        actor = actor - tau * delta.abs().mean() * of.entropy  # delta tau sign(delta) H
    return Losses(actor, 0.5 * of.delta.square().mean())


def losses(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Losses:
    """The two terms; nothing else is touched."""
    return combined(parts(policy, critic, batch, config, generator), config.entropy_coef)


def score(of: Parts, tau: float) -> Tensor:
    """Whose gradient the traces sum up: of log pi + tau sign(delta) H in the actor, of V in the critic."""
    total = (of.log_prob - of.delta).sum()
    if of.entropy is not None:
        total = total + tau * of.delta.detach().sign().sum() * of.entropy
    return total


def between(policy: Policy, critic: Value, batch: Batch) -> dict[str, Tensor]:
    """What stands between the networks' outputs and the losses, row by row."""
    delta = td_error(batch.reward, batch.discount, critic(batch.x), critic(batch.next_x))
    return {"delta": delta, "log_prob": policy.density(batch.x).log_prob_latent(batch.latent)}


class Learner:
    """The networks, their optimizer and what is remembered between steps."""

    online = True
    judges_actions = False
    needs_gaussian = False

    def __init__(self, policy: Policy, critic: Value, config: Config, generator: torch.Generator) -> None:
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon = 1
        kappas = (config.actor_kappa, config.critic_kappa)
        self.optimizer = ObGD([policy, critic], config.alpha, kappas, (config.lam, config.lam))
        self.traces = self.optimizer.traces
        self.optimizers = {"obgd": self.optimizer}
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
        """Raises NonFinite at the first number that is not finite, with no parameter moved, unless such steps are left
        out; then {} is returned."""
        c, reward = self.config, rollout.reward
        if c.scale_rewards:
            reward = self.reward_scale(reward, c.gamma, rollout.lam, rollout.valid)
        if not bool(rollout.valid.all()):
            return {}
        normalize, obs = self.policy.normalizer, rollout.obs[0]
        x, next_x = normalize(obs), normalize(rollout.next_obs[0])
        batch = Batch(x, rollout.latent[0], reward[0], rollout.discount[0], next_x)
        try:
            if self.optimizer.steps % LOOK_EVERY == 0 and not guard.finite(self.optimizer.vector):
                raise FloatingPointError("a parameter")
            of = parts(self.policy, self.critic, batch, c, self.generator)
            terms = combined(of, c.entropy_coef)
            climb_traced(score(of, c.entropy_coef), of.delta, terms.actor + terms.critic, self.optimizer)
        except FloatingPointError:
            self._refuse(batch)
            return {}
        self.traces.decay(torch.zeros(1, dtype=torch.int64), rollout.discount[0] * rollout.lam[0])
        self.policy.observe(obs)
        return {"actor_loss": terms.actor.detach(), "critic_loss": terms.critic.detach()}

    def refused_step(self, obs: Any, latents: Any, steps: Any, next_obs: Any) -> None:
        """What the fast path calls about a step that it has not learned from: arrays as `covary.fast.streaming.learn`
        has them, the rewards scaled already."""
        x, next_x = (self.policy.normalizer(torch.from_numpy(part)) for part in (obs, next_obs))
        reward, discount = (torch.from_numpy(steps[row]) for row in (4, 1))
        self._refuse(Batch(x, torch.from_numpy(latents), reward, discount, next_x))

    def _refuse(self, batch: Batch) -> None:
        self.traces.start_anew(
            slice(None)
        )  # what is left out breaks the chain from a step to those it is credited with
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
        self.skipped = int(numbers["skipped"])
