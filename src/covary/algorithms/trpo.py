"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477).

    repeat
        run the policy for T steps in N environments
        A_t <- delta_t + discount_t lam_t A_{t+1}                          GAE (Schulman 2016, eq. 16)
        L(theta) <- E[pi(a|s) / pi_old(a|s) A]                             eq. 14
        F <- the Hessian of E[KL(pi_old || pi)] at pi_old                  appendix C.1
        s <- F^-1 grad L, by conjugate gradients on products F v
        beta <- sqrt(2 delta / s^T F s)
        theta <- theta + beta s, beta shrunk until L has grown and E[KL(pi_old || pi)] <= delta
        for some epochs, for each minibatch
            descend  E[(V(s) - (A + V_old(s)))^2] / 2

Where we differ, and why:

1. Advantages are GAE's with a learned critic, as in Schulman 2016, in place of Monte Carlo returns alone; they are
   standardised over the batch, which leaves the step's length as it is.
2. The KL is the exact one wherever it has a closed form. Under angles and clipped dimensions it is that of the latents,
   which is never less, so that the bound holds.
3. F is taken over the whole batch, where the paper's products take a tenth of it; F v is differentiated twice in place
   of the paper's analytic form, and F gets a little damping, without which few samples make it singular.
4. Values bootstrap from the true last observation of a truncated episode (Pardo 2018).
5. Rewards are divided by the running deviation of the discounted return; observations are standardised by statistics
   that change only between updates. The first rollout's own observations set them before its update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from covary import guard
from covary.advantages import estimate, explained_variance
from covary.errors import check_fields
from covary.natural import NaturalStep, climb
from covary.nets import Value
from covary.optim import Adam, descend
from covary.policies import Policy, divergence
from covary.returns import ReturnScale
from covary.types import Rollout

DEFAULTS: dict[str, Any] = {}
"""What policy and critic are made of where the user leaves it open, and it is not what others are made of."""


@dataclass(frozen=True)
class Config:
    """Settings of TRPO."""

    n_envs: int = 16
    """environments stepped together (N)"""
    horizon: int | None = None
    """steps of each between updates (T); as many as make 2048 transitions when left out. Schulman 2015, table 2: 50,000
    transitions for Swimmer, 10^6 for Hopper and Walker"""
    target_kl: float = 0.01
    """delta, bound on the mean KL(pi_old || pi) of a step, in nats. Schulman 2015, table 2: 0.01"""
    damping: float = 0.1
    """added to the diagonal of F while the direction is looked for. Not in Schulman 2015"""
    cg_iterations: int = 10
    """conjugate gradients' steps, each a product F v. Schulman 2015, appendix C: 10"""
    trials: int = 12
    """step lengths that are tried, each 0.7 of the one before"""
    critic_lr: float = 1e-3
    """learning rate of the critic's Adam"""
    critic_epochs: int = 10
    """the critic's passes over each rollout"""
    minibatch: int = 256
    """transitions in a minibatch of the critic's"""
    gamma: float = 0.98
    """discount; 0.99 or more where what an action does shows only a hundred steps later. Schulman 2015: 0.99"""
    lam: float = 0.95
    """GAE lambda: 1 is Monte Carlo as in Schulman 2015, 0 is TD(0). Schulman 2016: 0.92 to 0.99"""
    normalize_advantage: bool = True
    """whether advantages are standardised over the batch"""
    max_grad_norm: float = 0.5
    """bound on the norm of the critic's gradient; 0 for none"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""

    def __post_init__(self) -> None:
        given = ["horizon"] if self.horizon is not None else []
        check_fields(
            self,
            sizes=("n_envs", "cg_iterations", "trials", "critic_epochs", "minibatch", *given),
            positive=("target_kl", "critic_lr"),
            shares=("gamma", "lam"),
            floors=("damping", "max_grad_norm"),
        )


class Batch(NamedTuple):
    """B transitions, observations normalised."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D) or (B,)
    log_prob: Tensor  # (B,) under pi_old, up to the geometry's Jacobian, which cancels in the ratio
    advantage: Tensor  # (B,)
    target: Tensor  # (B,) lambda-returns


class Losses(NamedTuple):
    actor: Tensor
    critic: Tensor


ROUTES = {"actor": ("policy",), "critic": ("critic",)}
"""Which networks each loss may move."""


def surrogate(policy: Policy, batch: Batch) -> Tensor:
    """-L(theta), eq. 14 with sampled actions."""
    log_ratio = policy.density(batch.x).log_prob_latent(batch.latent, jacobian=False) - batch.log_prob
    return torch.dot(log_ratio.exp(), batch.advantage) / -len(log_ratio)


def value_loss(critic: Value, x: Tensor, target: Tensor) -> Tensor:
    return 0.5 * F.mse_loss(critic(x), target)


def losses(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Losses:
    """The two terms; nothing else is touched."""
    return Losses(surrogate(policy, batch), value_loss(critic, batch.x, batch.target))


def between(policy: Policy, batch: Batch) -> dict[str, Tensor]:
    """What stands between the policy's output and its loss, row by row."""
    log_prob = policy.density(batch.x).log_prob_latent(batch.latent, jacobian=False)
    return {"log_prob": log_prob, "ratio": (log_prob - batch.log_prob).exp()}


class Learner:
    """The networks, the critic's optimizer and what is remembered between updates."""

    online = False
    judges_actions = False
    needs_gaussian = False

    def __init__(self, policy: Policy, critic: Value, config: Config, generator: torch.Generator) -> None:
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon = config.horizon or -(-2048 // config.n_envs)
        self.optimizer = Adam([policy, critic], config.critic_lr, eps=1e-5)  # a policy that no loss reaches stays
        self.optimizers = {"adam": self.optimizer}
        self.networks: dict[str, nn.Module] = {"critic": critic}
        self.memory = None
        self.reward_scale = ReturnScale(config.n_envs)
        self.updates = 0
        self.fast: Any = None  # a covary.fast.path.FastPath that takes over the critic's passes
        self.lap: Callable[[str], None] | None = None  # tells a profile what has just been done
        self.on_nonfinite = "stop"  # at a number that is not finite; or skip: the step or minibatch is left out
        self.skipped = 0  # policy's steps and critic's minibatches that were left out, and rollouts with such rows
        self.nonfinite: guard.NonFinite | None = None  # why, the last time
        self.refused: tuple[list[int], int] = ([], 0)  # see covary.guard

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        return noise

    def update(self, rollout: Rollout, progress: float) -> dict[str, Any]:
        """Raises NonFinite at the first number that is not finite, with nothing of its step applied, unless such steps
        are left out; {} where nothing else was there."""
        happened = rollout.obs if bool(rollout.valid.all()) else rollout.obs[rollout.valid > 0]
        if not happened.numel():
            return {}
        if self.updates == 0:  # before any step, so that the first update sees observations of order one
            self.policy.observe(happened)
        *parts, value = estimate(self, rollout)
        if not len(value):
            return {}
        if self.lap is not None:
            self.lap("targets")
        batch = Batch(*parts)
        step = self._step(batch)
        fitted = self._fit(batch)
        if self.updates > 0:
            self.policy.observe(happened)
        self.updates += 1
        scalars: dict[str, Any] = {"explained_variance": explained_variance(batch.target, value)}
        if step is not None:
            scalars |= {"actor_loss": step.loss, "actor_grad_norm": step.norm, "kl": step.kl, "step_share": step.share}
        scalars |= fitted
        if self.on_nonfinite == "skip":  # of targets that are finite the variance may not be
            return {name: value for name, value in scalars.items() if math.isfinite(value)}
        return scalars

    def _step(self, batch: Batch) -> NaturalStep | None:
        """The policy's; None where a number was not finite."""
        c = self.config
        with torch.no_grad():
            old = self.policy.density(batch.x)

        def terms() -> tuple[Tensor, Tensor]:
            return surrogate(self.policy, batch), divergence(old, self.policy.density(batch.x)).mean()

        radius = c.target_kl * self.optimizer.scale**2  # its length goes with the root
        try:
            return climb(
                terms, self.optimizer, 0, radius, damping=c.damping, iterations=c.cg_iterations, trials=c.trials
            )
        except FloatingPointError:
            self._refuse(batch)
            return None

    def _fit(self, batch: Batch) -> dict[str, float]:
        """The critic's passes. Means over minibatches; {} where none of them was finite."""
        total, norm, count = 0.0, 0.0, 0
        for epoch in range(1, self.config.critic_epochs + 1):
            order = torch.randperm(len(batch.target), generator=self.generator).to(batch.x.device)
            for loss, length, minibatches in self._passed(batch, order, epoch):
                total, norm, count = total + loss, norm + length, count + minibatches
        return {"critic_loss": total / count, "critic_grad_norm": norm / count} if count else {}

    def _passed(self, batch: Batch, order: Tensor, epoch: int) -> list[tuple[float, float, int]]:
        """One pass over the batch in this order: losses, norms and how many minibatches these are of.

        The kernels are looked at after the pass: one with a number that is not finite is gone through again without.
        """
        if self.fast is not None:
            before = self.optimizer.copy()
            loss, norm, count = self.fast.fit(batch, order)
            if math.isfinite(loss + norm):
                return [(loss, norm, count)]
            self.optimizer.back_to(before)
        seen = []
        for number, rows in enumerate(order.split(self.config.minibatch), 1):
            part = Batch(*(column[rows] for column in batch))
            try:
                loss = value_loss(self.critic, part.x, part.target)
                norms = descend(loss, self.optimizer, self.config.max_grad_norm)
            except FloatingPointError:
                self._refuse(part, epoch=epoch, minibatch=number)
            else:
                seen.append((float(loss.detach()), float(norms[1]), 1))
        return seen

    def _refuse(self, batch: Batch, epoch: int | None = None, minibatch: int | None = None) -> None:
        def kl() -> dict[str, Tensor]:
            density = self.policy.density(batch.x)
            return {"kl": divergence(density, density)}

        guard.examine(
            self,
            batch._asdict(),
            lambda: between(self.policy, batch) | kl(),
            lambda generator: losses(self.policy, self.critic, batch, self.config, generator),
            update=self.updates + 1,
            epoch=epoch,
            minibatch=minibatch,
        )

    def numbers(self) -> dict[str, Any]:
        return {"updates": self.updates, "reward_scale": self.reward_scale.state(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.updates = int(numbers["updates"])
        self.reward_scale.load_state(numbers["reward_scale"])
        self.skipped = int(numbers.get("skipped", 0))
