"""The fast path acts as the general path does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from twins import OBS, POLICIES, SUN, agent_of

from covary.distributions import Geometry
from covary.fast.path import FastPath


def inside(agent, actions):
    """Whether actions lie in their box, wrapped ones below its upper end."""
    geometry: Geometry = agent.policy.head.geometry
    low, high = np.float32(geometry.low), np.float32(geometry.high)
    circle = np.array([kind == "wrap" for kind in geometry.kinds])
    return (actions >= low) & np.where(circle, actions < high, actions <= high)


@pytest.mark.parametrize("n", [1, 3, 200])
@pytest.mark.parametrize("case", POLICIES)
def test_the_same_noise_gives_the_same_actions(case, n):
    """200 is more than the kernels take at once."""
    agent = agent_of("ppo", *POLICIES[case], n=n % 7)
    path, rng = FastPath(agent.learner), np.random.default_rng(n)
    agent.policy.observe(torch.from_numpy(rng.standard_normal((50, OBS)).astype(np.float32)))
    obs, noise = rng.standard_normal((n, OBS)).astype(np.float32), agent.noise(n)
    before = obs.copy(), noise.copy()
    latents, actions = path.act(obs, noise)
    expected, executed = agent.sample(obs, noise)
    assert latents.shape == expected.shape
    assert actions.shape == executed.shape
    if isinstance(agent.action_space, Discrete):
        np.testing.assert_array_equal(latents, expected)
        np.testing.assert_array_equal(actions, executed)
    else:
        assert inside(agent, actions).all()
        geometry = agent.policy.head.geometry
        off = latents - expected.astype(np.float64)
        for i in geometry.columns("wrap"):
            assert ((latents[:, i] >= 0) & (latents[:, i] < np.float32(2 * np.pi))).all()
            off[:, i] = (off[:, i] + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(off).max() < 1e-5 * max(1, np.abs(expected).max())
        agreed = np.abs(off) < 1  # all but angles that lie on either side of the seam
        executed = np.clip(executed, np.float32(geometry.low), np.float32(geometry.high))
        np.testing.assert_allclose(actions[agreed], executed[agreed], rtol=1e-5, atol=2e-5)
    again = path.act(obs[:1], noise[:1])
    # a BLAS may sum in another order where there are fewer columns
    np.testing.assert_allclose(again[1], actions[:1], rtol=1e-6 if case == "wide" else 0)
    assert again[0].base is not latents.base or again[0].base is None  # a result is nobody else's memory
    assert not np.shares_memory(again[0], latents)
    for array, was in zip((obs, noise), before, strict=True):
        np.testing.assert_array_equal(array, was)


@pytest.mark.parametrize("case", [name for name, (space, _) in POLICIES.items() if isinstance(space, Box)])
def test_actions_lie_inside_their_bounds_whatever_the_parameters(case):
    agent = agent_of("ppo", *POLICIES[case])
    path, rng = FastPath(agent.learner), np.random.default_rng(0)
    vector = agent.learner.optimizer.vector
    for size in (1.0, 1e2, 1e5, 1e18, 1e38):
        vector.copy_(size * torch.randn(vector.shape))
        with np.errstate(over="ignore"):
            obs = (rng.standard_normal((100, OBS)) * size).astype(np.float32)
        _, actions = path.act(obs, agent.noise(100))
        assert (inside(agent, actions) | np.isnan(actions)).all()
        assert size > 1e2 or inside(agent, actions).all()


def test_an_angle_is_never_the_period():
    """The float64 just below 2 pi rounds to a float32 above it."""
    agent = agent_of("ppo", SUN, {"periodic": (0, 1), "covariance": "fixed", "covariance_matrix": (1.0, 1.0)})
    path = FastPath(agent.learner)
    with torch.no_grad():
        agent.policy.head.out.weight.zero_()
        agent.policy.head.out.bias.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    for noise in -np.geomspace(1e-12, 1e-5, 200, dtype=np.float32):
        latents, actions = path.act(np.zeros((1, OBS), np.float32), np.full((1, 2), noise, np.float32))
        assert (latents < np.float32(2 * np.pi)).all()
        assert inside(agent, actions).all()


@pytest.mark.parametrize("case", POLICIES)
def test_parameters_that_are_nan_give_actions_that_are_nan(case):
    agent = agent_of("ppo", *POLICIES[case])
    agent.learner.optimizer.vector.fill_(torch.nan)
    obs, noise = np.zeros((3, OBS), np.float32), agent.noise(3)
    _, actions = FastPath(agent.learner).act(obs, noise)
    if isinstance(agent.action_space, Discrete):  # the first choice, as on the general path: a choice is never NaN
        np.testing.assert_array_equal(actions, agent.sample(obs, noise)[1])
    else:
        assert np.isnan(actions).all()
