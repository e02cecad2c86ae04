"""The watchdog: silent over healthy runs, and every rule of it shown to bark."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from sizes import now_and_then

import covary
from covary import algorithms
from covary.agent import Agent
from covary.runs import Run
from covary.settings import settle
from covary.watchdog import AT_LINES, AT_START, Seen, Watchdog


class Ended(NamedTuple):
    ret: float
    length: int
    terminated: bool


def trained(env, algo="ppo", steps=3000, seed=0, **options):
    """The names of the rules that barked, in a run of their own."""
    covary.train(env, algo, steps, seed, quiet=True, vectorization="sync", out="run", **options)
    return [line["rule"] for line in Run.open(Path("run")).lines("warnings")]


# ------------------------------------------------------------------------------------------- healthy runs


FROM_THE_PAST = [name for name in algorithms.NAMES if algorithms.find(name).Learner.judges_actions]
OTHERS = [name for name in algorithms.NAMES if name not in FROM_THE_PAST]


@pytest.mark.parametrize("algo", now_and_then(OTHERS, ["ppo", "actor_critic"]))
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "covary/Heliostat-v0"])
def test_healthy_runs_hear_nothing(here, env, algo):
    assert trained(env, algo, 6000) == []


@pytest.mark.slow
@pytest.mark.parametrize("algo", FROM_THE_PAST)
def test_healthy_runs_from_the_past_hear_nothing(here, algo):
    small = {"policy.hidden": (32, 32), "critic.hidden": (32, 32)}
    assert trained("Pendulum-v1", algo, 3000, **small) == []


# ------------------------------------------------------------------------------------- constructed lines


BOX = Box(-1, 1, (2,), np.float32)
rng = np.random.default_rng(0)


class Scene:
    """A watchdog over an agent that is not trained; `lines` feeds it lines of which each changes some numbers."""

    def __init__(self, action=BOX, threads=1, **options):
        settings = settle("", options)
        self.agent = Agent(
            settings.run.algo, Box(-10, 10, (3,)), action, config=settings.config, policy=settings.policy
        )
        self.said, self.noted, self.step, self.box = [], [], 0, isinstance(action, Box)
        self.watchdog = Watchdog(self.agent, settings, threads, self.said.append, self.noted.append)
        self.watchdog.start()

    def lines(self, n, *, actions=None, obs=None, episodes=(), seconds=(0.1, 1.0), limits=0, shown=0, **numbers):
        for _ in range(n):
            self.step += 1000
            usual = {"critic_loss": 0.5, "kl": 0.01, "explained_variance": 0.5}
            usual |= {"latent_std": 0.5} if self.box else {}
            seen_obs = rng.normal(size=(16, 3)) if obs is None else np.asarray(obs)
            if shown:
                self.agent.policy.observe(torch.as_tensor(np.tile(seen_obs, (shown, 1))).float())
            if actions is None:
                actions = rng.uniform(-0.9, 0.9, (1000, 2)) if self.box else np.arange(1000) % 3
            seen = Seen(np.asarray(actions), seen_obs, [Ended(*e) for e in episodes], *seconds, limits)
            self.watchdog.look({"step": self.step, **usual, **numbers}, seen)
        return [note["rule"] for note in self.noted]


def varied(n, terminated=True):
    return [(float(i), 10 + i, terminated) for i in range(n)]


AT_THE_EDGE = np.where(rng.uniform(size=(1000, 2)) < 0.97, 0.9999, 0.0)
CLIPPED = np.where(rng.uniform(size=(1000, 2)) < 0.97, 1.0, 0.0)
BEYOND = np.stack([np.zeros(1000), rng.normal(0, 2, 1000)], 1)
FLAT = [[0.0, 1.0, 7.0]] * 16
SCALED = [[0.0, 1e6, 1.0], [1.0, 0.0, 0.0]] * 8
WIDE = [[0.0, 50.0, 0.01], [1.0, 0.0, 0.0]] * 8

# rule: (the scene, a line that shows it, a line that does not, and a part of what is given)
SHOWS = {
    "policy saturated": ({}, {"actions": AT_THE_EDGE}, {"actions": AT_THE_EDGE * 0.99}, "97% of the latest"),
    "actions clipped": (
        {"policy": {"bounds": "clip"}},
        {"actions": CLIPPED},
        {"actions": CLIPPED * 0.999},
        "are clipped in dimension",
    ),
    "actions not those scored": (
        {"policy": {"bounds": "free"}},
        {"actions": BEYOND},
        {"actions": BEYOND / 4},
        "beyond the bounds in dimension 1",
    ),
    "policy collapsed": ({}, {"latent_std": 0.005}, {"latent_std": 0.05}, "latent_std 0.005"),
    "one choice only": (
        {"action": Discrete(3)},
        {"actions": np.full(1000, 2)},
        {"actions": np.arange(1000) // 999},
        "all of the latest 1000 actions are 2",
    ),
    "entropy too faint": (
        {"algo": "actor_critic", "entropy_coef": 1e-4},
        {"critic_loss": 50.0},
        {"critic_loss": 0.4},
        "entropy_coef 0.0001 beside advantages of about 10",
    ),
    "critic worse than the mean": (
        {},
        {"explained_variance": -0.4},
        {"explained_variance": -0.4, "critic_loss": 0.001},
        "explained_variance -0.40",
    ),
    "kl beyond its bound": ({}, {"kl": 0.2}, {"kl": 0.1}, "target_kl is 0.03"),
    "observations unscaled": (
        {"policy": {"normalize_obs": False}},
        {"obs": SCALED},
        {"obs": [[0.0, 9.0, 1.0], [1.0, 0.0, 0.0]] * 8},
        "obs[1] as large as 1e+06",
    ),
    "an observation stands still": (
        {},
        {"obs": [[0.0, 1.0, 7.0], [1.0, 0.0, 7.0]] * 8, "shown": 400},
        {"obs": [[0.0, 1.0, 7.0], [1.0, 0.0, 7.1]] * 8, "shown": 400},
        "obs[2] has always been 7",
    ),
    "observations too coarse": (
        {},
        {"obs": [[0.0, 1.0, 1e6], [1.0, 0.0, 1e6 + 8]] * 8, "shown": 400},
        {"obs": [[0.0, 1.0, 1e6], [1.0, 0.0, 1e6 + 80]] * 8, "shown": 400},
        "obs[2] is 1e+06 in size and varies by 4",
    ),
    "observations cut": (
        {},
        {"obs": [[0.0, 30.0, 0.0]] * 2 + [[0.0, 0.5, 0.0]] * 14},
        {"obs": [[0.0, 9.0, 0.0]] * 2 + [[0.0, 0.5, 0.0]] * 14},
        "obs[1] lies beyond 10 deviations",
    ),
    "rewards unscaled": (
        {"scale_rewards": False},
        {"episodes": [(-1e5, 200, True), (-2e5, 100, False)]},
        {"episodes": [(-1e3, 200, True), (-2e3, 100, False)]},
        "rewards of about 1.2e+03 a step",
    ),
    "every return the same": (
        {},
        {"episodes": [(0.0, 7, True), (0.0, 9, False)] * 10},
        {"episodes": [(0.0, 7, True), (0.5, 9, False)] * 10},
        "the return of all 60 episodes is 0",
    ),
    "time limit told as a death": (
        {},
        {"episodes": [(1.0, 200, True), (2.0, 200, True)] * 10},
        {"episodes": [(1.0, 200, True), (2.0, 199, True)] * 10},
        "all 60 episodes are terminated after exactly 200 steps",
    ),
    "environment takes the time": ({}, {"seconds": (9.5, 10.0)}, {"seconds": (0.95, 1.0)}, "95% of the time"),
}


def test_every_rule_is_shown():
    assert set(SHOWS) == {name for name, _, _ in AT_LINES}
    assert {name for name, _ in AT_START} == {"entropy without effect", "nothing learned", "too many threads"}  # below


@pytest.mark.parametrize("rule", SHOWS)
def test_a_rule_barks_once_and_says_what_to_do(rule):
    options, shows, _, given = SHOWS[rule]
    lines = {name: n for name, _, n in AT_LINES}[rule]
    scene = Scene(**options)
    assert scene.lines(lines - 1, **shows) == []
    assert scene.lines(3, **shows) == [rule]
    (note,), (text,) = scene.noted, scene.said
    assert given in note["given"]
    assert note["step"] == 1000 * max(lines, note["step"] // 1000)
    assert text.startswith(f"warning: {rule} (step {note['step']:,})")
    for part in ("given", "cause", "fix"):
        assert note[part]
        assert note[part] in text


@pytest.mark.parametrize("rule", SHOWS)
def test_a_rule_is_silent_just_below(rule):
    options, _, just_not, _ = SHOWS[rule]
    assert rule not in Scene(**options).lines(25, **just_not)


@pytest.mark.parametrize("rule", [name for name, _, n in AT_LINES if n > 1 and "episodes" not in SHOWS[name][1]])
def test_one_good_line_in_between_starts_the_count_again(rule):
    options, shows, _, _ = SHOWS[rule]
    lines = {name: n for name, _, n in AT_LINES}[rule]
    scene = Scene(**options)
    for _ in range(3):
        scene.lines(lines - 1, **shows)
        scene.lines(1)
    assert scene.noted == []


def test_kl_has_a_bound_without_a_target():
    scene = Scene(target_kl=0.0)
    assert scene.lines(9, kl=0.11) == []
    assert scene.lines(9, kl=0.13) == ["kl beyond its bound"]
    assert "0.03 is usual" in scene.noted[0]["given"]


def test_a_dimension_that_stands_still_is_seen_without_a_normaliser():
    scene = Scene(policy={"normalize_obs": False})
    assert scene.lines(4, obs=FLAT) == []  # too early to say
    assert scene.lines(1, obs=FLAT) == ["an observation stands still"]
    assert "2 other dimensions" in scene.noted[0]["given"]
    assert Scene(policy={"normalize_obs": False}).lines(9, obs=WIDE) == ["observations unscaled"]  # by its ranges


def test_what_needs_the_whole_run_is_not_said_of_a_resumed_one():
    """A solved CartPole returns 500 in every episode; no rule may take that for a reward that never changes."""
    same = [(500.0, 500, True)] * 10
    assert Scene().lines(9, episodes=same) == ["every return the same", "time limit told as a death"]
    scene = Scene()
    scene.watchdog.known.fresh = False
    assert scene.lines(9, episodes=same) == []
    scene = Scene()
    scene.lines(1, episodes=varied(3))
    assert scene.lines(9, episodes=same) == []


def test_a_limit_in_info_needs_no_count():
    scene = Scene()
    scene.lines(2, episodes=varied(3))
    assert scene.lines(3, limits=1) == ["time limit told as a death"]
    assert "TimeLimit.truncated" in scene.noted[0]["given"]


def test_a_watchdog_of_a_resumed_run_knows():
    scene = Scene()
    scene.agent.steps = 5000
    assert not Watchdog(scene.agent, settle("", {}), 1, print, print).known.fresh
    assert scene.watchdog.known.fresh


def test_one_choice_of_several():
    scene = Scene(MultiDiscrete([3, 2]))
    assert scene.lines(6, actions=np.tile([2, 0], (1000, 1))) == ["one choice only"]
    assert "all of the latest 1000 actions are [2, 0]" in scene.noted[0]["given"]
    assert Scene(MultiDiscrete([3, 2])).lines(6, actions=np.arange(2000).reshape(1000, 2) % 3 % 2) == []


@pytest.mark.parametrize(
    ("action", "policy", "cause"),
    [
        (BOX, {"bounds": "free"}, "has no gradient"),
        (BOX, {"periodic": (0, 1)}, "has no gradient"),
        (BOX, {}, "push the mean away from the bounds"),
        (BOX, {"bounds": "clip"}, "push the mean away from the bounds"),
        (BOX, {"covariance": "diagonal"}, None),
        (Discrete(3), {"covariance": "diagonal"}, None),
        (BOX, {"bounds": ("beta", "squash")}, None),
    ],
)
def test_entropy_of_a_fixed_covariance(action, policy, cause):
    scene = Scene(action, entropy_coef=0.01, policy={"covariance": "fixed"} | policy)
    assert [note["rule"] for note in scene.noted] == ["entropy without effect"] * bool(cause)
    assert all(cause in note["cause"] for note in scene.noted)
    assert Scene(BOX, entropy_coef=0.0, policy={"covariance": "fixed"}).noted == []


@pytest.mark.parametrize(("starts", "steps", "barks"), [(500, 501, 0), (500, 500, 1), (500, 80, 1), (0, 80, 0)])
def test_a_run_that_ends_before_it_learns(starts, steps, barks):
    scene = Scene(algo="sac", steps=steps, learning_starts=starts, **{"policy.hidden": (8,), "critic.hidden": (8,)})
    assert [note["rule"] for note in scene.noted] == ["nothing learned"] * barks
    assert all(f"learning_starts {starts} in a run of {steps} steps" in note["given"] for note in scene.noted)


def test_entropy_of_fixed_free_gaussians_has_no_gradient():
    """What the rule says, by autograd; and that of squashed ones has some."""
    for bounds, moves in (("free", False), ("squash", True)):
        agent = Scene(policy={"covariance": "fixed", "bounds": bounds}).agent
        entropy = agent.policy(torch.randn(5, 3)).entropy().sum()
        assert entropy.requires_grad is moves


@pytest.mark.parametrize(
    ("threads", "omp", "barks"), [(1, None, 0), (1, "1", 0), (2, None, 0), (2, "2", 1), (4096, None, 1)]
)
def test_threads(monkeypatch, threads, omp, barks):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert [n["rule"] for n in Scene(threads=threads).noted] == ["too many threads"] * barks


# ------------------------------------------------------------------------------------------- real trainings


class World(gym.Env):
    """A point to be named, in episodes of 10 steps, truncated; each world below changes one thing of it."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.obs(), {}

    def obs(self):
        self.x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.x.copy()

    def reward(self, action):
        return -float((action[0] - self.x[0]) ** 2)

    def step(self, action):
        self.t += 1
        reward = self.reward(action)
        return self.obs(), reward, *self.ends(), {}

    def ends(self):
        return False, self.t >= 10


def world(**members):
    return type("Changed", (World,), members)


LEAPS = {"learning_rate": 0.3, "anneal": False, "target_kl": 0.0, "steps": 12_000}
TRAININGS = {
    "healthy": (world(), {}, []),
    "an optimum at the bound": (world(reward=lambda self, action: float(action[0])), LEAPS, ["policy saturated"]),
    "the same, online": (
        world(reward=lambda self, action: float(action[0])),
        {"algo": "actor_critic", "actor_lr": 0.05, "steps": 8000},
        ["policy saturated"],
    ),
    "an optimum beyond the bound, clipped": (
        world(reward=lambda self, action: float(action[0])),
        {"policy": {"bounds": "clip"}, **LEAPS},
        ["actions clipped"],
    ),
    "leaps without bounds": (
        world(),
        {"policy": {"bounds": "free"}, **LEAPS, "learning_rate": 0.1},
        ["actions not those scored", "kl beyond its bound"],
    ),
    "a target met at once": (
        world(reward=lambda self, action: -abs(float(action[0]))),
        {**LEAPS, "steps": 20_000, "gamma": 0.0, "lam": 0.0, "horizon": 16, "minibatch": 64, "learning_rate": 0.01},
        ["policy collapsed"],
    ),
    "one choice": (
        world(action_space=Discrete(2), reward=lambda self, action: float(action)),
        {"algo": "actor_critic", "actor_lr": 0.01, "steps": 8000},
        ["one choice only"],
    ),
    "noise for a reward": (
        world(reward=lambda self, action: self.np_random.normal()),
        {**LEAPS, "steps": 22_000, "gamma": 0.0, "lam": 0.0, "n_envs": 4, "horizon": 16, "learning_rate": 0.05},
        ["critic worse than the mean"],
    ),
    "large observations": (
        world(obs=lambda self: World.obs(self) * np.float32([1e4, 1])),
        {"policy": {"normalize_obs": False}},
        ["observations unscaled"],
    ),
    "a dead sensor": (
        world(obs=lambda self: World.obs(self) * np.float32([1, 0]) + np.float32([0, 0.1])),
        {"steps": 8000},
        ["an observation stands still"],
    ),
    "large rewards": (
        world(reward=lambda self, action: 1e4 * World.reward(self, action)),
        {"scale_rewards": False, "steps": 12_000},
        ["rewards unscaled"],
    ),
    "no reward": (world(reward=lambda self, action: 0.0), {"steps": 8000}, ["every return the same"]),
    "a limit told as a death": (
        world(ends=lambda self: (self.t >= 10, False)),
        {"steps": 8000},
        ["time limit told as a death"],
    ),
    "a bonus for nothing": (
        world(),
        {"entropy_coef": 0.01, "policy": {"covariance": "fixed", "bounds": "free"}},
        ["entropy without effect"],
    ),
    "a bonus of nothing": (world(), {"entropy_coef": 1e-6, "steps": 12_000}, ["entropy too faint"]),
}


@pytest.mark.parametrize("name", now_and_then(TRAININGS, list(TRAININGS)[::2]))
def test_trainings(here, name):
    env, options, rules = TRAININGS[name]
    assert set(rules) <= set(got := trained(env, **options)), got
    if name in ("healthy", "large observations", "a dead sensor", "no reward", "a limit told as a death"):
        assert got == rules
