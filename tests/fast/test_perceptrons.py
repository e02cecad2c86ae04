"""Learning from the past: networks in memory that is used again, and draws as kernels, beside autograd."""

from __future__ import annotations

import copy
import itertools
import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn
from twins import assert_close

import covary
from covary.agent import Agent
from covary.algorithms import sac
from covary.fast import attach, blas, dense, detach
from covary.fast.perceptrons import Draws, FastPolicy, FastValues, Perceptron, Rooms
from covary.fast.tables import Unknown
from covary.heads import PolicyConfig
from covary.nets import QValues, RunningNorm, mlp
from covary.optim import Adam
from covary.policies import make_policy
from covary.types import Rollout

OBS = Box(-np.inf, np.inf, (5,), np.float32)
SQUARE = Box(np.float32([-1, -2]), np.float32([1, 3]))
HALF = Box(np.array([-1, 0, -np.inf], np.float32), np.array([1, np.inf, 4], np.float32))
OPEN = Box(np.array([-np.inf, -2], np.float32), np.array([np.inf, 2], np.float32))
BY_KERNELS = {
    "square": (SQUARE, {}),
    "half-bounded": (HALF, {}),
    "open, init_std": (OPEN, {"init_std": (3.0, 0.1)}),
    "unclipped": (SQUARE, {"bounds": "free"}),
    "a larger mean": (SQUARE, {"mean_scale": 4}),
}
BY_AUTOGRAD = {
    "full": (SQUARE, {"covariance": "full"}),
    "low rank": (SQUARE, {"covariance": "lowrank"}),
    "an angle": (SQUARE, {"periodic": (0,)}),
    "mean": (SQUARE, {"bounds": "mean"}),
}
CASES = {
    (name, state): (space, policy | {"state_dependent": state})
    for name, (space, policy) in (BY_KERNELS | BY_AUTOGRAD).items()
    for state in (True, False)
}


def twins_of(space, policy, **config):
    """One agent twice; the second on the fast path."""
    pair = [
        Agent(
            "sac",
            OBS,
            space,
            config=sac.Config(batch=33, replay_size=500, **config),
            policy=PolicyConfig(**{"hidden": (24, 20), "activation": "relu"} | policy),
        )
        for _ in range(2)
    ]
    assert attach(pair[1]) is None
    rng, d, t = np.random.default_rng(0), space.shape[0], 300

    def normal(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    ones = torch.ones(t, 1)
    past = Rollout(normal(t, 1, 5), normal(t, 1, d), normal(t, 1), 0.9 * ones, ones, ones, normal(t, 1, 5))
    for agent in pair:
        agent.learner.memory.add(past)
        agent.policy.observe(past.obs)
    return pair


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ten_updates_agree_with_autograd(case):
    general, fast = twins_of(*CASES[case])
    assert (fast.fast.draws is not None) == (case[0] in BY_KERNELS)
    for k in range(10):
        said = [agent.learner._learn(*agent.learner._batch(0.4)) for agent in (general, fast)]
        assert np.allclose(*said, rtol=1e-3, atol=1e-4)
        ours, its = fast.state()[0], general.state()[0]
        for name in its:
            if its[name].dtype == np.float32 and its[name].size:
                tolerance = 1e-5 * (k + 1) * max(1.0, float(np.abs(its[name]).max()))
                assert_close(ours[name], its[name], tolerance, f"{name} after {k + 1}")


def test_clipped_gradients_and_priorities_agree():
    general, fast = twins_of(SQUARE, {"state_dependent": True}, priority=0.6, max_grad_norm=0.3)
    for _ in range(5):
        for agent in (general, fast):
            agent.learner._learn(*agent.learner._batch(0.4))
    a, b = (agent.learner.memory.priorities.kept for agent in (general, fast))
    assert np.allclose(a, b, rtol=1e-3)
    ours, its = fast.state()[0], general.state()[0]
    assert all(np.allclose(ours[n], its[n], atol=1e-4) for n in its if its[n].dtype == np.float32)


def test_it_acts_as_on_the_general_path():
    general, fast = twins_of(HALF, {"state_dependent": True})
    obs = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
    noise = general.noise(7)
    for mine, its in zip(fast.fast.act(obs, noise), general.sample(obs, noise), strict=True):
        assert np.allclose(mine, its, atol=1e-5)


def test_whoever_goes_back_finds_the_optimizers_as_they_were():
    _, fast = twins_of(SQUARE, {})
    detach(fast)
    assert all(adam.kernel is None for adam in fast.learner.optimizers.values())
    assert fast.learner.target.kernel is None
    assert fast.learner._learn(*fast.learner._batch(0.4)) is not None


def perceptron(*modules):
    """One that has an optimizer and rooms to itself."""
    return Perceptron(Adam([nn.Sequential(*modules)], 1e-3), Rooms(), *modules)


def in_float64(module):
    return copy.deepcopy(module).double()


@pytest.mark.parametrize(
    ("inputs", "hidden", "outputs"),
    [(3, (40, 30), 2), (30, (20,), 1), (2, (8, 8, 8), 20), (5, (130, 128, 129), 2), (140, (120,), 150)],
)
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "leaky_relu"])
@pytest.mark.parametrize("product", ["of the BLAS", "of our own"])
def test_a_perceptron_is_that_of_autograd_in_float64(inputs, hidden, outputs, activation, product, monkeypatch):
    if product == "of our own":
        monkeypatch.setattr(blas, "ADDRESS", None)
    torch.manual_seed(0)
    modules = mlp(inputs, hidden, activation), nn.Linear(hidden[-1], outputs)
    exact = in_float64(nn.Sequential(*modules))
    ours = perceptron(*modules)
    large = [a * b >= 128 * 128 for a, b in itertools.pairwise((inputs, *hidden, outputs))]
    assert ours.layers[:, dense.LARGE].tolist() == [product == "of the BLAS" and size for size in large]
    x, slope = torch.randn(50, inputs), torch.randn(50, outputs)
    made = exact(x.double())
    torch.testing.assert_close(ours.forward(x).double(), made, rtol=1e-4, atol=1e-5)
    ours.backward(slope)
    wanted = torch.autograd.grad(made, [*exact.parameters()], slope.double())
    for mine, its in zip(ours.views, wanted, strict=True):
        torch.testing.assert_close(mine.double(), its, rtol=1e-3, atol=1e-4)
    by_autograd = torch.autograd.grad((ours(x) * slope).sum(), ours.parameters)
    for mine, its in zip(by_autograd, wanted, strict=True):
        torch.testing.assert_close(mine.double(), its, rtol=1e-3, atol=1e-4)


def test_pytorch_shows_its_blas_to_kernels():
    """Where it did not, wide networks would be slower, and nothing else would tell."""
    if sys.platform != "linux":
        pytest.skip("what other platforms' wheels show is for them to say")
    assert blas.ADDRESS is not None


@pytest.mark.parametrize(
    ("observation", "hidden", "activation", "layer_norm"),
    [
        (3, (8,), "relu", False),
        (3, (140, 130), "relu", False),
        (3, (), "relu", False),
        (126, (140,), "tanh", False),
        (3, (20, 10), "leaky_relu", True),
        (126, (140, 120), "elu", True),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_values_and_their_slopes_are_those_of_autograd_in_float64(observation, hidden, activation, layer_norm, number):
    torch.manual_seed(0)
    critic = QValues(number, observation, 2, hidden, activation, layer_norm=layer_norm)
    for value in critic.values:  # each is the smallest now and then
        nn.init.normal_(value[-1].bias, std=0.1)
    exact = in_float64(critic)
    ours = FastValues(critic, Adam([critic], 1e-3), Rooms())
    x, action, y, weight = torch.randn(700, observation), torch.randn(700, 2), torch.randn(700), torch.rand(700)
    seen = action.double().requires_grad_()
    q = exact(x.double(), seen)
    torch.testing.assert_close(ours(x, action).double(), q, rtol=1e-4, atol=1e-5)
    assert len(q.argmin(0).unique()) == number
    ends = {number: (q.amin(0), ours.smallest), 1: (q[0], ours.first)}
    for k, (wanted, by_autograd) in ends.items():
        value, slope = ours.least(x, action, k)
        torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=1e-5)
        (to_action,) = torch.autograd.grad(wanted.sum(), seen, retain_graph=True)
        torch.testing.assert_close(slope.double(), to_action, rtol=1e-3, atol=1e-4)
        near = action.clone().requires_grad_()
        (mine,) = torch.autograd.grad((3 * by_autograd(x, near)).sum(), near)
        torch.testing.assert_close(mine.double(), 3 * to_action, rtol=1e-3, atol=1e-4)
    loss, sizes = ours.fit(x, action, y, weight)
    error = q - y.double()
    wanted = 0.5 * (weight.double() * error.square()).mean(-1).sum()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(sizes.double(), error.abs().mean(0), rtol=1e-4, atol=1e-5)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(wanted, [*exact.parameters()])])
    torch.testing.assert_close(torch.from_numpy(ours.gradient).double(), gradient, rtol=1e-3, atol=1e-5)


def test_critics_that_share_a_parameter_go_the_general_way():
    critic = QValues(2, 3, 1, (8,), "relu")
    optimizer = Adam([critic], 1e-3)
    critic.values[1][0].weight = critic.values[0][0].weight
    with pytest.raises(Unknown, match="two layers share"):
        FastValues(critic, optimizer, Rooms())


def test_a_loss_that_is_not_finite_moves_nothing():
    """The mean is infinite, the gradient is not."""
    _, agent = twins_of(Box(-np.inf, np.inf, (2,), np.float32), {"activation": "tanh"})
    with torch.no_grad():
        agent.policy.head.out.bias[0] = torch.inf
    before = agent.policy.head.out.weight.clone()
    with pytest.raises(covary.guard.NonFinite):
        agent.learner._learn(*agent.learner._batch(0.4))
    assert agent.policy.head.out.weight.equal(before)


def test_a_layer_of_one_input_is_not_for_the_blas():
    assert not blas.worth(1, 1 << 15)


def test_a_value_that_is_no_number_is_the_smallest():
    critic = QValues(2, 3, 1, (8,), "relu")
    ours = FastValues(critic, Adam([critic], 1e-3), Rooms())
    for value in critic.values:
        with torch.no_grad():
            value[-1].bias += torch.nan
        assert ours.least(torch.randn(5, 3), torch.randn(5, 1))[0].isnan().all()
        with torch.no_grad():
            value[-1].bias.zero_()


def test_a_gradient_of_what_was_overwritten_is_refused():
    torch.manual_seed(0)
    network = perceptron(mlp(3, (8,)), nn.Linear(8, 1))
    first = network(torch.randn(4, 3))
    network(torch.randn(4, 3))
    with pytest.raises(RuntimeError, match="another network was called"):
        torch.autograd.grad(first.sum(), network.parameters)


@pytest.mark.parametrize("case", BY_KERNELS)
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("far", [1.0, 30.0])
def test_draws_and_their_slopes_are_those_of_the_density(case, state, far):
    """Far out as well, where a squash is flat; the way back by autograd in float64."""
    torch.manual_seed(0)
    space, options = BY_KERNELS[case]
    policy = make_policy(5, space, PolicyConfig(hidden=(8,), state_dependent=state, **options))
    with torch.no_grad():
        policy.head.out.weight *= far * 30
    draws = Draws(FastPolicy(policy, Adam([policy], 1e-3), Rooms()))
    d = space.shape[0]
    x, noise, to_seen = torch.randn(40, 5), torch.randn(40, d), torch.randn(40, d)
    with torch.no_grad():
        seen, log_prob = draws(x, noise)
    exact = make_policy(5, space, PolicyConfig(hidden=(8,), state_dependent=state, **options))
    exact.load_state_dict(policy.state_dict())
    exact.double()
    for name, buffer in exact.head.named_buffers():  # those that are not saved
        buffer.data = dict(policy.head.named_buffers())[name].to(buffer.dtype)
    out = exact.head.out(exact.torso(x.double())).detach().requires_grad_()
    density = exact.head.made_of(out)
    latent = density.sample_latent(noise=noise.double())
    wanted_seen, wanted = exact.head.coordinates(latent), density.log_prob_latent(latent)
    torch.testing.assert_close(seen.double(), wanted_seen, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_prob.double(), wanted, rtol=1e-4, atol=2e-3)
    own = [] if state else [exact.head.log_std]
    total = 0.3 * wanted.sum() + (to_seen.double() * wanted_seen).sum()
    slopes = torch.autograd.grad(total, [out, *own])
    handed = []
    draws.network.backward = handed.append
    draws.back(to_seen, 0.3)
    torch.testing.assert_close(handed[0].double(), slopes[0], rtol=1e-3, atol=1e-3)
    if own:
        torch.testing.assert_close(draws.to_own.double(), slopes[1], rtol=1e-3, atol=1e-2)


def frozen():
    body = mlp(3, (8,))
    body[0].weight.requires_grad_(False)
    return body


def heard():
    body = mlp(3, (8,))
    body[0].weight.register_hook(lambda gradient: 2 * gradient)
    return body


class Ternary(nn.Parameter):
    """A parameter that would compute otherwise."""


def of_a_class_of_its_own():
    body = mlp(3, (8,))
    body[0].weight = Ternary(body[0].weight.detach())
    return body


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        (lambda: (nn.Sequential(nn.Linear(3, 4), nn.SiLU()), nn.Linear(4, 1)), "SiLU"),
        (lambda: (nn.Sequential(nn.Linear(3, 4), nn.Dropout()), nn.Linear(4, 1)), "Dropout"),
        (lambda: (nn.Tanh(), nn.Linear(4, 1)), "follows no linear layer"),
        (lambda: (nn.Linear(3, 4).double(), nn.Linear(4, 1).double()), "parameters of torch.float64"),
        (lambda: (frozen(), nn.Linear(8, 1)), "frozen"),
        (lambda: (heard(), nn.Linear(8, 1)), "hooks"),
        (lambda: (of_a_class_of_its_own(), nn.Linear(8, 1)), "class of its own"),
    ],
)
def test_what_is_not_done_here_is_refused(modules, reason):
    with pytest.raises(Unknown, match=reason):
        perceptron(*modules())


class Doubled(RunningNorm):
    def forward(self, obs):
        return 2 * super().forward(obs)


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_a_normaliser_of_ones_own_goes_the_general_way(algo):
    agent = Agent(algo, OBS, SQUARE)
    agent.policy.normalizer = Doubled(5)
    assert attach(agent) == "a normalizer of type Doubled"
    assert agent.learner.fast is None
    if algo == "sac":
        assert agent.learner.past.kernel is None, "no kernel shows it what it would not see the same way"


def test_a_torso_of_ones_own_goes_the_general_way():
    with pytest.raises(Unknown, match="torso of one's own"):
        FastValues(critic := QValues(2, 3, 1, (8,), "relu", torso=nn.Linear(3, 3)), Adam([critic], 1e-3), Rooms())
