"""Noise that is correlated in time: the law of each step is what it was, and what follows what is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from covary import UsageError, algorithms
from covary.agent import Agent
from covary.heads import PolicyConfig

SPACES = Box(-1, 1, (2,), np.float32), Box(-1, 1, (3,), np.float32)
KINDS = pytest.mark.parametrize("algo", ["ppo", "sac", "td3"])


def agent_of(algo, **config):
    return Agent(algo, *SPACES, config=algorithms.find(algo).Config(n_envs=4, **config))


@KINDS
def test_each_step_is_standard_normal_and_what_follows_is_like_it(algo):
    """Moments within five standard errors, a false alarm in 10^6 (of 4 x 3 paths whose samples count for T / 2 tau)."""
    tau = 6.0
    agent = agent_of(algo, exploration="correlated", correlation_time=tau)
    pieces = [agent.noise_in_time(t, 4) for t in (1, 700, 1, 1, 4000, 15000)]
    noise = np.concatenate(pieces).astype(np.float64)
    assert noise.shape == (19703, 4, 3)
    effective = noise.size / (2 * tau)
    assert abs(noise.mean()) < 5 / math.sqrt(effective)
    assert abs(noise.var() - 1) < 5 * math.sqrt(2 / effective)
    for lag in (1, 3, 6, 12):
        found = (noise[lag:] * noise[:-lag]).mean()
        assert abs(found - math.exp(-lag / tau)) < 5 * math.sqrt(2 / effective), lag
    across = (noise[:, 0] * noise[:, 1]).mean(), (noise[..., 0] * noise[..., 1]).mean()
    assert np.abs(across).max() < 5 / math.sqrt(effective / 12)
    seams = np.cumsum([len(piece) for piece in pieces])[:-1]
    steps = noise[1:] - math.exp(-1 / tau) * noise[:-1]
    assert np.abs(steps[seams - 1]).max() < 5.5 * math.sqrt(1 - math.exp(-2 / tau)), "nothing starts anew in between"


def test_a_long_correlation_is_as_long_as_was_said():
    """Beside the recursion in float64, over white noise of the same numbers; the result is kept in float32."""
    tau = 1e6
    agent, white = agent_of("ppo", exploration="correlated", correlation_time=tau), agent_of("ppo")
    ours, expected = agent.noise_in_time(20_000, 4), white.noise(20_000, 4).astype(np.float64)
    for t in range(1, len(expected)):
        expected[t] = math.exp(-1 / tau) * expected[t - 1] + math.sqrt(-math.expm1(-2 / tau)) * expected[t]
    assert np.abs(ours - expected).max() < 1e-4
    assert np.abs(ours[-1] - ours[0]).max() > 0.01, "it does change"


@KINDS
def test_a_correlation_without_end_is_refused(algo):
    with pytest.raises(UsageError, match=r"(?s)correlation_time is at most 1,000,000 steps.*3e\+07"):
        agent_of(algo, exploration="correlated", correlation_time=3e7)


@KINDS
def test_white_noise_is_what_it_was(algo):
    plain, other = agent_of(algo), agent_of(algo)
    assert np.array_equal(plain.noise_in_time(5, 4), other.noise(5, 4))
    assert len(plain.carried) == 0


def test_what_was_carried_is_part_of_an_agent(tmp_path):
    agent = agent_of("sac", exploration="correlated")
    agent.noise_in_time(3, 4)
    agent.save(tmp_path / "a")
    from covary import load

    other = load(tmp_path / "a")
    assert np.array_equal(other.noise_in_time(5, 4), agent.noise_in_time(5, 4))


@pytest.mark.parametrize(
    ("space", "policy", "words"),
    [(Discrete(3), {}, "Categorical actions"), (SPACES[1], {"bounds": "beta"}, "Beta actions")],
)
def test_what_is_not_gaussian_has_no_such_noise(space, policy, words):
    config = algorithms.find("ppo").Config(exploration="correlated")
    with pytest.raises(UsageError, match=words):
        Agent("ppo", SPACES[0], space, config=config, policy=PolicyConfig(**policy))


@pytest.mark.parametrize("wrong", [{"exploration": "pink"}, {"correlation_time": 0.0}])
def test_the_options_are_checked(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        algorithms.find("sac").Config(**wrong)


def test_what_was_carried_has_a_row_for_each_environment(tmp_path):
    agent = agent_of("sac", exploration="correlated")
    agent.noise_in_time(3, 4)
    arrays, meta = agent.state()
    with pytest.raises(UsageError, match="carried_noise of 3 rows, n_envs 4"):
        agent_of("sac", exploration="correlated").restore(arrays | {"carried_noise": arrays["carried_noise"][:3]}, meta)
