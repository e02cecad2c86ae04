"""The dual, the E-step and the M-step against what can be solved by hand; what mpo cannot use is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch.distributions import MultivariateNormal, kl_divergence
from worlds import Choice, Dial, Plane

import covary
from covary import fast
from covary.algorithms import mpo
from covary.distributions import BoxNormal, Geometry, latent_kl
from covary.errors import UsageError
from covary.guard import NonFinite

FULL = {"covariance": "full", "state_dependent": True, "periodic": (0,), "hidden": (8,)}


def gaussian(loc, covariance):
    return BoxNormal(torch.tensor(loc), covariance_matrix=torch.tensor(covariance))


OLD = gaussian([[0.3, -1.0]], [[[0.8, 0.3], [0.3, 0.5]]])
NEW = gaussian([[0.5, -0.6]], [[[0.6, -0.1], [-0.1, 0.9]]])

# --------------------------------------------------------------------------------------------------------- duals


def dual(eta, q, epsilon):
    """g(eta), of which the loss is g(eta) / eta."""
    return eta * mpo.temperature_loss(torch.tensor(math.log(eta), dtype=torch.float64), q, epsilon).item()


@pytest.mark.parametrize("eta", [0.05, 0.7, 20.0])
def test_the_dual_slopes_by_how_far_the_kl_of_the_weights_is_below_its_bound(eta):
    torch.manual_seed(0)
    q, epsilon = torch.randn(20, 64, dtype=torch.float64), 0.1
    log_eta = torch.tensor(math.log(eta), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mpo.temperature_loss(log_eta, q, epsilon), log_eta)
    weight = torch.softmax(q / eta, 0)
    kl = (weight * (weight * 20).log()).sum(0).mean()
    assert slope.item() == pytest.approx(epsilon - kl.item(), rel=1e-9, abs=1e-9)
    assert mpo.kl_of_weights(mpo.weights(q, eta)).item() == pytest.approx(kl.item(), rel=1e-12)
    h = 1e-5 * eta
    up, down = (dual(eta + x, q, epsilon) for x in (h, -h))
    assert slope.item() == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-7)


def test_the_least_of_the_dual_is_where_the_kl_meets_its_bound():
    torch.manual_seed(1)
    q = torch.randn(20, 64, dtype=torch.float64)
    etas = torch.logspace(-2, 2, 2001, dtype=torch.float64)
    best = etas[int(np.argmin([dual(eta.item(), q, 0.1) for eta in etas]))]
    assert mpo.kl_of_weights(mpo.weights(q, best.item())).item() == pytest.approx(0.1, rel=0.02)


def test_a_weight_of_nothing_has_a_kl():
    weight = mpo.weights(torch.tensor([[1e4], [0.0], [-1e4]]), 1.0)
    assert mpo.kl_of_weights(weight).item() == pytest.approx(math.log(3))


# -------------------------------------------------------------------------------------------------------- E-step


def test_weights_on_a_quadratic_bandit_are_the_posterior():
    """Under N(mu, Sigma) and Q = -|a - a*|^2, weights exp(Q / eta) give the normal of precision Sigma^-1 + 2 / eta."""
    torch.manual_seed(2)
    samples, eta, best = 200_000, 0.8, torch.tensor([1.0, 0.5])
    latent = OLD.sample_latent((samples,))
    weight = mpo.weights(-(latent - best).square().sum(-1), eta)
    mean = (weight.unsqueeze(-1) * latent).sum(0)[0]
    off = latent[:, 0] - mean
    covariance = (weight[:, 0, None] * off).mT @ off
    prior = torch.linalg.inv(OLD.covariance_matrix[0])
    posterior = torch.linalg.inv(prior + 2 / eta * torch.eye(2))
    expected = posterior @ (prior @ OLD.loc[0] + 2 / eta * best)
    # as many as were drawn alike; 6 deviations: once in 10^8 runs
    enough = 1 / float(weight.square().sum())
    deviation = posterior.diagonal().sqrt()
    assert ((mean - expected).abs() < 6 * deviation / enough**0.5).all()
    assert ((covariance - posterior).abs() < 6 * 2**0.5 * deviation[:, None] * deviation / enough**0.5).all()


# -------------------------------------------------------------------------------------------------------- M-step


def test_the_two_kls_are_the_whole():
    """KL(old || new) is that of the covariance, around one mean, and that of the mean, under one covariance."""
    reshaped = NEW.around(OLD.loc)
    whole = latent_kl(OLD, NEW)
    torch.testing.assert_close(latent_kl(OLD, reshaped) + latent_kl(reshaped, NEW), whole)
    reference = [MultivariateNormal(p.loc, p.covariance_matrix) for p in (OLD, NEW)]
    torch.testing.assert_close(whole, kl_divergence(*reference))


def test_each_half_moves_one_thing():
    moved, reshaped = mpo.halves(OLD, NEW)
    assert torch.equal(moved.loc, NEW.loc)
    assert torch.equal(moved.covariance_matrix, OLD.covariance_matrix)
    assert torch.equal(reshaped.loc, OLD.loc)
    assert torch.equal(reshaped.covariance_matrix, NEW.covariance_matrix)
    of_mean, of_covariance = mpo.kls(OLD, NEW)
    assert of_mean.item() == pytest.approx(latent_kl(OLD, NEW.around(OLD.loc).around(NEW.loc)).item(), rel=2)
    both = [MultivariateNormal(p.loc, p.covariance_matrix) for p in (OLD, moved, reshaped)]
    assert of_mean.item() == pytest.approx(kl_divergence(both[0], both[1]).item(), rel=1e-5)
    assert of_covariance.item() == pytest.approx(kl_divergence(both[0], both[2]).item(), rel=1e-5)


class Hill:
    """Values that are known: the closer to `best`, in the coordinates that a critic sees, the better."""

    best = torch.tensor([0.5, -0.25])

    def smallest(self, x, action):
        return -(action - self.best).square().sum(-1)


def on_the_hill(**options):
    class Flat(Dial):
        action_space = Box(np.float32([-1, -1]), np.float32([1, 1]), (2,))

    agent = covary.untrained(Flat, "mpo", batch=32, covariance="full", state_dependent=True, hidden=(8,), **options)
    agent.learner.target.network = Hill()
    return agent


def climb(agent, updates):
    """What each update tells, as an array (updates, numbers)."""
    learner, c = agent.learner, agent.config
    generator, told = torch.Generator().manual_seed(0), []
    for k in range(1, updates + 1):
        x = torch.zeros(c.batch, 1)
        noise = torch.randn(c.samples, c.batch, 2, generator=generator)
        ones = torch.ones(c.batch)
        told.append(learner._learn(mpo.Batch(x, noise[0], ones, 0 * ones, x, ones, noise), None))
        if k % c.policy_period == 0:
            learner.target_policy.follow(1.0)
    return np.array(told)


@pytest.mark.slow
def test_kls_stay_at_their_bounds_until_the_best_action_is_found():
    """Averages over whole periods of the target policy; the first are left to the multipliers to settle in."""
    agent = on_the_hill(policy_period=20, epsilon_mean=0.002, epsilon_covariance=0.002, actor_lr=3e-3)
    told = climb(agent, 700)[300:]
    column = {name: told[:, i] for i, name in enumerate(mpo.LOGGED)}
    assert column["kl_weights"].mean() == pytest.approx(0.1, rel=0.2)
    assert column["kl_covariance"].mean() == pytest.approx(0.002, rel=0.5)
    assert column["kl_mean"].mean() < 2 * 0.002
    climb(agent, 1300)
    action = agent.act(np.zeros(1, np.float32), deterministic=True)
    assert action == pytest.approx(Hill.best.numpy(), abs=0.03)
    density = agent.policy(torch.zeros(1, 1))
    assert density.scale.max() < 0.2, "and the policy has grown sure of it"


def test_the_target_policy_is_what_the_policy_was():
    agent = on_the_hill(policy_period=10**6)
    before = [p.clone() for p in agent.learner.target_policy.network.parameters()]
    climb(agent, 3)
    after = list(agent.learner.target_policy.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    agent.learner.target_policy.follow(1.0)
    mine = dict(agent.policy.named_parameters())
    for name, p in agent.learner.target_policy.network.named_parameters():
        assert torch.equal(p, mine[name]), name


# ------------------------------------------------------------------------------------------- networks and losses


def batch_of(agent, size=16, samples=5):
    x, next_x = torch.randn(2, size, agent.policy.normalizer.mean.shape[0])
    with torch.no_grad():
        latent = agent.policy.density(x).sample_latent()
    return mpo.Batch(
        x,
        latent,
        torch.randn(size),
        torch.full((size,), 0.9),
        next_x,
        torch.ones(size),
        torch.randn(samples, size, latent.shape[1]),
    )


def terms_of(agent, batch):
    learner = agent.learner
    old, target = learner.target_policy.network, learner.target.network
    return mpo.losses(agent.policy, learner.critic, old, target, learner.duals, batch, agent.config)


@pytest.mark.parametrize("options", [{}, FULL, {"covariance": "diagonal", "state_dependent": False}], ids=str)
def test_each_loss_moves_the_networks_it_should_and_no_others(options):
    torch.manual_seed(0)
    agent = covary.untrained(Plane, "mpo", **options)
    for p in agent.policy.parameters():
        p.data += 0.01 * torch.randn_like(p)  # away from the target policy, where the KLs have a slope
    terms = terms_of(agent, batch_of(agent))
    networks = {"policy": agent.policy, **agent.learner.networks}
    assert set(mpo.ROUTES) == set(terms._fields)
    moved = set()
    for name, loss in terms._asdict().items():
        for network, module in networks.items():
            parameters = [p for p in module.parameters() if p.requires_grad and p.numel()]
            if not parameters:
                continue
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            reached = [g is not None and bool(g.abs().sum() > 0) for g in gradients]
            assert any(reached) if network in mpo.ROUTES[name] else not any(reached), f"{name}, {network}"
            moved |= {id(p) for p, yes in zip(parameters, reached, strict=True) if yes}
    learned = {id(p) for m in networks.values() for p in m.parameters() if p.requires_grad and p.numel()}
    assert moved == learned, "every parameter is reached by some loss, and no target"


def test_an_update_takes_the_slopes_of_the_losses():
    """The duals' slopes are written by hand in an update; here they are autograd's."""
    agent = covary.untrained(Plane, "mpo", samples=5, batch=16, **FULL)
    for p in agent.policy.parameters():
        p.data += 0.01 * torch.randn_like(p)
    batch, learner = batch_of(agent), agent.learner
    terms = terms_of(agent, batch)
    wanted = torch.autograd.grad(sum(terms[2:]), list(learner.duals))
    drawn = mpo.draw(learner.target_policy.network, learner.target.network, batch.next_x, batch.noise)
    adam, seen = learner.optimizers["dual_adam"], []
    adam.step = lambda slopes, norm: seen.append(slopes)
    loss, _, _ = learner._improve(batch, drawn)
    assert loss == pytest.approx(terms.actor.item(), rel=1e-5)
    torch.testing.assert_close(torch.stack(list(seen[0])), torch.stack(wanted), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, FULL, {"covariance": "diagonal", "periodic": (0, 1)}], ids=str)
def test_the_fast_path_learns_alike(options):
    agents = [covary.untrained(Plane, "mpo", samples=5, batch=16, critics=2, **options) for _ in range(2)]
    assert fast.attach(agents[1]) is None
    for seed in range(3):
        torch.manual_seed(seed)
        batch, told = batch_of(agents[0]), []
        for agent in agents:
            told.append(agent.learner._learn(batch, None))
            agent.learner.target_policy.follow(1.0)
        np.testing.assert_allclose(told[0], told[1], rtol=2e-3, atol=1e-5)
    fast.detach(agents[1])
    for (name, mine), its in zip(agents[0].state()[0].items(), agents[1].state()[0].values(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-2, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("before", ["ppo", "mpo"])
def test_a_policy_that_starts_from_another_is_its_own_target(before, tmp_path):
    options = {"covariance": "diagonal", "state_dependent": False, "hidden": (8,), "init_std": 0.1}
    covary.untrained(Plane, before, **options).save(tmp_path / "before")
    small = {"hidden": (8,), "activation": "tanh" if before == "ppo" else "relu"}
    critic = {"hidden": (64, 64), "activation": "tanh"} if before == "ppo" else {}
    agent = covary.untrained(Plane, "mpo", policy=small, critic=critic, init_from=tmp_path / "before")
    x = torch.randn(5, agent.learner.critic.observation)
    with torch.no_grad():
        mine, target = (p.density(x) for p in (agent.policy, agent.learner.target_policy.network))
    assert mine.scale.max() < 0.7
    assert latent_kl(mine, target).abs().max() < 1e-6


@pytest.mark.parametrize("quick", [True, False], ids=["fast", "general"])
def test_what_is_not_finite_is_told_and_left_out(quick):
    agent = covary.untrained(Plane, "mpo", samples=5, batch=16, **FULL)
    if quick:
        assert fast.attach(agent) is None
    batch, learner = batch_of(agent), agent.learner
    spoiled = batch._replace(reward=batch.reward + 3e38)
    before = {name: array.copy() for name, array in agent.state()[0].items()}
    with pytest.raises(NonFinite) as caught:
        learner._learn(spoiled, None)
    assert caught.value.where["term"] == "critic"
    learner.on_nonfinite = "skip"
    assert learner._learn(spoiled, None) is None
    assert learner.skipped == 1
    for name, array in agent.state()[0].items():
        assert np.array_equal(array, before[name]), name
    learner.duals.temperature.data.fill_(math.nan)
    with pytest.raises(NonFinite, match="temperature"):
        learner._learn(batch, None)


# ------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        (Choice, {}, ["mpo needs actions that are numbers", "ppo"]),
        (Plane, {"bounds": "beta", "covariance": "diagonal"}, ["Beta", "dimensions (0, 1)", "bounds squash"]),
        (Plane, {"bounds": "beta"}, ["Beta", "dimensions (0, 1)", "bounds squash"]),
        (Plane, {"bounds": ("squash", "beta")}, ["Beta", "dimensions (1,)", "bounds squash"]),
        (Plane, {"bounds": "clip", "covariance": "diagonal"}, ["clip", "squash"]),
        (Plane, {"covariance": "fixed"}, ["fixed", "td3", "full"]),
        (Plane, {"samples": 1}, ["samples", "given: 1"]),
        (Plane, {"samples": 4, "epsilon": 2.0}, ["epsilon", "log 4"]),
        (Plane, {"epsilon_mean": 0.0}, ["epsilon_mean", "above 0"]),
    ],
    ids=str,
)
def test_what_it_cannot_use_is_refused_before_the_first_step(env, options, words):
    with pytest.raises(UsageError) as caught:
        covary.untrained(env, "mpo", **options)
    for word in words:
        assert word in str(caught.value)


def test_a_full_covariance_is_what_it_starts_with():
    agent = covary.untrained(Plane, "mpo")
    assert agent.policy_config.covariance == "full"
    assert agent.policy_config.state_dependent


def test_around_keeps_geometry_and_covariance():
    box = Geometry.box([0, -1], [1, 1], periodic=(0,))
    for density in (
        BoxNormal(torch.zeros(3, 2), torch.ones(2), geometry=box),
        BoxNormal(torch.zeros(3, 2), loading=torch.randn(2, 1), residual=torch.ones(2), geometry=box),
        NEW,
    ):
        other = density.around(density.loc + 1)
        assert other.geometry == density.geometry
        assert torch.equal(other.covariance_matrix, density.covariance_matrix)
        assert torch.equal(other.loc, density.loc + 1)
