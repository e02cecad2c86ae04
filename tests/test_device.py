"""Environments of tensors keep the laws of their originals, rollouts tell the truth, and nothing waits for the device.

All of it on the CPU. What would wait for a GPU is seen in three ways: by the functions that are called, by the
operations that are dispatched, and on the meta device, where a tensor that came from the host shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import covary
from covary import algorithms
from covary.agent import Agent
from covary.algorithms import ppo
from covary.choices import environments
from covary.cli import run as command
from covary.device import Collection, DeviceIterations, advice, running_sum
from covary.envs import heliostat, heliostat_tensors
from covary.envs.adapter import Adapter
from covary.envs.heliostat import STEPS
from covary.envs.heliostat_tensors import HeliostatTensors
from covary.envs.hosted import Hosted
from covary.envs.sources import resolve
from covary.envs.tensors import TensorEnv, TensorStep
from covary.envs.vectors import InProcess
from covary.errors import UsageError
from covary.heads import PolicyConfig
from covary.profile import Profile
from covary.settings import RunOptions

GO_ON = SimpleNamespace(signal=None)
SMALL = {"horizon": 16, "minibatch": 512, "epochs": 4, "fast": False, "quiet": True, "vectorization": "tensors"}


class Walk:
    """A walk on a line, from 0: an action adds its own number, and there is noise. The world ends beyond 3, and time
    runs out after 7 steps. Observations are the place and how many steps were taken; they give away whose they are."""

    def __init__(self, num_envs, device="cpu", *, choices=0, bad=""):
        self.num_envs, self.device, self.bad = num_envs, torch.device(device), bad
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (1, 2), np.float32)
        self.choices = choices
        box = gym.spaces.Box(-1.0, 1.0, (1, 1), np.float32)
        if isinstance(choices, tuple):
            self.single_action_space = gym.spaces.MultiDiscrete([choices], start=[[-1] * len(choices)])
        else:
            self.single_action_space = gym.spaces.Discrete(choices, start=-1) if choices else box
        self.generator = torch.Generator(device)

    def reset(self, seed):
        self.generator.manual_seed(seed)
        self.state = torch.zeros(self.num_envs, 1, 2)
        return self.state

    def step(self, action):
        assert action.shape == (self.num_envs, *self.single_action_space.shape)
        assert not (action.abs() > 1).any()
        action = action.sum((1, 2)) if isinstance(self.choices, tuple) else action
        noise = torch.randn(self.num_envs, generator=self.generator)
        place = self.state[:, 0, 0] + action.reshape(-1) + noise
        count = self.state[:, 0, 1] + 1
        if self.bad == "nan":
            place = torch.where(count == 3, torch.nan, place)
        last = torch.stack([place, count], -1).unsqueeze(1)
        terminated, truncated = place.abs() > 3, count >= 7
        self.state = torch.where((terminated | truncated)[:, None, None], torch.zeros_like(last), last)
        reward = place.double() if self.bad == "double" else -place.abs()
        return TensorStep(self.state, reward, terminated, truncated, last)


class Walking(gym.Env):
    """Offers the walk as tensors."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1, 2), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1, 1), np.float32)
    on_device = staticmethod(Walk)


def agent_of(env, **options):
    usual = {"normalize_obs": False}
    config = ppo.Config(n_envs=env.num_envs, **{"horizon": 20, "epochs": 1} | options)
    return Agent(
        "ppo", env.single_observation_space, env.single_action_space, config=config, policy=PolicyConfig(**usual)
    )


def draws(number, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([heliostat.draw_episode(rng) for _ in range(number)])


def started(env, episodes):
    sun, turn, target = (torch.tensor(part, dtype=torch.float32) for part in np.split(episodes[:, ORDER], 3, axis=1))
    return env.start(sun, turn, target)


ORDER = [0, 2, 1, 3, 4, 5]  # sun, turn, target

# ------------------------------------------------------------------------------------------------- the heliostat


def test_the_same_states_and_actions_give_the_same_physics():
    """An episode to its end, with actions beyond the box and suns that reach both limits of their elevation."""
    n = 500
    episodes = draws(n)
    episodes[:4, 2], episodes[:4, 3] = [0.2, 0.2, 1.4, 1.4], [-0.01, -0.01, 0.01, 0.01]
    mirrors, env = heliostat._Mirrors(n), HeliostatTensors(n)
    mirrors.reset(np.arange(n), episodes)
    torch.testing.assert_close(started(env, episodes), torch.from_numpy(mirrors.obs()), atol=1e-6, rtol=0)
    actions = np.random.default_rng(1).uniform([-1, -1], [2 * np.pi + 1, 2.5], (STEPS, n, 2)).astype(np.float32)
    for t, action in enumerate(actions):
        reward, _, truncated = mirrors.step(action)
        step = env.step(torch.from_numpy(action))
        torch.testing.assert_close(step.next_obs, torch.from_numpy(mirrors.obs()), atol=2e-5, rtol=0)
        torch.testing.assert_close(step.reward, torch.from_numpy(reward).float(), atol=4e-5, rtol=0)
        assert step.truncated.tolist() == truncated.tolist() == [t == STEPS - 1] * n
        assert not step.terminated.any()
        assert (step.reward <= 1).all()


@pytest.mark.parametrize("after", [0, STEPS])
def test_episodes_are_drawn_from_the_same_law(after):
    """At reset and when one ends by itself: each of the six numbers is uniform on its interval (Kolmogorov-Smirnov),
    and no two go together. A false alarm once in a million: six tests at 1e-7 and fifteen at 2.6e-8."""
    n = 20_000
    env = HeliostatTensors(n)
    obs = env.reset(3)
    for _ in range(after):
        obs = env.step(torch.zeros(n, 2)).obs
    target = torch.stack([torch.atan2(obs[:, 4], obs[:, 3]) % (2 * np.pi), obs[:, 5].asin()], -1)
    numbers = np.empty((n, 6))
    numbers[:, ORDER] = torch.cat([env._sun, env._turn, target], -1).double().numpy()
    shares = (numbers - heliostat.DRAW_LOW) / (heliostat.DRAW_HIGH - heliostat.DRAW_LOW)
    for share in shares.T:
        assert scipy.stats.kstest(share, "uniform").pvalue > 1e-7
    correlation = np.corrcoef(shares.T)[np.triu_indices(6, 1)]
    assert np.abs(correlation).max() < 5.57 / np.sqrt(n)
    torch.testing.assert_close(obs[:, :3], heliostat_tensors.direction(env._sun), atol=1e-6, rtol=0)
    torch.testing.assert_close(obs[:, 6:], heliostat_tensors.direction(torch.tensor(heliostat.START)).expand(n, 3))


def test_where_an_episode_ends_both_observations_are_there():
    env = HeliostatTensors(5)
    assert isinstance(env, TensorEnv)
    first = env.reset(0)
    assert not torch.equal(first, env.reset(1))
    assert torch.equal(first, env.reset(0))
    target, action = first[:, 3:6], torch.tensor([[2.0, 1.0]]).expand(5, 2)
    for episode in range(2):
        for t in range(STEPS):
            step = env.step(action)
            assert torch.equal(step.next_obs[:, 3:6], target)
            torch.testing.assert_close(step.next_obs[:, 6:], heliostat_tensors.direction(action))
            assert torch.equal(step.obs, step.next_obs) == (t < STEPS - 1), (episode, t)
        assert not torch.equal(step.obs[:, 3:6], target)
        target = step.obs[:, 3:6]


def test_a_nan_action_is_seen_in_the_reward():
    env = HeliostatTensors(2)
    env.reset(0)
    assert env.step(torch.tensor([[np.nan, 0.0], [0.0, 0.0]])).reward.isnan().tolist() == [True, False]


# ---------------------------------------------------------------------------------------------------- rollouts


@pytest.mark.parametrize("choices", [0, 3, (3, 2)])
def test_a_rollout_is_what_the_adapter_would_have_made_of_it(choices):
    """The same noise, step by step through Gymnasium's interface: the same rows and the same episodes."""
    n, horizon = 6, 20
    agent = agent_of(Walk(n, choices=choices))
    adapter = Adapter(Hosted(Walk(n, choices=choices)), lambda i, k: 5, 0.9)
    device = Adapter(Hosted(Walk(n, choices=choices)), lambda i, k: 5, 0.9)
    iterate = DeviceIterations(agent, device, 10**6, GO_ON, Profile())
    noise = torch.from_numpy(agent.noise(2 * horizon, n))
    obs, tensor = adapter.reset(), torch.from_numpy(device.reset())
    for t in range(2 * horizon):
        latent, action = agent.sample(obs, noise[t].numpy())
        step = adapter.step(action)
        row = t % horizon
        tensor = iterate.collection.step(row, tensor, noise[t])
        rollout = iterate.collection.rollout(horizon, 0.9)
        for mine, its in zip(
            rollout, (obs, latent, step.reward, step.discount, step.lam, step.valid, step.next_obs), strict=True
        ):
            np.testing.assert_array_equal(mine[row].numpy(), its)
        obs = step.obs
        np.testing.assert_array_equal(tensor.numpy(), obs)
        if row == horizon - 1:
            iterate._note(rollout)
    assert len(adapter.episodes) > n
    assert {0, 1} == {int(e.length == 7) for e in adapter.episodes}, "both ends should occur"
    assert [(e.env, e.number, e.length) for e in device.episodes] == [
        (e.env, e.number, e.length) for e in adapter.episodes
    ]
    np.testing.assert_allclose([e.ret for e in device.episodes], [e.ret for e in adapter.episodes], rtol=1e-6)


def test_a_truncated_episode_bootstraps_from_its_true_last_observation():
    env = Walk(8)
    agent = agent_of(env, gamma=0.9, lam=0.0, scale_rewards=False)
    obs = env.reset(0).flatten(1)
    collection = Collection(agent.policy, env, 20, Profile())
    noise = agent.policy.head.noise((20, 8), torch.Generator().manual_seed(0))
    for t in range(20):
        obs = collection.step(t, obs, noise[t])
    rollout = collection.rollout(20, 0.9)
    agent.learner.critic = lambda x: 10 * x[..., 0] + 100 * x[..., 1]
    batch, _ = agent.learner._batch(rollout)
    truncated = collection.truncated & ~collection.terminated
    assert truncated.any()
    assert collection.terminated.any()
    assert (rollout.next_obs[truncated][:, 1] == 7).all()
    value = agent.learner.critic(rollout.next_obs)
    wanted = rollout.reward + 0.9 * torch.where(collection.terminated, torch.zeros_like(value), value)
    torch.testing.assert_close(batch.target.view_as(wanted), wanted, rtol=1e-5, atol=1e-4)


def test_running_sum_starts_again_where_an_episode_was_cut():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(13, 2, 5, dtype=torch.float64, generator=generator)
    lam = (torch.rand(13, 1, 5, generator=generator) > 0.3).double()
    start = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    total, rows = start, []
    for t in range(13):
        total = total + x[t]
        rows.append(total)
        total = total * lam[t]
    torch.testing.assert_close(running_sum(x, lam, start), torch.stack(rows))


# ------------------------------------------------------------------------------------- nothing waits for the device

WAITS = ("_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique")


FROM_THE_HOST = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor)


class Called(TorchFunctionMode):
    """Collects what copies memory of the host: tensors made of numbers, indices that are lists."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        indexing = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
        parts = (args[1] if isinstance(args[1], tuple) else (args[1],)) if indexing else ()
        if func in FROM_THE_HOST or any(isinstance(part, list | np.ndarray) for part in parts):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Watched(TorchDispatchMode):
    """Collects what else makes the host wait: numbers read back, shapes that hang on values, copies between devices."""

    def __init__(self):
        super().__init__()
        self.seen, self.found = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        name = func.overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        masks = name.startswith("index") and any(x.dtype == torch.bool for x in tree_leaves(args[1]) if x is not None)
        if name in WAITS or masks or len({x.device for x in tensors}) > 1:
            self.found.append(name)
        return result


POLICIES = {
    "circle": {"periodic": (0,)},
    "full": {"periodic": (0,), "covariance": "full", "state_dependent": True},
    "mean": {"bounds": "mean"},
    "clip": {"bounds": ("squash", "clip")},
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("policy", POLICIES)
def test_collecting_waits_for_nothing(policy, device, monkeypatch):
    if device == "meta":
        monkeypatch.setattr(heliostat_tensors.torch, "Generator", lambda device: None)  # there is none on it
    env = HeliostatTensors(32, device)
    monkeypatch.undo()
    space = HeliostatTensors(1)
    agent = Agent(
        "ppo", space.single_observation_space, space.single_action_space, policy=PolicyConfig(**POLICIES[policy])
    )
    agent.policy.to(device)
    collection = Collection(agent.policy, env, 4, Profile())
    obs = torch.zeros(32, 9, device=device) if device == "meta" else env.reset(0)
    noise = torch.zeros(4, 32, 2, device=device)
    obs = collection.step(0, obs, noise[0])  # makes its constants
    with Watched() as watched, Called() as called:
        for t in range(1, 4):
            obs = collection.step(t, obs, noise[t])
        collection.rollout(4, 0.9)
    assert watched.seen > 100
    assert watched.found + called.found == []


def test_minibatches_wait_for_nothing():
    agent = agent_of(Walk(8), minibatch=40)
    adapter = Adapter(Hosted(Walk(8)), lambda i, k: 0, 0.9)
    iterate = DeviceIterations(agent, adapter, 10**6, GO_ON, Profile())
    iterate.obs = adapter.reset()
    iterate(0, {})
    batch, _ = agent.learner._batch(iterate.collection.rollout(20, 0.9))
    order = agent.learner._order(160, batch.x.device)
    with Watched() as watched, Called() as called:
        agent.learner._epoch(batch, order)
    assert watched.seen > 100
    assert watched.found + called.found == []


def test_the_watch_sees_what_waits():
    x = torch.ones(3)
    with Watched() as watched:
        float(x.sum())
        x[x > 0]
        x.nonzero()
        x.to("meta")
    assert {"_local_scalar_dense", "index", "nonzero", "_to_copy"} <= set(watched.found)
    with Called() as called:
        x[[0]]
        x[np.array([0])] = 1.0
        torch.tensor(1.0)
    assert called.found == ["__getitem__", "__setitem__", "tensor"]


def test_minibatches_on_another_device_are_drawn_there():
    learner = agent_of(Walk(2)).learner
    order = learner._order(100, torch.device("cpu:0"))  # not the generator's "cpu", but as good a place
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != learner._order(100, torch.device("cpu:0")).tolist()


# ------------------------------------------------------------------------------------------------------- runs


def metrics(path):
    return (path / "metrics.jsonl").read_text()


def error_of(agent):
    return covary.evaluate(agent, "covary/Heliostat-v0", 32, info=("error_deg",)).info["error_deg"].mean()


def test_training_points_the_mirrors_and_the_same_seed_gives_the_same_bits(here):
    before = error_of(covary.untrained("covary/Heliostat-v0"))
    for out, seed, iterations in (("a", 0, 8), ("b", 0, 8), ("c", 1, 1)):
        steps = iterations * 4096
        options = SMALL | {"out": out, "seed": seed, "n_envs": 256, "steps": steps}
        agent = covary.train("covary/Heliostat-v0", **options)
        assert agent.steps == steps
    assert error_of(covary.load("a")) < 0.7 * before
    assert metrics(here / "a") == metrics(here / "b")
    assert metrics(here / "a").splitlines()[0] != metrics(here / "c").splitlines()[0]
    first, second = (covary.load(here / out) for out in ("a", "b"))
    for mine, its in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(mine, its)
    episodes = [json.loads(line)["episodes"] for line in metrics(here / "a").splitlines()]
    assert episodes[-1] == 2 * 256, "128 steps of each are two whole episodes"


def test_a_run_goes_on_with_new_episodes(here):
    covary.train("covary/Heliostat-v0", n_envs=64, steps=4 * 1024, out="a", eval_every=2048, eval_episodes=2, **SMALL)
    assert (here / "a/checkpoints/best").exists()
    agent = covary.train(resume="a", steps=8 * 1024, quiet=True)
    assert agent.steps == 8 * 1024
    lines = [json.loads(line) for line in metrics(here / "a").splitlines()]
    assert [line["step"] for line in lines] == [1024 * (i + 1) for i in range(8)]
    assert lines[-1]["episodes"] == 2 * 64
    assert lines[-1]["entropy"] != lines[3]["entropy"]
    assert json.loads((here / "a/config.json").read_text())["vectorization"] == "tensors"


def test_an_object_is_trained_evaluated_and_gone_on_with(here):
    options = {**SMALL, "out": "a", "gamma": 0.0, "periodic": (0,)}
    del options["vectorization"]
    agent = covary.train(HeliostatTensors(64), steps=2048, **options)
    assert agent.config.n_envs == 64
    result = covary.evaluate(agent, HeliostatTensors(10), 20, seed=3)
    assert (result.lengths == STEPS).all()
    np.testing.assert_array_equal(result.returns, covary.evaluate(agent, HeliostatTensors(10), 20, seed=3).returns)
    with pytest.raises(UsageError, match="not recorded by name"):
        covary.train(resume="a", steps=4096, quiet=True)
    assert covary.train(HeliostatTensors(64), resume="a", steps=4096, quiet=True).steps == 4096
    with pytest.raises(UsageError, match="environments of their own"):
        covary.train(HeliostatTensors(64), eval_every=1000, quiet=True)


ALGORITHMS = [
    (algo, choices)
    for algo in algorithms.NAMES
    for choices in (0, 3)
    if not (choices and algorithms.find(algo).Learner.judges_actions)
]


@pytest.mark.parametrize(("algo", "choices"), ALGORITHMS)
def test_any_algorithm_learns_from_tensors(here, algo, choices):
    n = 1 if algo == "stream_ac" else 8  # which learns from one stream
    agent = covary.train(Walk(n, choices=choices), algo, steps=400, out="a", quiet=True, fast=False)
    assert agent.steps >= 400
    assert json.loads(metrics(here / "a").splitlines()[-1])["episodes"] > 0


def test_the_fast_path_takes_over_the_epochs(here):
    for out in ("a", "b"):
        covary.train("covary/Heliostat-v0", steps=4096, n_envs=64, out=out, **SMALL | {"fast": True})
    assert metrics(here / "a") == metrics(here / "b")
    assert json.loads((here / "a/config.json").read_text())["chosen"]["path"] == "fast"


@pytest.mark.parametrize(
    ("algo", "vectorization", "device", "kind"),
    [
        ("ppo", "auto", "cuda", Hosted),
        ("ppo", "auto", "cpu", heliostat.HeliostatVectorEnv),
        ("ppo", "sync", "cuda", InProcess),
        ("ppo", "tensors", "cpu", Hosted),
        ("actor_critic", "auto", "cuda", heliostat.HeliostatVectorEnv),
        ("actor_critic", "tensors", "cpu", Hosted),
    ],
)
def test_tensors_are_taken_on_a_gpu_or_when_asked_for(algo, vectorization, device, kind, monkeypatch):
    made = []
    monkeypatch.setattr(heliostat.Heliostat, "on_device", lambda n, device: made.append(device) or HeliostatTensors(n))
    options = RunOptions(algo=algo, vectorization=vectorization)
    venv, processes = environments(resolve("covary/Heliostat-v0"), 4, options, device=device)
    assert isinstance(venv, kind)
    assert made == ([device] if kind is Hosted else [])
    assert (venv.num_envs, processes) == (4, 1)
    venv.close()


def test_a_class_may_offer_its_own_tensors(here):
    agent = covary.train(Walking, steps=512, n_envs=8, out="a", **SMALL)
    assert agent.steps == 512


def test_the_command_line(here, capsys):
    words = "covary/Heliostat-v0 --vectorization tensors --n-envs 32 --horizon 8 --steps 512 --out a --no-fast"
    assert command(["train", *words.split()]) == 0
    assert command(["train", "--resume", "a", "--steps", "1024"]) == 0
    assert command(["eval", "a", "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["length_mean"] == STEPS


def test_profile_tells_the_parts_apart(here):
    covary.train("covary/Heliostat-v0", steps=2048, n_envs=64, out="a", profile=True, **SMALL)
    seconds = json.loads((here / "a/profile.json").read_text())["seconds"]
    assert min(seconds[part] for part in ("environment", "inference", "adapter", "update", "logging")) > 0


# --------------------------------------------------------------------------------------------------- bad input


def test_without_a_gpu_cuda_is_refused_before_anything_is_made(here, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # also where there is one
    with pytest.raises(UsageError, match="needs a GPU"):
        covary.train("covary/Heliostat-v0", device="cuda", quiet=True)
    assert list(here.iterdir()) == []


def test_what_cannot_be_is_refused(here):
    with pytest.raises(UsageError, match=r"CartPole-v1, whose class has no on_device"):
        covary.train("CartPole-v1", vectorization="tensors", quiet=True)
    env = Walk(2)
    env.device = torch.device("meta")
    with pytest.raises(UsageError, match="learns on the device"):
        covary.train(env, device="cpu", quiet=True)
    with pytest.raises(UsageError, match=r"reward as torch.float32 of shape \(4,\)"):
        covary.train(Walk(4, bad="double"), quiet=True, fast=False)
    with pytest.raises(UsageError, match=r"finite numbers as observation(.|\n)*nan in observation of environment 0"):
        covary.train(Walk(4, bad="nan"), quiet=True, fast=False)
    env = Walk(2)
    env.single_observation_space = gym.spaces.Discrete(3)
    with pytest.raises(UsageError, match="observes a Box"):
        covary.train(env, quiet=True)


def test_a_policy_that_is_not_finite_is_named(here):
    env = Walk(4)
    agent = agent_of(env)
    with torch.no_grad():
        agent.policy.head.out.bias.fill_(torch.nan)
    adapter = Adapter(Hosted(env), lambda i, k: 0, 0.9)
    iterate = DeviceIterations(agent, adapter, 100, GO_ON, Profile())
    iterate.obs = adapter.reset()
    with pytest.raises(UsageError, match="actions must be finite"):
        iterate(100, {})


def test_a_stop_is_noticed_between_two_steps():
    agent = agent_of(Walk(4))
    adapter = Adapter(Hosted(Walk(4)), lambda i, k: 0, 0.9)
    stop = SimpleNamespace(signal=15)
    iterate, sums = DeviceIterations(agent, adapter, 100, stop, Profile()), {}
    iterate.obs = adapter.reset()
    iterate(100, sums)
    assert (sums, agent.steps) == ({}, 0)


def test_small_minibatches_on_a_gpu_are_spoken_of():
    agent = agent_of(Walk(4))
    assert advice(agent, Walk(4)) == ""
    assert "--minibatch" in advice(agent, SimpleNamespace(device=torch.device("cuda")))


def test_naming_an_environment_needs_no_torch():
    check = "from covary.envs.sources import resolve; resolve('covary.envs:covary/Heliostat-v0').make()"
    done = subprocess.run(
        [sys.executable, "-c", f"{check}; import sys; assert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
