"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477); with the settings of
`ddpg`, deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971).

    repeat
        act by mu(s) + noise for T steps in N environments; keep what happened in a ring
        for as many updates as there were steps, each on a batch out of the ring
            a' <- mubar(s') + clip(noise')                                     sec. 5.3
            y <- r + discount min_k Qbar_k(s', a')                             sec. 4.2
            descend  E[sum_k (Q_k(s, a) - y)^2 / 2]
            every d-th time
                ascend  E[Q_1(s, mu(s))]                                       eq. 1, through the action
                theta-bar <- theta-bar + tau (theta - theta-bar)

Where we differ, and why:

1. mu and its noise are one density of a fixed covariance, and all noise is added in the latent: it stays inside the box
   and goes round where a dimension is an angle, where the paper clips.
2. Before learning starts the same noise, correlated as it is, is as wide as other policies start, 0.25 of a bounded
   dimension's width; the paper acts uniformly.
3. The noise of the targets is measured in deviations of the one that acts, 2 and clipped at 5, which are the paper's
   0.2 and 0.5 beside 0.1.
4. The critics see the action in the policy's coordinates: [-1, 1] for bounded dimensions, cosine and sine of an angle.
5. Rewards are divided by the running deviation of the discounted return, and observations are standardised, both by
   the statistics at the time of the update: what is kept is raw.
6. A truncated episode bootstraps from its true last observation (Pardo 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary import guard
from covary.errors import UsageError, check_choice, check_fields
from covary.heads import usual_std, widened
from covary.nets import QValues
from covary.optim import Adam, Target, descend
from covary.past import Past, check_past, means
from covary.policies import Density, Policy
from covary.types import Exploration, Rollout

DEFAULTS = {
    "policy.hidden": (256, 256),
    "policy.activation": "relu",
    "policy.covariance": "fixed",
    "policy.init_std": 0.05,
    "critic.hidden": (256, 256),
    "critic.activation": "relu",
}
"""What policy and critic are made of where the user leaves it open; 0.05 of the width is the paper's 0.1 of [-1, 1]."""


@dataclass(frozen=True)
class Config:
    """Settings of TD3."""

    n_envs: int = 1
    """environments stepped together (N)"""
    horizon: int = 1
    """steps of each between updates (T)"""
    updates: float = 1.0
    """updates for each transition. Fujimoto 2018, table 3: 1"""
    batch: int = 256
    """transitions in an update. Fujimoto 2018, table 3: 100"""
    learning_starts: int = 500
    """transitions before the first update, with wide noise. Fujimoto 2018, sec. 6.1: 1000 or 10,000"""
    learning_rate: float = 1e-3
    """of Adam, for policy and critics. Fujimoto 2018, table 3: 1e-3"""
    gamma: float = 0.99
    """discount"""
    tau: float = 0.005
    """how far the targets follow. Fujimoto 2018, table 3: 0.005"""
    critics: int = 2
    """K, of which the smallest value counts"""
    delay: int = 2
    """d, updates of the critics for one of policy and targets. Fujimoto 2018, sec. 6.1: 2"""
    smoothing: float = 2.0
    """noise of the targets' actions, in deviations of the one that acts. Fujimoto 2018, sec. 6.1: 0.2 / 0.1"""
    smoothing_clip: float = 5.0
    """where it is clipped, in the same. Fujimoto 2018, sec. 6.1: 0.5 / 0.1"""
    max_grad_norm: float = 0.0
    """bound on each network's gradient norm; 0 for none"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""
    replay_size: int = 1_000_000
    """transitions that are kept. Fujimoto 2018, sec. 6.1: the entire history of the agent"""
    replay_folder: str | None = None
    """where a file keeps them in place of memory"""
    priority: float = 0.0
    """alpha of prioritised replay; 0: all are drawn alike. Schaul 2016: 0.6"""
    priority_beta: float = 0.4
    """how far the bias of priorities is corrected at the start; wholly at the end. Schaul 2016: 0.4"""

    exploration: Exploration = "white"
    """white: each step's noise is its own; correlated: it changes slowly, and has the same law at each step"""
    correlation_time: float = 15.0
    """steps after which the correlation of that noise is 1/e"""

    def __post_init__(self) -> None:
        check_past(self)
        check_choice("exploration", self.exploration, get_args(Exploration))
        check_fields(
            self,
            sizes=("horizon", "critics", "delay"),
            positive=("correlation_time", "learning_rate"),
            shares=("tau",),
            floors=("max_grad_norm", "smoothing", "smoothing_clip"),
        )


@dataclass(frozen=True)
class DDPG(Config):
    """Settings of DDPG: one critic, no delay, no noise of the targets."""

    critics: int = 1
    """K, of which the smallest value counts"""
    delay: int = 1
    """d, updates of the critics for one of policy and targets"""
    smoothing: float = 0.0
    """noise of the targets' actions, in deviations of the one that acts"""


class Batch(NamedTuple):
    """B transitions, observations normalised and rewards scaled, and the noise of the target's actions."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,)
    next_x: Tensor  # (B, O)
    weight: Tensor  # (B,)
    noise: Tensor  # (B, D)


class Losses(NamedTuple):
    critic: Tensor
    actor: Tensor


ROUTES = {"critic": ("critic",), "actor": ("policy",)}
"""Which networks each loss moves."""


class Densities(Protocol):
    """A policy, or what computes the same."""

    head: Any

    def density(self, x: Tensor, /) -> Density: ...


class Values(Protocol):
    """QValues, or what computes the same."""

    def __call__(self, x: Tensor, action: Tensor, /) -> Tensor: ...
    def smallest(self, x: Tensor, action: Tensor, /) -> Tensor: ...
    def first(self, x: Tensor, action: Tensor, /) -> Tensor: ...


def critic_target(policy: Densities, target: Values, batch: Batch, config: Config) -> Tensor:
    """y (B,), without a gradient. policy: the target's."""
    with torch.no_grad():
        noise = (config.smoothing * batch.noise).clamp(-config.smoothing_clip, config.smoothing_clip)  # sec. 5.3
        latent = policy.density(batch.next_x).sample_latent(noise=noise)
        value = target.smallest(batch.next_x, policy.head.coordinates(latent))  # sec. 4.2
        return batch.reward + batch.discount * value


def critic_loss(q: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """q: (K, B), y and weight: (B,)."""
    return 0.5 * (weight * (q - y).square()).mean(-1).sum()


def actor_loss(policy: Densities, critic: Values, x: Tensor) -> Tensor:
    """Through the action that the policy takes without noise."""
    head = policy.head
    density: Any = policy.density(x)
    latent = head.geometry.to_latent(density.loc)
    return -critic.first(x, head.coordinates(latent)).mean()  # eq. 1


def losses(
    policy: Densities, critic: Values, target_policy: Densities, target: Values, batch: Batch, config: Config
) -> Losses:
    """Both terms at once, as a look at them needs it; an update computes one after the other."""
    y = critic_target(target_policy, target, batch, config)
    q = critic(batch.x, policy.head.coordinates(batch.latent))
    return Losses(critic_loss(q, y, batch.weight), actor_loss(policy, critic, batch.x))


def check(policy: Policy) -> None:
    """Raises UsageError for a policy that this algorithm cannot use."""
    head: Any = policy.head
    if not head.fixed:
        raise UsageError(
            "td3 and ddpg act by a mean and noise of a fixed covariance: nothing would teach them another.",
            given=f"policy.covariance {head.config.covariance}",
            fix="policy.covariance fixed; or --algo sac, which learns it",
        )
    if clipped := head.geometry.columns("clip"):
        raise UsageError(
            "td3 and ddpg need actions that have a slope in the mean; a clipped one has none beyond its bounds.",
            given=f"policy.bounds clip in dimensions {clipped}",
            fix="policy.bounds squash, or mean",
        )


LOGGED, LOGGED_OF_POLICY = ("critic_loss", "q", "critic_grad_norm"), ("actor_loss", "actor_grad_norm")
"""What a step of the critics tells, and one of the policy."""


class Learner:
    """The networks, their optimizers and what is remembered between updates."""

    online = False
    judges_actions = True
    needs_gaussian = True

    def __init__(self, policy: Policy, critic: QValues, config: Config, generator: torch.Generator) -> None:
        check(policy)
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon, self.device = config.horizon, next(critic.parameters()).device
        self.optimizer = Adam([critic], config.learning_rate)
        self.optimizers = {"critic_adam": self.optimizer, "actor_adam": Adam([policy], config.learning_rate)}
        self.target = Target(critic, self.optimizer)
        self.target_policy = Target(policy, self.optimizers["actor_adam"])
        self.networks: dict[str, nn.Module] = {
            "critic": critic,
            "target": self.target.network,
            "target_policy": self.target_policy.network,
        }
        self.past = Past(policy, critic.observation, config)
        self.memory, self.reward_scale = self.past.memory, self.past.reward_scale
        self.usual_std = usual_std(policy.head.geometry)  # type: ignore[arg-type]
        self.fast: Any = None
        self.lap: Callable[[str], None] | None = None  # tells a profile what has just been done
        self.on_nonfinite = "stop"  # at a number that is not finite; or skip: the rest of the update is left out
        self.skipped = 0
        self.nonfinite: guard.NonFinite | None = None  # why, the last time
        self.refused: tuple[list[int], int] = ([], 0)  # see covary.guard

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        """The noise (..., D) by which it acts now."""
        return noise if self.past.started else widened(self.policy.head, noise, self.usual_std)  # type: ignore[arg-type]

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Keeps what happened and learns from the past. Means over the critics' steps and over the policy's, of each
        that were made.

        Raises:
            NonFinite: the first number that is not finite, unless such updates are left out.
        """
        self.past.add(rollout)
        if self.lap is not None:
            self.lap("targets")
        seen, improved = [], []
        for number in self.past.each_due(rollout):
            batch, places = self._batch(progress)
            try:
                seen.append(self._evaluate(batch, places))
                if number % self.config.delay == 0:
                    improved.append(self._improve(batch))
            except FloatingPointError:
                self._refuse(batch)
        return means(LOGGED, seen) | means(LOGGED_OF_POLICY, improved)

    def _batch(self, progress: float) -> tuple[Batch, Any]:
        steps, places = self.past.sample(progress, self.generator, self.device)
        noise = self.policy.head.noise((self.config.batch,), self.generator).to(self.device)
        return Batch(*steps, noise), places

    def _evaluate(self, batch: Batch, places: Any) -> tuple[float, ...]:
        """A step of the critics: their loss, the mean target, and the norm of the gradient."""
        c, fast = self.config, self.fast
        action = self.policy.head.coordinates(batch.latent)
        if fast is not None:
            y = critic_target(fast.target_policy, fast.target, batch, c)
            loss, error = fast.critic.fit(batch.x, action, y, batch.weight)
            norm = self.optimizer.step_in_place(c.max_grad_norm)
        else:
            y = critic_target(self.target_policy.network, self.target.network, batch, c)
            q = self.critic(batch.x, action)
            term = critic_loss(q, y, batch.weight)
            norm = descend(term, self.optimizer, c.max_grad_norm)
            loss, error = term.item(), (q.detach() - y).abs().mean(0)
        self.memory.prioritise(places, error)
        return loss, float(y.mean()), float(norm)

    def _improve(self, batch: Batch) -> tuple[float, float]:
        """A step of the policy and of the targets: its loss and its gradient's norm."""
        c, own = self.config, (self.policy, self.critic)
        policy, critic = own if self.fast is None else (self.fast.policy, self.fast.critic)
        term = actor_loss(policy, critic, batch.x)
        norm = descend(term, self.optimizers["actor_adam"], c.max_grad_norm)
        self.target.follow(c.tau)
        self.target_policy.follow(c.tau)
        return term.item(), float(norm)

    def _refuse(self, batch: Batch) -> None:
        target_policy, target = self.target_policy.network, self.target.network
        guard.examine(
            self,
            batch._asdict(),
            lambda: {"target": critic_target(target_policy, target, batch, self.config)},
            lambda _: losses(self.policy, self.critic, target_policy, target, batch, self.config),
            update=self.past.updates,
        )

    def numbers(self) -> dict[str, Any]:
        return {**self.past.numbers(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.past.load_numbers(numbers)
        self.skipped = int(numbers["skipped"])
