"""Losses move what they should, the same seed gives the same bits, and what can be solved by hand is learned."""

from __future__ import annotations

import json
import random
import re
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
import worlds
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sizes import now_and_then
from torch import nn
from worlds import Arms, Choice, Dial, Line, Plane, Regulator, Stay

import covary
from covary import algorithms
from covary.agent import CriticConfig
from covary.algorithms import ppo
from covary.envs.adapter import Adapter
from covary.errors import UsageError
from covary.iterations import add
from covary.report import Report
from covary.runs import Run, read_checkpoint

TINY = {
    "ppo": {"n_envs": 3, "horizon": 7, "minibatch": 10, "epochs": 2, "steps": 70},
    "a2c": {"n_envs": 3, "horizon": 5, "steps": 70},
    "trpo": {"n_envs": 3, "horizon": 7, "minibatch": 10, "critic_epochs": 2, "steps": 70},
    "actor_critic": {"n_envs": 3, "steps": 50},
    "stream_ac": {"steps": 50},
}
BOTH = pytest.mark.parametrize("algo", TINY)


def train(env, algo="ppo", out="run", **options):
    return covary.train(env, algo, out=str(out), quiet=True, **(TINY.get(algo, {}) | options))


def bits(agent):
    return {name: array.tobytes() for name, array in agent.state()[0].items()}


def lines(out, name="metrics"):
    return list(Run.open(out).lines(name))


# ----------------------------------------------------------------------------------------------- gradient routes


def batch_of(module, agent, size=32):
    """A batch with the shapes that `module.Batch` names, of the agent's own actions."""
    x = torch.randn(size, 3)
    with torch.no_grad():
        drawn = agent.policy.density(x).draw()
    numbers = {
        "x": x,
        "next_x": torch.randn(size, 3),
        "latent": drawn.latent,
        "log_prob": drawn.log_prob - 0.05,
        "advantage": torch.randn(size),
        "target": torch.randn(size),
        "reward": torch.randn(size),
        "discount": torch.full((size,), 0.9),
    }
    return module.Batch(*(numbers[name] for name in module.Batch._fields))


@BOTH
@pytest.mark.parametrize("env", [Plane, Choice])
def test_each_loss_moves_the_networks_it_should_and_no_others(algo, env):
    module = algorithms.find(algo)
    torch.manual_seed(0)

    class Wide(env):
        observation_space = Box(-1, 1, (3,), np.float32)

    options = {} if env is Choice else {"covariance": "full", "state_dependent": True, "periodic": (0,)}
    options |= {"entropy_coef": 0.1} if "entropy_coef" in module.Config.__dataclass_fields__ else {}
    agent = covary.untrained(Wide, algo, **options)
    networks = {"policy": agent.policy, "critic": agent.learner.critic}
    terms = module.losses(agent.policy, agent.learner.critic, batch_of(module, agent), agent.config)
    assert set(module.ROUTES) == set(terms._fields)
    moved = set()
    for name, loss in terms._asdict().items():
        for network, it in networks.items():
            parameters = list(it.parameters())
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            reached = [g is not None and bool(g.abs().sum() > 0) for g in gradients]
            if network in module.ROUTES[name]:
                assert any(reached), f"{name} does not reach the {network}"
                moved |= {id(p) for p, yes in zip(parameters, reached, strict=True) if yes}
            else:
                assert not any(reached), f"{name} reaches the {network}"
    everything = {id(p) for it in networks.values() for p in it.parameters()}
    assert moved == everything, "every parameter is reached by some loss"


@BOTH
def test_an_update_moves_both_networks_and_the_normaliser(algo, here):
    before, after = covary.untrained(Plane, algo), train(Plane, algo)
    start, end = before.state()[0], after.state()[0]
    moved = {f"policy.{name}" for name, p in after.policy.named_parameters() if p.numel()}
    moved |= {f"critic.{name}" for name, _ in after.learner.critic.named_parameters()}
    for name in start:
        if name in moved:
            assert not np.array_equal(start[name], end[name]), name
    assert after.policy.normalizer.count == after.steps


@pytest.mark.parametrize(
    "options",
    [{}, {"covariance": "full", "periodic": (0,)}, {"bounds": "clip"}, {"periodic": (0, 1), "state_dependent": True}],
    ids=str,
)
def test_the_ratio_is_one_before_the_first_step(options, here, monkeypatch):
    """Both against the log-probabilities that PPO notes before its epochs, and against the density that acted."""
    first, acted, noted = [], [], []
    losses, make, act = ppo.losses, ppo.Learner._batch, covary.Agent.sample

    def watch(policy, critic, batch, config, generator):
        if len(first) < len(noted):
            density = policy.density(batch.x)
            first.append((density.log_prob_latent(batch.latent, jacobian=False) - batch.log_prob).exp().detach())
        return losses(policy, critic, batch, config, generator)

    def note(self, rollout):
        batch, value = make(self, rollout)
        noted.append(batch.log_prob)
        return batch, value

    @torch.no_grad()
    def sample(self, obs, noise=None):
        density = self.policy(torch.from_numpy(obs))
        latent, action = act(self, obs, noise)
        acted.append(density.log_prob_latent(torch.from_numpy(latent), jacobian=False))
        return latent, action

    monkeypatch.setattr(ppo, "losses", watch)
    monkeypatch.setattr(ppo.Learner, "_batch", note)
    monkeypatch.setattr(covary.Agent, "sample", sample)
    shape = {"n_envs": 4, "horizon": 32, "minibatch": 32}
    train(Plane, "ppo", steps=512, epochs=3, learning_rate=3e-3, fast=False, **shape, **options)
    assert len(first) == 4
    for ratio in first:
        assert (ratio - 1).abs().max() < 1e-5
    rollouts = torch.stack(acted).view(4, -1)
    for k in range(1, 4):  # the normaliser sees the very first rollout before anything is learned from it
        assert ((rollouts[k] - noted[k]).exp() - 1).abs().max() < 1e-5


# ------------------------------------------------------------------------------------------------- same seed


WIDE = [
    ("ppo", Plane, {"covariance": "full", "periodic": (0,)}),
    ("ppo", Plane, {"covariance": "full", "periodic": (0, 1), "entropy_coef": 0.01}),
    ("ppo", Choice, {"target_kl": 0.001}),
    ("a2c", Plane, {"covariance": "full", "periodic": (0, 1), "entropy_coef": 0.01}),
    pytest.param("a2c", Choice, {"entropy_coef": 0.01}, marks=pytest.mark.slow),
    ("trpo", Plane, {"covariance": "full", "periodic": (0,)}),
    pytest.param("trpo", Choice, {}, marks=pytest.mark.slow),
    ("actor_critic", Plane, {"covariance": "full", "periodic": (0, 1), "entropy_coef": 0.01}),
    pytest.param("actor_critic", Choice, {"entropy_coef": 0.01}, marks=pytest.mark.slow),
    ("actor_critic", Plane, {"actor_lam": 0.9, "critic_lam": 0.5}),
    ("stream_ac", Plane, {}),
    pytest.param("stream_ac", Choice, {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("algo", "env", "options"), WIDE, ids=str)
def test_same_seed_same_bits(algo, env, options, here):
    """Whatever the global generators are at, however many environments run side by side, with evaluations between."""
    runs = {}
    for name, extra in {"a": {}, "b": {}, "async": {"vectorization": "async"}, "seed": {"seed": 1}}.items():
        random.seed(name)
        np.random.seed(len(name))  # noqa: NPY002
        torch.manual_seed(len(runs))
        runs[name] = bits(train(env, algo, name, save_every=30, **options, **extra))
    assert runs["a"] == runs["b"]
    assert runs["a"] == runs["async"]
    assert runs["a"] != runs["seed"]
    text = {name: (here / name / "metrics.jsonl").read_bytes() for name in runs}
    assert text["a"] == text["b"] == text["async"] != text["seed"]
    assert len(text["a"]) > 100


@BOTH
def test_evaluations_do_not_change_what_is_learned(algo, here):
    plain = train(Line, algo, "plain")
    tried = train(Line, algo, "tried", eval_every=20, eval_episodes=3)
    scores = [line["eval_return"] for line in lines(here / "tried") if "eval_return" in line]
    assert len(scores) >= 2
    assert bits(plain) == bits(tried)


@pytest.mark.parametrize("make", [Line, lambda: SyncVectorEnv([Line])], ids=["object", "vector"])
def test_evaluations_need_environments_of_their_own(make, here):
    """Or an evaluation would run on with the very environment that is being learned in."""
    with pytest.raises(UsageError, match="eval_every"):
        train(make(), n_envs=1, eval_every=20)
    assert not (here / "run").exists()


@BOTH
def test_the_users_random_numbers_are_not_touched(algo, here):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    threads = torch.get_num_threads()
    options = {"covariance": "full", "periodic": (0, 1)} | ({} if algo == "trpo" else {"entropy_coef": 0.01})
    agent = train(Plane, algo, eval_every=20, **options)
    agent.act(np.zeros(3, np.float32))
    covary.evaluate(agent, Plane, 2, deterministic=False)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == threads


def test_untrained_is_what_training_starts_from(here):
    start = covary.untrained(Plane, "ppo", seed=3, hidden=(8,))
    trained = train(Plane, "ppo", seed=3, hidden=(8,), learning_rate=1e-30, normalize_obs=False)
    for name, array in start.state()[0].items():
        if name.startswith(("policy.torso", "policy.head", "critic")):
            np.testing.assert_allclose(trained.state()[0][name], array, rtol=0, atol=1e-20, err_msg=name)


# ------------------------------------------------------------------------------------------------ odd sizes


@pytest.mark.parametrize(
    ("algo", "sizes", "steps"),
    [
        ("ppo", {"n_envs": 3, "horizon": 7, "minibatch": 5, "steps": 50}, 51),
        ("ppo", {"n_envs": 1, "horizon": 4, "minibatch": 3, "steps": 5}, 5),  # the last rollout is one transition
        ("ppo", {"n_envs": 1, "horizon": 1, "minibatch": 1, "steps": 3}, 3),
        ("ppo", {"n_envs": 5, "horizon": 100, "minibatch": 1000, "steps": 1}, 5),
        ("a2c", {"n_envs": 3, "horizon": 7, "steps": 50}, 51),
        ("a2c", {"n_envs": 1, "horizon": 1, "steps": 3}, 3),
        ("trpo", {"n_envs": 3, "horizon": 7, "minibatch": 5, "steps": 50}, 51),
        ("trpo", {"n_envs": 1, "horizon": 1, "minibatch": 1, "steps": 3}, 3),
        ("actor_critic", {"n_envs": 1, "steps": 1}, 1),
        ("actor_critic", {"n_envs": 7, "steps": 50}, 56),
        ("actor_critic", {"n_envs": 7, "steps": 50, "actor_lam": 0.9}, 56),
        ("stream_ac", {"steps": 1}, 1),
        ("stream_ac", {"steps": 50}, 50),
    ],
    ids=str,
)
@pytest.mark.parametrize("env", [Line, pytest.param(Choice, marks=pytest.mark.slow)])
def test_sizes_that_divide_nothing(algo, sizes, steps, env, here):
    agent = train(env, algo, eval_every=17, save_every=11, eval_episodes=3, **sizes)
    assert agent.steps == steps
    record = lines(here / "run")
    assert record[-1]["step"] == steps
    for line in record:
        assert all(np.isfinite(v) for v in line.values() if v is not None), line
    assert json.loads((here / "run" / "config.json").read_text())["steps"] == sizes["steps"]


@BOTH
@pytest.mark.parametrize(
    "horizon", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(7, marks=pytest.mark.slow)]
)
def test_a_vector_environment_that_resets_itself(algo, horizon, here):
    """With NEXT_STEP autoreset every sixth step is a phantom; only what Line itself counts is a transition."""
    calls = []

    class Counted(Line):
        def step(self, action):
            calls.append(action)
            return Line.step(self, action)

    options = {"horizon": horizon} if algo == "ppo" else {}
    for n, steps in ((1, 33), (1, 35), (3, 50))[: 2 if algo == "stream_ac" else 3]:
        calls.clear()
        venv = SyncVectorEnv([Counted] * n, autoreset_mode=AutoresetMode.NEXT_STEP)
        out = here / f"{n}-{steps}"
        agent = train(venv, algo, out, steps=steps, **options)
        assert agent.steps == len(calls) in range(steps, steps + 3)
        last = lines(out)[-1]
        assert last["length"] == 5
        assert last["episodes"] == steps // n // 5 * n or n == 3
        assert all(np.isfinite(array).all() for array in agent.state()[0].values())
        assert agent.policy.normalizer.count == agent.steps, "what never happened is not averaged over"


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_vector_environments(mode, here):
    agent = train(SyncVectorEnv([Line] * 4, autoreset_mode=mode), "ppo", steps=78, n_envs=1)
    assert agent.steps == 80
    assert lines(here / "run")[-1]["episodes"] == 16
    assert Run.open(here / "run").config["config"]["n_envs"] == 4


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", "async"])
def test_what_gymnasiums_make_vec_makes(mode, here):
    venv = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode=mode)
    agent = train(venv, "ppo", steps=300, horizon=20)
    venv.close()
    assert 300 <= agent.steps < 303
    record = lines(here / "run")[-1]
    assert record["episodes"] > 3
    assert record["return"] == record["length"], "CartPole pays 1 a step; a phantom step would not be paid for"


def test_an_object_is_an_environment(here):
    """One that exists is one environment, whatever the default number of environments is."""
    agent = covary.train(Line(), steps=40, out="run", quiet=True)
    assert agent.steps == 40
    assert covary.evaluate(agent, Line(), 3).lengths.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"observation_space": Box(-1, 1, (1,), np.float64)},
        {"observation_space": Box(0, 255, (4, 5, 3), np.uint8), "draw": lambda self: Line.draw(self) % 7},
        {"observation_space": Box(-9, 9, (2,), np.int32), "draw": lambda self: Line.draw(self)},
        {"observation_space": Box(-1, 1, (2, 3), np.float32)},
        {"action_space": Box(-2, 2, (2, 3), np.float32)},
        {"action_space": Box(np.array([0, -np.inf, -1], np.float32), np.array([np.inf, 3, 1], np.float32))},
        {"action_space": Box(-2, 2, (1,), np.float64)},
        {"action_space": Box(-np.inf, np.inf, (2,), np.float64)},
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
@pytest.mark.parametrize("algo", now_and_then(TINY, ["ppo", "actor_critic"]))
def test_unusual_spaces_simply_work(change, algo, here):
    space = change.get("observation_space", Line.observation_space)

    class Own(Line):
        observation_space, action_space = space, change.get("action_space", Line.action_space)

        def draw(self):
            self.x = self.np_random.uniform(0, 1, space.shape)
            return (self.x * 100 if space.dtype.kind in "iu" else self.x).astype(space.dtype)

        def step(self, action):
            assert action.dtype == self.action_space.dtype
            assert action in self.action_space, action
            return Line.step(self, action)

    agent = train(Own, algo)
    again = covary.load("run")
    obs, _ = Own().reset(seed=0)
    assert np.array_equal(agent.act(obs), again.act(obs)), "the generator's state is kept too"
    batch = np.stack([obs] * 3)
    for deterministic in (False, True):
        assert agent.act(obs, deterministic) in Own.action_space
        assert agent.act(batch, deterministic).shape == (3, *Own.action_space.shape)
    assert np.array_equal(agent.act(obs, deterministic=True), again.act(obs, deterministic=True))
    assert covary.evaluate(again, Own, 2).lengths.tolist() == [5, 5]


def test_numbers_of_numpy_are_numbers(here):
    agent = covary.train(
        Line, "ppo", np.int64(20), np.int32(3), out="run", quiet=True, n_envs=np.int64(2), hidden=np.array([8, 8])
    )
    assert agent.steps == 20
    assert Run.open(here / "run").config["seed"] == 3


# ---------------------------------------------------------------------------------------------- own networks


class Torso(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 6)

    def forward(self, x):
        return self.layer(x).sin()


@BOTH
def test_a_torso_of_ones_own(algo, here):
    torso = Torso()
    kept = torso.layer.weight.clone()
    agent = train(Line, algo, torso=torso)
    assert isinstance(agent.policy.torso, Torso)
    assert agent.policy.torso is not agent.learner.critic.torso
    assert not torch.equal(agent.policy.torso.layer.weight, kept)
    assert torch.equal(torso.layer.weight, kept), "the one handed in stays the user's"
    again = covary.load("run", torso=Torso())
    obs = np.array([0.3], np.float32)
    assert np.array_equal(again.act(obs, deterministic=True), agent.act(obs, deterministic=True))
    with pytest.raises(UsageError, match=r"covary\.load\(path, torso"):
        covary.load("run")
    with pytest.raises(UsageError, match="fit"):
        covary.load("run", torso=nn.Linear(1, 3))


class Flat(nn.Module):
    """Takes (B, O) and nothing else, as convolutions behind an Unflatten do."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Tanh())

    def forward(self, x):
        assert x.dim() == 2, tuple(x.shape)
        return self.net(x)


@BOTH
def test_a_torso_sees_a_batch_of_observations_and_nothing_else(algo, here):
    class Image(Line):
        observation_space = Box(-1, 1, (2, 2), np.float32)

    agent = train(Image, algo, torso=Flat())
    assert agent.act(np.zeros((5, 2, 2), np.float32)).shape == (5, 1)
    assert agent.learner.critic.torso.net[1].weight.shape == (3, 1, 2, 2)


class ThreeDimensional(nn.Module):
    def forward(self, x):
        return x.unsqueeze(-1)


@pytest.mark.parametrize("torso", [nn.Linear(5, 6), ThreeDimensional(), nn.LSTM(1, 4)], ids=str)
def test_a_torso_that_does_not_fit(torso, here):
    with pytest.raises(UsageError, match=r"\(B, 1\)"):
        train(Line, torso=torso)


# ------------------------------------------------------------------------------------- solved by hand, learned

PPO = {"n_envs": 8, "horizon": 32, "epochs": 10, "minibatch": 64, "lam": 0.95, "learning_rate": 3e-3}
TRACES = {"actor_lam": 0.8, "critic_lam": 0.8}
AC = {"n_envs": 8, "actor_lr": 1e-3, "critic_lr": 3e-3}
MPO = {
    "learning_starts": 50,
    "batch": 64,
    "samples": 8,
    "tau": 0.02,
    "updates": 0.5,
    "actor_lr": 1e-3,
    "policy_period": 20,
    "epsilon_mean": 0.05,
    "epsilon_covariance": 0.01,
    "policy": {"hidden": (32,)},
    "critic": {"hidden": (32, 32)},
}


@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("ppo", PPO | {"steps": 15_000}),
        ("actor_critic", AC | {"steps": 30_000, "hidden": (), "init_std": 0.3}),
        ("actor_critic", AC | TRACES | {"n_envs": 4, "steps": 15_000, "hidden": (), "init_std": 0.3}),
        pytest.param("mpo", MPO | {"steps": 6_000}, marks=pytest.mark.slow),
    ],
    ids=["ppo", "actor_critic", "actor_critic, traces", "mpo"],
)
def test_a_regulator_learns_the_gain_of_the_riccati_equation(algo, options, here):
    """The gain is 0.895 where gamma is 0.8 and 0 where it is 0: all of it comes from what follows."""
    agent = train(Regulator, algo, gamma=0.8, preset="none", **options)
    x = np.linspace(-1, 1, 21)[:, None]
    slope = float((agent.act(x, deterministic=True) * x).sum() / (x * x).sum())
    assert Regulator.gain(0.8) == pytest.approx(0.895, abs=1e-3)
    assert -slope == pytest.approx(Regulator.gain(0.8), rel=0.15)


@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("ppo", PPO | {"steps": 15_000}),
        pytest.param("actor_critic", AC | {"n_envs": 2, "actor_lr": 3e-3, "steps": 8_000}, marks=pytest.mark.slow),
        pytest.param("stream_ac", {"steps": 8_000}, marks=pytest.mark.slow),
        pytest.param("mpo", MPO | {"steps": 2_000}, marks=pytest.mark.slow),
    ],
    ids=["ppo", "actor_critic", "stream_ac", "mpo"],
)
def test_a_bandit_learns_its_optimum(algo, options, here):
    agent = train(Dial, algo, **options)
    action = agent.act(np.zeros(1, np.float32), deterministic=True)
    assert action == pytest.approx(Dial.BEST, abs=1.0)


@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("ppo", PPO | {"steps": 5_000}),
        ("actor_critic", AC | {"n_envs": 1, "steps": 4_000}),
        ("actor_critic", AC | TRACES | {"n_envs": 1, "steps": 4_000}),
        ("stream_ac", {"steps": 4_000}),
    ],
    ids=["ppo", "actor_critic", "actor_critic, traces", "stream_ac"],
)
def test_a_bandit_learns_its_best_arm(algo, options, here):
    agent = train(Arms, algo, **options)
    probs = agent.policy(torch.zeros(1, 1)).probs[0]
    assert probs[Arms.BEST] > 0.9


@pytest.mark.parametrize("bootstraps", [True, False], ids=["bootstraps", "does not"])
@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("ppo", PPO | {"steps": 5_000}),
        ("actor_critic", AC | {"n_envs": 1, "steps": 4_000}),
        pytest.param("actor_critic", AC | TRACES | {"n_envs": 1, "steps": 4_000}, marks=pytest.mark.slow),
        ("stream_ac", {"steps": 4_000}),
    ],
    ids=["ppo", "actor_critic", "actor_critic, traces", "stream_ac"],
)
def test_a_time_limit_is_no_end(algo, options, bootstraps, here, monkeypatch):
    """Whoever bootstraps at the time limit goes on; with a discount of 0 there, which is put in here, the agent learns
    to take what ends it."""
    if not bootstraps:
        step = Adapter.step

        def cut(self, action):
            taken = step(self, action)
            taken.discount[:] *= taken.lam
            return taken

        monkeypatch.setattr(Adapter, "step", cut)
    agent = train(Stay, algo, gamma=0.9, **options)
    stays = agent.policy(torch.ones(1, 1)).probs[0, 1].item()
    assert stays > 0.9 if bootstraps else stays < 0.1


def test_a_learned_covariance_correlates(here):
    """The best two actions sum to 0 whatever their difference is: only a full covariance can say so."""

    class Valley(Dial):
        action_space = Box(-1, 1, (2,), np.float32)

        def step(self, action):
            return np.zeros(1, np.float32), -float(abs(action.sum())), True, False, {}

    agent = train(Valley, "ppo", covariance="full", **PPO | {"steps": 8_000})
    covariance = agent.policy(torch.zeros(1, 1)).covariance_matrix[0].detach().numpy()
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.8


def test_what_diverges_is_stopped_and_what_is_kept_is_finite(here, monkeypatch, capsys):
    """From the thirtieth minibatch on the loss is NaN; the checkpoints from before it stay the newest."""
    losses, count = ppo.losses, iter(range(10**6))

    def poisoned(*arguments):
        terms = losses(*arguments)
        return terms if next(count) < 30 else terms._replace(actor=terms.actor * float("nan"))

    monkeypatch.setattr(ppo, "losses", poisoned)
    with pytest.raises(UsageError, match="finite") as caught:
        covary.train(Line, "ppo", out="run", **TINY["ppo"] | {"steps": 2000, "save_every": 21, "fast": False})
    assert "learning rate" in str(caught.value)
    assert "environment" not in str(caught.value)
    assert "saved at" not in capsys.readouterr().out
    kept = Run.open(here / "run").checkpoints()
    assert len(kept) == 3
    for place in kept:
        arrays, _ = read_checkpoint(place)
        assert all(np.isfinite(array).all() for array in arrays.values())


def test_worlds_are_right():
    """The environments here keep Gymnasium's rules, or what is learned in them says nothing."""
    from covary.envs.checks import check_env

    for cls in (Line, Plane, Choice, Regulator, Dial, Arms, Stay, worlds.Crate):
        assert check_env(cls()) == [], cls


def test_each_number_is_a_mean_over_the_updates_that_told_it():
    agent, obs = covary.untrained("Pendulum-v1"), np.zeros((1, 3), np.float32)
    report, other = (
        Report(SimpleNamespace(lines=list), SimpleNamespace(start=0), lambda *seen: None) for _ in range(2)
    )
    for losses in ({"a": 1.0, "b": 6.0}, {"a": 3.0}, {}, {"a": 5.0}):
        add(losses, report.sums)
    other.load_state(*report.state())
    for each in (report, other):
        record = each.record(agent, obs)
        assert (record["a"], record["b"]) == (3.0, 6.0)
    arrays, numbers = report.state()
    del numbers["counts"]
    del arrays["report.b"]
    other.load_state(arrays, numbers | {"sums": ["a"], "count": 3})
    assert other.record(agent, obs)["a"] == 3.0


def test_a_config_leaves_an_algorithm_its_defaults():
    policy = covary.PolicyConfig(init_std=0.1, covariance="diagonal")
    agent = covary.untrained("Pendulum-v1", "sac", policy=policy, critic=CriticConfig(layer_norm=True))
    assert agent.policy_config == covary.PolicyConfig(
        init_std=0.1, hidden=(256, 256), activation="relu", state_dependent=True
    )
    assert agent.critic_config == CriticConfig(layer_norm=True, hidden=(256, 256), activation="relu")
    assert covary.untrained("Pendulum-v1", "sac", policy={"hidden": (64, 64)}).policy_config.hidden == (64, 64)
    assert covary.untrained("CartPole-v1", policy=covary.PolicyConfig()).policy_config == covary.PolicyConfig()
