"""Ten updates of the fast path are those of the general path, in every policy and setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from twins import (
    FULL,
    POLICIES,
    agent_of,
    bits,
    both,
    box,
    rollout_of,
    run_both,
)

import covary
from covary.fast import attach
from covary.fast import path as path_module
from covary.fast.tables import Unknown
from covary.nets import RunningNorm

THREADS = Path("/proc/self/task")
LOSSES = pytest.mark.parametrize(("algo", "n"), [("ppo", 4), ("a2c", 4), ("actor_critic", 1), ("actor_critic", 3)])


@LOSSES
@pytest.mark.parametrize("case", POLICIES)
def test_ten_updates_agree_with_autograd(case, algo, n):
    run_both(algo, n, *both(algo, *POLICIES[case], n=n))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("case", POLICIES)
def test_ten_updates_with_traces_agree_with_autograd(case, n):
    general, ours, path = both("actor_critic", *POLICIES[case], n=n, actor_lam=0.9, critic_lam=0.6)
    run_both("actor_critic", n, general, ours, path)
    assert n == 1 or general.learner.traces.vectors.abs().sum() > 0, "the last step cut all of them"


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
@pytest.mark.parametrize("case", POLICIES)
def test_ten_updates_of_stream_ac_agree_with_autograd(case, entropy_coef):
    policy = POLICIES[case][1]
    correlated = policy.get("covariance") == "full" or case == "fixed matrix" or "clip" in case
    if entropy_coef and (correlated or "periodic" in policy):
        with pytest.raises(Unknown, match="entropy bonus of correlated"):
            both("stream_ac", *POLICIES[case], n=1, entropy_coef=entropy_coef)
    else:
        run_both("stream_ac", 1, *both("stream_ac", *POLICIES[case], n=1, entropy_coef=entropy_coef))


@pytest.mark.parametrize("init_std", [0.02, 0.25, 0.45])
def test_the_slope_of_a_squashed_entropy_is_that_of_autograd(init_std):
    """Where one rule is enough for the kernel, the general path has two."""
    policy = {"state_dependent": True, "init_std": init_std}
    run_both("stream_ac", 1, *both("stream_ac", box(2), policy, n=1, entropy_coef=10.0))


@pytest.mark.parametrize("init_std", [0.5, 20.0, 1000.0])
def test_the_slope_of_a_half_bounded_entropy_is_that_of_autograd(init_std):
    space, policy = Box(np.zeros(2, np.float32), np.inf), {"state_dependent": True, "init_std": init_std}
    run_both("stream_ac", 1, *both("stream_ac", space, policy, n=1, entropy_coef=0.3))


SETTINGS = {
    "rewards as they are": {"scale_rewards": False},
    "observations as they are": {"policy": {"normalize_obs": False}},
    "no bound on the gradient": {"max_grad_norm": 0.0},
    "a tight bound": {"max_grad_norm": 1e-2},
    "entropy": {"entropy_coef": 0.05},
}


@LOSSES
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("space", [Discrete(4), box(2)], ids=["choices", "box"])
def test_every_setting_agrees_with_autograd(space, case, algo, n):
    options = dict(SETTINGS[case])
    if case == "entropy" and isinstance(space, Box):
        with pytest.raises(Unknown, match="entropy"):
            both(algo, space, n=n, **options)
        return
    logged = run_both(algo, n, *both(algo, space, options.pop("policy", {}), n=n, **options))
    if algo == "ppo" and "no" not in case:  # the bound is met in the first cases and felt in the last
        norms = np.array(logged["actor_grad_norm"])
        assert norms.min() > 0


OF_PPO = {
    "one by one": {"minibatch": 1, "horizon": 3},
    "more than there is": {"minibatch": 1000},
    "an uneven rest": {"minibatch": 37},
    "advantages as they are": {"normalize_advantage": False},
    "a narrow clip": {"clip": 0.02, "epochs": 3, "learning_rate": 3e-3},
    "a constant rate": {"anneal": False},
    "a horizon of one": {"horizon": 1, "minibatch": 2, "epochs": 2},
    "epochs that stop": {"epochs": 8, "target_kl": 1e-3, "learning_rate": 3e-3},
}


@pytest.mark.parametrize("case", OF_PPO)
def test_every_setting_of_ppo_agrees_with_autograd(case):
    logged = run_both("ppo", 4, *both("ppo", box(2), FULL, **OF_PPO[case]))
    if case == "epochs that stop":
        assert len(set(np.ravel(logged["epochs"]))) > 1
    if case == "a narrow clip":
        assert np.max(logged["clip_fraction"]) > 0.1


OF_A2C = {
    "one environment": {"n": 1},
    "a horizon of one": {"horizon": 1},
    "a long one": {"horizon": 200},
    "lambda of gae": {"lam": 0.9},
    "td": {"lam": 0.0},
    "advantages standardised": {"normalize_advantage": True},
    "a constant rate": {"anneal": False},
}


@pytest.mark.parametrize("case", OF_A2C)
def test_every_setting_of_a2c_agrees_with_autograd(case):
    options = dict(OF_A2C[case])
    n = options.pop("n", 4)
    run_both("a2c", n, *both("a2c", box(2), FULL, n=n, **options))


@pytest.mark.parametrize("case", ["5 choices", "full state", "mixed"])
def test_a_second_core_changes_no_bit(case, monkeypatch):
    kept = []
    for cores in (1, 2):
        monkeypatch.setattr(path_module, "_cores", lambda cores=cores: cores)
        agent = agent_of("ppo", *POLICIES[case])
        assert attach(agent) is None
        assert (agent.fast.beside is not None) == (cores == 2)
        rng = np.random.default_rng(0)
        for _ in range(3):
            losses = agent.learner.update(rollout_of(agent, 32, 4, rng), 0.0)
        kept.append((bits(agent), {name: float(value) for name, value in losses.items()}))
    assert kept[0] == kept[1]


def test_rewards_beyond_the_clip_and_trust_in_few_observations_agree():
    """The kernels have these numbers of their own."""
    assert (covary.returns.ReturnScale.CLIP, RunningNorm.FEWEST) == (10.0, 10)


@pytest.mark.skipif(not THREADS.exists(), reason="what runs is seen on Linux alone")
def test_the_critic_learns_beside_in_one_thread_and_no_more():
    """Whatever the BLAS would take in a thread that torch knows nothing of."""
    torch.set_num_threads(2)  # or none learns beside; a run says how many once its networks are there
    agent = agent_of("ppo", box(2), {"hidden": (140, 130)}, n=4, horizon=64, minibatch=256)
    assert attach(agent) is None
    torch.set_num_threads(1)
    rollout = rollout_of(agent, 64, 4, np.random.default_rng(0))
    before = len(list(THREADS.iterdir()))
    agent.learner.update(rollout, 0.0)
    beside = agent.fast.beside is not None  # on two cores
    assert len(list(THREADS.iterdir())) == before + beside
