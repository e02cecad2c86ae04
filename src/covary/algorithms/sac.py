"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), with a temperature that is learned.

    repeat
        act by the policy for T steps in N environments; keep what happened in a ring
        for as many updates as there were steps, each on a batch out of the ring
            a' ~ pi(.|s')
            y <- r + discount (min_k Qbar_k(s', a') - alpha log pi(a'|s'))     eq. 3, 5
            descend  E[sum_k (Q_k(s, a) - y)^2 / 2]                            eq. 5
            descend  E[alpha log pi(a~|s) - min_k Q_k(s, a~)],  a~ ~ pi(.|s)   eq. 7, 9: through the sample
            descend  E[-log alpha (log pi(a~|s) + H)]                          eq. 18, in log alpha
            theta-bar <- theta-bar + tau (theta - theta-bar)

Where we differ, and why:

1. The density is exact on the action space, in the action's own units, so the target entropy H counts the width w of
   each bounded dimension: -D + sum log(w / 2), which is the paper's -D on [-1, 1].
2. The critics see the action in the policy's coordinates: [-1, 1] for bounded dimensions, cosine and sine of an angle.
3. The first actions come from the first policy, which is centred and wide, and not from a uniform law.
4. alpha moves by its logarithm, E[-log alpha (...)], as the authors' own code does; eq. 18 has alpha itself.
5. Rewards are divided by the running deviation of the discounted return, and observations are standardised, both by
   the statistics at the time of the update: what is kept is raw.
6. A truncated episode bootstraps from its true last observation (Pardo 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary import guard
from covary.errors import UsageError, check_choice, check_fields
from covary.nets import QValues, Scalar
from covary.optim import Adam, Target, descend
from covary.past import Past, check_past, means
from covary.policies import Density, Policy
from covary.types import Exploration, Rollout

DEFAULTS = {
    "policy.hidden": (256, 256),
    "policy.activation": "relu",
    "policy.state_dependent": True,
    "critic.hidden": (256, 256),
    "critic.activation": "relu",
}
"""What policy and critic are made of where the user leaves it open."""


@dataclass(frozen=True)
class Config:
    """Settings of SAC."""

    n_envs: int = 1
    """environments stepped together (N)"""
    horizon: int = 1
    """steps of each between updates (T)"""
    updates: float = 1.0
    """updates for each transition. Haarnoja 2018, table 1: 1"""
    batch: int = 256
    """transitions in an update. Haarnoja 2018, table 1: 256"""
    learning_starts: int = 500
    """transitions before the first update"""
    learning_rate: float = 1e-3
    """of Adam, for policy, critics and temperature. Haarnoja 2018, table 1: 3e-4"""
    gamma: float = 0.99
    """discount"""
    tau: float = 0.005
    """how far the target critics follow at each update. Haarnoja 2018, table 1: 0.005"""
    critics: int = 2
    """K, of which the smallest value counts"""
    temperature: float = 0.1
    """alpha at the start; of rewards that are scaled to returns of order one"""
    target_entropy: float | None = None
    """H in nats, of the action in its own units; -D + sum log(w / 2) over bounded dimensions when left out"""
    max_grad_norm: float = 0.0
    """bound on each network's gradient norm; 0 for none"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""
    replay_size: int = 1_000_000
    """transitions that are kept. Haarnoja 2018, table 1: 10^6"""
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
            sizes=("horizon", "critics"),
            positive=("correlation_time", "learning_rate", "temperature"),
            shares=("tau",),
            floors=("max_grad_norm",),
        )
        wanted: Any = self.target_entropy
        if wanted is not None and not (type(wanted) in (int, float) and math.isfinite(wanted)):
            raise UsageError("target_entropy is a finite number of nats.", given=repr(wanted), fix="leave it out")


class Batch(NamedTuple):
    """B transitions, observations normalised and rewards scaled, and the noise of both actions that are drawn."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,)
    next_x: Tensor  # (B, O)
    weight: Tensor  # (B,)
    noise: Tensor  # (B, D)
    next_noise: Tensor  # (B, D)


class Losses(NamedTuple):
    critic: Tensor
    actor: Tensor
    temperature: Tensor


class Densities(Protocol):
    """A policy, or what computes the same."""

    head: Any

    def density(self, x: Tensor) -> Density: ...


class Values(Protocol):
    """QValues, or what computes the same."""

    def __call__(self, x: Tensor, action: Tensor, /) -> Tensor: ...
    def smallest(self, x: Tensor, action: Tensor) -> Tensor: ...


ROUTES = {"critic": ("critic",), "actor": ("policy",), "temperature": ("temperature",)}
"""Which networks each loss moves."""
LOGGED = ("critic_loss", "actor_loss", "q", "temperature", "critic_grad_norm", "actor_grad_norm")
"""What an update tells."""


def critic_target(policy: Densities, target: Values, batch: Batch, alpha: float) -> Tensor:
    """y (B,), without a gradient."""
    with torch.no_grad():
        density = policy.density(batch.next_x)
        latent = density.sample_latent(noise=batch.next_noise)
        value = target.smallest(batch.next_x, policy.head.coordinates(latent))
        soft = value - alpha * density.log_prob_latent(latent)  # eq. 3
        return batch.reward + batch.discount * soft


def critic_loss(q: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """q: (K, B), y and weight: (B,)."""
    return 0.5 * (weight * (q - y).square()).mean(-1).sum()  # eq. 5


def actor_loss(log_prob: Tensor, q: Tensor, alpha: float) -> Tensor:
    """log_prob: (B,), q: (B,) the smallest value, both of a draw that the policy's gradient goes through."""
    return (alpha * log_prob - q).mean()  # eq. 7


def temperature_slope(log_prob: Tensor, target_entropy: float) -> Tensor:
    """How far the entropy lies above its target."""
    return -(log_prob.detach().mean() + target_entropy)


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Linear in log alpha, so that an update needs its slope alone."""
    return log_alpha * temperature_slope(log_prob, target_entropy)  # eq. 18


def drawn(policy: Densities, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (B, A) of a fresh action for each observation, and its log-probability (B,), reparametrised."""
    density = policy.density(x)
    latent = density.sample_latent(noise=noise)
    return policy.head.coordinates(latent), density.log_prob_latent(latent)


def losses(
    policy: Policy, critic: Values, target: Values, log_alpha: Tensor, batch: Batch, target_entropy: float
) -> Losses:
    """The three terms at once, as a look at them needs it; an update computes one after the other."""
    alpha = math.exp(log_alpha.item())
    y = critic_target(policy, target, batch, alpha)
    q = critic(batch.x, policy.head.coordinates(batch.latent))
    action, log_prob = drawn(policy, batch.x, batch.noise)
    return Losses(
        critic_loss(q, y, batch.weight),
        actor_loss(log_prob, critic.smallest(batch.x, action), alpha),
        temperature_loss(log_alpha, log_prob, target_entropy),
    )


def usual_entropy(geometry: Any) -> float:
    """-D + sum log(w / 2) over the dimensions of a finite width w."""
    widths = [high - low for low, high in zip(geometry.low, geometry.high, strict=True)]
    return sum(math.log(w / 2) for w in widths if math.isfinite(w)) - len(widths)


def check(policy: Policy, config: Config) -> None:
    """Raises UsageError for a policy that this algorithm cannot use."""
    geometry: Any = policy.head.geometry
    if clipped := geometry.columns("clip"):
        raise UsageError(
            "sac needs a density whose draws have a slope everywhere; a clipped one has point masses.",
            given=f"policy.bounds clip in dimensions {clipped}",
            fix="policy.bounds squash; or --algo ppo, which scores such a density exactly",
        )
    if policy.head.fixed:
        raise UsageError(
            "sac learns the covariance, by which it reaches its entropy.",
            given="policy.covariance fixed",
            fix="policy.covariance diagonal or full; or --algo td3, whose covariance is fixed",
        )
    widths = [high - low for low, high in zip(geometry.low, geometry.high, strict=True)]
    most = sum(math.log(w) for w in widths)
    if config.target_entropy is not None and config.target_entropy >= most:
        raise UsageError(
            "The target entropy must be below that of the uniform law on the box.",
            given=f"target_entropy {config.target_entropy:g}; the box allows {most:.4g} nats",
            fix=f"target_entropy {usual_entropy(geometry):.4g}, which is taken when it is left out",
        )


class Learner:
    """The networks, their optimizers and what is remembered between updates."""

    online = False
    judges_actions = True
    needs_gaussian = False

    def __init__(self, policy: Policy, critic: QValues, config: Config, generator: torch.Generator) -> None:
        check(policy, config)
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon, self.device = config.horizon, next(critic.parameters()).device
        self.log_alpha = Scalar(math.log(config.temperature)).to(self.device)
        self.optimizer = Adam([critic], config.learning_rate)
        self.optimizers = {
            "critic_adam": self.optimizer,
            "actor_adam": Adam([policy], config.learning_rate),
            "temperature_adam": Adam([self.log_alpha], config.learning_rate),
        }
        self.target = Target(critic, self.optimizer)
        self.networks: dict[str, nn.Module] = {
            "critic": critic,
            "target": self.target.network,
            "temperature": self.log_alpha,
        }
        wanted = config.target_entropy
        self.target_entropy = usual_entropy(policy.head.geometry) if wanted is None else wanted
        self.past = Past(policy, critic.observation, config)
        self.memory, self.reward_scale = self.past.memory, self.past.reward_scale
        self.fast: Any = None
        self.lap: Callable[[str], None] | None = None  # tells a profile what has just been done
        self.on_nonfinite = "stop"  # at a number that is not finite; or skip: the rest of the update is left out
        self.skipped = 0
        self.nonfinite: guard.NonFinite | None = None  # why, the last time
        self.refused: tuple[list[int], int] = ([], 0)  # see covary.guard

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        return noise

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Keeps what happened and learns from the past. Means over the updates; {} where there was none.

        Raises:
            NonFinite: the first number that is not finite, unless such updates are left out.
        """
        self.past.add(rollout)
        if self.lap is not None:
            self.lap("targets")
        seen = []
        for _ in self.past.each_due(rollout):
            if (one := self._learn(*self._batch(progress))) is not None:
                seen.append(one)
        return means(LOGGED, seen)

    def _batch(self, progress: float) -> tuple[Batch, Any]:
        """And where it lies in the ring."""
        steps, places = self.past.sample(progress, self.generator, self.device)
        noise = self.policy.head.noise((2, self.config.batch), self.generator).to(self.device)
        return Batch(*steps, *noise), places

    def _learn(self, batch: Batch, places: Any) -> tuple[float, ...] | None:
        """One update; None where a number was not finite and such updates are left out."""
        alpha = math.exp(self.log_alpha.value.item())
        try:
            of_critic, critic_norm, error = self._evaluate(batch, alpha)
            of_actor, actor_norm, value, log_prob = self._improve(batch, alpha)
            slope = temperature_slope(log_prob, self.target_entropy)
            self.optimizers["temperature_adam"].step([slope], 0.0)
        except FloatingPointError:
            self._refuse(batch)
            return None
        self.target.follow(self.config.tau)
        self.memory.prioritise(places, error)
        return of_critic, of_actor, value, alpha, float(critic_norm), float(actor_norm)

    def _evaluate(self, batch: Batch, alpha: float) -> tuple[float, Tensor, Tensor]:
        """A step of the critics: their loss, its gradient's norm, and the mean size of the errors (B,)."""
        c, head, fast = self.config, self.policy.head, self.fast
        if fast is not None:
            with torch.no_grad():
                y = fast.soft_target(batch, alpha)
                loss, error = fast.critic.fit(batch.x, head.coordinates(batch.latent), y, batch.weight)
                return loss, self.optimizer.step_in_place(c.max_grad_norm), error
        y = critic_target(self.policy, self.target.network, batch, alpha)
        q = self.critic(batch.x, head.coordinates(batch.latent))
        terms = critic_loss(q, y, batch.weight)
        norm = descend(terms, self.optimizer, c.max_grad_norm)
        return terms.item(), norm, (q.detach() - y).abs().mean(0)

    def _improve(self, batch: Batch, alpha: float) -> tuple[float, Tensor, float, Tensor]:
        """A step of the policy: its loss, its gradient's norm, the mean value, and the log-probabilities (B,)."""
        c, adam, fast = self.config, self.optimizers["actor_adam"], self.fast
        if fast is not None and fast.draws is not None:
            with torch.no_grad():
                action, log_prob = fast.draws(batch.x, batch.noise)
                q, slope = fast.critic.least(batch.x, action)
                fast.draws.back(slope / -len(q), alpha / len(q))
                if not math.isfinite(loss := actor_loss(log_prob, q, alpha).item()):
                    raise FloatingPointError(f"a loss of {loss}")
                return loss, adam.step_in_place(c.max_grad_norm), q.mean().item(), log_prob
        policy, critic = (self.policy, self.critic) if fast is None else (fast.policy, fast.critic)
        action, log_prob = drawn(policy, batch.x, batch.noise)
        q = critic.smallest(batch.x, action)
        term = actor_loss(log_prob, q, alpha)
        norm = descend(term, adam, c.max_grad_norm)
        return term.item(), norm, q.mean().item(), log_prob.detach()

    def _refuse(self, batch: Batch) -> None:
        target, log_alpha = self.target.network, self.log_alpha.value

        def between() -> dict[str, Tensor]:
            y = critic_target(self.policy, target, batch, math.exp(log_alpha.item()))
            return {"log_prob": drawn(self.policy, batch.x, batch.noise)[1], "target": y}

        guard.examine(
            self,
            batch._asdict(),
            between,
            lambda _: losses(self.policy, self.critic, target, log_alpha, batch, self.target_entropy),
            update=self.past.updates,
        )

    def numbers(self) -> dict[str, Any]:
        return {**self.past.numbers(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.past.load_numbers(numbers)
        self.skipped = int(numbers["skipped"])
