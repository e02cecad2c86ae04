"""Stream AC: its step is bounded as the paper says, its networks start sparse, and it is refused in one message."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

import covary
from covary import algorithms
from covary.agent import Agent
from covary.algorithms import stream_ac
from covary.algorithms.stream_ac import Config
from covary.fast import attach
from covary.guard import NonFinite
from covary.nets import make_sparse
from covary.traces import ObGD
from covary.types import Rollout

OBS = 3
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])


def agent_of(fast=False, space=None, **options):
    agent = Agent("stream_ac", Box(-1, 1, (OBS,)), space or Discrete(3), config=Config(**options), seed=2)
    assert not fast or attach(agent) is None
    return agent


def step_of(agent, seed=0, reward=0.5, lam=1.0):
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.standard_normal((2, 1, 1, OBS)).astype(np.float32)
    latent = torch.from_numpy(agent.sample(obs[0])[0])[None]
    numbers = (torch.full((1, 1), x) for x in (reward, 0.9, lam, 1.0))
    return Rollout(torch.from_numpy(obs), latent, *numbers, torch.from_numpy(next_obs))


def update(agent, step):
    if agent.fast is None:
        return agent.learner.update(step, 0.0)
    table = torch.cat([*step[2:6], torch.zeros(1, 1)]).numpy()
    arrays = step.obs[0].numpy(), step.latent[0].float().numpy(), table, step.next_obs[0].numpy()
    return agent.fast.learn(*arrays, np.zeros(3))


@pytest.mark.parametrize(("delta", "size"), [(0.5, 1e-3), (-0.5, 1.0), (4.0, 1.0), (0.5, 1e3), (-40.0, 1e-3)])
def test_a_step_is_that_of_algorithm_3(delta, size):
    """alpha' = min(alpha / (alpha kappa max(|delta|, 1) ||z||_1), alpha), each network's own."""
    torch.manual_seed(0)
    networks = [nn.Linear(4, 3), nn.Linear(2, 1)]
    alpha, kappas = 0.8, (3.0, 2.0)
    optimizer = ObGD(networks, alpha, kappas, (0.9, 0.9))
    z = size * torch.randn(len(optimizer.vector))
    optimizer.traces.vectors[0] = z
    before = optimizer.vector.clone()
    optimizer.step(delta)
    for part, kappa in ((slice(0, 15), 3.0), (slice(15, 18), 2.0)):
        bound = alpha * kappa * max(abs(delta), 1.0) * z[part].abs().sum()
        wanted = min(alpha / bound, alpha) * delta * z[part]
        torch.testing.assert_close(optimizer.vector[part] - before[part], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kappa", [1.0, 2.0, 5.0])
def test_a_linear_critic_never_overshoots(kappa):
    """With inputs within 1, the error that a step leaves has the sign of the one before, whatever alpha is."""
    critic = nn.Linear(OBS, 1)
    optimizer = ObGD([critic], 50.0, [kappa], [0.0])
    for seed in range(20):
        x = 2 * torch.rand(OBS, generator=torch.Generator().manual_seed(seed)) - 1
        target = 10.0 * (seed - 10)
        before = target - critic(x).item()
        optimizer.traces.vectors[0] = torch.cat([x, torch.ones(1)])
        optimizer.step(before)
        after = target - critic(x).item()
        assert 0 <= after / before < 1


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,))], ids=["choices", "box"])
def test_without_a_past_a_step_follows_the_slope_of_the_losses(space):
    agent = agent_of(space=space, lam=0.0, scale_rewards=False, entropy_coef=0.1)
    learner, step = agent.learner, step_of(agent)
    x, next_x = (agent.policy.normalizer(part[0]) for part in (step.obs, step.next_obs))
    batch = stream_ac.Batch(x, step.latent[0], step.reward[0], step.discount[0], next_x)
    terms = stream_ac.losses(agent.policy, learner.critic, batch, agent.config)
    slope = torch.autograd.grad(terms.actor + terms.critic, learner.optimizer.parameters, materialize_grads=True)
    before, segments = learner.optimizer.vector.clone(), learner.optimizer.segments
    update(agent, step)
    moved, slope = learner.optimizer.vector - before, torch.cat([g.flatten() for g in slope])
    for mine, its in zip(moved.split(segments), slope.split(segments), strict=True):
        assert torch.cosine_similarity(mine, -its, dim=0) > 0.9999


def test_networks_start_sparse():
    agent = Agent("stream_ac", Box(-1, 1, (OBS,)), Discrete(3), seed=2)
    layers = [m for net in (agent.policy, agent.learner.critic) for m in net.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 6
    for layer in layers:
        inputs = layer.in_features
        kept = (layer.weight != 0).sum(1)
        assert (kept == max(inputs - int(0.9 * inputs), 1)).all()
        assert layer.weight.abs().max() <= inputs**-0.5
        assert (layer.bias == 0).all()
    widths = [m.normalized_shape for m in agent.policy.modules() if isinstance(m, nn.LayerNorm)]
    assert widths == [(128,), (128,)]
    assert "policy.torso.1.weight" not in agent.state()[0], "nothing of a layer norm is learned"


def test_a_torso_of_ones_own_keeps_its_weights():
    torso = nn.Sequential(nn.Linear(OBS, 8), nn.Tanh())
    kept = torso[0].weight.clone()
    agent = Agent("stream_ac", Box(-1, 1, (OBS,)), Discrete(3), torso=torso)
    for network in (agent.policy, agent.learner.critic):
        assert torch.equal(network.torso[0].weight, kept)
    assert (agent.learner.critic.head.weight == 0).sum() == 7


def test_no_unit_is_blind_and_places_are_drawn():
    layer = nn.Linear(10, 2000)
    torch.manual_seed(0)
    make_sparse(layer)
    seen = (layer.weight != 0).sum(0)
    assert seen.sum() == 2000
    assert (seen - 200).abs().max() < 90  # 6.7 deviations of a binomial: false alarm below 1e-9


@PATHS
def test_a_step_that_is_left_out_cuts_the_traces(fast):
    agent = agent_of(fast)
    update(agent, step_of(agent))
    optimizer = agent.learner.optimizer
    assert agent.learner.traces.vectors.abs().sum() > 0
    agent.learner.critic.head.weight.data[0, 3] = float("inf")
    before = optimizer.vector.clone()
    with pytest.raises(NonFinite, match=r"critic.head.weight\[0, 3\]"):
        update(agent, step_of(agent, 1))
    assert torch.equal(optimizer.vector, before)
    assert agent.learner.traces.vectors.abs().sum() == 0


@PATHS
def test_a_cut_is_the_end_of_a_trace(fast):
    agent = agent_of(fast)
    update(agent, step_of(agent))
    update(agent, step_of(agent, 1, lam=0.0))
    assert agent.learner.traces.vectors.abs().sum() == 0
    assert agent.learner.optimizer.steps == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lam": 1.2}, r"lam must lie in \[0, 1\]"),
        ({"gamma": -1}, r"gamma must lie in \[0, 1\]"),
        ({"alpha": 0.0}, "alpha must be a positive number"),
        ({"n_envs": 4}, "one stream of steps"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused_in_one_message(options, said):
    with pytest.raises(covary.UsageError, match=said):
        algorithms.find("stream_ac").Config(**options)


def test_choices_have_no_covariance():
    """What the algorithm sets for a Box is no mistake where there are choices; what the user sets is."""
    assert agent_of().policy_config.state_dependent
    with pytest.raises(covary.UsageError, match="of a Box of actions"):
        covary.untrained("CartPole-v1", "stream_ac", covariance="full")
