"""Every covariance on every box: where a policy starts, what learns, how it is kept, and what is refused."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
import worlds
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.distributions import MultivariateNormal

import covary
from covary import PolicyConfig, UsageError
from covary.envs.spaces import Decoder, from_json, to_json
from covary.more_heads import NARROWEST
from covary.policies import make_policy

INF, PI = np.inf, np.pi


def box(low, high):
    return Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)


FINITE = box([0, -3], [1, 5])
ANGLES = box([0, 0], [2 * PI, PI / 2])
BOXES = {  # action space and options
    "squash": (FINITE, {}),
    "clip": (FINITE, {"bounds": "clip"}),
    "mean": (FINITE, {"bounds": "mean"}),
    "free": (FINITE, {"bounds": "free"}),
    "half": (box([2, -INF], [INF, -7]), {}),
    "open": (box([-INF, -INF], [INF, INF]), {}),
    "angle": (ANGLES, {"periodic": (0,)}),
    "last angle": (box([0, -PI], [1, PI]), {"periodic": (-1,)}),
    "two angles": (box([0, -PI], [2 * PI, PI]), {"periodic": (0, 1)}),
    "angle, rest mean": (ANGLES, {"periodic": (0,), "bounds": "mean"}),
    "clip and squash": (FINITE, {"bounds": ("clip", "squash")}),
    "angle and clip": (ANGLES, {"periodic": (0,), "bounds": "clip"}),
    "everything": (box([0, 1, -1, -5, -INF], [2 * PI, INF, 1, 5, INF]), {"periodic": (0,)}),
}
SPREADS = list(itertools.product(["fixed", "diagonal", "lowrank", "full"], [False, True]))
CASES = [
    pytest.param(name, covariance, per_state, id=f"{name}, {covariance}{', by state' * per_state}")
    for name, (covariance, per_state) in itertools.product(BOXES, SPREADS)
    if not (name == "clip" and covariance in ("lowrank", "full"))  # refused, below
]


def make(name, covariance="diagonal", per_state=False, *, seed=0, **options):
    space, own = BOXES[name]
    torch.manual_seed(seed)
    config = PolicyConfig(covariance=covariance, state_dependent=per_state, **own | options)
    return make_policy(4, space, config), space


@pytest.mark.parametrize(("name", "covariance", "per_state"), CASES)
def test_shapes_and_gradients(name, covariance, per_state):
    policy, space = make(name, covariance, per_state)
    d, obs = space.shape[0], torch.randn(64, 4)
    policy.observe(obs)
    density = policy(obs)
    assert density.batch_shape == (64,)
    assert density.event_shape == (d,)
    action, latent, log_prob = density.draw()
    assert action.shape == latent.shape == (64, d)
    assert log_prob.shape == (64,)
    assert density.covariance_matrix.shape == (64, d, d)
    if name not in ("mean", "free") and "mean" not in name:
        assert all(one in space for one in action.detach().numpy())

    weight = torch.randn(64)
    loss = (weight * density.log_prob_latent(latent.detach())).mean()
    parameters = dict(policy.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for key, gradient in zip(parameters, gradients, strict=True):
        if parameters[key].numel():
            assert gradient is not None, f"{key} is not reached"
            assert gradient.isfinite().all(), key
            assert (gradient != 0).any(-1).all(), f"a row of {key} is not reached"
    spread = [key for key in parameters if "log_std" in key or "coupling" in key]
    rows = parameters["head.out.weight"].shape[0] - d - len(policy.head.angles)
    assert (rows, len(spread)) == {
        ("fixed", False): (0, 0),
        ("fixed", True): (0, 0),
        ("diagonal", False): (0, 2),
        ("diagonal", True): (d, 0),
        ("lowrank", False): (0, 2),
        ("lowrank", True): (2 * d, 0),
        ("full", False): (0, 2),
        ("full", True): (d + d * (d - 1) // 2, 0),
    }[covariance, per_state]
    assert density.scale.requires_grad == (covariance != "fixed")
    by_state = bool((density.scale - density.scale[0]).abs().max() > 0)
    assert by_state == (per_state and covariance != "fixed")


@pytest.mark.parametrize(("name", "covariance", "per_state"), CASES)
def test_a_policy_starts_centred_with_the_spread_that_was_asked_for(name, covariance, per_state):
    """200,000 samples: their deviation is right to 1 %, six of its standard errors. Small shares of the width, at which
    clipping and wrapping change nothing."""
    policy, space = make(name, covariance, per_state, hidden=(), init_std=0.1)
    if per_state or covariance in ("lowrank", "full"):  # the first correlations are small and not zero
        with torch.no_grad():
            policy.head.out.weight.zero_()
    torch.manual_seed(1)
    with torch.no_grad():
        density = policy(torch.zeros(1, 4))
        samples = density.sample((200_000,))[:, 0].double().numpy()
    low, high = space.low.astype(float), space.high.astype(float)
    width = high - low
    finite = np.isfinite(width)
    one_sided = {"half": np.array([2 + np.log(2), -7 - np.log(2)]), "everything": np.array([0, 1 + np.log(2), 0, 0, 0])}
    centre = np.where(finite, np.where(finite, low, 0) + np.where(finite, high, 0), 0) / 2
    start = np.where(finite, centre, one_sided.get(name, np.zeros(len(low))))
    np.testing.assert_allclose(density.median[0].numpy(), start, atol=1e-5)
    np.testing.assert_allclose(samples.std(0), np.where(finite, 0.1 * width, 0.1), rtol=0.01)
    assert np.abs(np.corrcoef(samples.T) - np.eye(len(low))).max() < 0.02


def test_the_default_spread_is_a_quarter_of_the_width_or_one():
    for name, wanted in {"squash": [0.25, 2.0], "half": [1.0, 1.0], "open": [1.0, 1.0], "free": [0.25, 2.0]}.items():
        policy, _ = make(name, hidden=())
        torch.manual_seed(0)
        with torch.no_grad():
            samples = policy(torch.zeros(1, 4)).sample((200_000,))[:, 0].double()
        np.testing.assert_allclose(samples.std(0).numpy(), wanted, rtol=0.01)


def test_one_spread_for_each_dimension():
    policy, _ = make("free", init_std=(0.1, 0.2))
    assert policy(torch.zeros(1, 4)).scale[0].tolist() == pytest.approx([0.1, 1.6])


@pytest.mark.parametrize(("name", "covariance", "per_state"), CASES)
def test_state_dict_holds_all_that_acts(name, covariance, per_state):
    one, _ = make(name, covariance, per_state, init_std=0.2)
    other, _ = make(name, covariance, per_state, seed=1)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    obs = torch.randn(16, 4)
    one.observe(3 + 2 * obs)
    other.load_state_dict(one.state_dict())
    latent = one(obs).sample_latent().detach()
    assert torch.equal(one(obs).log_prob_latent(latent), other(obs).log_prob_latent(latent))
    assert torch.equal(one(obs).median, other(obs).median)


BETAS = {  # bounds, where the space is Solid's
    "beta": ("beta", {}),
    "one of three": (("squash", "beta", "clip"), {}),
    "the rest coupled": (("squash", "beta", "clip"), {"covariance": "full"}),
    "the rest coupled by rank": (("squash", "beta", "mean"), {"covariance": "lowrank", "rank": 1}),
    "the rest fixed": (("squash", "squash", "beta"), {"covariance": "fixed", "covariance_matrix": (1, 0.5, 0.5, 1)}),
    "beside an angle": ("beta", {"periodic": (1,), "covariance": "diagonal"}),
}


@pytest.mark.parametrize("name", BETAS)
def test_a_beta_starts_centred_and_all_of_it_learns(name):
    """200,000 samples: their deviation is right to 1 %, six of its standard errors."""
    bounds, options = BETAS[name]
    space = box([0, -3, 2], [1, 5, 3])
    policy = make_policy(4, space, PolicyConfig(bounds=bounds, init_std=(0.1, 0.05, 0.1), **options))
    density = policy(torch.randn(64, 4))
    action, latent, _ = density.draw()
    assert action.shape == latent.shape == (64, 3)
    assert "mean" in bounds or all(one in space for one in action.detach().numpy())
    loss = (torch.randn(64) * density.log_prob_latent(latent.detach())).mean() + density.entropy().mean()
    parameters = {key: parameter for key, parameter in policy.named_parameters() if parameter.numel()}
    for key, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        assert gradient.isfinite().all(), key
        assert (gradient != 0).any(), f"{key} is not reached"
    low, high = space.low.astype(float), space.high.astype(float)
    with torch.no_grad():
        for module in policy.modules():
            if hasattr(module, "out"):
                module.out.weight.zero_()
        start = policy(torch.zeros(1, 4))
        samples = start.sample((200_000,))[:, 0].double().numpy()
        point = start.deterministic_action[0].numpy()
    np.testing.assert_allclose(point, (low + high) / 2, atol=1e-5)
    share = np.array([0.1, 0.05, 0.1])
    checked = [i for i in range(3) if not (name == "the rest fixed" and i < 2)]
    np.testing.assert_allclose(samples.std(0)[checked], (share * (high - low))[checked], rtol=0.01)
    coupled = np.abs(np.corrcoef(samples.T) - np.eye(3)) * (np.array(bounds) != "beta").astype(float)
    if name == "the rest fixed":
        assert np.corrcoef(samples.T)[0, 1] > 0.3, "it is coupled as asked for"
    else:
        assert coupled.max() < 0.02


def test_the_narrowest_beta_learns():
    policy = make_policy(4, FINITE, PolicyConfig(bounds="beta", init_std=1.001 * NARROWEST))
    density = policy(torch.zeros(1, 4))
    density.log_prob_latent(torch.full((1, 2), 1e-3)).sum().backward()
    assert (policy.head.out.bias.grad != 0).all()


def test_a_beta_comes_from_another():
    how = {"bounds": ("beta", "squash", "beta")}
    old, new = shaken(covary.untrained(worlds.Solid, **how)), covary.untrained(worlds.Solid, **how, seed=9)
    new.start_from(old)
    x = torch.randn(20, 3)
    torch.testing.assert_close(new.policy(x).deterministic_action, old.policy(x).deterministic_action)
    assert torch.equal(new.policy(x).entropy(), old.policy(x).entropy())
    for other in ({"bounds": "beta"}, {}, {"bounds": ("beta", "beta", "squash")}):
        with pytest.raises(UsageError, match="the same action space, bounds"):
            new.start_from(covary.untrained(worlds.Solid, **other))
        with pytest.raises(UsageError, match="the same action space, bounds"):
            covary.untrained(worlds.Solid, **other).start_from(new)


@pytest.mark.parametrize("algo", ["ppo", pytest.param("actor_critic", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bounds", [pytest.param("beta", marks=pytest.mark.slow), ("squash", "beta", "clip")], ids=str)
def test_a_beta_learns(algo, bounds, tmp_path):
    sizes = {"ppo": {"n_envs": 8, "horizon": 64, "minibatch": 64, "steps": 8192, "gamma": 0.0}}.get(
        algo, {"steps": 600}
    )
    before = covary.untrained(worlds.Solid, algo=algo, bounds=bounds, seed=3)
    agent = covary.train(
        worlds.Solid, algo=algo, bounds=bounds, seed=3, quiet=True, preset="none", out=str(tmp_path / "run"), **sizes
    )
    x = torch.tensor([[-0.8] * 3, [0.8] * 3])
    old, new = (a.policy(x).deterministic_action.mean(-1) for a in (before, agent))
    assert (new - old).abs().max() > 1e-3, "it moves"
    if algo == "ppo":
        assert new[1] - new[0] > 0.4, "towards the point it is shown"
    assert agent.policy(x).entropy().mean() < before.policy(x).entropy().mean() or algo != "ppo"
    loaded = covary.load(tmp_path / "run")
    assert torch.equal(loaded.policy(x).deterministic_action, agent.policy(x).deterministic_action)
    obs = np.zeros((50, 3), np.float32)
    assert np.array_equal(loaded.act(obs), agent.act(obs)), "with the random numbers that were to come"
    assert all(one in worlds.Solid.action_space for one in agent.act(obs))
    assert covary.runs.Run.open(tmp_path / "run").config["chosen"]["why"] in (
        "a Beta policy",
        "a policy of several parts",
    )


def test_discrete():
    policy = make_policy(4, Discrete(3, start=5))
    obs = torch.randn(64, 4)
    density = policy(obs)
    assert density.batch_shape == (64,)
    assert (density.probs - 1 / 3).abs().max() < 0.02, "the first policy is nearly uniform"
    loss = density.log_prob_latent(density.sample_latent()).mean()
    for gradient in torch.autograd.grad(loss, list(policy.parameters())):
        assert (gradient != 0).any()


@pytest.mark.parametrize("vector", [(0.0, 0.0), (1e-30, -1e-30), (-1e-4, 0.0), (0.0, 1e-3), (1e20, 1e20)])
def test_the_direction_of_a_short_vector_has_a_finite_gradient(vector):
    policy, _ = make("angle")
    head = policy.head
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([vector[0], 0.3, vector[1]]))
    density = policy(torch.randn(8, 4))
    density.log_prob(torch.tensor([1.0, 0.5])).sum().backward()
    assert density.loc.isfinite().all()
    for parameter in policy.parameters():
        if parameter.numel():
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() < 1e5
    assert (head.out.bias.grad[[0, 2]] != 0).any() or vector == (1e20, 1e20), "it can learn its way out"


def test_the_mean_of_a_circle_can_be_any_angle_and_crosses_the_seam_without_a_jump():
    policy, _ = make("angle")
    turn = torch.linspace(0, 2 * PI, 721)
    loc = policy.head._loc(torch.stack([turn.cos(), 0 * turn], -1), turn.sin().unsqueeze(-1))
    steps = torch.remainder(loc[1:, 0] - loc[:-1, 0] + PI, 2 * PI) - PI
    np.testing.assert_allclose(steps.numpy(), 2 * PI / 720, atol=1e-5)


# ----------------------------------------------------------------------------------------- observations inside


def test_observations_are_standardised_inside_the_policy():
    policy, _ = make("squash")
    g = np.random.default_rng(0)
    raw = torch.tensor(g.normal([5, -100, 0, 1e4], [2, 50, 1e-3, 1e3], (3000, 4)), dtype=torch.float32)
    for part in raw.split(700):
        policy.observe(part)
    x = policy.normalizer(raw)
    np.testing.assert_allclose(x.mean(0).numpy(), 0, atol=0.02)
    np.testing.assert_allclose(x.std(0).numpy()[[0, 1, 3]], 1, rtol=0.01)
    assert torch.equal(policy(raw).loc, policy.density(x).loc)
    assert policy.normalizer(raw * 1e6).abs().max() == 10
    kept = policy.state_dict()
    policy(raw)
    assert all(torch.equal(kept[k], v) for k, v in policy.state_dict().items()), "forward changes nothing"
    assert not list(make_policy(4, FINITE, PolicyConfig(normalize_obs=False)).normalizer.buffers())


class Frame(nn.Module):
    """An image comes in as one vector."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten())

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("torso", [Frame(), nn.Identity(), nn.LazyLinear(5), nn.Sequential()], ids=repr)
def test_any_module_is_a_torso(torso):
    policy = make_policy(4, FINITE, torso=torso)
    density = policy(torch.randn(7, 4))
    assert density.loc.shape == (7, 2)
    density.log_prob_latent(density.sample_latent().detach()).sum().backward()
    assert all((p.grad != 0).any() for p in torso.parameters())


# --------------------------------------------------------------------------------------------- bounds="mean"


def test_bounds_mean_keeps_the_mean_inside_and_scores_the_unclipped_gaussian():
    policy, space = make("mean", "full", init_std=0.4)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 2.0 * torch.randn_like(parameter)
    obs = 10 * torch.randn(500, 4)
    density = policy(obs)
    low, width = torch.tensor(space.low), torch.tensor(space.high - space.low)
    out = policy.head.out(policy.torso(policy.normalizer(obs)))
    torch.testing.assert_close(density.loc, low + width * torch.sigmoid(out[:, :2]), rtol=1e-4, atol=1e-4)
    assert (density.loc >= low).all()
    assert (density.loc <= low + width).all()
    assert density.loc.std(0).min() > 0.1 * width.min(), "it reaches far"
    twin = MultivariateNormal(density.loc, density.covariance_matrix)
    action = density.sample()
    assert not all(one in space for one in action.numpy()), "samples leave the box"
    torch.testing.assert_close(density.log_prob(action), twin.log_prob(action), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(density.entropy(), twin.entropy(), rtol=1e-4, atol=1e-4)


def test_what_is_executed_is_clipped():
    agent = covary.untrained(worlds.Plane, bounds="mean", init_std=2.0)
    obs = np.zeros((200, 3), np.float32)
    actions = agent.act(obs)
    assert all(action in worlds.Plane.action_space for action in actions)
    latent, raw = agent.sample(obs)
    assert np.abs(raw).max() > 2, "what is scored is not"
    assert np.array_equal(latent, raw)


@pytest.mark.parametrize("name", ["mean", "squash", "angle", "open", "everything"])
def test_a_covariance_matrix_is_taken_as_it_is_given(name):
    d = BOXES[name][0].shape[0]
    g = np.random.default_rng(0)
    factor = 0.3 * np.tril(g.normal(size=(d, d))) + 0.5 * np.eye(d)
    matrix = factor @ factor.T
    for given in (matrix, matrix.tolist(), tuple(matrix.reshape(-1))):
        policy, _ = make(name, "fixed", covariance_matrix=given)
        np.testing.assert_allclose(policy(torch.zeros(1, 4)).covariance_matrix[0].numpy(), matrix, rtol=1e-5)
    policy, _ = make(name, "fixed", covariance_matrix=tuple(np.diag(matrix)))
    density = policy(torch.zeros(1, 4))
    np.testing.assert_allclose(density.covariance_matrix[0].numpy(), np.diag(np.diag(matrix)), rtol=1e-5)
    again, _ = make(name, "fixed", covariance_matrix=matrix, seed=1)
    again.load_state_dict(make(name, "fixed", covariance_matrix=matrix)[0].state_dict())


# ---------------------------------------------------------------------------------- the next step: --init-from

STARTS = [
    ({"covariance": "fixed"}, {"covariance": "diagonal"}),
    ({"covariance": "fixed"}, {"covariance": "full"}),
    ({"covariance": "fixed", "covariance_matrix": (0.5, 0.2, 0.2, 0.3)}, {"covariance": "full"}),
    (
        {"covariance": "fixed", "covariance_matrix": (0.5, 0.2, 0.2, 0.3)},
        {"covariance": "full", "state_dependent": True},
    ),
    ({"covariance": "diagonal"}, {"covariance": "full"}),
    ({"covariance": "diagonal"}, {"covariance": "fixed"}),
    ({"covariance": "diagonal"}, {"covariance": "diagonal", "state_dependent": True}),
    ({"covariance": "diagonal"}, {"covariance": "full", "state_dependent": True}),
    ({"covariance": "full"}, {"covariance": "full"}),
    ({"covariance": "full"}, {"covariance": "full", "state_dependent": True}),
    ({"covariance": "diagonal", "state_dependent": True}, {"covariance": "full", "state_dependent": True}),
    ({"covariance": "full", "state_dependent": True}, {"covariance": "full", "state_dependent": True}),
]


RANKS = [
    ({"covariance": "diagonal"}, {"covariance": "lowrank", "rank": 2}),
    ({"covariance": "lowrank"}, {"covariance": "lowrank", "rank": 2}),
    ({"covariance": "lowrank"}, {"covariance": "lowrank", "state_dependent": True}),
    ({"covariance": "lowrank", "rank": 2, "state_dependent": True}, {"covariance": "lowrank", "rank": 2}),
    ({"covariance": "lowrank", "state_dependent": True}, {"covariance": "lowrank", "state_dependent": True}),
    ({"covariance": "lowrank", "rank": 2}, {"covariance": "full"}),
    ({"covariance": "lowrank", "rank": 2}, {"covariance": "full", "state_dependent": True}),
    ({"covariance": "lowrank", "rank": 2, "state_dependent": True}, {"covariance": "full", "state_dependent": True}),
    ({"covariance": "lowrank", "rank": 2}, {"covariance": "diagonal"}),
]


@pytest.mark.parametrize("how", [{}, {"periodic": (0,)}], ids=str)
@pytest.mark.parametrize(("before", "after"), RANKS, ids=str)
def test_low_rank_starts_keep_mean_and_deviations_and_correlations_where_there_are_any(before, after, how):
    old, new = shaken(covary.untrained(worlds.Solid, **before, **how)), covary.untrained(worlds.Solid, **after, **how)
    new.start_from(old)
    obs = torch.randn(30, 3)
    a, b = old.policy.double()(obs), new.policy.double()(obs)
    torch.testing.assert_close(b.loc, a.loc, rtol=0, atol=1e-12)
    if old.policy.head.per_state and not new.policy.head.per_state:  # what it is at the torso's zero features
        features = torch.zeros(1, 64, dtype=torch.float64)
        a, b = old.policy.head(features), new.policy.head(features)
    torch.testing.assert_close(b.scale, a.scale, rtol=1e-6, atol=0)
    if {old.policy.head.rank, new.policy.head.rank} == {1, 2}:
        scale = b.scale[0, :, None] * b.scale[0]
        difference = (b.covariance_matrix - a.covariance_matrix)[0] / scale
        assert 0 < difference.abs().max() < 0.03, "the second number starts small, and not at the saddle of 0"
    elif after["covariance"] in ("lowrank", "full") and not (old.policy.head.per_state and new.policy.head.full):
        if before["covariance"] == "lowrank":
            torch.testing.assert_close(b.covariance_matrix, a.covariance_matrix, rtol=1e-5, atol=1e-6)
        else:
            assert 0 < (b.covariance_matrix - a.covariance_matrix).abs().max() < 0.03


def shaken(agent, amount=0.2):
    """As if it had learned: every parameter and the normaliser are somewhere else."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    agent.policy.observe(1 + 3 * torch.randn(50, 3, generator=generator))
    return agent


@pytest.mark.parametrize("how", [{}, {"periodic": (0,)}, {"periodic": (0, 1)}, {"bounds": "mean"}], ids=str)
@pytest.mark.parametrize(("before", "after"), STARTS, ids=str)
def test_another_covariance_starts_at_the_same_mean_and_the_same_spread(before, after, how):
    old = shaken(covary.untrained(worlds.Plane, **before, **how))
    new = covary.untrained(worlds.Plane, seed=9, init_std=0.4, **after, **how)
    new.start_from(old)
    obs = torch.tensor(np.random.default_rng(0).normal(0, 2, (200, 3)), dtype=torch.float32)
    a, b = old.policy.double()(obs), new.policy.double()(obs)  # copied weights, without the sums' own round-off
    assert a.loc.std(0).min() > 0.01
    torch.testing.assert_close(b.loc, a.loc, rtol=0, atol=1e-12)
    torch.testing.assert_close(b.covariance_matrix, a.covariance_matrix, rtol=1e-4, atol=1e-6)
    latent = a.sample_latent()
    torch.testing.assert_close(b.log_prob_latent(latent), a.log_prob_latent(latent), rtol=1e-4, atol=1e-4)
    x = torch.randn(10, 3)
    torch.testing.assert_close(new.learner.critic(x), old.learner.critic(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", [{}, {"bounds": "clip"}, {"bounds": "mean"}, {"periodic": (0,)}], ids=str)
def test_the_scale_of_the_mean(how):
    """The network's output counts so much more, where it has no scale; nothing else changes, nor what is taken over."""
    one, four = (covary.untrained(worlds.Plane, mean_scale=scale, **how) for scale in (1.0, 4.0))
    obs = torch.randn(20, 3)
    few, many = one.policy(obs), four.policy(obs)
    second = 1.0 if how.get("bounds") == "mean" else 4.0
    scale = torch.tensor([1.0 if how.get("periodic") else second, second])
    torch.testing.assert_close(many.loc - four.policy.head.offset, scale * (few.loc - one.policy.head.offset))
    torch.testing.assert_close(many.scale, few.scale)
    four.start_from(shaken(one))
    torch.testing.assert_close(four.policy(obs).loc, one.policy(obs).loc, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, 10**30, 1e-46, "4", True])
def test_a_scale_of_the_mean_is_a_positive_number(scale):
    with pytest.raises(covary.UsageError, match="mean_scale is a number"):
        PolicyConfig(mean_scale=scale)


def test_less_freedom_keeps_the_marginal_deviations():
    old = shaken(covary.untrained(worlds.Plane, covariance="full"))
    for covariance in ("diagonal", "fixed"):
        new = covary.untrained(worlds.Plane, seed=9, covariance=covariance)
        new.start_from(old)
        obs = torch.randn(20, 3)
        torch.testing.assert_close(new.policy(obs).loc, old.policy(obs).loc, rtol=0, atol=1e-6)
        torch.testing.assert_close(new.policy(obs).scale, old.policy(obs).scale, rtol=1e-5, atol=1e-6)


def test_init_from_a_run_and_training_goes_on(tmp_path):
    sizes = {"n_envs": 4, "horizon": 16, "minibatch": 16, "quiet": True, "steps": 256}
    how = {"periodic": (0,), "normalize_obs": False}
    old = covary.train(worlds.Plane, covariance="fixed", out=str(tmp_path / "a"), **sizes, **how)
    obs = torch.randn(50, 3)
    still = covary.train(
        worlds.Plane,
        covariance="full",
        init_from=tmp_path / "a",
        out=str(tmp_path / "b"),
        learning_rate=1e-12,
        **sizes,
        **how,
    )
    torch.testing.assert_close(still.policy(obs).loc, old.policy(obs).loc, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        still.policy(obs).covariance_matrix, old.policy(obs).covariance_matrix, rtol=1e-4, atol=1e-5
    )
    moved = covary.train(
        worlds.Plane, covariance="full", init_from=str(tmp_path / "a"), out=str(tmp_path / "c"), **sizes, **how
    )
    assert (moved.policy(obs).scale_tril - old.policy(obs).scale_tril)[:, 1, 0].abs().max() > 1e-4
    assert covary.load(tmp_path / "c").policy_config.covariance == "full"


@pytest.mark.parametrize("world", [worlds.Dials, worlds.Switches])
@pytest.mark.parametrize("algo", ["ppo", pytest.param("actor_critic", marks=pytest.mark.slow)])
def test_several_choices_learn(world, algo, tmp_path):
    sizes = {"ppo": {"n_envs": 8, "horizon": 64, "minibatch": 64, "steps": 4096, "gamma": 0.0}}.get(
        algo, {"steps": 600}
    )
    before = covary.untrained(world, algo=algo, seed=3)
    agent = covary.train(world, algo=algo, seed=3, quiet=True, preset="none", out=str(tmp_path / "run"), **sizes)
    x = torch.zeros(1, 1)
    assert (agent.policy(x).probs - before.policy(x).probs).abs().max() > 1e-3, "it moves"
    if algo == "ppo":
        best = np.full((2, 2), 1) if world is worlds.Dials else np.array([[1] * 3, [0] * 3])
        act = agent.act(np.zeros(1, np.float32), deterministic=True)
        assert act in world.action_space
        assert np.array_equal(act - getattr(world.action_space, "start", 0), best)
        assert covary.evaluate(agent, world, 8).returns.mean() == 5.0
    loaded = covary.load(tmp_path / "run")
    assert loaded.action_space == world.action_space
    obs = np.zeros((40, 1), np.float32)
    acts = agent.act(obs)
    assert acts.shape == (40, *world.action_space.shape)
    assert np.array_equal(loaded.act(obs), acts)
    assert all(one in world.action_space for one in acts)
    assert covary.runs.Run.open(tmp_path / "run").config["chosen"]["why"] == "several choices at once"


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 2, 5], start=[1, 0, -2]),
        spaces.MultiDiscrete([[3, 2], [1, 5]], dtype=np.int8),
        spaces.MultiBinary(4),
        spaces.MultiBinary([4]),
        spaces.MultiBinary((2, 3)),
    ],
    ids=str,
)
def test_several_choices_start_nearly_uniform_and_all_of_them_are_drawn(space):
    """Of 4,000 draws every choice of every dimension; with at most 5 choices one is missing in 1e-380 of all runs."""
    policy = make_policy(4, space)
    density = policy(torch.randn(64, 4))
    sizes = np.asarray(getattr(space, "nvec", np.full(space.shape, 2))).reshape(-1)
    uniform = torch.log(torch.tensor(sizes)).sum()
    assert (density.entropy() - uniform).abs().max() < 0.02
    decode = Decoder(space)
    acts = decode(policy(torch.zeros(4000, 4)).sample().numpy())
    assert all(one in space for one in acts)
    assert [len(np.unique(column)) for column in acts.reshape(4000, -1).T] == sizes.tolist()
    assert from_json(json.loads(json.dumps(to_json(space)))) == space
    loss = density.log_prob_latent(density.sample_latent()).mean()
    parameters = dict(policy.named_parameters())
    for key, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        assert (gradient != 0).any(), key


def test_init_from_several_choices():
    old, new = shaken(covary.untrained(worlds.Dials, normalize_obs=False)), covary.untrained(worlds.Dials, seed=9)
    with pytest.raises(UsageError, match="normalize_obs"):
        new.start_from(old)
    new = covary.untrained(worlds.Dials, seed=9, normalize_obs=False)
    new.start_from(old)
    assert torch.equal(old.policy(torch.zeros(1, 1)).logits, new.policy(torch.zeros(1, 1)).logits)


def test_init_from_a_discrete_policy():
    old, new = covary.untrained(worlds.Choice), covary.untrained(worlds.Choice, seed=9)
    with torch.no_grad():
        old.policy.head.logits.bias.copy_(torch.tensor([1.0, 2, 3]))
    new.start_from(old)
    assert torch.equal(old.policy(torch.zeros(1, 1)).logits, new.policy(torch.zeros(1, 1)).logits)


@pytest.mark.parametrize(
    ("env", "options", "says"),
    [
        (worlds.Line, {}, "observation_space"),
        (worlds.Plane, {"hidden": (8,)}, "--policy.hidden 64 64"),
        (worlds.Plane, {"periodic": (0,)}, "periodic"),
        (worlds.Plane, {"bounds": "mean"}, "bounds"),
    ],
)
def test_init_from_what_does_not_fit(env, options, says):
    with pytest.raises(UsageError, match=says):
        covary.untrained(env, **options).start_from(covary.untrained(worlds.Plane))


@pytest.mark.parametrize(
    "before", [{"covariance": "full"}, {"covariance": "lowrank", "rank": 2}, {"covariance": "fixed"}], ids=str
)
def test_a_low_rank_does_not_start_from_more(before):
    if before["covariance"] == "fixed":
        before["covariance_matrix"] = (np.eye(3) + 0.5).reshape(-1).tolist()
    with pytest.raises(UsageError, match=r"no higher rank(.|\n)*(full|rank 2)"):
        covary.untrained(worlds.Solid, covariance="lowrank").start_from(covary.untrained(worlds.Solid, **before))


@pytest.mark.parametrize("algo", ["ppo", pytest.param("actor_critic", marks=pytest.mark.slow)])
@pytest.mark.parametrize("per_state", [False, True])
def test_a_low_rank_covariance_learns(algo, per_state, tmp_path):
    """The reward asks for three actions whose mean is right: correlations that cancel are worth more."""
    sizes = {"ppo": {"n_envs": 4, "horizon": 32, "minibatch": 32, "steps": 2048}}.get(algo, {"steps": 400})
    how = {"covariance": "lowrank", "rank": 2, "state_dependent": per_state, "quiet": True, "seed": 3}
    before = covary.untrained(worlds.Solid, algo=algo, **{k: v for k, v in how.items() if k != "quiet"})
    agent = covary.train(worlds.Solid, algo=algo, out=str(tmp_path / "run"), **sizes, **how)
    x = torch.zeros(1, 3)
    old, new = before.policy(x).covariance_matrix[0], agent.policy(x).covariance_matrix[0]
    off = ~torch.eye(3, dtype=torch.bool)
    assert (new - old)[off].abs().max() > 1e-3, "correlations move"
    if algo == "ppo":
        assert new.sum() < new.diagonal().sum(), "and cancel in the sum"
    loaded = covary.load(tmp_path / "run")
    assert torch.equal(loaded.policy(x).covariance_matrix[0], new)
    assert "low rank" in covary.runs.Run.open(tmp_path / "run").config["chosen"]["why"]


# --------------------------------------------------------------------------------------------------- refused

REFUSED = {
    "equal bounds": (box([0, 1], [1, 1]), {}, ["low < high", "dimension 1"]),
    "squash an open one": (box([0, -INF], [1, 1]), {"bounds": "squash"}, ["finite", "dimension 1", "auto"]),
    "mean of an open one": (box([0, 0], [1, INF]), {"bounds": "mean"}, ["finite", "dimension 1"]),
    "periodic beyond": (FINITE, {"periodic": (2,)}, ["periodic", "2", "0 to 1"]),
    "periodic before": (FINITE, {"periodic": (-3,)}, ["periodic", "-3"]),
    "periodic open": (box([0, 0], [1, INF]), {"periodic": (1,)}, ["periodic", "dimension 1", "inf"]),
    "periodic fraction": (FINITE, {"periodic": (0.5,)}, ["periodic", "0.5"]),
    "two clipped": (FINITE, {"bounds": "clip", "covariance": "full"}, ["clipped", "(0, 1)", "squash", "diagonal"]),
    "three angles": (box([0] * 3, [1] * 3), {"periodic": (0, 1, 2), "covariance": "full"}, ["angles", "diagonal"]),
    "two clipped of low rank": (
        FINITE,
        {"bounds": "clip", "covariance": "lowrank"},
        ["clipped", "(0, 1)", "squash", "diagonal"],
    ),
    "as many as dimensions": (FINITE, {"covariance": "lowrank", "rank": 2}, ["below", "rank 2", '"full"']),
    "one dimension": (box([0], [1]), {"covariance": "lowrank"}, ["below", "dimensions, 1", "rank 1", '"full"']),
    "rank 0": (FINITE, {"covariance": "lowrank", "rank": 0}, ["policy.rank", "positive whole number", "given: 0"]),
    "a rank that is a flag": (FINITE, {"covariance": "lowrank", "rank": True}, ["policy.rank", "given: True"]),
    "a rank of another": (FINITE, {"covariance": "full", "rank": 1}, ["rank", 'covariance="full"', "lowrank"]),
    "a Beta and a full covariance": (
        FINITE,
        {"bounds": ("beta", "squash"), "covariance": "full"},
        [
            "independent of all others",
            '"full"',
            "dimensions (0,)",
            "leaves 1",
            'bounds="squash"',
            'covariance="diagonal"',
        ],
    ),
    "Betas of low rank": (
        FINITE,
        {"bounds": "beta", "covariance": "lowrank"},
        ["independent of all others", "leaves 0"],
    ),
    "fixed Betas": (FINITE, {"bounds": "beta", "covariance": "fixed"}, ["learns its own spread", 'bounds="squash"']),
    "an open Beta": (box([0, 0], [1, INF]), {"bounds": "beta"}, ['"beta" needs finite', "dimension 1", '"auto"']),
    "a Beta wider than uniform": (FINITE, {"bounds": "beta", "init_std": 0.3}, ["init_std", "0.289", "0.3", "0.25"]),
    "a Beta too narrow to learn": (
        FINITE,
        {"bounds": ("beta", "squash"), "init_std": (3.5e-5, 0.1)},
        ["init_std", "3.54e-05", "given: 3.5e-05", "squash"],
    ),
    "a Beta of next to nothing": (FINITE, {"bounds": "beta", "init_std": 1e-200}, ["init_std", "given: 1e-200"]),
    "three words with beta": (FINITE, {"bounds": ("auto", "auto", "beta")}, ["2 dimensions", "auto, auto, beta"]),
    "three spreads with beta": (FINITE, {"bounds": "beta", "init_std": (0.1, 0.1, 0.1)}, ["2 dimensions"]),
    "whole numbers": (Box(0, 5, (2,), np.int64), {}, ["floating", "int64", "Discrete"]),
    "no choices": (spaces.MultiDiscrete(np.zeros(0, int)), {}, ["at least one choice", "MultiDiscrete"]),
    "a covariance of choices": (
        spaces.MultiDiscrete([2, 3]),
        {"covariance": "full"},
        ["policy.covariance", "choices have no such thing", "MultiDiscrete([2 3])"],
    ),
    "a rank of switches": (
        spaces.MultiBinary(3),
        {"covariance": "lowrank"},
        ["policy.covariance", "choices have no such thing", "MultiBinary(3)"],
    ),
    "a dict": (spaces.Dict(a=FINITE), {}, ["Dict"]),
    "no spread": (FINITE, {"init_std": 0.0}, ["init_std", "positive"]),
    "negative spread": (FINITE, {"init_std": (0.1, -0.1)}, ["init_std", "positive"]),
    "nan spread": (FINITE, {"init_std": float("nan")}, ["init_std", "positive"]),
    "half the width": (FINITE, {"init_std": 0.5}, ["share of the width", "0.5", "0.25"]),
    "three spreads": (FINITE, {"init_std": (0.1, 0.1, 0.1)}, ["2 dimensions"]),
    "matrix to learn": (FINITE, {"covariance_matrix": (1, 1)}, ["fixed", "diagonal"]),
    "three entries": (FINITE, {"covariance": "fixed", "covariance_matrix": (1, 0, 1)}, ["2 x 2", "3 numbers"]),
    "no covariance": (FINITE, {"covariance": "fixed", "covariance_matrix": (1, 2, 2, 1)}, ["positive definite"]),
    "asymmetric": (FINITE, {"covariance": "fixed", "covariance_matrix": (1, 0, 0.5, 1)}, ["symmetric"]),
    "negative variance": (FINITE, {"covariance": "fixed", "covariance_matrix": (1, -1)}, ["positive definite"]),
    "correlated clips": (
        FINITE,
        {"covariance": "fixed", "covariance_matrix": (1, 0.5, 0.5, 1), "bounds": "clip"},
        ["clipped"],
    ),
    "bounds by another word": (FINITE, {"bounds": "tanh"}, ["bounds", "tanh", "squash"]),
    "three words": (FINITE, {"bounds": ("clip",) * 3}, ["2 dimensions"]),
    "covariance by another word": (FINITE, {"covariance": "diag"}, ["covariance", "diag", "diagonal"]),
    "activation by another word": (FINITE, {"activation": "Tanh"}, ["activation", "Tanh", "tanh"]),
    "no width": (FINITE, {"hidden": (64, 0)}, ["hidden", "positive"]),
    "negative width": (FINITE, {"hidden": -3}, ["hidden", "-3"]),
    "fraction of a width": (FINITE, {"hidden": (2.5,)}, ["hidden", "2.5"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_rule_and_what_was_given(name):
    space, options, says = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        make_policy(4, space, PolicyConfig(**options))
    for words in says:
        assert words in str(caught.value)


def test_correlated_clips_that_are_not_correlated_are_fine():
    policy = make_policy(4, FINITE, PolicyConfig("fixed", bounds="clip", covariance_matrix=(1, 0, 0, 2)))
    assert policy(torch.zeros(1, 4)).scale[0].tolist() == pytest.approx([1, 2**0.5])


@pytest.mark.parametrize("shape", [(), (2,), (5, 2), (2, 3, 1)])
def test_observations_of_another_shape_are_refused(shape):
    agent = covary.untrained(worlds.Plane)
    with pytest.raises(UsageError, match=r"\(3,\)"):
        agent.act(np.zeros(shape))
    assert agent.act(np.zeros((0, 3))).shape == (0, 2)
    assert agent.act([0.0, 1.0, 2.0]).shape == (2,)


# --------------------------------------------------------------------------------- critics that come with a policy


def lived(agent):
    """An agent whose every network and scale is unlike that of a new one."""
    with torch.no_grad():
        for network in agent.learner.networks.values():
            for p in network.parameters():
                p.add_(0.1)
    agent.learner.reward_scale.running[:] = [50.0, 1.0, 800.0]
    return agent


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


SMALL = {"hidden": (4,), "activation": "relu", "covariance": "diagonal"}


def from_the_past(algo, env=worlds.Plane, *, policy=(), **options):
    policy = SMALL | ({"covariance": "fixed"} if algo in ("td3", "ddpg") else {}) | dict(policy)
    return covary.untrained(env, algo, policy=policy, critic={"hidden": (4,), "activation": "relu"}, **options)


@pytest.mark.parametrize(("before", "after"), [("sac", "sac"), ("sac", "td3"), ("sac", "mpo"), ("ppo", "a2c")])
def test_critics_come_with_the_scale_of_their_rewards(before, after):
    make = covary.untrained if before == "ppo" else lambda env, algo: from_the_past(algo)
    old, new = lived(make(worlds.Plane, before)), make(worlds.Plane, after)
    new.start_from(old)
    assert same(new.learner.critic, old.learner.critic)
    assert new.learner.reward_scale.scale == old.learner.reward_scale.scale == 0.25
    if after == "mpo":  # whose temperature is of another kind
        assert not same(new.learner.networks["temperature"], old.learner.networks["temperature"])


class Open(worlds.Plane):
    action_space = Box(-np.inf, np.inf, (2,), np.float32)


@pytest.mark.parametrize("after", ["sac", "td3"])
def test_critics_of_actions_in_other_units_stay_behind(after):
    old = lived(from_the_past("sac", Open, policy={"init_std": 0.5}))
    new = from_the_past(after, Open)
    new.start_from(old)
    assert not same(new.learner.critic, old.learner.critic)
    torch.testing.assert_close(new.policy.head.out.weight[:2], old.policy.head.out.weight[:2])


@pytest.mark.parametrize(
    ("before", "after", "options", "words"),
    [
        ("sac", "ddpg", {}, ["number of critics", "2 there, 1 here", "--critics 2"]),
        ("sac", "sac", {"critics": 3}, ["number of critics", "2 there, 3 here", "--critics 2"]),
        ("sac", "sac", {"policy": {"periodic": (0,)}}, ["bounds and periodic dimensions"]),
    ],
)
def test_critics_that_do_not_fit_are_told_as_such(before, after, options, words):
    with pytest.raises(UsageError) as caught:
        from_the_past(after, **options).start_from(from_the_past(before))
    assert all(word in str(caught.value) for word in words), str(caught.value)
