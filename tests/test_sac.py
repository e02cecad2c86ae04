"""Soft actor-critic: its losses against other people's densities and known optima, and what it refuses."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import distributions as others

import covary
from covary import UsageError
from covary.agent import Agent
from covary.algorithms import sac
from covary.fast import attach
from covary.heads import PolicyConfig
from covary.types import Rollout

OBS = Box(-np.inf, np.inf, (3,), np.float32)
SQUARE = Box(np.float32([-1, 0]), np.float32([1, 5]))
LINE = Box(-np.inf, np.inf, (1,), np.float32)
SMALL = {"hidden": (16, 16), "activation": "relu"}


def agent_of(space=SQUARE, *, policy=None, **config):
    options = {"state_dependent": True, **SMALL, **(policy or {})}
    return Agent("sac", OBS, space, config=sac.Config(batch=32, **config), policy=PolicyConfig(**options))


def past_of(agent, t=200, seed=0, **given):
    """What t steps of one environment may have been."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    d = agent.policy.head.geometry.dim
    parts = {"obs": normal(t, 1, 3), "latent": normal(t, 1, d), "reward": normal(t, 1), "next_obs": normal(t, 1, 3)}
    ones = torch.ones(t, 1)
    return Rollout(**{"discount": 0.9 * ones, "lam": ones, "valid": ones, **parts, **given})


# ----------------------------------------------------------------------------------------------- the equations


def test_the_terms_are_those_of_torch_distributions():
    """Equations 3, 5, 7 and 18 with a squashed density put together from torch's own, in the action's units."""
    agent = agent_of()
    learner = agent.learner
    learner.memory.add(past_of(agent))
    batch, _ = learner._batch(0.4)
    low, width = torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 5.0])

    def density(x):
        inner = agent.policy.density(x)
        maps = [others.SigmoidTransform(), others.AffineTransform(low, width)]
        normal = others.Normal(inner.loc, inner.scale)
        return normal, others.Independent(others.TransformedDistribution(normal, maps), 1)

    def q(network, x, action):
        """The critics see [-1, 1] for the box."""
        return network(x, 2 * (action - low) / width - 1)

    alpha, target_entropy = 0.1, -2 + math.log(1.0) + math.log(2.5)
    assert learner.target_entropy == pytest.approx(target_entropy)
    assert math.exp(learner.log_alpha.value.item()) == pytest.approx(alpha)
    with torch.no_grad():
        normal, law = density(batch.next_x)
        action = low + width * torch.sigmoid(normal.loc + normal.scale * batch.next_noise)
        value = q(learner.target.network, batch.next_x, action).min(0).values
        y = batch.reward + batch.discount * (value - alpha * law.log_prob(action))
    found = sac.critic_target(agent.policy, learner.target.network, batch, alpha)
    torch.testing.assert_close(found, y, rtol=1e-4, atol=1e-4)
    terms = sac.losses(
        agent.policy, agent.learner.critic, learner.target.network, learner.log_alpha.value, batch, target_entropy
    )
    taken = low + width * torch.sigmoid(batch.latent)
    of_critic = sum(((each - y) ** 2).mean() / 2 for each in q(learner.critic, batch.x, taken))
    torch.testing.assert_close(terms.critic, of_critic, rtol=1e-4, atol=1e-4)
    normal, law = density(batch.x)
    action = low + width * torch.sigmoid(normal.loc + normal.scale * batch.noise)
    log_prob = law.log_prob(action)
    of_actor = (alpha * log_prob - q(learner.critic, batch.x, action).min(0).values).mean()
    torch.testing.assert_close(terms.actor, of_actor, rtol=1e-4, atol=1e-4)
    mine, its = (torch.autograd.grad(loss, agent.policy.head.out.weight)[0] for loss in (terms.actor, of_actor))
    torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)
    entropy = -log_prob.mean().item()
    slope = torch.autograd.grad(terms.temperature, learner.log_alpha.value)[0]
    assert slope.item() == pytest.approx(entropy - target_entropy, abs=1e-4)


def test_where_the_world_stopped_there_is_nothing_to_come():
    agent = agent_of()
    agent.learner.memory.add(past_of(agent, discount=torch.zeros(200, 1)))
    batch, _ = agent.learner._batch(0.4)
    y = sac.critic_target(agent.policy, agent.learner.target.network, batch, 0.7)
    assert torch.equal(y, batch.reward)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_the_policy_goes_to_the_known_optimum(alpha):
    """Of Q = -(a - 2)^2 it is exp(Q / alpha): a normal law about 2 of variance alpha / 2."""
    agent = agent_of(LINE, policy={"state_dependent": False, "hidden": ()})
    adam, x = agent.learner.optimizers["actor_adam"], torch.zeros(64, 3)
    generator = torch.Generator().manual_seed(0)
    adam.rates[:] = [0.01]
    adam.rate.fill_(0.01)
    for k in range(3000):
        adam.share = 1 - k / 3000
        action, log_prob = sac.drawn(agent.policy, x, torch.randn(64, 1, generator=generator))
        q = -(action[:, 0] - 2).square()
        sac.descend(sac.actor_loss(log_prob, q, alpha), adam)
    density = agent.policy.density(x[:1])
    assert density.loc.item() == pytest.approx(2, abs=0.05)
    assert density.scale.item() == pytest.approx(math.sqrt(alpha / 2), rel=0.08)


@pytest.mark.parametrize("fast", [True, False])
def test_a_step_moves_what_it_should_and_nothing_else(fast):
    agent = agent_of()
    if fast:
        assert attach(agent) is None
    learner = agent.learner
    learner.memory.add(past_of(agent))

    def snapshot():
        return {name: x.copy() for name, x in agent.state()[0].items()}

    def moved(before):
        now = snapshot()
        names = {name.split(".")[0] for name in now if not np.array_equal(before[name], now[name])}
        return names & {"policy", "critic", "target", "temperature"}

    batch, _ = learner._batch(0.4)
    before = snapshot()
    learner._evaluate(batch, 0.1)
    assert moved(before) == {"critic"}
    before = snapshot()
    learner._improve(batch, 0.1)
    assert moved(before) == {"policy"}
    before = snapshot()
    learner._learn(*learner._batch(0.4))
    assert moved(before) == {"policy", "critic", "target", "temperature"}
    for name, now in snapshot().items():
        if name.startswith("target."):
            was, its = before[name], snapshot()["critic" + name.removeprefix("target")]
            assert np.allclose(now, was + 0.005 * (its - was), atol=1e-6)


class Bandit(gymnasium.Env):
    """One step; the best action is (0.5, 4)."""

    observation_space, action_space = OBS, SQUARE

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        reward = -float(((action - np.array([0.5, 4.0])) ** 2 / np.array([1.0, 6.25])).sum())
        return np.zeros(3, np.float32), reward, True, False, {}


@pytest.mark.parametrize(
    "policy",
    [
        {"covariance": "full"},
        {},
        {"periodic": (1,)},
        {"state_dependent": False, "bounds": "mean"},
        {"bounds": "beta"},
    ],
    ids=str,
)
@pytest.mark.slow
def test_it_finds_the_best_action_and_keeps_the_entropy_it_should(policy, tmp_path):
    agent = covary.train(
        Bandit, "sac", 2500, out=tmp_path / "run", quiet=True, policy={**SMALL, **policy}, critic={"hidden": (32, 32)},
        learning_rate=3e-3, batch=64, learning_starts=100, target_entropy=-0.5, temperature=0.1,
    )  # fmt: skip
    found = agent.act(np.zeros(3, np.float32), deterministic=True)
    assert np.abs(found - [0.5, 4.0]).max() < 0.35
    density = agent.policy(torch.zeros(4000, 3))
    _, log_prob = density.sample_and_log_prob()
    assert -log_prob.mean().item() == pytest.approx(-0.5, abs=0.35)
    lines = list(covary.runs.Run.open(tmp_path / "run").lines())
    assert {"q", "temperature", "critic_loss", "actor_loss", "critic_grad_norm", "actor_grad_norm"} <= set(lines[-1])


# -------------------------------------------------------------------------------------------------- how much


@pytest.mark.parametrize(("updates", "horizon", "n", "wanted"), [(1.0, 1, 1, 200), (0.5, 3, 2, 99), (2.5, 1, 1, 500)])
def test_there_are_as_many_updates_as_were_asked_for(updates, horizon, n, wanted, tmp_path):
    agent = covary.train(
        Bandit, "sac", 200 if n == 1 else 198, out=tmp_path / "run", quiet=True, updates=updates, horizon=horizon,
        n_envs=n, batch=8, learning_starts=0, policy=SMALL, critic=SMALL, vectorization="sync",
    )  # fmt: skip
    assert agent.learner.past.updates == agent.learner.optimizer.steps == wanted


def test_nothing_is_learned_before_it_starts(tmp_path):
    options = {"out": tmp_path / "run", "quiet": True, "policy": SMALL, "critic": SMALL, "batch": 8}
    agent = covary.train(Bandit, "sac", 50, learning_starts=60, **options)
    assert agent.learner.optimizer.steps == 0
    assert len(agent.learner.memory) == 50


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("space", "options", "words"),
    [
        (Discrete(3), {}, ["numbers", "Discrete(3)", "--algo ppo"]),
        (SQUARE, {"policy": {"bounds": "clip"}}, ["point masses", "dimensions (0, 1)", "squash"]),
        (SQUARE, {"policy": {"covariance": "fixed"}}, ["covariance fixed", "diagonal or full", "td3"]),
        (SQUARE, {"target_entropy": 3.0}, ["below that of the uniform law", "2.303 nats", "-1.084"]),
        (SQUARE, {"target_entropy": "auto"}, ["finite number of nats", "'auto'", "leave it out"]),
        (SQUARE, {"target_entropy": math.nan}, ["finite number of nats", "nan", "leave it out"]),
        (SQUARE, {"replay_size": 10**13}, ["must fit into memory", "replay_size", "replay_folder"]),
        (SQUARE, {"gamma": 1.5}, ["gamma", "1.5"]),
        (SQUARE, {"tau": -0.1}, ["tau", "-0.1"]),
        (SQUARE, {"updates": 0}, ["updates", "0"]),
        (SQUARE, {"priority": 2.0}, ["priority", "2.0"]),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, dict) else "",
)
def test_what_it_cannot_use_is_refused_before_the_first_step(space, options, words, tmp_path):
    class Env(Bandit):
        action_space = space

        def step(self, action):
            raise AssertionError("a step was taken")

    with pytest.raises(UsageError) as caught:
        covary.train(Env, "sac", 100, out=tmp_path / "run", quiet=True, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
