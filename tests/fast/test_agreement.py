"""Ten updates of the fast path are those of the general path, in every policy and setting."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from twins import FULL, POLICIES, agent_of, bits, both, box, rollout_of, run_both

import covary
from covary.fast import attach
from covary.fast import path as path_module
from covary.fast.tables import Unknown
from covary.nets import RunningNorm

LOSSES = pytest.mark.parametrize(("algo", "n"), [("ppo", 4), ("actor_critic", 1), ("actor_critic", 3)])


@LOSSES
@pytest.mark.parametrize("case", POLICIES)
def test_ten_updates_agree_with_autograd(case, algo, n):
    run_both(algo, n, *both(algo, *POLICIES[case], n=n))


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
