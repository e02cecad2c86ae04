"""Eligibility traces: the forward view, what cuts them, and what a checkpoint keeps of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import covary
from covary import algorithms
from covary.agent import Agent, CriticConfig
from covary.fast.path import FastPath
from covary.guard import NonFinite
from covary.heads import PolicyConfig
from covary.returns import gae
from covary.types import Rollout

OBS, T = 3, 25
SPACES = pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,))], ids=["choices", "box"])
TRACED = {"actor_lam": 0.9, "critic_lam": 0.7}


def agent_of(space, n=2, hidden=(5,), fast=False, **options):
    config = algorithms.find("actor_critic").Config(n_envs=n, scale_rewards=False, **TRACED | options)
    policy, critic = PolicyConfig(hidden=hidden, normalize_obs=False), CriticConfig(hidden=hidden)
    agent = Agent("actor_critic", Box(-1, 1, (OBS,)), space, config=config, policy=policy, critic=critic, seed=1)
    if fast:
        agent.fast = agent.learner.fast = FastPath(agent.learner)
    return agent


def steps_of(agent, t=T, seed=0):
    """t steps of all environments, some of which are the last of an episode: terminated or cut."""
    rng, n = np.random.default_rng(seed), agent.config.n_envs
    obs = rng.standard_normal((t + 1, n, OBS)).astype(np.float32)
    latent = np.stack([agent.sample(obs[i])[0] for i in range(t)])
    ended = rng.random((t, n)) < 0.2
    discount = np.where(ended & (rng.random((t, n)) < 0.5), 0, 0.9)
    reward, ones = rng.standard_normal((t, n)), np.ones((t, n))
    numbers = (torch.as_tensor(x, dtype=torch.float32) for x in (reward, discount, ~ended, ones))
    return Rollout(torch.from_numpy(obs[:t]), torch.from_numpy(latent), *numbers, torch.from_numpy(obs[1:]))


def one(steps, t):
    return Rollout(*(part[t : t + 1].clone() for part in steps))


def update(agent, step):
    if agent.fast is None:
        return agent.learner.update(step, 0.0)
    table = torch.cat([*step[2:6], torch.zeros_like(step.reward)]).numpy()
    arrays = step.obs[0].numpy(), step.latent[0].float().numpy(), table, step.next_obs[0].numpy()
    return agent.fast.learn(*arrays, np.zeros(3))


def _slopes(gain, optimizer):
    return torch.autograd.grad(gain, optimizer.parameters, allow_unused=True, materialize_grads=True)


@SPACES
@pytest.mark.parametrize("hidden", [(), (5,)], ids=["linear", "a hidden layer"])
def test_with_fixed_weights_the_steps_sum_to_those_of_the_forward_view(hidden, space, monkeypatch):
    """Sutton & Barto 2018, sec. 12.2: sum_t delta_t z_t = sum_t (G_t^lambda - V(s_t)) grad_t, for actor and critic,
    over episodes that terminate and episodes that are cut."""
    agent = agent_of(space, hidden=hidden)
    optimizer, steps = agent.learner.optimizer, steps_of(agent)
    total = torch.zeros_like(optimizer.vector)
    monkeypatch.setattr(optimizer, "step", lambda gradients, max_norm: total.add_(gradients[0]))
    for t in range(T):
        update(agent, one(steps, t))
    policy, critic = agent.policy, agent.learner.critic
    value, next_value = critic(steps.obs), critic(steps.next_obs)
    log_prob = torch.stack([policy(steps.obs[t]).log_prob_latent(steps.latent[t]) for t in range(T)])
    parts = steps.reward, steps.discount
    gain = 0.0
    for lam, of in ((TRACED["actor_lam"], log_prob), (TRACED["critic_lam"], value)):
        advantage = gae(*parts, lam * steps.lam, value, next_value).detach()
        gain = gain + (advantage * of).sum() / agent.config.n_envs
    wanted = torch.cat([g.flatten() for g in _slopes(gain, optimizer)])
    torch.testing.assert_close(-total, wanted, rtol=1e-4, atol=1e-4)


@SPACES
def test_traces_that_forget_at_once_are_none(space):
    """The mean of delta_n grad_n over environments is the gradient of the mean loss."""
    usual, traced = agent_of(space, actor_lam=0.0, critic_lam=0.0), agent_of(space, actor_lam=1e-30, critic_lam=1e-30)
    assert usual.learner.traces is None
    assert "adam.traces" not in usual.state()[0]
    steps = steps_of(usual)
    for t, agent in itertools.product(range(T), (usual, traced)):
        losses = update(agent, one(steps, t))
    vectors = [agent.learner.optimizer.vector for agent in (traced, usual)]
    torch.testing.assert_close(*vectors, rtol=1e-4, atol=1e-5)
    assert set(losses) == {"actor_loss", "critic_loss"}


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
def test_nothing_crosses_the_end_of_an_episode(fast):
    agent = agent_of(Box(-1, 1, (2,)), fast=fast)
    step = one(steps_of(agent), 0)
    step.lam[0], step.discount[0] = torch.tensor([1.0, 0.0]), torch.tensor([0.9, 0.9])
    update(agent, step)
    goes_on, cut = agent.learner.traces.vectors
    assert goes_on.abs().sum() > 0
    assert cut.abs().sum() == 0
    step.valid[0, 0] = 0.0  # a phantom, in whose place nothing is remembered and nothing forgotten
    before = goes_on.clone()
    update(agent, step)
    assert torch.equal(goes_on, before)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
def test_a_step_that_is_left_out_cuts_the_traces(fast):
    agent = agent_of(Box(-1, 1, (2,)), fast=fast)
    steps = steps_of(agent)
    for t in range(3):
        update(agent, one(steps, t))
    assert agent.learner.traces.vectors.abs().sum() > 0
    before, bad = agent.learner.optimizer.vector.clone(), one(steps, 3)
    bad.latent[0, 1] = np.nan
    with pytest.raises(NonFinite):
        update(agent, bad)
    assert torch.equal(agent.learner.optimizer.vector, before)
    assert agent.learner.traces.vectors.abs().sum() == 0
    agent.learner.on_nonfinite = "skip"
    update(agent, bad)
    update(agent, one(steps, 4))
    assert agent.learner.skipped == 1
    assert agent.learner.traces.vectors.isfinite().all()


def test_environments_that_begin_anew_have_no_trace():
    agent = agent_of(Discrete(2), n=3)
    agent.learner.traces.vectors.fill_(1.0)
    agent.learner.traces.start_anew(np.array([False, True, False]))
    assert agent.learner.traces.vectors.sum(1).gt(0).tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["actor_lam", "critic_lam", "gamma"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_one_message_for_a_lambda_out_of_range(name, value):
    with pytest.raises(covary.UsageError, match=rf"{name} must lie in \[0, 1\]"):
        algorithms.find("actor_critic").Config(**{name: value})
