"""Heliostat keeps its contract: the laws by independent formulas, and N at once are the bits of N alone."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from scipy.spatial.transform import Rotation

from covary.envs.heliostat import STEPS, Heliostat, HeliostatVectorEnv, aim, best_action, draw_episode


def unit(azimuth, elevation):
    """Rotates the x axis up by the elevation, then around by the azimuth: (B*, 3)."""
    turn = np.stack((np.ravel(azimuth), -np.ravel(elevation)), axis=-1)
    return Rotation.from_euler("ZY", turn).apply([1.0, 0.0, 0.0])


def angles(vectors):
    return np.arctan2(vectors[..., 1], vectors[..., 0]), np.arcsin(np.clip(vectors[..., 2], -1, 1))


def rollout(num_envs, policy, seed=0):
    """Observations (STEPS + 1, N, 9), rewards and errors (STEPS, N) of one episode in each environment."""
    envs = HeliostatVectorEnv(num_envs)
    obs = [envs.reset(seed=seed)[0]]
    rewards, errors = [], []
    for _ in range(STEPS):
        next_obs, reward, _, _, info = envs.step(policy(obs[-1]))
        obs.append(next_obs)
        rewards.append(reward)
        errors.append(info["error_deg"])
    return np.array(obs), np.array(rewards), np.array(errors)


@pytest.fixture(scope="module")
def best():
    return rollout(500, best_action)


def uniform(rng, num_envs):
    return rng.uniform([0, 0], [2 * np.pi, np.pi / 2], (num_envs, 2)).astype(np.float32)


# One environment and many.


@pytest.mark.parametrize("num_envs", [1, 2, 7, 64])
def test_vector_and_single_give_the_same_bits(num_envs):
    """With seeds, masked resets in the middle of episodes (seeded and not), and actions outside of the box."""
    envs, singles = HeliostatVectorEnv(num_envs), [Heliostat() for _ in range(num_envs)]
    rng = np.random.default_rng(num_envs)
    obs, info = envs.reset(seed=11)
    expected = np.stack([env.reset(seed=11 + i)[0] for i, env in enumerate(singles)])
    assert info == {}
    np.testing.assert_array_equal(obs, expected)
    age, restarted = np.zeros(num_envs, int), 0
    for t in range(150):
        action = uniform(rng, num_envs) + np.float32(0.5) * rng.standard_normal((num_envs, 2), np.float32)
        obs, reward, terminated, truncated, info = envs.step(action)
        age += 1
        outcomes = [env.step(a) for env, a in zip(singles, action, strict=True)]
        for i, (o, r, te, tr, single_info) in enumerate(outcomes):
            assert obs[i].tobytes() == o.tobytes()
            assert (reward[i], terminated[i], truncated[i]) == (r, te, tr)
            assert info["error_deg"][i] == single_info["error_deg"]
        assert info["_error_deg"].all()
        assert set(info) == {"error_deg", "_error_deg"}
        mask = truncated | (rng.random(num_envs) < 0.05)
        if mask.any():
            seeds = [1000 * t + i for i in range(num_envs)] if t % 2 else None
            obs, _ = envs.reset(seed=seeds, options={"reset_mask": mask})
            for i in range(num_envs):
                o = singles[i].reset(seed=seeds and seeds[i])[0] if mask[i] else outcomes[i][0]
                assert obs[i].tobytes() == o.tobytes()
            restarted += int((mask & (age < STEPS)).sum())
            age[mask] = 0
    assert restarted > 0


def test_vector_agrees_with_gymnasiums_own_vector_env():
    mode = gym.vector.AutoresetMode.DISABLED
    ours, theirs = HeliostatVectorEnv(3), gym.vector.SyncVectorEnv([Heliostat] * 3, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    mask = np.array([True, False, True])
    rng = np.random.default_rng(0)
    for seed, options in [(5, None), (None, {"reset_mask": mask}), ([9, None, None], None), (None, None)]:
        a, b = (env.reset(seed=seed, options=dict(options) if options else None) for env in (ours, theirs))
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1] == b[1]
        for _ in range(4):
            action = uniform(rng, 3)
            a, b = ours.step(action), theirs.step(action)
            for x, y in zip(a[:4], b[:4], strict=True):
                np.testing.assert_array_equal(x, y)
                assert x.dtype == y.dtype
            assert a[4].keys() == b[4].keys()
            np.testing.assert_array_equal(a[4]["error_deg"], b[4]["error_deg"])
            np.testing.assert_array_equal(a[4]["_error_deg"], b[4]["_error_deg"])


def test_returned_arrays_are_the_callers():
    envs = HeliostatVectorEnv(4)
    kept = [envs.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for _ in range(3):
        obs, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        new = [obs, reward, terminated, truncated, info["error_deg"], info["_error_deg"]]
        kept += new
        copies += [x.copy() for x in new]
    envs.reset(options={"reset_mask": np.array([True, False, True, False])})
    for x, y in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.array([False, False]), ValueError),
    ],
)
def test_a_wrong_reset_mask_is_refused(mask, error):
    envs = HeliostatVectorEnv(2)
    envs.reset(seed=0)
    with pytest.raises(error, match="reset_mask"):
        envs.reset(options={"reset_mask": mask})


def test_one_seed_for_each_environment():
    with pytest.raises(ValueError, match="3 environments, got 2"):
        HeliostatVectorEnv(3).reset(seed=[1, 2])


# The laws.


def test_reward_is_the_cosine_between_reflected_ray_and_target():
    """The reflected ray is the sun turned by half a turn about the normal; the sun is that of the earlier obs."""
    rng = np.random.default_rng(1)
    actions = []

    def policy(obs):
        actions.append(uniform(rng, len(obs)))
        return actions[-1]

    obs, reward, error = rollout(50, policy)
    normal = unit(*np.moveaxis(np.array(actions, np.float64), -1, 0)).reshape(STEPS, 50, 3)
    half_turn = Rotation.from_rotvec(np.pi * normal.reshape(-1, 3))
    ray = half_turn.apply(obs[:-1, :, :3].reshape(-1, 3)).reshape(STEPS, 50, 3)
    target = obs[:-1, :, 3:6].astype(np.float64)
    np.testing.assert_allclose(reward, (ray * target).sum(-1), atol=1e-6)  # obs is float32
    np.testing.assert_allclose(np.cos(np.radians(error)), reward, atol=1e-12)
    np.testing.assert_allclose(obs[1:, :, 6:], normal, atol=1e-6)
    assert (reward < -0.5).any()
    assert (reward > 0.5).any()
    assert np.abs(reward).max() <= 1


@pytest.mark.parametrize("angle", [1e-12, 1e-9, 1e-5, 1.0, np.pi / 2, np.pi - 1e-9])
def test_the_angle_is_accurate_near_zero_and_half_a_turn(angle):
    """Where arccos of the cosine has lost half of its digits, or all."""
    cosine, degrees = aim(np.array([1.0, 0.0, 0.0]), np.array([np.cos(angle), 0.0, np.sin(angle)]))
    assert degrees == pytest.approx(np.degrees(angle), rel=1e-12)
    assert cosine == pytest.approx(np.cos(angle), abs=1e-15)


def test_a_cosine_is_at_most_one():
    """The plain product of a unit vector with itself often is 1 + 2e-16."""
    vectors = np.random.default_rng(4).standard_normal((3, 10_000))
    vectors /= np.sqrt((vectors**2).sum(0))
    assert ((vectors * vectors).sum(0) > 1).any()
    assert aim(vectors, vectors)[0].max() == 1
    assert aim(vectors, -vectors)[0].min() == -1


def test_the_bisector_is_optimal_and_in_the_box():
    """10,000 episodes' first and later steps: reward 1, and never outside of [0, 2 pi) x [0, pi/2]."""
    envs = HeliostatVectorEnv(10_000)
    obs, _ = envs.reset(seed=0)
    rng = np.random.default_rng(2)
    for _ in range(5):
        action = best_action(obs)
        assert ((action[:, 0] >= 0) & (action[:, 0] < 2 * np.pi)).all()
        assert ((action[:, 1] >= 0) & (action[:, 1] <= np.pi / 2)).all()
        obs, reward, *_, info = envs.step(action.astype(np.float32))
        assert reward.min() > 1 - 1e-9
        assert info["error_deg"].max() < 1e-2
    nearby = best_action(obs) + 0.1 * rng.standard_normal((10_000, 2))
    assert (envs.step(nearby)[1] < 1).all()


def test_best_action_takes_any_leading_dimensions(best):
    obs = best[0]
    assert best_action(obs).shape == (STEPS + 1, 500, 2)
    np.testing.assert_array_equal(best_action(obs)[3, 7], best_action(obs[3, 7]))
    np.testing.assert_array_equal(best_action(obs[..., :6]), best_action(obs))
    np.testing.assert_allclose(best_action([1, 0, 0, 0, 1, 0]), [np.pi / 4, 0])
    np.testing.assert_allclose(best_action([1, 0, 0, 0, -1, 0]), [7 * np.pi / 4, 0])
    assert best_action([1, 0, 0, 1, -1e-30, 0])[0] == 0  # not 2 pi, which is another number


def test_the_optimum_crosses_the_seam_of_the_azimuth(best):
    """An azimuth that is an interval and not a circle must jump by almost 2 pi there."""
    azimuth = best_action(best[0][:-1])[..., 0]
    crossing = (np.abs(np.diff(azimuth, axis=0)) > np.pi).any(axis=0)
    assert 0.15 < crossing.mean() < 0.8


def test_ranges_of_draws():
    rng = np.random.default_rng(3)
    draws = np.array([draw_episode(rng) for _ in range(10_000)])
    low, high = [0, -0.1, 0.2, -0.01, 0, 0], [2 * np.pi, 0.1, 1.4, 0.01, 2 * np.pi, 0.6]
    width = np.subtract(high, low)
    # All 10,000 miss a hundredth of the range at an end with probability 0.99 ** 10_000 < 1e-43.
    assert ((draws >= low) & (draws <= high)).all()
    assert (draws.min(0) < low + 0.01 * width).all()
    assert (draws.max(0) > high - 0.01 * width).all()
    # A uniform's mean has deviation width / sqrt(12 n); 6 of them are left with probability 2e-9 each.
    assert (np.abs(draws.mean(0) - np.add(low, high) / 2) < 6 * width / np.sqrt(12 * 10_000)).all()
    assert np.abs(np.corrcoef(draws.T) - np.eye(6)).max() < 6 / np.sqrt(10_000)


def test_the_draws_are_what_they_are_called():
    """The sun moves as drawn and is held; the target stays; the mirror starts where it is said to."""
    envs = HeliostatVectorEnv(300)
    obs = [envs.reset(seed=0)[0]]
    for _ in range(STEPS):
        obs.append(envs.step(np.tile([1.0, 0.5], (300, 1)))[0])
    obs = np.array(obs, np.float64)
    draws = np.array([draw_episode(np.random.default_rng(i)) for i in range(300)])
    t = np.arange(STEPS + 1)[:, None]
    azimuth, elevation = angles(obs[..., :3])
    turned = draws[:, 0] + draws[:, 1] * t
    np.testing.assert_allclose(np.exp(1j * azimuth), np.exp(1j * turned), atol=1e-5)
    expected = np.clip(draws[:, 2] + draws[:, 3] * t, 0.05, 1.5)  # a drift has one sign, so holding is clipping
    np.testing.assert_allclose(elevation, expected, atol=1e-5)
    assert (expected == 0.05).any()
    assert (expected == 1.5).any()
    np.testing.assert_array_equal(obs[:, :, 3:6], np.broadcast_to(obs[0, :, 3:6], (STEPS + 1, 300, 3)))
    np.testing.assert_allclose(obs[0, :, 3:6], unit(draws[:, 4], draws[:, 5]), atol=1e-6)
    np.testing.assert_allclose(obs[0, :, 6:], unit(np.zeros(300), np.full(300, np.pi / 4)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(obs.reshape(-1, 3), axis=1), 1, atol=1e-6)


def test_truncated_at_64_steps_and_never_terminated():
    env = Heliostat()
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(64)]
    assert ends == [(False, False)] * 63 + [(False, True)]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    env.reset()
    env.step(env.action_space.sample())


def test_a_vector_step_past_an_end_is_refused():
    envs = HeliostatVectorEnv(2)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.zeros((2, 2)))
    envs.reset(seed=0)
    envs.step(np.zeros((2, 2)))
    envs.reset(options={"reset_mask": np.array([True, False])})
    for t in range(63):
        truncated = envs.step(np.zeros((2, 2)))[3]
        assert truncated.tolist() == [False, t == 62]
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.zeros((2, 2)))


@pytest.mark.parametrize("outside", [[-1.0, 0.3], [7.0, 0.3], [1.0, -0.2], [1.0, 2.0], [np.inf, -np.inf]])
def test_an_action_outside_of_the_box_is_clipped(outside):
    env = Heliostat()
    env.reset(seed=4)
    a = env.step(np.array(outside))
    env.reset(seed=4)
    b = env.step(np.clip(outside, env.action_space.low, env.action_space.high))
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1] == b[1]


def test_nan_and_wrong_shapes_are_refused():
    env, envs = Heliostat(), HeliostatVectorEnv(3)
    obs, _ = envs.reset(seed=0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="must be a number"):
        env.step(np.array([np.nan, 0.3], np.float32))
    with pytest.raises(ValueError, match="row 1 of 3"):
        envs.step(np.array([[0, 0], [0, np.nan], [0, 0]]))
    with pytest.raises(ValueError, match=r"\(3, 2\), got \(2, 3\)"):
        envs.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="expected"):
        env.step(np.zeros((2, 1)))
    np.testing.assert_array_equal(envs.step(np.zeros((3, 2)))[0][:, 3:6], obs[:, 3:6])  # the episode is unharmed


def test_spaces():
    env = Heliostat()
    assert env.action_space == gym.spaces.Box(np.float32([0, 0]), np.float32([2 * np.pi, np.pi / 2]), dtype=np.float32)
    assert env.observation_space == gym.spaces.Box(-1.0, 1.0, (9,), np.float32)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")  # a recommendation: our box is in radians
def test_gymnasiums_own_check_passes():
    gymnasium_check_env(Heliostat(), skip_render_check=True)


# The picture.


def test_picture():
    env = Heliostat(render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    obs, _ = env.reset(seed=0)
    start = env.render()
    assert start.shape == (480, 480, 3)
    assert start.dtype == np.uint8
    kept = start.copy()
    env.step(best_action(obs))
    aimed = env.render()
    assert (aimed != start).any(axis=-1).mean() > 0.01
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_array_equal(env.render(), aimed)  # nothing of an earlier frame is left
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), start)


def test_render_mode():
    env = Heliostat()
    env.reset(seed=0)
    assert env.render() is None
    with pytest.raises(ValueError, match="rgb_array"):
        Heliostat(render_mode="human")


def test_matplotlib_is_only_imported_to_render():
    code = (
        "import sys; from covary.envs.heliostat import Heliostat; env = Heliostat('rgb_array'); env.reset(); "
        "env.step([1, 1]); before = 'matplotlib' in sys.modules; env.render(); "
        "sys.exit(before or 'matplotlib' not in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
