"""TD3 and DDPG: what is delayed, what is smoothed, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from test_sac import OBS, SMALL, SQUARE, Bandit, past_of

import covary
from covary import UsageError
from covary.agent import Agent
from covary.algorithms import find, td3
from covary.fast import attach
from covary.heads import PolicyConfig

PATHS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])


def agent_of(algo="td3", space=SQUARE, *, fast=False, policy=None, **config):
    options = {"covariance": "fixed", "init_std": 0.05, **SMALL, **(policy or {})}
    agent = Agent(algo, OBS, space, config=find(algo).Config(batch=32, **config), policy=PolicyConfig(**options))
    if fast:
        assert attach(agent) is None
    agent.learner.memory.add(past_of(agent))
    return agent


def test_the_target_is_that_of_the_paper():
    """In the action's units, its noise clipped, the smaller of two values taken."""
    agent = agent_of(smoothing=2.0, smoothing_clip=0.7)
    learner = agent.learner
    batch, _ = learner._batch(0.0)
    low, width = torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 5.0])
    with torch.no_grad():
        density = learner.target_policy.network.density(batch.next_x)
        noise = torch.minimum(torch.maximum(2.0 * batch.noise, torch.tensor(-0.7)), torch.tensor(0.7))
        action = low + width * torch.sigmoid(density.loc + density.scale * noise)
        values = learner.target.network(batch.next_x, 2 * (action - low) / width - 1)
        y = batch.reward + batch.discount * torch.minimum(values[0], values[1])
    found = td3.critic_target(learner.target_policy.network, learner.target.network, batch, agent.config)
    torch.testing.assert_close(found, y, rtol=1e-5, atol=1e-5)
    terms = td3.losses(
        agent.policy, learner.critic, learner.target_policy.network, learner.target.network, batch, agent.config
    )
    taken = 2 * torch.sigmoid(batch.latent) - 1
    of_critic = sum(((q - y) ** 2).mean() / 2 for q in learner.critic(batch.x, taken))
    torch.testing.assert_close(terms.critic, of_critic, rtol=1e-4, atol=1e-4)
    mean = torch.tanh(agent.policy.density(batch.x).loc / 2)
    torch.testing.assert_close(terms.actor, -learner.critic(batch.x, mean)[0].mean(), rtol=1e-4, atol=1e-5)


@PATHS
@pytest.mark.parametrize(("algo", "delay"), [("td3", 2), ("td3", 3), ("ddpg", 1)])
def test_policy_and_targets_move_every_dth_time(algo, delay, fast):
    agent = agent_of(algo, delay=delay, fast=fast)
    learner = agent.learner
    for number in range(1, 7):
        before = {name: x.copy() for name, x in agent.state()[0].items()}
        batch, places = learner._batch(0.0)
        learner._evaluate(batch, places)
        if number % delay == 0:
            learner._improve(batch)
        now = agent.state()[0]
        moved = {name.split(".")[0] for name in now if not np.array_equal(before[name], now[name])}
        wanted = {"critic", "policy", "target", "target_policy"} if number % delay == 0 else {"critic"}
        assert moved & {"critic", "policy", "target", "target_policy"} == wanted
        for name in now:
            if name.startswith("target") and number % delay == 0:
                its = name.replace("target_policy", "policy").replace("target.", "critic.")
                if its in now and now[name].dtype == np.float32 and "normalizer" not in name:
                    assert np.allclose(now[name], before[name] + 0.005 * (now[its] - before[name]), atol=1e-6), name


@PATHS
def test_an_update_learns_as_often_as_it_should(fast):
    agent = agent_of(fast=fast, learning_starts=0, updates=4.0)
    said = agent.learner.update(past_of(agent, t=1), 0.0)
    assert agent.learner.optimizers["critic_adam"].steps == 4
    assert agent.learner.optimizers["actor_adam"].steps == 2
    assert set(said) == {"critic_loss", "q", "critic_grad_norm", "actor_loss", "actor_grad_norm"}


@pytest.mark.parametrize("policy", [{}, {"periodic": (0,)}, {"covariance_matrix": (0.2, 0.05, 0.05, 0.1)}], ids=str)
def test_both_paths_agree(policy):
    pair = [agent_of(fast=fast, policy=policy) for fast in (False, True)]
    for k in range(6):
        for agent in pair:
            batch, places = agent.learner._batch(0.0)
            agent.learner._evaluate(batch, places)
            if k % 2:
                agent.learner._improve(batch)
        ours, its = (agent.state()[0] for agent in pair)
        for name in its:
            if its[name].dtype == np.float32 and its[name].size:
                assert np.abs(ours[name] - its[name]).max() < 1e-5 * (k + 1) * max(1, np.abs(its[name]).max()), name


def test_noise_is_wide_until_learning_starts():
    agent = agent_of(learning_starts=1000)
    noise = np.ones((4, 2), np.float32)
    wide = agent.learner.explored(noise)
    usual = PolicyConfig(**SMALL)
    other = Agent("sac", OBS, SQUARE, policy=usual).policy.head.base_log_std.exp().numpy()
    assert wide[0] * agent.policy.head.base_log_std.exp().numpy() == pytest.approx(other, rel=1e-5)
    agent.learner.memory.add(past_of(agent, t=900))
    assert np.array_equal(agent.learner.explored(noise), noise)


def test_wide_noise_has_the_correlations_of_the_narrow():
    """Whatever order the factor's columns are in: angles come first."""
    matrix = np.array([[0.04, 0.01, 0.012], [0.01, 0.01, 0.0], [0.012, 0.0, 0.09]])
    space = Box(np.float32([-1, 0, 0]), np.float32([1, 6, 5]))
    given = {"covariance_matrix": tuple(matrix.reshape(-1)), "init_std": None}
    for periodic in ((), (1,), (1, 2)):
        agent = agent_of(space=space, policy={**given, "periodic": periodic}, learning_starts=1000)
        head = agent.policy.head
        noise = agent.learner.explored(np.eye(3, dtype=np.float32))  # whose rows are those of the map, transposed
        factor = head.matrix.numpy() @ noise.T
        order = list(head.geometry.order)
        usual = Agent("sac", OBS, space, policy=PolicyConfig(**SMALL, periodic=periodic)).policy.head.base_log_std.exp()
        std = np.sqrt(np.diag(matrix))
        wanted = (matrix / np.outer(std, std) * np.outer(usual, usual))[np.ix_(order, order)]
        np.testing.assert_allclose(factor @ factor.T, wanted, rtol=1e-4, atol=1e-5)


def test_wide_noise_is_as_wide_after_a_start_from_another():
    agent, other = agent_of(learning_starts=1000), agent_of(policy={"init_std": 0.1})
    agent.start_from(other)
    wide = agent.learner.explored(np.ones((1, 2), np.float32)) * agent.policy.head.base_log_std.exp().numpy()
    assert wide[0] == pytest.approx(agent.learner.usual_std, rel=1e-5)


@pytest.mark.parametrize("std", [0.1, 3.0])
def test_the_critic_sees_an_unbounded_action_in_its_own_units(std):
    """However wide the noise is."""
    agent = agent_of(space=Box(-np.inf, np.inf, (2,), np.float32), policy={"init_std": std})
    latent = torch.tensor([[0.5, -2.0]])
    assert torch.equal(agent.policy.head.coordinates(latent), latent)


@PATHS
def test_what_a_policy_says_is_said_of_its_own_steps(fast, tmp_path):
    agent = agent_of(fast=fast, learning_starts=0, delay=3)
    told = [set(agent.learner.update(past_of(agent, t=1), 0.0)) for _ in range(6)]
    ours = {"critic_loss", "q", "critic_grad_norm"}
    assert told == 2 * [ours, ours, ours | {"actor_loss", "actor_grad_norm"}]
    trained = covary.train(
        Bandit, "td3", 1000, out=tmp_path / "run", quiet=True, policy=SMALL, critic=SMALL, batch=8, learning_starts=0,
        delay=300, fast=fast,
    )  # fmt: skip
    lines = list(covary.runs.Run.open(tmp_path / "run").lines())
    assert trained.learner.optimizers["actor_adam"].steps == 3
    assert abs(lines[-1]["actor_grad_norm"]) > 1e-3, "a mean over three steps, not over a thousand"


@pytest.mark.parametrize("algo", ["td3", pytest.param("ddpg", marks=pytest.mark.slow)])
def test_it_finds_the_best_action(algo, tmp_path):
    agent = covary.train(
        Bandit, algo, 1200, out=tmp_path / "run", quiet=True, policy=SMALL, critic={"hidden": (32, 32)}, batch=64,
        learning_rate=1e-2, learning_starts=200,
    )  # fmt: skip
    found = agent.act(np.zeros(3, np.float32), deterministic=True)
    assert np.abs(found - [0.5, 4.0]).max() < 0.3


@pytest.mark.slow
def test_an_angle_goes_round(tmp_path):
    """The best one lies at the seam, where a clipped mean would have to choose a side."""

    class Seam(Bandit):
        action_space = Box(np.float32([0.0]), np.float32([2 * math.pi]))

        def step(self, action):
            assert 0 <= action[0] <= 2 * math.pi
            return np.zeros(3, np.float32), float(np.cos(action[0])), True, False, {}

    agent = covary.train(
        Seam, "td3", 1500, out=tmp_path / "run", quiet=True, policy=SMALL | {"periodic": (0,)}, batch=64,
        critic={"hidden": (32, 32)}, learning_rate=1e-2, learning_starts=200,
    )  # fmt: skip
    angle = float(agent.act(np.zeros(3, np.float32), deterministic=True)[0])
    assert min(angle, 2 * math.pi - angle) < 0.2


@pytest.mark.parametrize(
    ("algo", "options", "words"),
    [
        ("td3", {"policy": {"covariance": "full"}}, ["covariance full", "covariance fixed", "sac"]),
        ("ddpg", {"policy": {"covariance": "diagonal"}}, ["covariance diagonal", "sac"]),
        ("td3", {"policy": {"bounds": "beta"}}, ["Beta", "dimensions (0, 1)", "fix:   policy.bounds squash"]),
        ("ddpg", {"policy": {"bounds": ("squash", "beta")}}, ["Beta", "dimensions (1,)", "fix:   policy.bounds sq"]),
        ("td3", {"policy": {"bounds": ("clip", "mean")}}, ["no", "dimensions (0,)", "squash, or mean"]),
        ("td3", {"delay": 0}, ["delay", "0"]),
        ("td3", {"smoothing": -1.0}, ["smoothing", "-1"]),
    ],
)
def test_what_it_cannot_use_is_refused(algo, options, words, tmp_path):
    with pytest.raises(UsageError) as caught:
        covary.train(Bandit, algo, 100, out=tmp_path / "run", quiet=True, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
