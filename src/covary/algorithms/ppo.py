"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), clipped objective.

    repeat
        run the policy for T steps in N environments
        A_t <- delta_t + discount_t lam_t A_{t+1}                          GAE (Schulman 2016, eq. 16)
        for some epochs, for each minibatch
            rho <- pi(a|s) / pi_old(a|s)
            ascend   E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)] + c H(pi)    eq. 7
            descend  E[(V(s) - (A + V_old(s)))^2] / 2

Where we differ, and why:

1. Actor and critic share nothing; each one's gradient is clipped by its own norm, so that a large value error cannot
   drown the policy's gradient.
2. pi_old is scored in one batch before the first epoch and not at every step: the same numbers, for less.
3. The density scored is exact on the action space (a wrapped angle by its wrapped density, a squashed one with its
   Jacobian), from the latent that is kept beside the action.
4. Values bootstrap from the true last observation of a truncated episode (Pardo 2018).
5. Advantages are standardised over the whole batch, not minibatch by minibatch.
6. Rewards are divided by the running deviation of the discounted return; observations are standardised by statistics
   that change only between iterations, so that the ratio is 1 before the first step. The first iteration is the
   exception: its own observations set the statistics before its update, and pi_old is scored under them. That first
   policy hardly depends on the observation (its last layer starts at a hundredth), so little changes.
7. `exploration="correlated"` draws a_t from noise e_t that goes with e_{t-1}, and so with s_t, which e_{t-1} led to:
   over all steps e_t is standard normal, but given s_t it is not, and pi(a|s) is not the law that a was drawn from. The
   score then has a mean other than 0 given s, so that the baseline V(s), which otherwise takes away variance alone,
   biases the gradient; so does rho, whose denominator is that pi(a|s). The longer `correlation_time`, the more. The
   default, white, has no such bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from covary import guard
from covary.advantages import estimate, explained_variance, log_probs
from covary.errors import check_choice, check_fields
from covary.nets import Value
from covary.optim import Adam, descend
from covary.policies import Policy, mean_entropy
from covary.returns import ReturnScale
from covary.types import Exploration, Rollout

DEFAULTS: dict[str, Any] = {}
"""What policy and critic are made of where the user leaves it open, and it is not what others are made of."""


@dataclass(frozen=True)
class Config:
    """Settings of PPO."""

    n_envs: int = 16
    """environments stepped together (N)"""
    horizon: int | None = None
    """steps of each between updates (T); as many as make 2048 transitions when left out, as in Schulman 2017"""
    epochs: int = 10
    """passes over each rollout, at the most. Schulman 2017, table 3: 10"""
    minibatch: int = 256
    """transitions in a minibatch; large ones cost less a transition. Schulman 2017, table 3: 64"""
    learning_rate: float = 2e-3
    """of Adam, for actor and critic. Schulman 2017, table 3: 3e-4, with a minibatch of 64 and no target_kl"""
    anneal: bool = True
    """whether the learning rate falls linearly to 0 over the run"""
    gamma: float = 0.98
    """discount; 0.99 or more where what an action does shows only a hundred steps later. Schulman 2017: 0.99"""
    lam: float = 0.95
    """GAE lambda: 1 is Monte Carlo, 0 is TD(0). Schulman 2017, table 3: 0.95"""
    clip: float = 0.2
    """eps of the clipped objective"""
    entropy_coef: float = 0.0
    """c, weight of the entropy bonus in nats"""
    target_kl: float = 0.03
    """epochs stop once KL(pi_old || pi) is beyond it; 0 for never"""
    normalize_advantage: bool = True
    """whether advantages are standardised over the batch"""
    max_grad_norm: float = 0.5
    """bound on each network's gradient norm; 0 for none"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""

    exploration: Exploration = "white"
    """white: each step's noise is its own; correlated: it changes slowly, and has the same law at each step"""
    correlation_time: float = 15.0
    """steps after which the correlation of that noise is 1/e"""

    def __post_init__(self) -> None:
        check_choice("exploration", self.exploration, get_args(Exploration))
        check_fields(
            self,
            sizes=("n_envs", "epochs", "minibatch", *(["horizon"] if self.horizon is not None else [])),
            positive=("correlation_time", "learning_rate", "clip"),
            shares=("gamma", "lam"),
            floors=("entropy_coef", "target_kl", "max_grad_norm"),
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
    entropy: Tensor


ROUTES = {"actor": ("policy",), "critic": ("critic",), "entropy": ("policy",)}
"""Which networks each loss may move."""


def losses(
    policy: Policy, critic: Value, batch: Batch, config: Config, generator: torch.Generator | None = None
) -> Losses:
    """The three terms over one minibatch; nothing else is touched. generator: of an entropy that is estimated."""
    density = policy.density(batch.x)
    log_ratio = density.log_prob_latent(batch.latent, jacobian=False) - batch.log_prob  # log rho, sec. 3
    # min(rho A, clip(rho) A) is A times rho, held on the side where it would gain: half the nodes of the graph.
    low = torch.where(batch.advantage < 0, 1 - config.clip, -torch.inf)
    high = torch.where(batch.advantage < 0, torch.inf, 1 + config.clip)
    actor = torch.dot(torch.clamp(log_ratio.exp(), low, high), batch.advantage) / -len(log_ratio)  # eq. 7
    value_loss = 0.5 * F.mse_loss(critic(batch.x), batch.target)  # eq. 9, L^VF
    if not config.entropy_coef:
        return Losses(actor, value_loss, torch.zeros(()))
    return Losses(actor, value_loss, -config.entropy_coef * mean_entropy(density, generator))


def between(policy: Policy, batch: Batch) -> dict[str, Tensor]:
    """What stands between the policy's output and its loss, row by row."""
    log_prob = policy.density(batch.x).log_prob_latent(batch.latent, jacobian=False)
    return {"log_prob": log_prob, "ratio": (log_prob - batch.log_prob).exp()}


class Past:
    """Where an update began, and the passes since: enough to be again where any of them ended."""

    def __init__(self, optimizer: Adam) -> None:
        self.begin(optimizer)

    def begin(self, optimizer: Adam) -> None:
        self.copy = optimizer.copy()
        self.orders: list[Tensor] = []


class Learner:
    """The networks, their optimizer and what is remembered between updates."""

    online = False
    judges_actions = False
    needs_gaussian = False

    def __init__(self, policy: Policy, critic: Value, config: Config, generator: torch.Generator) -> None:
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon = config.horizon or -(-2048 // config.n_envs)
        self.optimizer = Adam([policy, critic], config.learning_rate, eps=1e-5)
        self.optimizers = {"adam": self.optimizer}
        self.networks: dict[str, nn.Module] = {"critic": critic}
        self.memory = None
        self.reward_scale = ReturnScale(config.n_envs)
        self.updates = 0
        self.fast: Any = None  # a covary.fast.path.FastPath that takes over the epochs
        self.lap: Callable[[str], None] | None = None  # tells a profile what has just been done
        self.look = self.optimizer.vector.device.type == "cpu"  # at every minibatch: there is nothing to wait for
        self.on_nonfinite = "stop"  # at a number that is not finite; or skip: the minibatch is left out
        self.skipped = 0  # minibatches that were left out, and rollouts of which some rows were
        self.nonfinite: guard.NonFinite | None = None  # why, the last time
        self.refused: tuple[list[int], int] = ([], 0)  # see covary.guard

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        return noise

    def update(self, rollout: Rollout, progress: float) -> dict[str, Tensor]:
        """Raises NonFinite at the first number that is not finite, with nothing of its minibatch applied, unless such
        minibatches are left out; {} where nothing else was there."""
        c = self.config
        happened = rollout.obs if bool(rollout.valid.all()) else rollout.obs[rollout.valid > 0]
        if not happened.numel():
            return {}
        if self.updates == 0:  # before any step, so that the first update sees observations of order one
            self.policy.observe(happened)
        batch, value = self._batch(rollout)
        if not len(value):
            return {}
        if self.lap is not None:
            self.lap("targets")
        self.optimizer.share = 1 - progress if c.anneal else 1.0
        sums = torch.zeros(5, dtype=torch.float64)  # actor and critic loss, their gradients' norms, minibatches
        epochs = 0
        past = Past(self.optimizer)
        while epochs < c.epochs:
            epochs += 1
            order = self._order(len(batch.advantage), batch.x.device)
            sums += self._pass(batch, order, epochs, past)
            if epochs == c.epochs or c.target_kl:
                kl, clipped = self._divergence(batch)
                if self.on_nonfinite != "skip" and not math.isfinite(kl):
                    self._refuse(batch, epochs)
                if c.target_kl and kl > c.target_kl:
                    break
        if self.updates > 0:
            self.policy.observe(happened)
        self.updates += 1
        if not sums[-1]:
            return {}
        mean = (sums / sums[-1]).float()
        scalars = {
            "actor_loss": mean[0],
            "critic_loss": mean[1],
            "actor_grad_norm": mean[2],
            "critic_grad_norm": mean[3],
            "kl": kl,
            "clip_fraction": clipped,
            "explained_variance": explained_variance(batch.target, value),
            "learning_rate": torch.tensor(c.learning_rate * self.optimizer.share * self.optimizer.scale),
            "epochs": torch.tensor(float(epochs)),
        }
        if self.on_nonfinite == "skip":  # a step that was finite may have ended where kl is not
            return {name: value for name, value in scalars.items() if bool(value.isfinite())}
        return scalars

    def _order(self, size: int, device: torch.device) -> Tensor:
        """A random order of the batch, drawn where the batch is: on a GPU by a generator that the agent's own seeds."""
        generator = self.generator
        if device != generator.device:
            seed = int(torch.randint(2**62, (), generator=generator))
            generator = torch.Generator(device).manual_seed(seed)
        return torch.randperm(size, generator=generator, device=device)

    def _pass(self, batch: Batch, order: Tensor, epoch: int, past: Past) -> Tensor:
        """One pass over the batch in this order. Sums over its minibatches, (5,).

        The kernels, and what runs on a device, are looked at after the pass: one with a number that is not finite is
        undone and gone through again, minibatch by minibatch.
        """
        if self.fast is None and self.look:
            return self._epoch(batch, order, epoch, look=True)
        if self.fast is not None:
            seen = self.fast.epoch(batch, order)
            if math.isfinite(sum(seen.tolist())):
                past.orders.append(order)
                return seen
            self.optimizer.back_to(past.copy)
            for done in past.orders:  # to the same bits, which costs less than a copy before every pass
                self.fast.epoch(batch, done)
            seen = self._fast_epoch(batch, order, epoch)
            past.begin(self.optimizer)
            return seen
        before = self.optimizer.copy()
        generator = self.generator.get_state()
        seen = self._epoch(batch, order, epoch)
        if math.isfinite(sum(seen.tolist())):
            return seen
        self.optimizer.back_to(before)
        self.generator.set_state(generator)
        return self._epoch(batch, order, epoch, look=True)

    def _epoch(self, batch: Batch, order: Tensor, epoch: int = 1, *, look: bool = False) -> Tensor:
        """look: whether to look at every loss and gradient before it is applied, for which the host waits."""
        seen = []
        shuffled = Batch(*(part[order] for part in batch))
        minibatches = zip(*(part.split(self.config.minibatch) for part in shuffled), strict=True)
        for number, minibatch in enumerate(minibatches, 1):
            parts = Batch(*minibatch)
            try:
                terms = losses(self.policy, self.critic, parts, self.config, self.generator)
                loss = terms.actor + terms.critic
                if self.config.entropy_coef:
                    loss = loss + terms.entropy
                norms = descend(loss, self.optimizer, self.config.max_grad_norm, look=look)
            except FloatingPointError:
                self._refuse(parts, epoch, number)
            else:
                seen.append((terms.actor.detach(), terms.critic.detach(), norms))
        if not seen:
            return torch.zeros(5, dtype=torch.float64)
        actor, critic, norms = (torch.stack(column).sum(0, dtype=torch.float64) for column in zip(*seen, strict=True))
        return torch.stack([actor, critic, *norms, torch.full_like(actor, len(seen))]).cpu()

    def _fast_epoch(self, batch: Batch, order: Tensor, epoch: int) -> Tensor:
        sums = torch.zeros(5, dtype=torch.float64)
        for number, rows in enumerate(order.split(self.config.minibatch), 1):
            before = self.optimizer.copy()
            seen = self.fast.epoch(batch, rows)
            if math.isfinite(sum(seen.tolist())):
                sums += seen
            else:
                self.optimizer.back_to(before)
                self._refuse(Batch(*(part[rows] for part in batch)), epoch, number)
        return sums

    def _refuse(self, batch: Batch, epoch: int, minibatch: int | None = None) -> None:
        """A minibatch; or the whole batch, where the steps of an epoch were finite and ended where kl is not."""
        guard.examine(
            self,
            batch._asdict(),
            lambda: between(self.policy, batch) | ({"kl": self._divergence(batch)[0]} if minibatch is None else {}),
            lambda generator: losses(self.policy, self.critic, batch, self.config, generator),
            update=self.updates + 1,
            epoch=epoch,
            minibatch=minibatch,
        )

    def _batch(self, rollout: Rollout) -> tuple[Batch, Tensor]:
        """What is learned from; and V_old of each transition."""
        *batch, value = estimate(self, rollout)
        return Batch(*batch), value

    @torch.no_grad()
    def _divergence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """KL(pi_old || pi) by the estimator (rho - 1) - log rho (Schulman 2020), and the share of ratios beyond the
        clip."""
        log_ratio = log_probs(self, batch.x, batch.latent) - batch.log_prob
        ratio_less_one = torch.expm1(log_ratio)
        return (ratio_less_one - log_ratio).mean(), (ratio_less_one.abs() > self.config.clip).float().mean()

    def numbers(self) -> dict[str, Any]:
        return {"updates": self.updates, "reward_scale": self.reward_scale.state(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.updates = int(numbers["updates"])
        self.reward_scale.load_state(numbers["reward_scale"])
        self.skipped = int(numbers.get("skipped", 0))  # the first runs counted none
