"""Maximum a posteriori policy optimisation (Abdolmaleki et al. 2018, arXiv:1806.06920 and arXiv:1812.02256).

    repeat
        act by the policy for T steps in N environments; keep what happened in a ring
        for as many updates as there were steps, each on a batch out of the ring
            a_1 ... a_S ~ pi_old(.|s')                                             S actions of the target policy
            q_i <- min_k Qbar_k(s', a_i)
            y <- r + discount mean_i q_i
            descend  sum_k (Q_k(s, a) - y)^2 / 2                                   policy evaluation
            w_i <- softmax_i(q_i / eta)                                            E-step, 1806.06920 eq. 8
            descend  eta eps + eta mean_s log mean_i exp(q_i / eta), in eta        its dual, eq. 9
            descend  - mean_s sum_i w_i [log pi(a_i; mu, Sigma_old) + log pi(a_i; mu_old, Sigma)]
                     + alpha_mu KL_mu + alpha_Sigma KL_Sigma, in the policy        M-step, 1812.02256 sec. 4.2
            descend  alpha (eps - KL), in alpha, for the mean and for the covariance
            theta-bar <- theta-bar + tau (theta - theta-bar);  now and then pi_old <- pi

    KL_mu = KL(N(mu_old, Sigma_old) || N(mu, Sigma_old)),  KL_Sigma = KL(N(mu_old, Sigma_old) || N(mu_old, Sigma))

Where we differ, and why:

1. The target is that of one step, in place of Retrace (1806.06920 sec. 4): S actions make its expectation nearly exact,
   it needs no trajectories and no probabilities of the past, and it reaches the numbers.
2. The policy improves at s', where the target needs S actions and their values anyway, as in the authors' own code
   (Acme); that halves the work. Values where the world stopped are never learned, and nobody acts there.
3. The smallest of K critics counts; the papers have one.
4. The likelihood is that of the exact density on the action space, wrapped dimensions included, at latents that are
   kept. The KL is that of the latent Gaussians: exact, but for wrapped dimensions, where it is an upper bound, so that
   the policy moves less than its bounds allow and never more.
5. eta and both alphas move by their logarithms, each along the slope in itself: its step is a share of it, however
   small it has become. The critics' targets follow at every update; only the target policy is copied.
6. Rewards are divided by the running deviation of the discounted return, and observations are standardised, both by
   the statistics at the time of the update: what is kept is raw.
7. A truncated episode bootstraps from its true last observation (Pardo 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary import guard
from covary.distributions import BoxNormal, latent_kl
from covary.errors import UsageError, check_fields
from covary.nets import QValues, Scalar
from covary.optim import Adam, Target, descend
from covary.past import Past, check_past, means
from covary.policies import Density, Policy
from covary.types import Rollout

DEFAULTS = {
    "policy.covariance": "full",
    "policy.state_dependent": True,
    "policy.hidden": (128, 128),
    "policy.activation": "relu",
    "critic.hidden": (128, 128),
    "critic.activation": "relu",
}
"""What policy and critic are made of where the user leaves it open."""


@dataclass(frozen=True)
class Config:
    """Settings of MPO. What is said to be Acme's is the default of the authors' own code."""

    n_envs: int = 1
    """environments stepped together (N)"""
    horizon: int = 1
    """steps of each between updates (T)"""
    updates: float = 1.0
    """updates for each transition"""
    batch: int = 128
    """transitions in an update (B). Acme: 256"""
    samples: int = 16
    """actions of the target policy for each of them (S). Acme: 20"""
    learning_starts: int = 500
    """transitions before the first update. Acme: 1000"""
    actor_lr: float = 3e-4
    """learning rate of the policy's Adam. Acme: 1e-4"""
    critic_lr: float = 1e-3
    """learning rate of the critics' Adam. Acme: 1e-4"""
    dual_lr: float = 1e-2
    """learning rate of Adam for the logarithms of temperature and multipliers. Acme: 1e-2"""
    gamma: float = 0.99
    """discount"""
    tau: float = 0.005
    """how far the target critics follow at each update. Acme copies them every 100"""
    policy_period: int = 100
    """updates between copies of the policy into the target policy. Acme: 100"""
    critics: int = 2
    """K, of which the smallest value counts. The papers: 1"""
    epsilon: float = 0.1
    """bound on the KL between the weighted actions and the target policy, in nats. 1806.06920: 0.1"""
    epsilon_mean: float = 0.01
    """bound on KL_mu, in nats"""
    epsilon_covariance: float = 0.001
    """bound on KL_Sigma, in nats; decides how soon the policy narrows"""
    temperature: float = 1.0
    """eta at the start; of rewards that are scaled to returns of order one"""
    mean_multiplier: float = 1.0
    """alpha_mu at the start"""
    covariance_multiplier: float = 10.0
    """alpha_Sigma at the start"""
    max_grad_norm: float = 10.0
    """bound on each network's gradient norm; 0 for none. Acme: 40"""
    scale_rewards: bool = True
    """whether rewards are divided by the running deviation of the discounted return"""
    replay_size: int = 1_000_000
    """transitions that are kept. Acme: 10^6"""
    replay_folder: str | None = None
    """where a file keeps them in place of memory"""
    priority: float = 0.0
    """alpha of prioritised replay; 0: all are drawn alike. Schaul 2016: 0.6"""
    priority_beta: float = 0.4
    """how far the bias of priorities is corrected at the start; wholly at the end. Schaul 2016: 0.4"""

    def __post_init__(self) -> None:
        check_past(self)
        check_fields(
            self,
            sizes=("horizon", "policy_period", "critics"),
            positive=(
                *("actor_lr", "critic_lr", "dual_lr", "temperature", "mean_multiplier"),
                *("covariance_multiplier", "epsilon", "epsilon_mean", "epsilon_covariance"),
            ),
            shares=("tau",),
            floors=("max_grad_norm",),
        )
        if not (isinstance(self.samples, int) and self.samples > 1):
            raise UsageError(
                "samples must be a whole number above 1: the actions of one state are weighed against each other.",
                given=self.samples,
                fix="16",
            )
        if self.epsilon >= (most := math.log(self.samples)):
            raise UsageError(
                "epsilon must be below the KL of putting all weight on one of the sampled actions.",
                given=f"epsilon {self.epsilon:g}; {self.samples} actions allow log {self.samples} = {most:.3g} nats",
                fix="epsilon 0.1",
            )


class Batch(NamedTuple):
    """B transitions, observations normalised and rewards scaled, and the noise of S actions at each of their ends."""

    x: Tensor  # (B, O)
    latent: Tensor  # (B, D)
    reward: Tensor  # (B,)
    discount: Tensor  # (B,)
    next_x: Tensor  # (B, O)
    weight: Tensor  # (B,)
    noise: Tensor  # (S, B, D)


class Losses(NamedTuple):
    critic: Tensor
    actor: Tensor
    temperature: Tensor
    mean_multiplier: Tensor
    covariance_multiplier: Tensor


class Densities(Protocol):
    """A policy, or what computes the same."""

    head: Any

    def density(self, x: Tensor) -> Density: ...


class Values(Protocol):
    """QValues, or what computes the same."""

    def __call__(self, x: Tensor, action: Tensor, /) -> Tensor: ...
    def smallest(self, x: Tensor, action: Tensor) -> Tensor: ...


class Drawn(NamedTuple):
    """S actions of the target policy at each of B observations, and what they are worth."""

    old: BoxNormal  # (B,)
    latent: Tensor  # (S, B, D)
    q: Tensor  # (S, B)


class Duals(NamedTuple):
    """Logarithms of the three numbers that hold the three KLs to their bounds."""

    temperature: Tensor
    mean_multiplier: Tensor
    covariance_multiplier: Tensor


ROUTES = {
    "critic": ("critic",),
    "actor": ("policy",),
    "temperature": ("temperature",),
    "mean_multiplier": ("mean_multiplier",),
    "covariance_multiplier": ("covariance_multiplier",),
}
"""Which networks each loss moves."""
LOGGED = (
    *("critic_loss", "actor_loss", "q", "temperature", "kl_weights", "kl_mean", "kl_covariance"),
    *("mean_multiplier", "covariance_multiplier", "critic_grad_norm", "actor_grad_norm"),
)
"""What an update tells."""
LEAST, MOST = (1e-6, 0.1, 0.1), (1e6, 100.0, 100.0)
"""Beyond which temperature and multipliers do not go, since the way back would take too long. The likelihood's
curvature is that of a KL with a multiplier of 1: 0.1 hardly holds the policy back, and 100 holds it still but for the
noise of Adam's steps, which no multiplier can take away where a density is as narrow as one of them."""


@torch.no_grad()
def draw(old: Densities, target: Values, x: Tensor, noise: Tensor) -> Drawn:
    """x: (B, O), noise: (S, B, D)."""
    density = old.density(x)
    assert isinstance(density, BoxNormal)
    latent = density.sample_latent(noise.shape[:1], noise=noise)
    seen = old.head.coordinates(latent).flatten(0, 1)
    q = target.smallest(x.repeat(len(noise), 1), seen)
    return Drawn(density, latent, q.view(noise.shape[:2]))


def critic_loss(q: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """q: (K, B), y and weight: (B,)."""
    return 0.5 * (weight * (q - y).square()).mean(-1).sum()


def critic_target(reward: Tensor, discount: Tensor, q: Tensor) -> Tensor:
    """reward, discount: (B,), q: (S, B) at the next observations. -> y (B,)"""
    return reward + discount * q.mean(0)


def weights(q: Tensor, temperature: float) -> Tensor:
    """(S, B) -> (S, B), of sum 1 over the actions of each observation."""
    return torch.softmax(q / temperature, 0)  # 1806.06920 eq. 8


def kl_of_weights(weight: Tensor) -> Tensor:
    """Mean KL in nats between weights (S, B) and the samples' own, 1 / S each."""
    return torch.special.xlogy(weight, weight * len(weight)).sum(0).mean()


def temperature_loss(log_temperature: Tensor, q: Tensor, epsilon: float) -> Tensor:
    """g(eta) / eta, that divisor held: its slope in log eta is g'(eta), which is epsilon less the KL of the weights.
    q: (S, B)."""
    eta = log_temperature.exp()
    log_mean = torch.logsumexp(q / eta, 0) - math.log(len(q))
    return eta * (epsilon + log_mean.mean()) / eta.detach()  # 1806.06920 eq. 9


def halves(old: BoxNormal, new: BoxNormal) -> tuple[BoxNormal, BoxNormal]:
    """The new mean under the old covariance, and the new covariance around the old mean (1812.02256 sec. 4.2)."""
    return old.around(new.loc), new.around(old.loc)


def kls(old: BoxNormal, new: BoxNormal) -> tuple[Tensor, Tensor]:
    """Mean KL_mu and KL_Sigma in nats."""
    moved, reshaped = halves(old, new)
    return latent_kl(old, moved).mean(), latent_kl(old, reshaped).mean()


def likelihood(drawn: Drawn, new: BoxNormal, weight: Tensor) -> Tensor:
    """Mean over the observations of sum_i w_i log pi(a_i), of both halves; without the slopes of the box, which the
    policy does not move. weight: (S, B)."""
    moved, reshaped = halves(drawn.old, new)
    latent = drawn.latent
    log_prob = moved.log_prob_latent(latent, jacobian=False) + reshaped.log_prob_latent(latent, jacobian=False)
    return (weight * log_prob).sum(0).mean()


def actor_loss(likelihood: Tensor, kl: tuple[Tensor, Tensor], multiplier: tuple[float, float]) -> Tensor:
    """kl, multiplier: of the mean and of the covariance."""
    return multiplier[0] * kl[0] + multiplier[1] * kl[1] - likelihood  # 1812.02256 sec. 4.2


def multiplier_loss(log_multiplier: Tensor, kl: Tensor, epsilon: float) -> Tensor:
    """Its slope is by how much the KL stays below its bound."""
    return log_multiplier * (epsilon - kl.detach())


def losses(
    policy: Densities, critic: Values, old: Densities, target: Values, duals: Duals, batch: Batch, config: Config
) -> Losses:
    """The five terms at once, as a look at them needs it; an update computes one after the other."""
    drawn = draw(old, target, batch.next_x, batch.noise)
    y = critic_target(batch.reward, batch.discount, drawn.q)
    new = policy.density(batch.next_x)
    assert isinstance(new, BoxNormal)
    kl = kls(drawn.old, new)
    weight = weights(drawn.q, math.exp(duals.temperature.item()))
    multiplier = (math.exp(duals.mean_multiplier.item()), math.exp(duals.covariance_multiplier.item()))
    return Losses(
        critic_loss(critic(batch.x, policy.head.coordinates(batch.latent)), y, batch.weight),
        actor_loss(likelihood(drawn, new, weight), kl, multiplier),
        temperature_loss(duals.temperature, drawn.q, config.epsilon),
        multiplier_loss(duals.mean_multiplier, kl[0], config.epsilon_mean),
        multiplier_loss(duals.covariance_multiplier, kl[1], config.epsilon_covariance),
    )


def check(policy: Policy) -> None:
    """Raises UsageError for a policy that this algorithm cannot use."""
    geometry: Any = policy.head.geometry
    if clipped := geometry.columns("clip"):
        raise UsageError(
            "mpo needs a density whose KL is that of its latent; a clipped one has point masses.",
            given=f"policy.bounds clip in dimensions {clipped}",
            fix="policy.bounds squash; or --algo ppo, which scores such a density exactly",
        )
    if policy.head.fixed:
        raise UsageError(
            "mpo learns the covariance, from the actions that turned out well.",
            given="policy.covariance fixed",
            fix="policy.covariance full or diagonal; or --algo td3, whose covariance is fixed",
        )


class Learner:
    """The networks, their optimizers and what is remembered between updates."""

    online = False
    judges_actions = True
    needs_gaussian = True

    def __init__(self, policy: Policy, critic: QValues, config: Config, generator: torch.Generator) -> None:
        check(policy)
        self.policy, self.critic, self.config, self.generator = policy, critic, config, generator
        self.horizon, self.device = config.horizon, next(critic.parameters()).device
        starts = (config.temperature, config.mean_multiplier, config.covariance_multiplier)
        scalars = [Scalar(math.log(start)).to(self.device) for start in starts]
        self.duals = Duals(*(scalar.value for scalar in scalars))
        self.optimizer = Adam([critic], config.critic_lr)
        self.optimizers = {
            "critic_adam": self.optimizer,
            "actor_adam": Adam([policy], config.actor_lr),
            "dual_adam": Adam(scalars, config.dual_lr),
        }
        self.target = Target(critic, self.optimizer)
        self.target_policy = Target(policy, self.optimizers["actor_adam"])
        self.networks: dict[str, nn.Module] = {
            "critic": critic,
            "target": self.target.network,
            "target_policy": self.target_policy.network,
            **dict(zip(Duals._fields, scalars, strict=True)),
        }
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
        for number in self.past.each_due(rollout):
            if (one := self._learn(*self._batch(progress))) is not None:
                seen.append(one)
            if number % self.config.policy_period == 0:
                self.target_policy.follow(1.0)
        return means(LOGGED, seen)

    def _batch(self, progress: float) -> tuple[Batch, Any]:
        """And where it lies in the ring."""
        c = self.config
        steps, places = self.past.sample(progress, self.generator, self.device)
        noise = self.policy.head.noise((c.samples, c.batch), self.generator).to(self.device)
        return Batch(*steps, noise), places

    def _learn(self, batch: Batch, places: Any) -> tuple[float, ...] | None:
        """One update; None where a number was not finite and such updates are left out."""
        old: Densities = self.target_policy.network if self.fast is None else self.fast.target_policy
        target: Values = self.target.network if self.fast is None else self.fast.target
        try:
            drawn = draw(old, target, batch.next_x, batch.noise)
            of_critic, critic_norm, error = self._evaluate(batch, drawn)
            of_actor, actor_norm, told = self._improve(batch, drawn)
        except FloatingPointError:
            self._refuse(batch)
            return None
        self.target.follow(self.config.tau)
        self.memory.prioritise(places, error)
        return of_critic, of_actor, drawn.q.mean().item(), *told, float(critic_norm), float(actor_norm)

    def _evaluate(self, batch: Batch, drawn: Drawn) -> tuple[float, Tensor, Tensor]:
        """A step of the critics: their loss, its gradient's norm, and the mean size of the errors (B,)."""
        c, seen = self.config, self.policy.head.coordinates(batch.latent)
        y = critic_target(batch.reward, batch.discount, drawn.q)
        if self.fast is not None:
            with torch.no_grad():
                loss, error = self.fast.critic.fit(batch.x, seen, y, batch.weight)
                return loss, self.optimizer.step_in_place(c.max_grad_norm), error
        q = self.critic(batch.x, seen)
        term = critic_loss(q, y, batch.weight)
        norm = descend(term, self.optimizer, c.max_grad_norm)
        return term.item(), norm, (q.detach() - y).abs().mean(0)

    def _improve(self, batch: Batch, drawn: Drawn) -> tuple[float, Tensor, tuple[float, ...]]:
        """A step of the policy and one of the duals: its loss, its gradient's norm; temperature, KLs, multipliers."""
        c, policy = self.config, self.policy if self.fast is None else self.fast.policy
        eta, *multipliers = (math.exp(dual.item()) for dual in self.duals)
        weight = weights(drawn.q, eta)
        new = policy.density(batch.next_x)
        assert isinstance(new, BoxNormal)
        of_policy = kls(drawn.old, new)
        term = actor_loss(likelihood(drawn, new, weight), of_policy, (multipliers[0], multipliers[1]))
        norm = descend(term, self.optimizers["actor_adam"], c.max_grad_norm)
        of_each = (kl_of_weights(weight).item(), of_policy[0].item(), of_policy[1].item())
        bounds = (c.epsilon, c.epsilon_mean, c.epsilon_covariance)
        slopes = [
            bound - kl if (x < most if kl > bound else x > least) else 0.0
            for x, bound, kl, least, most in zip((eta, *multipliers), bounds, of_each, LEAST, MOST, strict=True)
        ]
        self.optimizers["dual_adam"].step(torch.tensor(slopes, device=self.device).unbind(), 0.0)
        return term.item(), norm, (eta, *of_each, *multipliers)

    def _refuse(self, batch: Batch) -> None:
        old, target = self.target_policy.network, self.target.network

        def between() -> dict[str, Tensor]:
            drawn = draw(old, target, batch.next_x, batch.noise)
            return {"q": drawn.q, "target": critic_target(batch.reward, batch.discount, drawn.q)}

        guard.examine(
            self,
            batch._asdict(),
            between,
            lambda _: losses(self.policy, self.critic, old, target, self.duals, batch, self.config),
            update=self.past.updates,
        )

    def numbers(self) -> dict[str, Any]:
        return {**self.past.numbers(), "skipped": self.skipped}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        self.past.load_numbers(numbers)
        self.skipped = int(numbers["skipped"])
