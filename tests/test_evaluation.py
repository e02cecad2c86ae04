"""Evaluation: fixed seeds, fair shares, what was reported and nothing else."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import covary
from covary import UsageError


class Walk(gym.Env):
    """Episodes of 5 to 29 steps by their seed; success is reported at the end alone, pace at every step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    endless = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(5, 30))
        self.long = self.left
        return np.array([self.left], np.float32), {}

    def step(self, action):
        self.left -= 1
        over = self.left <= 0 and not self.endless
        info = {"pace": float(self.long)} | ({"success": 1.0} if over else {})
        return np.array([self.left], np.float32), 1.0, over, False, info


class Endless(Walk):
    endless = True


@pytest.fixture(scope="module")
def agent():
    return covary.untrained(Walk, hidden=(8,), critic={"hidden": (8,)})


def test_episodes_are_the_same_whoever_steps_them(agent):
    apart = [covary.evaluate(agent, Walk, 11, n_envs=n) for n in (1, 3, 11)]
    for result in apart[1:]:
        np.testing.assert_array_equal(result.lengths, apart[0].lengths)
    assert len(set(apart[0].lengths)) > 3
    np.testing.assert_array_equal(apart[0].returns, apart[0].lengths)
    assert (covary.evaluate(agent, Walk, 11, seed=1).lengths != apart[0].lengths).any()


@pytest.mark.parametrize("mode", [None, AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_info_holds_what_was_reported(agent, mode):
    env = Walk if mode is None else SyncVectorEnv([Walk] * 4, autoreset_mode=mode)
    result = covary.evaluate(agent, env, 16, info=("success", "pace"))
    np.testing.assert_array_equal(result.info["success"], np.ones(16))
    assert len(result.info["pace"]) == result.lengths.sum()
    assert result.info["pace"].sum() == (result.lengths**2).sum()


def test_info_that_never_comes_is_named(agent):
    with pytest.raises(UsageError, match="sucess"):
        covary.evaluate(agent, Walk, 2, info=("sucess",))


def test_an_episode_that_does_not_end(agent):
    before = agent.learner.generator.get_state().clone()
    with pytest.raises(UsageError, match="TimeLimit"):
        covary.evaluate(agent, Endless, 2, max_steps=50, deterministic=False)
    assert (agent.learner.generator.get_state() == before).all(), "training would go on with other random numbers"


def test_a_stop_is_noticed(agent):
    with pytest.raises(KeyboardInterrupt):
        covary.evaluate(agent, Endless, 2, stopped=lambda: True)


def test_one_environment_handed_out_many_times(tmp_path):
    shared = Walk()
    with pytest.raises(UsageError, match="an object of its own"):
        covary.train(lambda: shared, steps=10, n_envs=2, out=tmp_path / "run", quiet=True)


def test_saving_replaces_checkpoints_alone(agent, tmp_path):
    thesis = tmp_path / "precious" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        agent.save(thesis.parent)
    with pytest.raises(UsageError, match="holds something else"):
        agent.save(thesis)
    assert thesis.read_text() == "years of work"
    for _ in range(2):
        assert covary.load(agent.save(tmp_path / "mine")).steps == 0


def test_resuming_takes_no_other_settings(tmp_path):
    covary.train(Walk, steps=40, n_envs=2, horizon=10, out=tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match="gamma"):
        covary.train(Walk, resume=tmp_path / "run", gamma=0.5, quiet=True)


def test_the_best_is_not_chosen_on_the_episodes_it_is_judged_by(tmp_path, monkeypatch):
    seeds = []
    real = covary.evaluate

    def noted(*args, **kwargs):
        seeds.append(kwargs["seed"])
        return real(*args, **kwargs)

    monkeypatch.setattr("covary.loop.evaluate", noted)
    covary.train(Walk, steps=40, n_envs=2, horizon=10, eval_every=20, eval_episodes=2, out=tmp_path / "r", quiet=True)
    assert len(seeds) == 2
    assert min(seeds) > 2**32


@pytest.mark.parametrize("flag", [np.array([True, False]), 0, None, "no"])
def test_flags_are_bools(flag, tmp_path):
    class Odd(Walk):
        def step(self, action):
            obs, reward, _, truncated, info = super().step(action)
            return obs, reward, flag, truncated, info

    with pytest.raises(UsageError, match="terminated and truncated"):
        covary.train(Odd, steps=10, n_envs=2, out=tmp_path / "run", quiet=True)


@pytest.mark.parametrize("field", ["observation", "reward", "terminated"])
def test_a_vector_that_gives_the_wrong_shape(field, tmp_path):
    class Odd(SyncVectorEnv):
        def step(self, actions):
            obs, reward, terminated, truncated, info = super().step(actions)
            if field == "observation":
                obs = obs[:1]
            elif field == "reward":
                reward = reward[:, None]
            else:
                terminated = terminated[:1]
            return obs, reward, terminated, truncated, info

    with pytest.raises(UsageError, match=f"{field} of shape"):
        covary.train(Odd([Walk] * 3), steps=10, out=tmp_path / "run", quiet=True)


def test_an_estimated_entropy_has_the_right_gradient():
    """An angle correlated with a clipped dimension has point masses, which a pathwise gradient does not see."""
    import math

    import torch

    from covary.distributions import BoxNormal, Geometry
    from covary.policies import mean_entropy

    geometry = Geometry.box([0.0, -1.0], [2 * math.pi, 1.0], bounds=("auto", "clip"), periodic=(0,))
    factor = torch.tensor([[0.7, 0.0], [0.4, 0.6]], dtype=torch.float64)
    loc = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)

    def density(loc, n):
        return BoxNormal(loc.expand(n, 2), factor=factor, geometry=geometry)

    generator = torch.Generator().manual_seed(0)
    (grad,) = torch.autograd.grad(mean_entropy(density(loc, 40_000), generator), loc)
    noise = torch.randn(400_000, 2, generator=generator, dtype=torch.float64)
    step = 0.05
    values = []
    for sign in (1, -1):
        moved = loc.detach() + sign * torch.tensor([0.0, step], dtype=torch.float64)
        values.append(-density(moved, 1).draw((400_000,), noise=noise.unsqueeze(1)).log_prob.mean())
    wanted = float(values[0] - values[1]) / (2 * step)
    # the estimate's own deviation is about 0.006: 0.035 is beyond five of them (false alarm below 1e-6)
    assert abs(float(grad[1]) - wanted) < 0.035
    assert abs(float(grad[0])) < 0.035, "the entropy does not depend on where the angle is"
