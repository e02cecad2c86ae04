"""The fast path computes what the general path computes, or is not taken."""

from __future__ import annotations

import copy
import functools
import json
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numba import int64, void
from scipy import stats
from torch import nn
from torch.nn.utils import parametrizations, prune
from worlds import Choice, Line, Plane

import covary
from covary import algorithms, choices, training
from covary.agent import Agent, CriticConfig
from covary.choices import choose
from covary.distributions import Geometry
from covary.envs.faults import EnvironmentFault
from covary.errors import UsageError
from covary.fast import attach, cache, compiled
from covary.fast import path as path_module
from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, kernel
from covary.fast.dense import activate, backward, forward
from covary.fast.densities import centre_of, score, spread_of
from covary.fast.online import log_jacobian
from covary.fast.path import FastPath
from covary.fast.tables import ACTIVATIONS, Unknown
from covary.heads import PolicyConfig
from covary.nets import RunningNorm
from covary.runs import Run, read_checkpoint
from covary.types import Rollout

# ------------------------------------------------------------------------------------------- what it knows

OBS = 5
FULL, STATE = {"covariance": "full"}, {"state_dependent": True}
SUN = Box(np.array([0, 0], np.float32), np.array([2 * np.pi, 1.5], np.float32))
MIXED = Box(np.array([0, -1, 0, -np.inf, -2, -3], np.float32), np.array([4, 1, np.inf, 1, 2, np.inf], np.float32))
MIX = {"periodic": (0,), "bounds": ("auto", "squash", "auto", "auto", "free", "auto")}
WORDS = {"bounds": ("squash", "clip", "mean")}
MATRIX = {"covariance": "fixed", "covariance_matrix": (0.5, 0.1, 0.05, 0.1, 0.3, -0.1, 0.05, -0.1, 0.4)}


def box(d):
    return Box(-1, 2, (d,))


def own_torso():
    return nn.Sequential(
        nn.Identity(),
        nn.Sequential(nn.Linear(OBS, 7, bias=False), nn.Tanh(), nn.Identity()),
        nn.Linear(7, 5),
        nn.Linear(5, 6, bias=False),
        nn.ReLU(inplace=True),
    )


POLICIES = {
    "2 choices": (Discrete(2), {}),
    "3 choices": (Discrete(3), {"hidden": (8, 8)}),
    "5 choices": (Discrete(5), {}),
    "diagonal": (box(2), {}),
    "diagonal state": (box(2), STATE),
    "full": (box(3), FULL),
    "full state": (box(3), FULL | STATE),
    "full of one": (box(1), FULL),
    "fixed": (box(3), {"covariance": "fixed"}),
    "fixed variances": (box(2), {"covariance": "fixed", "covariance_matrix": (0.5, 0.2)}),
    "fixed matrix": (box(3), MATRIX),
    "fixed matrix clip": (box(3), MATRIX | {"bounds": ("clip", "squash", "free")}),
    "free": (Box(-np.inf, np.inf, (2,)), FULL),
    "half": (Box(np.array([0, -np.inf], np.float32), np.array([np.inf, 1], np.float32)), FULL),
    "wrap": (SUN, FULL | {"periodic": (0,)}),
    "wrap state": (SUN, FULL | STATE | {"periodic": (0,)}),
    "wrap wide": (SUN, FULL | {"periodic": (0,), "init_std": (0.4, 0.2)}),
    "wrap two": (SUN, {"periodic": (0, 1), "init_std": (0.05, 0.3)}),
    "wrap two state": (SUN, STATE | {"periodic": (0, 1)}),
    "clip": (box(3), {"bounds": "clip"}),
    "clip wide state": (box(2), STATE | {"bounds": "clip", "init_std": 1.0}),
    "clip half": (Box(0, np.inf, (2,)), {"bounds": "clip"}),
    "clip full": (box(3), FULL | WORDS),
    "clip full state": (box(3), FULL | STATE | WORDS),
    "mean": (box(3), FULL | {"bounds": "mean"}),
    "mean state": (box(2), STATE | {"bounds": "mean"}),
    "mixed": (MIXED, FULL | MIX),
    "mixed state": (MIXED, FULL | STATE | MIX),
    "mixed clip": (MIXED, {"periodic": (0,), "bounds": ("auto", "clip", "clip", "auto", "mean", "free")}),
    "tanh": (box(2), {"activation": "tanh", "hidden": (7, 5, 9)}),
    "relu": (box(2), {"activation": "relu", "hidden": (13, 6)}),
    "elu": (box(2), {"activation": "elu", "hidden": (7, 5, 9)}),
    "one unit": (box(2), {"activation": "elu", "hidden": (1,)}),
    "no hidden layer": (box(2), FULL | STATE | {"hidden": ()}),
    "own torso": (box(2), FULL | {"torso": own_torso}),
    "own torso choices": (Discrete(3), {"torso": own_torso}),
}


def agent_of(algo, space, policy=None, *, n=4, **options):
    """An untrained agent with every parameter moved away from where it starts."""
    policy = {"hidden": (6, 5)} | (policy or {})
    torso = policy.pop("torso", lambda: None)
    usual = {"minibatch": 50, "horizon": 32, "epochs": 1, "target_kl": 0.0, "learning_rate": 1e-3}
    others = {
        "actor_critic": {"actor_lr": 1e-3, "critic_lr": 2e-3},
        "a2c": {"horizon": 7, "actor_lr": 1e-3, "critic_lr": 2e-3},
    }
    others["trpo"] = {"minibatch": 50, "horizon": 32, "critic_epochs": 1}
    usual = others.get(algo, usual)
    config = algorithms.find(algo).Config(n_envs=n, **usual | options)
    critic = CriticConfig(hidden=policy["hidden"], activation=policy.get("activation", "tanh"))
    torch.manual_seed(2)
    spaces = Box(-np.inf, np.inf, (OBS,)), space
    agent = Agent(algo, *spaces, config=config, policy=PolicyConfig(**policy), critic=critic, torso=torso(), seed=3)
    vector = agent.learner.optimizer.vector
    vector += 0.2 * torch.randn(vector.shape, generator=torch.Generator().manual_seed(1))
    return agent


def rollout_of(agent, t, n, rng):
    """t steps of n environments under this agent, with ends, cuts and steps that never happened."""

    def tensor(x):
        return torch.as_tensor(np.asarray(x, np.float32))

    obs, next_obs = (0.5 + rng.standard_normal((2, t, n, OBS))).astype(np.float32)
    latent = np.stack([agent.sample(obs[i])[0] for i in range(t)])
    ended = rng.random((t, n)) < 0.15
    discount = np.where(ended & (rng.random((t, n)) < 0.5), 0, 0.99)
    valid = rng.random((t, n)) > (0.1 if n > 1 else 0)
    reward = rng.standard_normal((t, n)) * np.where(rng.random((t, n)) < 0.05, 30, 1)
    rest = (tensor(x) for x in (reward, discount, ~ended, valid, next_obs))
    return Rollout(tensor(obs), torch.from_numpy(latent), *rest)


def both(algo, *arguments, **options):
    """Two equal agents and the fast path of the second, which learns by it."""
    general, ours = (agent_of(algo, *arguments, **options) for _ in range(2))
    path = FastPath(ours.learner)
    ours.learner.fast = path
    return general, ours, path


# --------------------------------------------------------------------------------------------- ten updates agree
#
# Adam divides by the root of the squared gradient, so an entry whose true gradient is 0 moves at the full rate in a
# direction that round-off chose. Each tensor is therefore compared as a whole, by the norm of the difference over that
# of what it moved, and observations are kept where no tanh saturates: 1 - y^2 has no digits there, in either path.

PER_UPDATE, UPDATES = 1e-5, 10


def assert_close(ours, general, tolerance, what):
    ours, general = (np.asarray(x, np.float64) for x in (ours, general))
    off = np.linalg.norm(ours - general)
    assert off <= tolerance * np.linalg.norm(general) + 1e-12, f"{what}: {off:.1e} off {np.linalg.norm(general):.1e}"


def run_both(algo, n, general, ours, path):
    """The same batches into both; what each logged, summed over updates. Says that all they remember agrees."""
    rng, start = np.random.default_rng(0), general.learner.optimizer.vector.clone()
    logged, sums = {}, np.zeros(3)
    for update in range(UPDATES):
        rollout = rollout_of(general, general.learner.horizon, n, rng)
        ours.learner.generator.set_state(general.learner.generator.get_state())
        lines = [general.learner.update(rollout, update / UPDATES)]
        if algo != "actor_critic":
            lines.append(ours.learner.update(rollout, update / UPDATES))
        else:
            table = torch.cat([*rollout[2:6], torch.zeros(1, n)]).numpy()
            latent = rollout.latent[0].float().numpy().copy()
            before = sums.copy()
            assert path.learn(rollout.obs[0].numpy(), latent, table, rollout.next_obs[0].numpy(), sums)
            lines.append(dict(zip(("actor_loss", "critic_loss"), sums - before, strict=False)) if lines[0] else {})
        for name in lines[0].keys() | lines[1].keys():
            sizes = [float(line[name]) for line in lines]
            logged.setdefault(name, []).append(sizes)
    theirs, mine = general.learner.optimizer, ours.learner.optimizer
    assert theirs.steps == mine.steps > 0
    begin, most = 0, PER_UPDATE * UPDATES
    for network in (general.policy, general.learner.critic):
        for name, parameter in network.named_parameters():
            part = slice(begin, begin := begin + parameter.numel())
            assert_close(mine.first[part], theirs.first[part], most, f"first moment of {name}")
            assert_close(mine.second[part], theirs.second[part], most, f"second moment of {name}")
            moved = [(each.vector - start)[part] for each in (mine, theirs)]
            assert_close(*moved, most, name)
    for name, pairs in logged.items():
        a, b = np.transpose(pairs)
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max() + 1e-6, err_msg=name)
    for name, buffer in general.policy.normalizer.state_dict().items():
        np.testing.assert_allclose(ours.policy.normalizer.state_dict()[name], buffer, rtol=1e-6, err_msg=name)
    for name in ("running", "carry"):
        scale = [getattr(each.learner.reward_scale, name) for each in (ours, general)]
        np.testing.assert_allclose(*scale, rtol=1e-6, atol=1e-12, err_msg=name)
    return logged


LOSSES = pytest.mark.parametrize(("algo", "n"), [("ppo", 4), ("a2c", 4), ("actor_critic", 1), ("actor_critic", 3)])


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


# ------------------------------------------------------------------------------------------- kernels by themselves


@kernel(void(int64, Matrix))
def activated(which, y):
    activate(which, y, y.shape[1])


def test_tanh_is_as_near_as_the_source_says():
    x = np.concatenate([np.linspace(-12, 12, 400_001), np.geomspace(1e-38, 1e30, 10_000)]).astype(np.float32)
    y = np.concatenate([x, -x])[None].copy()
    activated(ACTIVATIONS[nn.Tanh], y)
    true = np.tanh(np.concatenate([x, -x]).astype(np.float64))
    assert (np.abs(y[0] - true) <= 3.2e-7 * np.abs(true)).all()
    assert (np.abs(y) <= 1).all()
    np.testing.assert_array_equal(y[0, : len(x)], -y[0, len(x) :])


@pytest.mark.parametrize("cls", [nn.Tanh, nn.ReLU, nn.ELU])
def test_activations_keep_nan_and_infinity(cls):
    x = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38]], np.float32)
    y = x.copy()
    activated(ACTIVATIONS[cls], y)
    np.testing.assert_allclose(y, cls()(torch.from_numpy(x)), rtol=1e-6)


@kernel(void(Vector, Rows, Matrix, Matrix, Vector, int64))
def there_and_back(parameters, layers, work, slope, gradient, n):
    forward(parameters, layers, 0, len(layers), work, n)
    backward(parameters, layers, 0, len(layers), work, slope, gradient, n)


@pytest.mark.parametrize(("n", "room"), [(1, 1), (1, 9), (5, 5), (6, 16), (64, 64)])
@pytest.mark.parametrize("widths", [(3, 4, 1), (4, 8, 4), (1, 1, 1), (7, 5, 9, 2), (2, 64, 33, 3), (5, 2)], ids=str)
def test_layers_and_their_gradients_are_those_of_torch_in_float64(widths, n, room):
    torch.manual_seed(0)
    classes = [nn.Tanh, nn.ELU, nn.ReLU, nn.Identity]
    layers, modules, parameters, row, at = [], [], [], 0, 0
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        linear, activation = (
            nn.Linear(inputs, outputs, bias=k != 1),
            classes[k % 4] if k + 2 < len(widths) else classes[3],
        )
        modules += [linear, activation()]
        bias = -1 if linear.bias is None else at + inputs * outputs
        layers.append((at, bias, inputs, outputs, ACTIVATIONS[activation], row, row := row + inputs))
        parameters += linear.parameters()
        at += sum(p.numel() for p in linear.parameters())
    vector = torch.cat([p.detach().flatten() for p in parameters]).numpy()
    network = nn.Sequential(*modules).double()
    x = torch.randn(n, widths[0])
    weight = torch.randn(n, widths[-1])
    y = network(x.double())
    gradients = torch.autograd.grad((y * weight.double()).sum(), list(network.parameters()))
    work, slope = np.full((2, row + widths[-1], room), np.nan, np.float32)
    work[: widths[0], :n], slope[row:, :n] = x.T.numpy(), weight.T.numpy()
    gradient = np.full(len(vector), np.nan, np.float32)
    there_and_back(vector, np.array(layers), work, slope, gradient, n)
    assert_close(work[row:, :n].T, y.detach(), 1e-6, "outputs")
    assert_close(gradient, torch.cat([g.flatten() for g in gradients]), 2e-6, "gradient")


@kernel(void(Vector, Indices, Rows, Table, Table, Matrix, Matrix, Numbers, Table, Table, Table, Numbers))
def scores(parameters, plan, dims, box, given, outputs, latents, value, slopes, loc, spread, slope):
    for b in range(outputs.shape[1]):
        centre_of(plan, dims, box, outputs, 0, b, loc)
        spread_of(parameters, plan, dims, box, given, outputs, 0, b, spread)
        value[b] = score(plan, dims, box, outputs, 0, b, latents, b, loc, spread, slope)
        value[b] -= log_jacobian(plan, dims, box, latents, b)
        for k in range(len(slope)):
            slopes[b, k] = slope[k]


def scored(path, outputs, latents):
    """Log-probabilities (B,) and slopes (B, K) of latents (B, D) under a head's outputs (K, B)."""
    parameters, _, plan, dims, box, given = path.policy
    value, slopes = np.zeros(len(latents)), np.zeros((len(latents), len(path.direction)))
    scores(parameters, plan, dims, box, given, outputs, latents, value, slopes, *path.density, path.direction)
    return value, slopes


@pytest.mark.parametrize("spread", [0.5, 2.5, 12.0])
@pytest.mark.parametrize("case", [name for name, (space, _) in POLICIES.items() if isinstance(space, Box)])
def test_log_probabilities_and_slopes_are_those_of_autograd_in_float64(case, spread):
    """spread: of the log standard deviations; the widest are held at their bounds, which gives no slope."""
    agent = agent_of("ppo", *POLICIES[case])
    rng, head, n = np.random.default_rng(1), agent.policy.head, 40
    with torch.no_grad():
        for parameter in (p for name, p in head.named_parameters() if "out" not in name):
            parameter.copy_(torch.from_numpy(spread * rng.standard_normal(parameter.shape)))
    outputs = rng.standard_normal((head.out.out_features, n)).astype(np.float32)
    d, a = head.geometry.dim, len(head.angles)
    outputs[d + a : 2 * d + a] *= spread
    outputs[: d + a, :3] *= 1e-4  # a vector too short to have an angle
    true = copy.deepcopy(head).double()
    true.out = nn.Identity()
    leaf = torch.from_numpy(outputs.T.copy()).double().requires_grad_()
    with torch.no_grad():
        latents = true(leaf).sample_latent(noise=torch.from_numpy(rng.standard_normal((n, d)))).float()
    value, slopes = scored(FastPath(agent.learner), outputs, latents.numpy())
    expected = true(leaf).log_prob_latent(latents.double())
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-7, atol=1e-7)
    own = [p for p in true.parameters() if p.numel()]
    for b in range(n):
        of_outputs, *rest = torch.autograd.grad(expected[b], [leaf, *own], retain_graph=True, allow_unused=True)
        wanted = torch.cat([of_outputs[b], *(g for g in rest if g is not None)]).numpy()
        size = np.abs(wanted).max() + 1
        np.testing.assert_allclose(slopes[b, : len(wanted)], wanted, rtol=1e-6, atol=1e-7 * size)


def test_the_mass_at_a_bound_is_that_of_scipy_far_into_the_tail():
    path = FastPath(agent_of("ppo", Box(-1, 1, (1,)), {"bounds": "clip", "state_dependent": True}).learner)
    z = np.concatenate([-np.geomspace(1e-3, 1e5, 200), np.geomspace(1e-3, 30, 100)])
    outputs = np.zeros((2, len(z)), np.float32)
    outputs[0], outputs[1] = -1 - z, -path.policy[4][0, 5]  # std 1, the lower bound z of them above the mean
    z = -1.0 - outputs[0].astype(np.float64)
    std = np.exp(path.policy[4][0, 5] + outputs[1, 0].astype(np.float64))
    value, slopes = scored(path, outputs, np.full((len(z), 1), -1, np.float32))
    np.testing.assert_allclose(value, stats.norm.logcdf(z / std), rtol=1e-7, atol=1e-12)
    hazard = np.exp(stats.norm.logpdf(z[z > -1e3]) - stats.norm.logcdf(z[z > -1e3]))
    np.testing.assert_allclose(slopes[z > -1e3, 0], -hazard, rtol=1e-4, atol=1e-12)


def test_a_gradient_that_is_nan_moves_nothing_of_its_network():
    """The other network goes on, and the sums tell whoever looks."""
    _, agent, path = both("ppo", box(2))
    batch, _ = agent.learner._batch(rollout_of(agent, 32, 4, np.random.default_rng(0)))
    latent, optimizer = batch.latent.clone(), agent.learner.optimizer
    latent[3] = torch.nan
    before, its = optimizer.copy(), optimizer.segments[0]
    seen = path.epoch(batch._replace(latent=latent), torch.arange(len(latent))[:50])
    assert seen.isnan().tolist() == [True, False, True, False, False]
    for now, then in zip((optimizer.vector, optimizer.first, optimizer.second), before[:3], strict=True):
        assert now.isfinite().all()
        assert torch.equal(now[:its], then[:its])
        assert (now[its:] != then[its:]).any()


# ------------------------------------------------------------------------------------------------------ acting


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
    np.testing.assert_array_equal(again[1], actions[:1])
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


# ------------------------------------------------------------------------------------------- what it does not know


class Doubling(nn.Module):
    def forward(self, x):
        return 2 * x


class Stretched(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Hard(nn.Tanh):
    def forward(self, x):
        return x.clamp(-1, 1)


class Skipping(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def layers(*between):
    return nn.Sequential(nn.Linear(OBS, OBS), *between, nn.Linear(OBS, OBS), nn.Tanh())


def tied_layers():
    layer = nn.Linear(OBS, OBS)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh())


def tied(name):
    torso = layers(nn.Tanh())
    setattr(torso[2], name, getattr(torso[0], name))
    return torso


def frozen(name):
    torso = layers(nn.Tanh())
    getattr(torso[0], name).requires_grad_(False)
    return torso


TORSOS = {  # and why they are refused
    "layer norm": (lambda: layers(nn.LayerNorm(OBS), nn.Tanh()), "LayerNorm"),
    "dropout": (lambda: layers(nn.Tanh(), nn.Dropout(0.5)), "Dropout"),
    "batch norm": (lambda: layers(nn.BatchNorm1d(OBS), nn.Tanh()), "BatchNorm1d"),
    "silu": (lambda: layers(nn.SiLU()), "SiLU"),
    "gelu": (lambda: layers(nn.GELU()), "GELU"),
    "leaky": (lambda: layers(nn.LeakyReLU()), "LeakyReLU"),
    "prelu": (lambda: layers(nn.PReLU()), "PReLU"),
    "another elu": (lambda: layers(nn.ELU(alpha=0.5)), "alpha"),
    "two activations": (lambda: layers(nn.Tanh(), nn.Identity(), nn.ReLU()), "follows no linear layer"),
    "activation first": (lambda: nn.Sequential(nn.Tanh(), nn.Linear(OBS, OBS)), "follows no linear layer"),
    "only an activation": (nn.Tanh, "follows no linear layer"),
    "own module": (Doubling, "Doubling"),
    "own module inside": (lambda: layers(Doubling()), "Doubling"),
    "own linear": (lambda: nn.Sequential(Stretched(OBS, OBS)), "Stretched"),
    "own tanh": (lambda: layers(Hard()), "Hard"),
    "own sequential": (lambda: Skipping(nn.Linear(OBS, OBS), nn.Tanh()), "Skipping"),
    "one layer twice": (tied_layers, "two layers share"),
    "tied weights": (lambda: tied("weight"), "two layers share"),
    "tied biases": (lambda: tied("bias"), "two layers share"),
    "frozen weight": (lambda: frozen("weight"), "frozen"),
    "frozen bias": (lambda: frozen("bias"), "frozen"),
    "all frozen": (lambda: layers(nn.Tanh()).requires_grad_(False), "frozen"),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(OBS, OBS))), "ParametrizedLinear"),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(OBS, OBS)), "ParametrizedLinear"),
}


@pytest.mark.parametrize("case", TORSOS)
def test_torsos_that_the_kernels_do_not_do_go_the_general_way(case):
    make, reason = TORSOS[case]
    agent = agent_of("ppo", box(2), {"torso": make})
    why = attach(agent)
    assert reason in why
    assert "\n" not in why
    assert agent.fast is None
    assert agent.learner.fast is None
    assert choose(agent, True)[:2] == ("general", why)
    losses = agent.learner.update(rollout_of(agent, 32, 4, np.random.default_rng(0)), 0.0)
    assert all(loss.isfinite() for loss in losses.values())


def every_module(agent):
    policy, critic = agent.policy, agent.learner.critic
    inner = [policy.torso, policy.torso[0], policy.torso[1], policy.normalizer, policy.head]
    last = policy.head.out if hasattr(policy.head, "out") else policy.head.logits
    return [policy, *inner, last, critic, critic.torso, critic.torso[0], critic.torso[1], critic.head]


@pytest.mark.parametrize("space", [Discrete(3), box(2)], ids=["choices", "box"])
@pytest.mark.parametrize(
    "register",
    ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook", "backward_hook"],
)
def test_whoever_listens_to_a_module_is_heard(register, space):
    for k in range(12):
        agent = agent_of("ppo", space)
        handle = getattr(every_module(agent)[k], f"register_{register}")(lambda *_: None)
        assert "hooks" in attach(agent), k
        handle.remove()
        assert attach(agent) is None


def test_whoever_listens_to_every_module_is_heard():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert "hooks" in attach(agent_of("ppo", box(2)))
    finally:
        handle.remove()


@pytest.mark.parametrize("space", [Discrete(3), box(2)], ids=["choices", "box"])
def test_a_method_changed_on_a_module_is_obeyed(space):
    for k in range(12):
        agent = agent_of("ppo", space)
        module = every_module(agent)[k]
        module.forward = functools.wraps(module.forward)(lambda x, was=module.forward: was(x))
        assert "methods were changed" in attach(agent), k
    agent = agent_of("ppo", space)
    agent.policy.density = lambda x: None
    assert "methods were changed" in attach(agent)


@pytest.mark.parametrize("cls", [nn.Linear, nn.Tanh, nn.Sequential, nn.Identity, RunningNorm])
def test_a_method_changed_on_a_class_is_obeyed(cls, monkeypatch):
    torso = nn.Sequential(nn.Identity(), nn.Linear(OBS, 4), nn.Tanh())
    agent = agent_of("ppo", box(2), {"torso": lambda: torso})
    was = cls.forward
    monkeypatch.setattr(cls, "forward", functools.wraps(was)(lambda self, x: 2 * was(self, x)))
    assert f"a {cls.__name__} whose methods were changed" in attach(agent)


def test_parameters_that_were_changed_are_refused():
    names = [name for name, p in agent_of("ppo", box(2), FULL).policy.named_parameters() if p.numel()]
    changes = {
        "frozen": lambda module, name: getattr(module, name).requires_grad_(False),
        "hooks": lambda module, name: getattr(module, name).register_hook(lambda gradient: 0 * gradient),
        "shared": lambda module, name: setattr(module, name, nn.Parameter(getattr(module, name).detach().clone())),
    }
    for reason, change in changes.items():
        for full in names:
            agent = agent_of("ppo", box(2), FULL)
            path, _, name = full.rpartition(".")
            change(agent.policy.get_submodule(path), name)
            assert reason in attach(agent), (full, reason)


def test_layers_whose_weights_were_cut_are_refused():
    def cut():
        torso = layers(nn.Tanh())
        torso[0].weight, torso[0].bias = nn.Parameter(torch.ones(3, OBS)), nn.Parameter(torch.zeros(3))
        torso[2].weight = nn.Parameter(torch.ones(OBS, 3))
        return torso

    assert "other sizes" in attach(agent_of("ppo", box(2), {"torso": cut}))


def test_pruned_weights_are_refused_as_long_as_they_are_masked():
    agent = agent_of("ppo", box(2))
    prune.l1_unstructured(agent.policy.torso[0], "weight", 0.5)
    assert "hooks" in attach(agent)


@pytest.mark.parametrize(
    ("policy", "options", "reason"),
    [
        ({"periodic": (0, 1)} | FULL, {}, "two correlated"),
        ({"periodic": (0,), "bounds": ("auto", "clip")} | FULL, {}, "two correlated"),
        ({"periodic": (0, 1), "covariance": "fixed", "covariance_matrix": (1, 0.5, 0.5, 1)}, {}, "two correlated"),
        ({}, {"entropy_coef": 0.1}, "entropy bonus of a Gaussian"),
        ({"activation": "silu"}, {}, "SiLU"),
        ({"activation": "gelu"}, {}, "GELU"),
    ],
    ids=str,
)
def test_policies_that_the_kernels_do_not_do_are_refused(policy, options, reason):
    assert reason in attach(agent_of("ppo", SUN, policy, **options))


def test_other_dtypes_and_devices_are_refused():
    torch.set_default_dtype(torch.float64)
    try:
        agent = agent_of("ppo", box(2))
    finally:
        torch.set_default_dtype(torch.float32)
    assert "float64" in attach(agent)
    with torch.autocast("cpu"):
        assert "autocast" in attach(agent_of("ppo", box(2)))
    agent = agent_of("ppo", box(2))
    agent.device = torch.device("cuda")
    assert choose(agent, True)[:2] == ("general", "on cuda")


class Other(nn.Module):
    """Passes on whatever it wraps."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *given):
        return self.inner(*given)


def test_networks_of_other_classes_are_refused():
    for name in ("policy", "critic"):
        agent = agent_of("ppo", box(2))
        setattr(agent.learner, name, Other(getattr(agent.learner, name)))
        assert "other classes" in attach(agent)
    for name in ("head", "normalizer", "torso"):
        agent = agent_of("ppo", box(2))
        setattr(agent.policy, name, Other(getattr(agent.policy, name)))
        assert "Other" in attach(agent)


def with_extras():
    """A buffer and a parameter that no layer uses, in training mode."""
    torso = layers(nn.Tanh(), nn.Identity())
    torso.register_parameter("unused", nn.Parameter(torch.ones(3)))
    torso[0].register_buffer("mask", torch.zeros(OBS, OBS))
    return torso.train()


@pytest.mark.parametrize("torso", [with_extras, nn.Identity, nn.Sequential, lambda: nn.Linear(OBS, 3)])
@pytest.mark.parametrize(("algo", "n"), [("ppo", 4), ("a2c", 4), ("actor_critic", 1)])
def test_what_changes_nothing_is_let_in(torso, algo, n):
    general, ours, path = both(algo, box(2), {"torso": torso}, n=n)
    ours.policy.train()
    run_both(algo, n, general, ours, path)


# ---------------------------------------------------------------------------------------------------- whole runs

SMALL = {
    "ppo": {"n_envs": 3, "horizon": 20, "minibatch": 16, "epochs": 2, "steps": 180},
    "a2c": {"n_envs": 3, "horizon": 5, "steps": 180},
    "trpo": {"n_envs": 3, "horizon": 20, "minibatch": 16, "critic_epochs": 2, "steps": 180},
    "actor_critic": {"n_envs": 3, "steps": 180},
}
ALGORITHMS = pytest.mark.parametrize("algo", SMALL)
ENVIRONMENTS = pytest.mark.parametrize("env", [Plane, Choice])


def train(env, algo, out="run", **options):
    sizes = {"policy": {"hidden": (8, 7)}, "critic": {"hidden": (8, 7)}}
    return covary.train(env, algo, out=str(out), quiet=True, **(SMALL[algo] | sizes | options))


def bits(agent):
    return {name: array.tobytes() for name, array in agent.state()[0].items()}


def chosen(out="run"):
    return json.loads((Path(out) / "config.json").read_text())["chosen"]


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

    torso = TORSOS["layer norm"][0]()
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
    for broken in ("fast", 3, {"path": 1, "threads": "many"}, {"threads": -1}):
        assert choose(agent_of("ppo", box(2)), True, broken)[0] == "fast"


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


# ------------------------------------------------------------------------------------------------------ bad input


def broken(field, value, at):
    """An environment that gives this value in its `at`-th step; every fifth ends an episode."""

    class Broken(Line):
        count = 0

        def step(self, action):
            obs, reward, *rest = super().step(action)
            self.count += 1
            if self.count == at:
                obs, reward = (obs, value) if field == "reward" else (np.full_like(obs, value), reward)
            return obs, reward, *rest

    return Broken


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("at", [35, 38])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("field", ["observation", "reward"])
def test_numbers_that_are_not_finite_are_told_as_on_the_general_path(field, value, at, n, here):
    told, kept = [], []
    for fast in (True, False):
        with pytest.raises(EnvironmentFault) as caught:
            train(broken(field, value, at), "actor_critic", f"run-{fast}", n_envs=n, save_every=20 * n, fast=fast)
        told.append(str(caught.value))
        place = Run.open(Path(f"run-{fast}")).checkpoints()[-1]
        kept.append(read_checkpoint(place))
        assert kept[-1][1]["steps"] == n * (at - 1)
    assert told[0] == told[1]
    assert f"{value} in {field}" in told[0]
    for name, array in kept[0][0].items():
        assert np.isfinite(array).all(), name
        assert_close(array, kept[1][0][name], 1e-3, name)


def poisoned(where):
    """A chooser that first makes one number of a network NaN."""

    def choose_then(agent, *arguments):
        made = choose(agent, *arguments)
        with torch.no_grad():
            where(agent).bias[0] = torch.nan
        return made

    return choose_then


@ALGORITHMS
@ENVIRONMENTS
@pytest.mark.parametrize("network", ["policy", "critic"])
def test_a_nan_in_an_update_is_told_as_on_the_general_path(network, env, algo, here, monkeypatch):
    monkeypatch.setattr(
        training, "choose", poisoned(lambda a: (a.policy if network == "policy" else a.learner.critic).torso[0])
    )
    told = []
    for fast in (True, False):
        with pytest.raises(UsageError) as caught:
            train(env, algo, f"run-{fast}", fast=fast, save_every=60)
        told.append(str(caught.value))
        assert not Run.open(Path(f"run-{fast}")).checkpoints()
    assert told[0] == told[1]
    rules = ["Training must stay finite."] + ["A policy's actions must be finite."] * (env is Plane)
    assert told[0].splitlines()[0] in rules


@ALGORITHMS
def test_a_learning_rate_that_is_far_too_high_is_told_as_on_the_general_path(algo, here):
    rates = {"ppo": {"learning_rate": 1e30}, "trpo": {"critic_lr": 1e30}}
    rates = rates.get(algo, {"actor_lr": 1e30, "critic_lr": 1e30})
    told = []
    for fast in (True, False):
        with pytest.raises(UsageError) as caught:
            train(Plane, algo, f"run-{fast}", fast=fast, **rates)
        said = str(caught.value)
        if algo == "a2c":  # kernels score in float64, so that the critic may be the first to overflow
            said = said.replace("in policy:", "in critic:")
        told.append(said.splitlines())
        for place in Run.open(Path(f"run-{fast}")).checkpoints():
            assert all(np.isfinite(array).all() for array in read_checkpoint(place)[0].values())
    assert told[0][0] == told[1][0]
    assert told[0][2:] == told[1][2:]


PROGRAM = """
import json, sys
{before}
import covary
from worlds import Line
covary.train(Line, "actor_critic", steps=60, n_envs=2, out="run", hidden=(4,), critic={{"hidden": (4,)}})
"""


def run_apart(here, before="", **variables):
    """A short training in a process of its own; what it printed."""
    program = PROGRAM.format(before=before)
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "OMP_NUM_THREADS")}
    paths = [str(Path(covary.__file__).parents[1]), str(Path(__file__).parent)]
    environment = kept | {"PYTHONPATH": os.pathsep.join(paths)} | variables
    made = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=here, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert "Warning" not in made.stderr
    return made.stdout


@pytest.mark.parametrize(
    ("before", "variables", "why"),
    [
        ("sys.modules['numba'] = None", {}, "no Numba (import of numba halted; None in sys.modules)"),
        ("", {"NUMBA_DISABLE_JIT": "1"}, "no Numba (NUMBA_DISABLE_JIT is set)"),
    ],
)
def test_without_numba_the_general_path_runs_and_one_line_says_so(before, variables, why, here):
    said = run_apart(here, before, **variables)
    assert [line for line in said.splitlines() if "path" in line and "run" not in line] == [
        f"general path ({why}), 1 thread"
    ]
    assert chosen()["why"] == why


def test_without_a_folder_to_keep_kernels_in_they_are_compiled_again_and_one_line_says_so(here):
    """And the number of threads is the user's."""
    Path("file").write_text("")
    below = str(here / "file" / "cache")
    said = run_apart(here, NUMBA_CACHE_DIR=below, HOME=below, MPLCONFIGDIR=str(here), OMP_NUM_THREADS="2")
    assert (
        said.count("fast path (kernels, compiled for this run alone: no cache folder can be written), 2 threads") == 1
    )
    assert chosen() == {"path": "fast", "why": "", "threads": 2, "processes": 1}


def test_kernels_are_kept_where_something_can_be_written(here, monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(here / "file"))
    assert cache.folder() is None
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "file" / "cache"))
    assert cache.folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    assert Path(cache.folder()).parent == here / "cache" / "covary"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(here / "chosen"))
    assert Path(cache.folder()).parent == here / "chosen"


def doubled(x):
    x[0] *= 2


@pytest.mark.parametrize("file", ["nbi", "nbc"])
def test_a_kept_kernel_that_was_cut_short_is_made_again(file, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_FOLDER", tmp_path)
    kernel(void(Vector))(doubled)
    for content in (b"", b"\x80\x04"):
        kept = list(tmp_path.glob(f"*/test_fast.doubled-*.{file}"))
        assert kept
        for path in kept:
            path.write_bytes(content)
        x = np.ones(1, np.float32)
        kernel(void(Vector))(doubled)(x)
        assert x[0] == 2


def test_what_is_kept_is_not_compiled_again(monkeypatch):
    """The rooms of both algorithms are loaded in this process."""
    monkeypatch.setattr(cache, "_children", [])
    monkeypatch.setattr(cache.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    for algo in SMALL:
        both(algo, box(2))
        cache.compile_ahead(algo)
    assert not cache._children


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
