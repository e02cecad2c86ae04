"""A2C's loss and gradient beside an example worked by hand, and beside torch's own distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.distributions import Categorical, Normal

from covary.advantages import estimate
from covary.agent import Agent, CriticConfig
from covary.algorithms import a2c
from covary.errors import UsageError
from covary.fast.path import FastPath
from covary.heads import PolicyConfig
from covary.types import Rollout

GAMMA = 0.5


def agent_of(space, obs=2, **options):
    usual = {"n_envs": 2, "horizon": 3, "gamma": GAMMA, "scale_rewards": False, "anneal": False, "max_grad_norm": 0.0}
    return Agent(
        "a2c",
        Box(-np.inf, np.inf, (obs,)),
        space,
        config=a2c.Config(**usual | options),
        policy=PolicyConfig(hidden=(), normalize_obs=False),
        critic=CriticConfig(hidden=()),
        seed=1,
    )


def rollout(latent):
    """Three steps of two environments: the first goes on; the second is truncated after its first step and stops in
    its third."""

    def t(*rows):
        return torch.tensor(rows, dtype=torch.float32)

    ones, obs = torch.ones(3, 2), torch.arange(12.0).view(3, 2, 2) / 10
    lam, discount = t([1, 0], [1, 1], [1, 0]), GAMMA * t([1, 1], [1, 1], [1, 0])
    return Rollout(obs, latent, t([1, 2], [3, 4], [5, 6]), discount, lam, ones, obs + 0.2)


CHOSEN = torch.tensor([[0, 1], [1, 0], [2, 2]])


def test_returns_worked_by_hand():
    """V(s) = s_0 + s_1. With next_obs = obs + 0.2, V(next) = V(s) + 0.4."""
    agent = agent_of(Discrete(3))
    with torch.no_grad():
        agent.learner.critic.head.weight.fill_(1.0)
        agent.learner.critic.head.bias.zero_()
    made = estimate(agent.learner, rollout(CHOSEN))
    value = [0.1, 0.5, 0.9, 1.3, 1.7, 2.1]
    last = 5 + 0.5 * (1.7 + 0.4)  # the rollout's end bootstraps
    first = [1 + 0.5 * (3 + 0.5 * last), 3 + 0.5 * last, last]
    second = [2 + 0.5 * (0.5 + 0.4), 4 + 0.5 * 6, 6]  # the true last observation; what stopped has no value
    returns = [first[0], second[0], first[1], second[1], first[2], second[2]]
    torch.testing.assert_close(made.value, torch.tensor(value))
    torch.testing.assert_close(made.target, torch.tensor(returns))
    torch.testing.assert_close(made.advantage, torch.tensor(returns) - torch.tensor(value))


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
@pytest.mark.parametrize("space", [Discrete(3), Box(-np.inf, np.inf, (2,))], ids=["choices", "box"])
def test_the_step_is_adams_along_torchs_own_gradient(space, fast):
    """log pi of torch.distributions, a value by matrix products, torch.optim.Adam, and the entropy bonus of choices."""
    choices = isinstance(space, Discrete)
    agent = agent_of(space, **({"entropy_coef": 0.1} if choices else {}))
    latent = CHOSEN if choices else torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    if fast:
        agent.learner.fast = FastPath(agent.learner)
    named = dict(agent.policy.named_parameters()) | dict(agent.learner.critic.named_parameters())
    head = {n: p.detach().clone().requires_grad_() for n, p in named.items() if p.numel()}
    data = rollout(latent)
    made = estimate(agent.learner, data)
    x = data.obs.flatten(0, 1)
    out = x @ head["head.logits.weight" if choices else "head.out.weight"].T
    if choices:
        density = Categorical(logits=out + head["head.logits.bias"])
        log_prob, entropy = density.log_prob(latent.flatten()), density.entropy().mean()
    else:
        std = agent.policy.head.base_log_std.exp() * head["head.log_std"].exp()
        density = Normal(agent.policy.head.gain * (out + head["head.out.bias"]) + agent.policy.head.offset, std)
        log_prob, entropy = density.log_prob(latent.flatten(0, 1)).sum(-1), 0.0
    value = (x @ head["head.weight"].T + head["head.bias"]).squeeze(-1)
    actor, critic = -(log_prob * made.advantage).mean(), 0.5 * (value - made.target).square().mean()
    (actor - agent.config.entropy_coef * entropy + critic).backward()
    torch.optim.Adam(head.values(), agent.config.actor_lr, eps=1e-5).step()
    line = agent.learner.update(data, 0.0)
    for name, parameter in head.items():
        torch.testing.assert_close(named[name].detach(), parameter.detach(), rtol=1e-5, atol=1e-6, msg=name)
    assert float(line["actor_loss"]) == pytest.approx(float(actor.detach()), rel=1e-5)
    assert float(line["critic_loss"]) == pytest.approx(float(critic.detach()), rel=1e-5)


def test_one_unit_of_advantage_raises_the_log_odds():
    """Two choices at even odds, one transition of advantage A: d(-log pi(0) A)/d logits = (-A/2, A/2)."""
    agent = agent_of(Discrete(2), obs=1)
    with torch.no_grad():
        agent.policy.head.logits.weight.zero_()
    batch = a2c.Batch(torch.ones(1, 1), torch.tensor([0]), torch.tensor([3.0]), torch.tensor([0.0]))
    loss = a2c.losses(agent.policy, agent.learner.critic, batch, agent.config).actor
    assert float(loss.detach()) == pytest.approx(3 * math.log(2))
    (slope,) = torch.autograd.grad(loss, agent.policy.head.logits.bias)
    torch.testing.assert_close(slope, torch.tensor([-1.5, 1.5]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lam": 1.2}, r"lam must lie in \[0, 1\]"),
        ({"gamma": -0.1}, r"gamma must lie in \[0, 1\]"),
        ({"horizon": 0}, "horizon must be a positive whole number"),
        ({"actor_lr": 0.0}, "actor_lr must be a positive number"),
        ({"entropy_coef": -1.0}, "entropy_coef must be a number, 0 or above"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_told(options, said):
    with pytest.raises(UsageError, match=said):
        a2c.Config(**options)
