"""A number that is not finite is named where it was born, moves nothing, and can be left out."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from worlds import Line, Plane

import covary
from covary import algorithms, guard
from covary.agent import Agent, CriticConfig
from covary.birthplace import find
from covary.fast.path import FastPath
from covary.guard import PATIENCE, NonFinite, check_policy
from covary.heads import PolicyConfig
from covary.nets import RunningNorm
from covary.optim import LOOK_EVERY, Adam
from covary.runs import read_checkpoint
from covary.types import Rollout

OBS, N = 3, 4
PPO = {"horizon": 8, "minibatch": 1000, "epochs": 2, "target_kl": 0.0}
OF = {
    "ppo": PPO,
    "a2c": {"horizon": 8},
    "trpo": {"horizon": 8, "minibatch": 1000, "critic_epochs": 2},
    "actor_critic": {},
}
RATES = {  # so high that networks overflow
    "ppo": {"learning_rate": 1e20},
    "a2c": {"actor_lr": 1e20, "critic_lr": 1e20},
    "trpo": {"critic_lr": 1e20},
    "actor_critic": {"actor_lr": 1e20, "critic_lr": 1e20},
}
MINIBATCHES = ("ppo", "trpo")
BOTH = pytest.mark.parametrize("algo", OF)
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])


def agent_of(algo, fast=False, torso=None, space=None, policy=None, **options):
    """Small networks, observations and rewards as they are."""
    usual = {"scale_rewards": False} | OF[algo]
    config = algorithms.find(algo).Config(n_envs=N, **usual | options)
    spaces = Box(-np.inf, np.inf, (OBS,)), space or Box(-1, 1, (2,))
    policy = PolicyConfig(hidden=(6, 5), normalize_obs=False, **policy or {})
    critic = CriticConfig(hidden=(6, 5))
    agent = Agent(algo, *spaces, config=config, policy=policy, critic=critic, torso=torso, seed=3)
    if fast:
        agent.fast = agent.learner.fast = FastPath(agent.learner)
    return agent


def rollout_of(agent, seed=0, **changes):
    """A rollout of standard normal numbers. changes: field -> {index: value}."""
    t, rng = agent.learner.horizon, np.random.default_rng(seed)
    obs, next_obs = rng.standard_normal((2, t, N, OBS)).astype(np.float32)
    latent = np.stack([agent.sample(obs[i], agent.noise(N))[0] for i in range(t)])
    ones = np.ones((t, N), np.float32)
    reward = rng.standard_normal((t, N)).astype(np.float32)
    rollout = Rollout(*map(torch.from_numpy, (obs, latent, reward, 0.9 * ones, ones, ones.copy(), next_obs)))
    for field, entries in changes.items():
        for index, value in entries.items():
            getattr(rollout, field)[index] = value
    return rollout


def update(agent, rollout):
    """What whoever steps the environments does; what was logged of it."""
    if agent.fast is None or not agent.learner.online:
        return agent.learner.update(rollout, 0.0)
    sums = np.zeros(3)
    table = torch.cat([*rollout[2:6], torch.zeros(1, N)]).numpy()
    latent = rollout.latent[0].float().numpy()
    assert agent.fast.learn(rollout.obs[0].numpy(), latent, table, rollout.next_obs[0].numpy(), sums)
    return {"actor_loss": sums[0], "critic_loss": sums[1]} if sums[2] else {}


def moved_by(agent):
    optimizer = agent.learner.optimizer
    return [x.clone() for x in (optimizer.vector, optimizer.first, optimizer.second)] + [optimizer.steps]


def refused(agent, rollout):
    """The error of an update that moves nothing."""
    before = moved_by(agent)
    with pytest.raises(NonFinite) as caught:
        update(agent, rollout)
    error, after = caught.value, moved_by(agent)
    if agent.algo == "trpo" and error.where["network"] == "critic":  # whose turn comes after the policy's
        end = agent.learner.optimizer.segments[0]
        before, after = ([x[end:] for x in moved[:3]] for moved in (before, after))
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert json.loads(json.dumps(error.where, allow_nan=False)) == error.where
    assert agent.learner.nonfinite is error
    return error


# -------------------------------------------------------------------------------------------------- parameters

INSIDE = {  # where it is written, and what it is called
    "nan in a weight of the policy": (
        lambda a: a.policy.torso[2].weight,
        (3, 1),
        math.nan,
        "policy.torso.2.weight[3, 1]",
    ),
    "inf in a weight of the critic": (
        lambda a: a.learner.critic.torso[0].weight,
        (0, 2),
        math.inf,
        "critic.torso.0.weight[0, 2]",
    ),
    "nan in the critic's head": (lambda a: a.learner.critic.head.bias, 0, math.nan, "critic.head.bias[0]"),
    "inf in a bias before a tanh": (lambda a: a.policy.torso[0].bias, 1, math.inf, "policy.torso.0.bias[1]"),
    "a log_std that exploded": (lambda a: a.policy.head.log_std, 1, math.inf, "policy.head.log_std[1]"),
}


@BOTH
@PATHS
@pytest.mark.parametrize("case", INSIDE)
def test_a_parameter_written_from_outside_is_named(case, fast, algo):
    where, at, value, name = INSIDE[case]
    agent = agent_of(algo, fast)
    update(agent, rollout_of(agent))
    rollout = rollout_of(agent, 1)
    agent.learner.optimizer.taken[0] = LOOK_EVERY  # a number of steps after which an online learner looks
    with torch.no_grad():
        where(agent)[at] = value
    error = refused(agent, rollout)
    network, layer = name.split(".")[0], name.partition(".")[2].rpartition(".")[0]
    assert error.where["kind"] == "parameter"
    assert (error.where["network"], error.where["layer"]) == (network, layer)
    assert f"{value} in {name}, update " in str(error)
    assert "wrote to it" in str(error)


@PATHS
def test_an_online_learner_looks_again_soon_enough(fast):
    """An infinite bias before a tanh shows in no loss and in no gradient."""
    agent = agent_of("actor_critic", fast)
    update(agent, rollout_of(agent))
    with torch.no_grad():
        agent.policy.torso[0].bias[1] = math.inf
    for seed in range(LOOK_EVERY - 1):
        update(agent, rollout_of(agent, seed))
    assert "inf in policy.torso.0.bias[1]" in str(refused(agent, rollout_of(agent)))
    assert agent.learner.optimizer.steps == LOOK_EVERY


@BOTH
@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,))], ids=["choices", "box"])
@pytest.mark.parametrize("case", ["nan in a weight of the policy", "nan in the critic's head"])
def test_both_paths_say_the_same_of_a_parameter(case, space, algo):
    where, at, value, _ = INSIDE[case]
    told = []
    for fast in (True, False):
        agent = agent_of(algo, fast, space=space)
        rollout = rollout_of(agent)
        with torch.no_grad():
            where(agent)[at] = value
        error = refused(agent, rollout)
        told.append((str(error), error.where, {name: part.tolist() for name, part in error.batch.items()}))
    assert told[0][:2] == told[1][:2]
    assert told[0][2].keys() == told[1][2].keys()


@BOTH
@PATHS
def test_leaving_out_does_not_help_against_a_parameter(fast, algo):
    agent = agent_of(algo, fast)
    agent.learner.on_nonfinite = "skip"
    rollout = rollout_of(agent)
    with torch.no_grad():
        agent.learner.critic.head.bias[0] = math.nan
    assert refused(agent, rollout).where["kind"] == "parameter"
    assert agent.learner.skipped == 0


# --------------------------------------------------------------------------------------- a rate, a reward, a row


@BOTH
@PATHS
def test_a_learning_rate_that_lets_a_network_overflow(fast, algo):
    agent = agent_of(algo, fast, **RATES[algo] | ({"minibatch": 8} if algo in MINIBATCHES else {}))
    if algo not in MINIBATCHES:
        update(agent, rollout_of(agent))  # which was finite
    before = moved_by(agent)
    rollout = rollout_of(agent, 1)
    with pytest.raises(NonFinite) as caught:
        update(agent, rollout)
    assert "learning rate" in str(caught.value)
    assert "weights up to 1" in str(caught.value) or caught.value.where["kind"] == "gradient"
    assert caught.value.where["network"] in ("policy", "critic")
    after = moved_by(agent)
    assert all(bool(x.isfinite().all()) for x in after[:3])
    if algo not in MINIBATCHES:
        assert torch.equal(after[0], before[0])
    else:  # the first minibatch of the first epoch was finite, the second was not
        assert (caught.value.where["epoch"], caught.value.where["minibatch"], after[3]) == (1, 2, 1)
        assert "update 1, epoch 1, minibatch 2" in str(caught.value)


@PATHS
def test_a_step_that_was_finite_and_ends_where_the_density_is_not(fast):
    """An epoch of one minibatch: nothing after it would look before the next rollout."""
    agent = agent_of("ppo", fast, learning_rate=1e20, epochs=1)
    with pytest.raises(NonFinite) as caught:
        update(agent, rollout_of(agent))
    where = caught.value.where
    assert (where["kind"], where["network"], where["epoch"], where["minibatch"]) == ("loss", "policy", 1, None)
    assert re.search(r"inf in (log_prob|ratio)\[\d+\] of the policy, update 1, epoch 1", str(caught.value))
    other = agent_of("ppo", fast, learning_rate=1e20, epochs=1)
    other.learner.on_nonfinite = "skip"
    line = update(other, rollout_of(other))
    assert "critic_loss" in line
    assert "kl" not in line
    assert other.learner.skipped == 0


@PATHS
def test_a_target_that_overflows(fast):
    """Rewards that float32 can hold, though not the sum of two."""
    agent = agent_of("ppo", fast)
    error = refused(agent, rollout_of(agent, reward={(4, 2): 3e38, (5, 2): 3e38}))
    assert (error.where["kind"], error.where["term"], error.where["epoch"]) == ("batch", "target", None)
    row = next(int(i) for i in np.flatnonzero(~np.isfinite(error.batch["target"])))
    assert f"inf in target[{row}] of the batch, update 1" in str(error)
    assert error.batch["reward"][5 * N + 2] == np.float32(3e38)
    assert "scale_rewards" in str(error)


@BOTH
@PATHS
def test_a_loss_that_overflows(fast, algo):
    agent = agent_of(algo, fast)
    error = refused(agent, rollout_of(agent, reward={(0, 2): 1e30}))
    assert (error.where["kind"], error.where["term"], error.where["network"]) == ("loss", "critic", "critic")
    assert max(error.batch["reward" if algo == "actor_critic" else "target"]) > 9e29


def test_a_loss_that_overflows_though_its_gradient_does_not():
    error = refused(agent_of("ppo"), rollout_of(agent_of("ppo"), reward={(0, 2): 2.5e19}))
    assert (error.where["kind"], error.where["term"]) == ("loss", "critic")


@PATHS
def test_statistics_that_overflow(fast):
    """What the normaliser makes of it is not finite; the observation was."""
    agent = agent_of("actor_critic", fast)
    agent.policy.normalizer = RunningNorm(OBS)
    agent.policy.normalizer.inv_std[1] = math.nan
    if fast:
        agent.fast = agent.learner.fast = FastPath(agent.learner)
    error = refused(agent, rollout_of(agent))
    assert (error.where["kind"], error.where["term"]) == ("batch", "x")
    assert "nan in x[0, 1] of the batch" in str(error)


@PATHS
def test_a_norm_that_overflows_though_every_gradient_is_finite(fast):
    agent = agent_of("actor_critic", fast, actor_lr=1e-9)
    with torch.no_grad():  # the weight's own slope is the features, those before it are as large as this
        agent.learner.critic.head.weight.fill_(1e12)
        agent.learner.critic.torso[2].bias.zero_()
    rollout = rollout_of(agent)
    losses = algorithms.find("actor_critic").losses
    error = refused(agent, rollout)
    assert (error.where["kind"], error.where["network"]) == ("gradient", "critic"), str(error)
    assert "the norm of the gradient of critic" in str(error)
    terms = losses(agent.policy, agent.learner.critic, _batch(error), agent.config)
    gradients = torch.autograd.grad(terms.critic, list(agent.learner.critic.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)


def _batch(error):
    batch = algorithms.find("actor_critic").Batch
    return batch(**{name: torch.from_numpy(part) for name, part in error.batch.items()})


# ---------------------------------------------------------------------------------------------- a torso's own code


class Switched(nn.Module):
    """Does what it does in one of the two networks, each of which has a copy."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.on = nn.Linear(OBS, 4, bias=False), nn.Linear(4, 5), False

    def forward(self, x):
        h = self.a(x)
        return self.b(self.odd(h, x) if self.on else h.tanh())


class Quotient(Switched):
    def odd(self, h, x):
        return h / x[:, :1]  # inf where an observation is 0


class Root(Switched):
    def odd(self, h, x):
        return (h * h).sqrt()  # 0 where it is 0, and its slope 0 * inf


class Discarded(Switched):
    def odd(self, h, x):
        return torch.where(x[:, :1] == 0, torch.zeros_like(h), h / x[:, :1])  # finite; the slope is 0 * inf


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class Sqrt(nn.Module):
    def forward(self, x):
        return (x * x).sqrt()


class Layered(Switched):
    """The same by a module of its own."""

    kind = Log

    def __init__(self):
        super().__init__()
        self.layer = self.kind()

    def odd(self, h, x):
        return self.layer(h * h if self.kind is Log else h)


class LayeredRoot(Layered):
    kind = Sqrt


class Behind(Switched):
    """What leaves two modules at once is what the code around both of them goes on with."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Sequential(self.a))

    def odd(self, h, x):
        return (h * h).sqrt()


TORSOS = {  # what it is, the layer, and what the message says
    "a quotient": (Quotient, "output", "torso", "{network} layer torso gives before its torso.b, at [2, 0]"),
    "a logarithm": (Layered, "output", "torso.layer", "{network} layer torso.layer gives, at [2, 0]"),
    "the slope of a root": (Root, "gradient", "torso", "in {network} layer torso after its torso.a: the slope"),
    "a root behind containers": (Behind, "gradient", "torso", "in {network} layer torso after its torso.a: the slope"),
    "what where discards": (Discarded, "gradient", "torso", "in {network} layer torso after its torso.a: the slope"),
    "a layer's slope": (LayeredRoot, "gradient", "torso.layer", "in {network} layer torso.layer: the slope"),
}


def odd_agent(algo, torso, network, **options):
    agent = agent_of(algo, torso=torso(), **options)
    {"policy": agent.policy, "critic": agent.learner.critic}[network].torso.on = True
    return agent


@BOTH
@pytest.mark.parametrize("network", ["policy", "critic"])
@pytest.mark.parametrize("case", TORSOS)
def test_a_torso_that_makes_it_is_named_by_layer(case, network, algo):
    torso, kind, layer, said = TORSOS[case]
    agent = odd_agent(algo, torso, network)
    rollout = rollout_of(agent, 1)
    rollout.obs[0, 2] = 0.0  # the policy has acted before
    error = refused(agent, rollout)
    assert (error.where["kind"], error.where["network"], error.where["layer"]) == (kind, network, layer), str(error)
    message, rows = str(error), error.batch["x"]
    culprit = int(np.flatnonzero((rows == 0).all(1))[0])
    assert said.format(network=network).replace("[2,", f"[{culprit},") in message
    if kind == "gradient":
        weight = "a.0.0.weight" if torso is Behind else "a.weight"
        assert f"nan in the gradient of {network}.torso.{weight}" in message
        assert "1e-8" in message


@BOTH
@pytest.mark.parametrize("network", ["policy", "critic"])
@pytest.mark.parametrize("case", TORSOS)
def test_the_row_is_left_out_and_the_rest_is_learned_from(case, network, algo):
    options = {"ppo": {"minibatch": 8, "epochs": 3}, "trpo": {"minibatch": 8, "critic_epochs": 3}}.get(algo, {})
    slope = TORSOS[case][1] == "gradient"  # shows late; else the row is left out at once
    whole = algo == "actor_critic" or (algo == "a2c" and slope)
    agent = odd_agent(algo, TORSOS[case][0], network, **options)
    agent.learner.on_nonfinite = "skip"
    logged = []
    for seed in range(4):
        rollout = rollout_of(agent, seed)
        if seed == 1:
            rollout.obs[0, 2] = 0.0
        before = agent.learner.optimizer.vector.clone()
        logged.append(update(agent, rollout))
        assert bool(agent.learner.optimizer.vector.isfinite().all())
        assert torch.equal(agent.learner.optimizer.vector, before) == (whole and seed == 1)
    if whole:
        assert [bool(line) for line in logged] == [True, False, True, True]
    assert all(math.isfinite(float(value)) for line in logged for value in line.values())
    late = slope and (algo == "ppo" or (algo, network) == ("trpo", "critic"))  # at each epoch
    assert agent.learner.skipped == (3 if late else 1)
    assert (agent.learner.nonfinite.batch["x"] == 0).all(1).any()
    steps = 4 * 3 * 4 - (3 if late else 0) if algo in MINIBATCHES else 4 - whole
    assert agent.learner.optimizer.steps == steps


# ----------------------------------------------------------------------------------------------------- policies


@BOTH
@PATHS
def test_what_overflows_is_left_out_and_the_rest_is_learned_from(fast, algo):
    agent = agent_of(algo, fast, **({"minibatch": 8} if algo in MINIBATCHES else {}))
    agent.learner.on_nonfinite = "skip"
    logged = [update(agent, rollout_of(agent))]
    before = moved_by(agent)
    logged.append(update(agent, rollout_of(agent, 1, reward={(0, 2): 1e30})))
    after = moved_by(agent)
    logged.append(update(agent, rollout_of(agent, 2)))
    assert all(math.isfinite(float(value)) for line in logged for value in line.values())
    assert bool(agent.learner.optimizer.vector.isfinite().all())
    assert agent.learner.nonfinite.where["term"] == "critic"
    if algo not in MINIBATCHES:
        assert logged[1] == {}
        assert torch.equal(after[0], before[0])
        assert (agent.learner.skipped, agent.learner.optimizer.steps) == (1, 2)
    else:  # one minibatch of four in each of two epochs
        assert float(logged[1]["critic_loss"]) < 1e3
        assert (agent.learner.skipped, agent.learner.optimizer.steps) == (2, 8 + 6 + 8)


def test_both_paths_leave_out_the_same():
    kept = []
    for fast in (True, False):
        agent = agent_of("ppo", fast, minibatch=8)
        agent.learner.on_nonfinite = "skip"
        line = update(agent, rollout_of(agent, 1, reward={(0, 2): 1e30}))
        kept.append((agent.learner.optimizer.vector.clone(), {name: float(value) for name, value in line.items()}))
        where = agent.learner.nonfinite.where
        assert (where["epoch"], agent.learner.skipped) == (2, 2)
    torch.testing.assert_close(kept[0][0], kept[1][0], rtol=1e-4, atol=1e-6)
    assert kept[0][1] == pytest.approx(kept[1][1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_what_is_looked_at_after_a_pass_ends_in_the_same_bits(policy):
    """As on a device, where the host does not wait for every minibatch; with an entropy that draws numbers."""
    angles = {"covariance": "full", "periodic": (0, 1)}
    ended = []
    for look in (True, False):
        agent = agent_of("ppo", minibatch=8, entropy_coef=0.01, policy=angles)
        agent.learner.look, agent.learner.on_nonfinite = look, policy
        rollout, told = rollout_of(agent, 1, reward={(0, 2): 1e30}), ""
        try:
            update(agent, rollout)
        except NonFinite as error:
            told = str(error)
        ended.append([told, agent.learner.skipped, *(x.tolist() for x in moved_by(agent)[:3])])
        ended[-1].append(agent.learner.generator.get_state().tolist())
    assert ended[0] == ended[1]
    assert bool(ended[0][0]) == (policy == "stop")


@pytest.mark.parametrize("algo", ["ppo", "a2c", "actor_critic"])
def test_nothing_but_refusals_ends_all_the_same(algo):
    agent = odd_agent(algo, Root, "critic", **({"minibatch": 8} if algo == "ppo" else {}))
    agent.learner.on_nonfinite = "skip"
    rollout = rollout_of(agent)
    rollout.obs[:] = 0.0
    for _ in range((PATIENCE - 1) // (8 if algo == "ppo" else 1)):
        assert update(agent, rollout) == {}
    with pytest.raises(NonFinite):
        update(agent, rollout)
    assert agent.learner.skipped == PATIENCE - 1
    assert agent.learner.optimizer.steps == 0


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("algo", ["sac", "td3", "ddpg", "mpo"])
def test_a_policy_that_is_never_learned_ends_all_the_same(algo, every, monkeypatch):
    """Although its critics are, at every update; and not where every second update is whole."""
    monkeypatch.setattr(guard, "PATIENCE", 5)
    config = algorithms.find(algo).Config(n_envs=N, batch=4, learning_starts=0, scale_rewards=False)
    agent = Agent(algo, Box(-np.inf, np.inf, (OBS,)), Box(-1, 1, (2,)), config=config)
    learner, count, improve = agent.learner, itertools.count(), agent.learner._improve

    def improved(*given):
        if next(count) % every == 0:
            raise FloatingPointError("a loss")
        return improve(*given)

    learner._improve, learner.on_nonfinite = improved, "skip"

    def some():
        for seed in range(6):
            learner.update(rollout_of(agent, seed), 0.0)

    if every == 1:
        with pytest.raises(NonFinite):
            some()
        assert learner.skipped == 4
    else:
        some()
        assert learner.skipped >= 6


@BOTH
def test_how_many_were_left_out_is_kept(algo):
    agent, other = agent_of(algo), agent_of(algo)
    agent.learner.skipped = 7
    numbers = json.loads(json.dumps(agent.learner.numbers()))
    other.learner.load_numbers(numbers)
    assert other.learner.skipped == 7
    del numbers["skipped"]
    other.learner.load_numbers(numbers)
    assert other.learner.skipped == 0


def test_a_number_of_the_kernels_alone_is_told(monkeypatch):
    agent = agent_of("actor_critic", fast=True)
    monkeypatch.setattr(guard, "find", lambda *arguments, **options: None)
    error = refused(agent, rollout_of(agent, reward={(0, 2): 1e38}))
    assert error.where["kind"] == "kernel"
    assert "fast path alone" in str(error)
    assert "--no-fast" in str(error)


def test_a_torso_with_chance_in_it_is_suspected(monkeypatch):
    agent = agent_of("actor_critic")
    monkeypatch.setattr(guard, "find", lambda *arguments, **options: None)
    assert "computed again" in str(refused(agent, rollout_of(agent, reward={(0, 2): 1e38})))


# ------------------------------------------------------------------------------------------------------ the rate


@pytest.mark.parametrize("algo", ["ppo", "a2c", "actor_critic"])
@PATHS
@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_the_scale_multiplies_the_rate(scale, fast, algo):
    moved = []
    for each in (scale, 1.0):
        agent = agent_of(algo, fast, **({"epochs": 1} if algo == "ppo" else {}))
        agent.learner.optimizer.scale = each
        before = agent.learner.optimizer.vector.clone()
        line = update(agent, rollout_of(agent))
        moved.append((agent.learner.optimizer.vector - before).double())
        if algo == "ppo":
            assert float(line["learning_rate"]) == pytest.approx(2e-3 * each)
    torch.testing.assert_close(moved[0], scale * moved[1], rtol=1e-3, atol=1e-7)
    assert moved[1].abs().max() > 1e-5


def test_the_scale_is_kept_where_it_is_not_one():
    optimizer, other = (Adam([nn.Linear(2, 1)], 1e-3) for _ in range(2))
    assert "scale" not in optimizer.state()  # so that every checkpoint looks as it did
    optimizer.share, optimizer.scale = 0.5, 0.25
    other.load_state(optimizer.state())
    assert (other.scale, other.share, other.settings[1]) == (0.25, 1.0, 0.25)
    assert optimizer.settings[1] == 0.125
    optimizer.scale = 1.0
    other.load_state(optimizer.state())
    assert other.scale == 1.0


# ---------------------------------------------------------------------------------------------------- whole runs


@BOTH
@PATHS
def test_a_run_stops_with_what_it_learned_before(fast, algo, tmp_path):
    rates = RATES[algo] | ({"horizon": 16} if algo in MINIBATCHES else {})
    sizes = {"hidden": (6,), "critic": {"hidden": (6,)}, "vectorization": "sync"}
    with pytest.raises(NonFinite, match="Training must stay finite") as caught:
        covary.train(
            Plane, algo, steps=400, out=str(tmp_path / "run"), quiet=True, fast=fast, n_envs=4, **sizes, **rates
        )
    assert "update " in str(caught.value)
    for place in (tmp_path / "run" / "checkpoints").glob("*"):
        assert all(np.isfinite(array).all() for array in read_checkpoint(place)[0].values())


def test_a_policy_that_acts_with_what_is_not_finite_is_examined():
    agent = covary.untrained(Line, hidden=(6,))
    obs = torch.zeros(2, 1)
    check_policy(agent.policy, obs)
    with torch.no_grad():
        agent.policy.head.out.weight.fill_(3e38)
        agent.policy.torso[0].bias.fill_(1.0)
    with pytest.raises(NonFinite, match=r"what policy layer head\.out gives") as caught:
        check_policy(agent.policy, obs)
    assert caught.value.where["layer"] == "head.out"
    assert "weights up to 3.0e+38" in str(caught.value)


def test_the_search_leaves_no_hook_behind():
    agent = agent_of("ppo")
    networks = {"policy": agent.policy, "critic": agent.learner.critic}
    assert find(networks, {"x": torch.zeros(2)}, lambda: {"value": agent.learner.critic(torch.zeros(2, OBS))}) is None
    for network in networks.values():
        for module in network.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
