"""Runs on the fast path: what they learn, repeat, keep and give back."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from short_runs import ALGORITHMS, ENVIRONMENTS, SMALL, broken, chosen, train
from torch import nn
from twins import OBS, agent_of, assert_close, bits, box, layers
from worlds import Line, Plane

import covary
from covary import choices
from covary.choices import choose
from covary.envs.faults import EnvironmentFault
from covary.errors import UsageError
from covary.fast import attach
from covary.runs import Run


@ALGORITHMS
@ENVIRONMENTS
def test_a_run_learns_what_it_learns_on_the_general_path(env, algo, here):
    """Three rollouts or sixty steps: later, what rounds differently leads to other actions and other episodes."""
    start = covary.untrained(env, algo, **{k: v for k, v in SMALL[algo].items() if k != "steps"})
    agents = [train(env, algo, f"run-{fast}", fast=fast) for fast in (True, False)]
    assert [chosen(f"run-{fast}")["path"] for fast in (True, False)] == ["fast", "general"]
    assert chosen("run-False")["why"] == "fast is off"
    states = [agent.state()[0] for agent in agents]
    assert {**start.state()[0]}.keys() <= states[0].keys() | {"noise"}
    for name, array in states[1].items():
        assert_close(states[0][name], array, 1e-3, name)
    lines = [list(Run.open(Path(f"run-{fast}")).lines()) for fast in (True, False)]
    for ours, general in zip(*lines, strict=True):
        assert ours.keys() == general.keys()
        for name, value in general.items():
            assert ours[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name


@ALGORITHMS
@ENVIRONMENTS
def test_the_same_seed_gives_the_same_bits_also_beside_evaluations(env, algo, here):
    first = train(env, algo, "first")
    assert bits(first) == bits(train(env, algo, "second"))
    assert bits(first) == bits(train(env, algo, "third", eval_every=60, eval_episodes=2, save_every=50))
    assert bits(first) != bits(train(env, algo, "fourth", seed=1))


@ALGORITHMS
def test_a_torso_that_is_refused_trains_and_says_why(algo, here, capsys):
    class Wide(Plane):
        observation_space = Box(-1, 1, (OBS,), np.float32)

    torso = layers(nn.LayerNorm(OBS), nn.Tanh())
    covary.train(Wide, algo, out="run", torso=torso, **SMALL[algo])
    assert (chosen()["path"], chosen()["why"]) == ("general", "a torso with LayerNorm")
    assert capsys.readouterr().out.count("general path (a torso with LayerNorm)") == 1
    covary.train(Wide, resume="run", torso=torso, steps=240, quiet=True)
    assert (chosen()["path"], chosen()["why"]) == ("general", "a torso with LayerNorm")


@ALGORITHMS
def test_a_resumed_run_repeats_what_was_chosen(algo, here, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # what the user says goes before what was kept
    train(Line, algo)
    first = chosen()
    assert first["path"] == "fast"
    covary.train(Line, resume="run", steps=240, quiet=True)
    assert chosen() == first
    config = json.loads(Path("run/config.json").read_text())
    Path("run/config.json").write_text(
        json.dumps(config | {"chosen": first | {"path": "general", "why": "so", "threads": 2}})
    )
    before = torch.get_num_threads()
    covary.train(Line, resume="run", steps=300)
    assert chosen() == first | {"path": "general", "why": "so", "threads": 2}
    assert "general path (so), 2 threads" in capsys.readouterr().out
    assert torch.get_num_threads() == before


def test_a_choice_that_cannot_be_repeated_is_made_again():
    agent = agent_of("ppo", box(2), {"activation": "silu"})
    assert choose(agent, True, {"path": "fast", "why": "", "threads": 1})[:2] == ("general", "a torso with SiLU")
    for wrong in ("fast", 3, {"path": 1, "threads": "many"}, {"threads": -1}):
        assert choose(agent_of("ppo", box(2)), True, wrong)[0] == "fast"


@ALGORITHMS
@ENVIRONMENTS
def test_a_trained_agent_acts_as_the_one_that_is_loaded(env, algo, here):
    agent, loaded = train(env, algo), covary.load("run")
    rng = np.random.default_rng(0)
    for _ in range(20):
        obs = rng.uniform(-1, 1, (4, *env.observation_space.shape)).astype(np.float32)
        np.testing.assert_array_equal(agent.act(obs), loaded.act(obs))
        np.testing.assert_array_equal(agent.act(obs, deterministic=True), loaded.act(obs, deterministic=True))
    if algo == "actor_critic":  # beyond what was drawn ahead, too
        for _ in range(400):
            np.testing.assert_array_equal(agent.next_noise(3), loaded.next_noise(3))


@ALGORITHMS
@ENVIRONMENTS
def test_the_networks_stay_ordinary_modules(env, algo, here):
    agent = train(env, algo)
    vector = agent.learner.optimizer.vector
    parameters = [*agent.policy.parameters(), *agent.learner.critic.parameters()]
    assert torch.equal(torch.cat([p.flatten() for p in parameters]), vector)
    obs, noise = np.zeros((3, agent.encode.size), np.float32), agent.noise(3)
    expected = agent.sample(obs, noise)[1]
    assert agent.fast is None
    assert attach(agent) is None
    np.testing.assert_allclose(agent.fast.act(obs, noise)[1], expected, rtol=1e-5, atol=1e-5)
    twin, fresh = copy.deepcopy(agent.policy), covary.load("run").policy
    for parameter in fresh.parameters():
        parameter.data.zero_()
    fresh.load_state_dict(agent.policy.state_dict())
    for other in (twin, fresh):
        density = other(torch.from_numpy(obs))
        latent = density.sample_latent(noise=torch.from_numpy(noise))
        np.testing.assert_array_equal(density.to_action(latent).detach(), expected)
    with torch.no_grad():
        vector.zero_()
    assert all(not p.any() for p in parameters)
    assert any(p.any() for p in twin.parameters())


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_keeps_its_number_of_environments(fast, here):
    """The kernels write where the first number of environments has its place."""
    train(Line, "actor_critic", n_envs=1, fast=fast)
    many = SyncVectorEnv([Line] * 64, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(UsageError, match="as many environments"):
        covary.train(many, resume="run", steps=1000, quiet=True)


@ALGORITHMS
def test_what_times_the_environment_moves_no_random_numbers(algo, here, monkeypatch):
    """An environment that draws from the generators that all share gives the same bits however often it was tried."""

    class Shared(Line):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, reward + random.random() + np.random.random() + float(torch.rand(())), *rest  # noqa: NPY002

    kept = []
    for most in (1, 2):
        monkeypatch.setattr(choices, "cores", lambda most=most: most)
        monkeypatch.setattr(choices, "WORTH", 1e9)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        kept.append(bits(train(Shared, algo, f"run-{most}")))
    assert kept[0] == kept[1]


@ALGORITHMS
def test_the_threads_of_torch_are_given_back(algo, here, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    train(Line, algo)
    assert (chosen()["threads"], torch.get_num_threads()) == (1, 2)
    with pytest.raises(EnvironmentFault):
        train(broken("reward", np.nan, 9), algo, "broken")
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    train(Line, algo, "asked")
    assert (chosen("asked")["threads"], torch.get_num_threads()) == (2, 2)
