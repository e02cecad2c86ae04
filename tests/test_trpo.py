"""The natural step beside what can be solved: dense matrices in float64, a Gaussian's own Fisher matrix, a bandit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.distributions import kl_divergence

from covary.advantages import estimate
from covary.agent import Agent, CriticConfig
from covary.algorithms import trpo
from covary.distributions import BoxNormal, latent_kl
from covary.errors import UsageError
from covary.heads import PolicyConfig
from covary.natural import climb, conjugate_gradient
from covary.optim import Adam
from covary.policies import divergence
from covary.types import Rollout

SUN = Box(np.array([0, 0], np.float32), np.array([2 * np.pi, 1.5], np.float32))
POLICIES = {
    "choices": (Discrete(4), {}),
    "diagonal": (Box(-1, 2, (2,)), {}),
    "full": (Box(-1, 2, (3,)), {"covariance": "full"}),
    "full state": (Box(-1, 2, (2,)), {"covariance": "full", "state_dependent": True}),
    "wrap": (SUN, {"covariance": "full", "periodic": (0,)}),
    "two angles": (SUN, {"periodic": (0, 1)}),
    "clip": (Box(-1, 2, (2,)), {"bounds": "clip"}),
    "beta and an angle": (SUN, {"bounds": ("auto", "beta"), "periodic": (0,)}),
    "beta and clip": (Box(-1, 2, (2,)), {"bounds": ("beta", "clip")}),
    "free": (Box(-np.inf, np.inf, (2,)), {"covariance": "full"}),
}


def agent_of(case, **options):
    space, policy = POLICIES[case]
    usual = {"n_envs": 4, "horizon": 64, "scale_rewards": False}
    return Agent(
        "trpo",
        Box(-np.inf, np.inf, (3,)),
        space,
        config=trpo.Config(**usual | options),
        policy=PolicyConfig(hidden=(4,), normalize_obs=False, **policy),
        critic=CriticConfig(hidden=(4,)),
        seed=1,
    )


def rollout_of(agent, seed=0):
    t, n, rng = agent.learner.horizon, agent.config.n_envs, np.random.default_rng(seed)
    obs, next_obs = rng.standard_normal((2, t, n, 3)).astype(np.float32)
    latent = np.stack([agent.sample(obs[i], agent.noise(n))[0] for i in range(t)])
    ones, reward = np.ones((t, n), np.float32), rng.standard_normal((t, n)).astype(np.float32)
    return Rollout(*map(torch.from_numpy, (obs, latent, reward, 0.9 * ones, ones, ones.copy(), next_obs)))


def test_conjugate_gradients_solve_what_a_dense_solver_solves():
    torch.manual_seed(0)
    root = torch.randn(30, 30, dtype=torch.float64)
    matrix, b = root @ root.T + 0.1 * torch.eye(30), torch.randn(30, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, b)
    found = conjugate_gradient(lambda v: matrix @ v, b, 200)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
    few = conjugate_gradient(lambda v: matrix @ v, b, 3)
    assert (few - exact) @ matrix @ (few - exact) < exact @ matrix @ exact, "nearer with every step, in this norm"
    assert not conjugate_gradient(lambda v: matrix @ v, torch.zeros(30, dtype=torch.float64), 5).any()


class Mean(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(size, dtype=torch.float64))


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_on_a_quadratic_the_step_is_the_one_of_a_dense_solve(damping):
    """A linear loss g^T m and KL (m - m_0)^T F (m - m_0) / 2, which are what they are approximated by."""
    torch.manual_seed(0)
    root, g = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    fisher, radius = root @ root.T + torch.eye(5), 0.03
    module = Mean(5)
    optimizer = Adam([module], 1.0)

    def terms():
        return g @ module.mean, 0.5 * module.mean @ fisher @ module.mean

    done = climb(terms, optimizer, 0, radius, damping=damping, iterations=50)
    direction = torch.linalg.solve(fisher + damping * torch.eye(5, dtype=torch.float64), g)
    wanted = -math.sqrt(2 * radius / (direction @ fisher @ direction)) * direction
    share = 1.0 if done.share == 1.0 else 0.7  # round-off alone may put the whole step beyond the radius
    torch.testing.assert_close(optimizer.vector, share * wanted, rtol=1e-6, atol=1e-9)
    assert done.kl == pytest.approx(share**2 * radius, rel=1e-6)
    assert done.loss == pytest.approx(float(g @ optimizer.vector))
    assert done.norm == pytest.approx(float(g.norm()))


def flat(of, parameters, **options):
    slopes = torch.autograd.grad(of, parameters, allow_unused=True, materialize_grads=True, **options)
    return torch.cat([slope.reshape(-1) for slope in slopes])


@pytest.mark.parametrize("case", POLICIES)
def test_the_direction_is_that_of_a_dense_fisher_matrix(case):
    """In float64: F as the Hessian of the mean KL, row by row; its eigenvalues are no less than 0."""
    agent = agent_of(case)
    policy = agent.policy.double()
    rollout = rollout_of(agent_of(case))
    x, latent = rollout.obs.flatten(0, 1).double(), rollout.latent.flatten(0, 1)
    latent = latent.double() if latent.is_floating_point() else latent
    advantage = torch.randn(len(x), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old = policy.density(x)
        log_prob = old.log_prob_latent(latent, jacobian=False)
    batch = trpo.Batch(x, latent, log_prob, advantage, advantage)
    parameters = [p for p in policy.parameters() if p.numel()]
    gradient = flat(trpo.surrogate(policy, batch), parameters)
    slope = flat(divergence(old, policy.density(x)).mean(), parameters, create_graph=True)
    assert slope.detach().abs().max() < 1e-12, "the KL is least where it begins"
    rows = [flat(each, parameters, retain_graph=True) for each in slope]
    fisher = torch.stack(rows)
    torch.testing.assert_close(fisher, fisher.T, rtol=1e-8, atol=1e-10)
    assert torch.linalg.eigvalsh(fisher).min() > -1e-10
    damped = fisher + 1e-3 * torch.eye(len(fisher), dtype=torch.float64)
    exact = torch.linalg.solve(damped, gradient)
    product = lambda v: flat(slope @ v, parameters, retain_graph=True) + 1e-3 * v  # noqa: E731
    found = conjugate_gradient(product, gradient, 500)  # which ends at a residual of a millionth
    assert (found - exact).norm() < 1e-3 * exact.norm()


def exact_or_latent(p, q):
    """KL of densities whose parts are independent, that of the latents where a part has angles or is clipped."""
    if hasattr(p, "parts"):
        return sum(exact_or_latent(a, b) for a, b in zip(p.parts, q.parts, strict=True))
    latents = isinstance(p, BoxNormal) and p.geometry.columns("wrap", "clip")
    return (latent_kl if latents else kl_divergence)(p, q)


@pytest.mark.parametrize("case", POLICIES)
def test_the_kl_of_a_step_is_within_its_bound_and_near_it(case):
    agent = agent_of(case, target_kl=0.01)
    rollout = rollout_of(agent)
    made = estimate(agent.learner, rollout)
    with torch.no_grad():
        old = agent.policy.density(made.x)
    before = trpo.surrogate(agent.policy, trpo.Batch(*made[:5])).detach()
    line = agent.learner.update(rollout, 0.0)
    new = agent.policy.density(made.x)
    kl = float(exact_or_latent(old, new).mean().detach())
    assert kl == pytest.approx(line["kl"], rel=1e-3)
    assert 0.35 * 0.01 < kl <= 0.01 * (1 + 1e-6)
    assert line["step_share"] in [pytest.approx(0.7**k) for k in range(4)]
    assert trpo.surrogate(agent.policy, trpo.Batch(*made[:5])) < before


def test_the_radius_goes_with_the_square_of_the_scale():
    """A run that is rolled back takes half the step."""
    kept = []
    for scale in (1.0, 0.5):
        agent = agent_of("free")
        agent.learner.optimizer.scale = scale
        kept.append(agent.learner.update(rollout_of(agent), 0.0))
    assert kept[1]["kl"] <= 0.01 / 4
    assert kept[1]["kl"] > 0.3 * 0.01 / 4


def test_a_step_that_nothing_allows_is_not_taken():
    module = Mean(2)
    optimizer = Adam([module], 1.0)
    calls = []

    def terms():  # falls nowhere but where it begins
        calls.append(1)
        return module.mean.sum() + (1.0 if len(calls) > 1 else 0.0), 0.5 * module.mean.square().sum()

    done = climb(terms, optimizer, 0, 0.01, trials=4)
    assert (done.share, done.kl, len(calls)) == (0.0, 0.0, 5)
    assert not optimizer.vector.any()
    flatland = climb(lambda: (0 * module.mean.sum(), module.mean.square().sum()), optimizer, 0, 0.01)
    assert (flatland.share, flatland.norm) == (0.0, 0.0)
    with pytest.raises(FloatingPointError):
        climb(lambda: (module.mean.sum() * math.nan, module.mean.square().sum()), optimizer, 0, 0.01)
    assert not optimizer.vector.any()


def test_the_critics_steps_leave_the_policy_alone():
    agent = agent_of("diagonal", target_kl=1e-12, trials=1)
    before = agent.learner.optimizer.vector.clone()
    agent.learner._fit(trpo.Batch(*estimate(agent.learner, rollout_of(agent))[:5]))
    end = agent.learner.optimizer.segments[0]
    assert torch.equal(agent.learner.optimizer.vector[:end], before[:end])
    assert not torch.equal(agent.learner.optimizer.vector[end:], before[end:])


def test_a_gaussian_bandit_is_solved():
    """Reward -(a - 0.7)^2 for whatever is seen: the mean goes there, in steps that the KL bounds."""
    agent = agent_of("free", target_kl=0.05, gamma=0.0)
    for seed in range(60):
        rollout = rollout_of(agent, seed)
        reward = -(rollout.latent - 0.7).square().sum(-1)
        agent.learner.update(rollout._replace(reward=reward, discount=0 * reward, lam=0 * reward), 0.0)
    with torch.no_grad():
        median = agent.policy(torch.randn(200, 3)).median
    assert (median - 0.7).abs().mean() < 0.15


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lam": -0.2}, r"lam must lie in \[0, 1\]"),
        ({"gamma": 1.1}, r"gamma must lie in \[0, 1\]"),
        ({"target_kl": 0.0}, "target_kl must be a positive number"),
        ({"damping": -1.0}, "damping must be a number, 0 or above"),
        ({"cg_iterations": 0}, "cg_iterations must be a positive whole number"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_told(options, said):
    with pytest.raises(UsageError, match=said):
        trpo.Config(**options)
