"""N + M steps are N, a stop, and M: the same weights and the same metrics, to the bit, wherever the stop falls."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sizes import now_and_then

import covary
from covary.envs.adapter import Adapter
from covary.envs.heliostat import HeliostatVectorEnv
from covary.envs.heliostat_tensors import HeliostatTensors
from covary.envs.resuming import describe, resume
from covary.envs.sources import resolve
from covary.envs.vectors import build
from covary.runs import Run, find_checkpoint, read_checkpoint, write_checkpoint

STOP: dict[str, int] = {"at": 0, "seen": 0, "process": 0, "signal": signal.SIGTERM}


def passed() -> None:
    """A step of some environment; the one that is waited for is interrupted."""
    STOP["seen"] += 1
    if STOP["seen"] == STOP["at"] and os.getpid() == STOP["process"]:
        os.kill(os.getpid(), STOP["signal"])


class Drift(gymnasium.Env):
    """A walk that a push and the dice move; over when it has gone too far (terminated) or for too long."""

    LENGTH, FAR = 23, 3.0

    def __init__(self):
        self.observation_space = Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = Box(np.float32([-1, -1]), np.float32([1, 2]), (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.age = self.np_random.normal(size=3), 0
        return self.x, {}

    def push(self, action):
        return np.append(action, 0.1)

    def step(self, action):
        passed()
        self.x = self.x + 0.2 * self.push(action) + 0.1 * self.np_random.normal(size=3)
        self.age += 1
        far = float(np.abs(self.x).max())
        return self.x, 1.0 - far, far > self.FAR, self.age >= self.LENGTH, {}


class Choices(Drift):
    def __init__(self):
        super().__init__()
        self.action_space = Discrete(4, start=2)

    def push(self, action):
        return 0.5 * np.array([action == 2, action == 3, action - 4.0])


class Dials(Drift):
    def __init__(self):
        super().__init__()
        self.action_space = MultiDiscrete([[3, 2]], start=[[1, -1]], dtype=np.int32)

    def push(self, action):
        return 0.5 * np.array([action[0, 0] - 2.0, action[0, 1] + 0.5, 0.1])


class Switches(Drift):
    def __init__(self):
        super().__init__()
        self.action_space = MultiBinary(3)

    def push(self, action):
        return 0.5 * (action - 0.5)


class Long(Drift):
    LENGTH, FAR = 10**9, np.inf


ODD = [(1, "a", None, True), {2: float("inf")}, 2**127]


class Described(Drift):
    """What its seed and its actions do not decide, since it draws from the process's own generators."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = np.array([np.random.rand(), random.random(), float(torch.rand(()))])  # noqa: NPY002
        return self.x, {}

    def state_dict(self):
        return {
            "x": self.x,
            "age": self.age,
            "dice": self.np_random.bit_generator.state,
            "odd": ODD,
            "scalar": np.float32(0.5),
            "array": np.array([[np.nan, -np.inf, 1.0]], np.float32),
        }

    def load_state_dict(self, state):
        assert state["odd"] == ODD
        assert type(state["scalar"]) is np.float32
        assert np.array_equal(state["array"], np.array([[np.nan, -np.inf, 1.0]], np.float32), equal_nan=True)
        self.x, self.age = state["x"], state["age"]
        self.np_random.bit_generator.state = state["dice"]

    def step(self, action):
        _, reward, *rest = super().step(action)
        self.x = self.x + 0.01 * np.random.rand() + 0.01 * random.random()  # noqa: NPY002
        return self.x, reward, *rest


class LoadedDice(Drift):
    """Its seed decides nothing."""

    def reset(self, *, seed=None, options=None):
        self.np_random = np.random.default_rng()
        self.x, self.age = self.np_random.normal(size=3), 0
        return self.x, {}


def limited(made=Drift):
    return gymnasium.wrappers.TimeLimit(made(), 17)


ROLLOUTS = {"algo": "ppo", "n_envs": 3, "horizon": 16, "minibatch": 12, "epochs": 2, "steps": 48 * 9}
SHORT = {"algo": "a2c", "n_envs": 3, "horizon": 5, "steps": 405}
NATURAL = {"algo": "trpo", "n_envs": 3, "horizon": 16, "minibatch": 12, "critic_epochs": 2, "steps": 48 * 9}
ONLINE = {"algo": "actor_critic", "steps": 320, "n_envs": 2}
TRACED = ONLINE | {"actor_lam": 0.9, "critic_lam": 0.7}
STREAM = {"algo": "stream_ac", "steps": 320, "n_envs": 1}
PAST = {"algo": "sac", "n_envs": 2, "batch": 16, "learning_starts": 40, "replay_size": 200, "steps": 320}
PRIORITISED = PAST | {"priority": 0.6, "horizon": 3, "updates": 0.7, "exploration": "correlated"}
DELAYED = PAST | {"algo": "td3"}
SAMPLED = PAST | {"algo": "mpo", "samples": 4, "policy_period": 30, "updates": 0.5}
SYNC, ASYNC = {"vectorization": "sync"}, {"vectorization": "async"}
GENERAL = {"fast": False}
ENVIRONMENTS = {
    "drift": (lambda: Drift, SYNC),
    "processes": (lambda: Drift, ASYNC),
    "choices": (lambda: Choices, SYNC),
    "general": (lambda: Drift, SYNC | GENERAL),
    "general choices": (lambda: Choices, ASYNC | GENERAL),
    "limit": (lambda: limited, SYNC),
    "full": (lambda: Drift, SYNC | {"policy": {"covariance": "full", "state_dependent": True, "hidden": (8,)}}),
    "low rank": (lambda: Drift, SYNC | {"policy": {"covariance": "lowrank", "state_dependent": True, "hidden": (8,)}}),
    "wrapped": (lambda: Drift, SYNC | {"policy": {"covariance": "full", "periodic": (1,), "hidden": (8,)}}),
    "clipped": (lambda: Drift, SYNC | {"policy": {"bounds": ("clip", "mean"), "hidden": (8,)}}),
    "fixed": (lambda: Drift, SYNC | {"policy": {"covariance": "fixed", "hidden": (8,)}}),
    "dials": (lambda: Dials, SYNC),
    "dials, processes": (lambda: Dials, ASYNC),
    "switches": (lambda: Switches, SYNC),
    "beta": (lambda: Drift, SYNC | {"policy": {"bounds": "beta", "hidden": (8,)}}),
    "beta beside": (lambda: Drift, SYNC | {"policy": {"bounds": ("beta", "squash"), "hidden": (8,)}}),
    "described": (lambda: Described, SYNC),
    "described, in a limit": (lambda: lambda: limited(Described), SYNC),
    "described, processes": (lambda: Drift, ASYNC),
    "vector": (lambda: "covary.envs:covary/Heliostat-v0", {}),
    "endless": (lambda: Long, SYNC),
}


def train(env, out, options, stop_at=0, **more):
    STOP.update(at=stop_at, seen=0, process=os.getpid(), signal=more.pop("by", signal.SIGTERM))
    seeds = {"policy": {"hidden": (8,)}, "critic": {"hidden": (8,)}}
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    return covary.train(env, out=out, seed=7, preset="none", **{"quiet": True} | seeds | options | more)


def go_on(env, out, stop_at=0, **more):
    STOP.update(at=stop_at, seen=0, process=os.getpid(), signal=more.pop("by", signal.SIGTERM))
    random.seed(99)  # whatever the new process draws
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    quiet = {"quiet": True} | more
    return covary.train(env, resume=out, **quiet)


def ended(out):
    """Every bit that a run leaves behind, but for clocks, and what the process's own generators have come to."""
    arrays, meta = read_checkpoint(find_checkpoint(out))
    return (
        {k: v.tobytes() for k, v in arrays.items() if not k.startswith("generators.")},
        meta["steps"],
        (Path(out) / "metrics.jsonl").read_text(),
    )


def assert_same(out, other):
    (arrays, steps, lines), (others, its, its_lines) = ended(out), ended(other)
    assert steps == its
    assert [name for name in arrays if arrays[name] != others.get(name)] == []
    assert set(arrays) == set(others)
    assert lines == its_lines


ALGORITHMS = {
    "ppo": ROLLOUTS,
    "actor_critic": ONLINE,
    "actor_critic, traces": TRACED,
    "stream_ac": STREAM,
    "a2c": SHORT,
    "trpo": NATURAL,
    "sac": PAST,
    "sac, prioritised": PRIORITISED,
    "td3": DELAYED,
    "mpo": SAMPLED,
}
NUMBERS_ONLY = ("choices", "general choices", "dials", "dials, processes", "switches")  # what these cannot do
CANNOT = {
    "actor_critic, traces": set(ENVIRONMENTS) - {"drift", "general choices", "full", "vector"},
    "stream_ac": ("vector",),  # one environment needs none
    "sac": (*NUMBERS_ONLY, "clipped", "fixed"),
    "sac, prioritised": set(ENVIRONMENTS) - {"drift", "full"},
    "td3": (*NUMBERS_ONLY, "full", "low rank", "wrapped", "clipped", "beta", "beta beside"),
    "mpo": (*NUMBERS_ONLY, "beta", "beta beside", "clipped", "fixed"),
}
KINDS = pytest.mark.parametrize("algo", [ROLLOUTS, ONLINE, PAST], ids=["ppo", "actor_critic", "sac"])
OFTEN = ("drift", "general")
MORE = {
    "ppo": ("dials, processes", "beta beside", "vector"),
    "actor_critic": ("choices", "described"),
}
"""What runs every time, of all algorithms and of some; the rest is for `make stress`."""
EVERY = pytest.mark.parametrize("algo", ALGORITHMS.values(), ids=ALGORITHMS)
EVERYWHERE = [
    pytest.param(
        algo,
        name,
        id=f"{label}-{name}",
        marks=[] if name in (*OFTEN, *MORE.get(label, ())) else [pytest.mark.slow],
    )
    for label, algo in ALGORITHMS.items()
    for name in ENVIRONMENTS
    if name not in CANNOT.get(label, ())
]


@pytest.mark.parametrize(("algo", "name"), EVERYWHERE)
def test_a_stopped_run_ends_in_the_same_bits(algo, name, tmp_path):
    """Stopped again and again, in the middle of rollouts and episodes."""
    make, options = ENVIRONMENTS[name]
    env, options = make(), algo | options | {"save_every": 100}
    train(env, tmp_path / "whole", options)
    stops = 0
    if name == "vector":  # it says nothing of its steps: the clock of another stops it
        stopping = StopsAfter(3)
        with pytest.raises(SystemExit), stopping:
            train(env, tmp_path / "parts", options)
    else:
        with pytest.raises(SystemExit) as caught:
            train(env, tmp_path / "parts", options, stop_at=31)
        assert caught.value.code == 128 + signal.SIGTERM
        for at in (1, 20, 77):
            with pytest.raises((SystemExit, KeyboardInterrupt)):
                go_on(env, tmp_path / "parts", stop_at=at, by=signal.SIGINT if at == 20 else signal.SIGTERM)
            stops += 1
    go_on(env, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert stops == 3 or name == "vector"


class StopsAfter:
    """Interrupts the process at the k-th step of any Heliostat vector environment."""

    def __init__(self, k):
        self.left, self.step = k, HeliostatVectorEnv.step

    def __enter__(self):
        def step(env, actions):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return self.step(env, actions)

        HeliostatVectorEnv.step = step

    def __exit__(self, *error):
        HeliostatVectorEnv.step = self.step


@pytest.mark.parametrize("name", now_and_then(["drift", "processes", "general", "described"], ["processes"]))
@KINDS
def test_a_killed_run_ends_in_the_same_bits(algo, name, tmp_path):
    """kill -9 between two checkpoints, twice."""
    make, options = ENVIRONMENTS[name]
    env, options = make(), algo | options | {"save_every": 60}
    train(env, tmp_path / "whole", options)
    for at in (150, 40):  # the first after a checkpoint, which knows the process's own generators
        if (child := os.fork()) == 0:
            try:
                resume = (tmp_path / "parts").exists()
                call = go_on if resume else train
                call(env, tmp_path / "parts", *(() if resume else (options,)), stop_at=at, by=signal.SIGKILL)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
    go_on(env, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")


@KINDS
def test_a_run_that_is_killed_before_its_last_line_writes_it_when_it_goes_on(algo, tmp_path, monkeypatch):
    """Whichever write is the last one: every file that says that the run is over is written after its last line."""
    options = algo | SYNC | {"save_every": algo["steps"]}
    train(Drift, tmp_path / "whole", options)
    saves = []
    save = Run.save

    def stopping(self, *args, **kwargs):
        place = save(self, *args, **kwargs)
        saves.append((place.name, (self.path / "metrics.jsonl").exists()))
        return place

    monkeypatch.setattr(Run, "save", stopping)
    train(Drift, tmp_path / "parts", options)
    assert [(name, logged) for name, logged in saves if int(name) >= algo["steps"]] == [
        (f"{covary.load(tmp_path / 'parts').steps:012d}", True)
    ]


def test_tensors_that_describe_themselves_go_on_in_the_same_bits(tmp_path):
    options = ROLLOUTS | {"steps": 3 * 64 * 4, "horizon": 64}
    train(HeliostatTensors(3), tmp_path / "whole", options)
    env, step = HeliostatTensors(3), HeliostatTensors.step
    left = iter(range(300))

    def interrupting(self, action):
        if next(left) == 90:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, action)

    HeliostatTensors.step = interrupting
    try:
        with pytest.raises(SystemExit):
            train(env, tmp_path / "parts", options)
    finally:
        HeliostatTensors.step = step
    go_on(HeliostatTensors(3), tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "first"),
    [
        *[(ROLLOUTS | {"anneal": False}, 200), (ONLINE, 123), (PAST, 101)],
        *now_and_then(
            [
                *[(ROLLOUTS | {"anneal": False}, first) for first in (96, 30)],
                *[(SHORT | {"anneal": False}, first) for first in (200, 17)],
                *[(NATURAL, 96), (NATURAL, 70)],
                *[(ONLINE | GENERAL, 77), (TRACED, 123), (STREAM, 77)],
                *[(PAST, 30), (PAST | GENERAL, 60), (SAMPLED, 101)],
            ],
            (),
        ),
    ],
)
def test_an_extended_run_is_the_longer_run(options, first, tmp_path):
    """Where nothing depends on the total, also after a last rollout that was cut short."""
    train(Drift, tmp_path / "whole", options | SYNC)
    train(Drift, tmp_path / "parts", options | SYNC | {"steps": first})
    assert covary.load(tmp_path / "parts").steps >= first
    go_on(Drift, tmp_path / "parts", steps=options["steps"])
    assert_same(tmp_path / "parts", tmp_path / "whole")


@KINDS
def test_sync_and_async_end_in_the_same_bits(algo, tmp_path):
    for options in (SYNC, ASYNC):
        train(Drift, tmp_path / options["vectorization"], algo | options)
    assert_same(tmp_path / "sync", tmp_path / "async")


@pytest.mark.filterwarnings("ignore")  # Box2D's own
@pytest.mark.parametrize("name", ["BipedalWalker-v3", "LunarLanderContinuous-v3", "HalfCheetah-v5", "CartPole-v1"])
def test_episodes_of_gymnasium_are_decided_by_their_seeds_and_actions(name):
    """In an environment that has had other episodes before, and in one that is new."""
    env, new = (resolve(name).make() for _ in range(2))
    rng = np.random.default_rng(0)

    def episode(env, seed, actions):
        shown = [env.reset(seed=seed)[0]]
        for action in actions:
            obs, reward, terminated, truncated, _ = env.step(action)
            shown.append(np.append(obs, reward))
            if terminated or truncated:
                break
        return np.concatenate([np.ravel(x) for x in shown])

    space = env.action_space
    for seed in range(6):
        actions = [rng.integers(2) if name == "CartPole-v1" else rng.uniform(-1, 1, space.shape) for _ in range(250)]
        actions = [np.asarray(action, space.dtype)[()] for action in actions]
        first = episode(env, seed, actions)
        assert np.array_equal(first, episode(new if seed == 5 else env, seed, actions))
    env.close()
    new.close()


def test_evaluations_are_not_lost(tmp_path):
    """Interrupted in the middle of one, which a resumed run makes up for before it goes on."""
    options = ROLLOUTS | SYNC | {"eval_every": 96, "eval_episodes": 4}
    train(Drift, tmp_path / "whole", options)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        train(Drift, tmp_path / "parts", options, stop_at=100)
    assert not [line for line in Run.open(tmp_path / "parts").lines() if "eval_return" in line]
    go_on(Drift, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert len([line for line in Run.open(tmp_path / "parts").lines() if "eval_return" in line]) == 4


# --------------------------------------------------------------------------- what cannot be had again, and is said


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@KINDS
def test_an_environment_that_is_not_decided_by_its_seed_is_named(algo, vectorization, tmp_path, capsys):
    options = algo | {"vectorization": vectorization}
    with pytest.raises(SystemExit):
        train(LoadedDice, tmp_path / "run", options, stop_at=40)
    before = read_checkpoint(find_checkpoint(tmp_path / "run"))[1]
    agent = go_on(LoadedDice, tmp_path / "run", quiet=False)
    said = capsys.readouterr().out
    assert ("environment 0 (and" if options["n_envs"] > 1 else "environment 0 goes on") in said
    assert "goes on with a new episode: replayed, it" in said
    assert agent.steps >= options["steps"]
    after = read_checkpoint(find_checkpoint(tmp_path / "run"))[1]
    lost = options["n_envs"]
    ended = after["run"]["report"]["episodes"] + len(after["run"]["report"]["finished"])
    under_way = options["n_envs"]
    assert sum(after["run"]["envs"]["started"]) == ended + under_way + lost
    assert sum(before["run"]["envs"]["lengths"]) > 0


def test_a_cut_episode_bootstraps_in_the_rollout_that_goes_on(tmp_path, monkeypatch):
    """The steps before the stop are learned from; nothing crosses to the new episode."""
    with pytest.raises(SystemExit):
        train(LoadedDice, tmp_path / "run", ROLLOUTS | SYNC, stop_at=3 * 16 + 3 * 5)
    rollouts = []
    update = covary.algorithms.ppo.Learner.update
    monkeypatch.setattr(
        covary.algorithms.ppo.Learner, "update", lambda self, r, p: rollouts.append(r.lam.clone()) or update(self, r, p)
    )
    go_on(LoadedDice, tmp_path / "run", quiet=True)
    assert rollouts[0][4].tolist() == [0.0, 0.0, 0.0]


def test_a_vector_environment_that_resets_itself_starts_anew_and_says_so(tmp_path, capsys):
    def vector():
        return SyncVectorEnv([Drift, Drift, Drift], autoreset_mode=AutoresetMode.SAME_STEP)

    with pytest.raises(SystemExit):
        train(vector(), tmp_path / "run", ROLLOUTS, stop_at=40)
    agent = go_on(vector(), tmp_path / "run", quiet=False)
    assert "resets itself and has no state_dict: its episodes start anew" in capsys.readouterr().out
    assert agent.steps >= ROLLOUTS["steps"]


def test_an_episode_that_is_too_long_is_not_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("covary.envs.rebuilding.History.BYTES", 512)
    with pytest.raises(SystemExit):
        train(Long, tmp_path / "run", ONLINE | SYNC, stop_at=301)
    assert "envs.actions" not in read_checkpoint(find_checkpoint(tmp_path / "run"))[0]
    go_on(Long, tmp_path / "run", quiet=False)
    assert "its episode is too long to be replayed" in capsys.readouterr().out


class Pair(NamedTuple):
    x: int


@pytest.mark.parametrize("value", [np.random.default_rng(0), Pair(3), {1, 2}, object()], ids=lambda v: type(v).__name__)
def test_a_state_of_something_else_is_refused_before_the_first_step(value, tmp_path):
    class Odd(Described):
        def state_dict(self):
            return {"x": self.x, "odd": value}

        def step(self, action):
            pytest.fail("a step")

    with pytest.raises(covary.UsageError, match=rf"state_dict of an environment(.|\n)*{type(value).__name__}"):
        train(Odd, tmp_path / "run", ONLINE | SYNC)


def test_a_state_dict_that_raises_is_told_before_the_first_step(tmp_path):
    class Odd(Described):
        def state_dict(self):
            return {"x": self.nothing}

    with pytest.raises(covary.UsageError, match=r"in state_dict(.|\n)*self\.nothing"):
        train(Odd, tmp_path / "run", ONLINE | SYNC)


@KINDS
def test_an_environment_that_describes_itself_and_raises_once(algo, tmp_path):
    """What it says of itself is then of after the step that failed, which the others have taken."""
    failed = []

    class Failing(Described):
        made = 0

        def __init__(self):
            super().__init__()
            Failing.made += 1
            self.number, self.steps = Failing.made, 0

        def step(self, action):
            self.steps += 1
            if self.number == 2 and self.steps == 90 and not failed:
                failed.append(True)
                raise ZeroDivisionError
            return super().step(action)

    options = algo | SYNC | {"save_every": 60}
    train(Described, tmp_path / "whole", options)
    with pytest.raises(covary.UsageError, match="ZeroDivisionError"):
        train(Failing, tmp_path / "parts", options)
    go_on(Failing, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
def test_impatience_in_the_middle_of_an_update_saves_no_half_of_it(fast, tmp_path, monkeypatch):
    options = ROLLOUTS | SYNC | {"save_every": 100, "fast": fast}
    train(Drift, tmp_path / "whole", options)
    learner, calls = covary.algorithms.ppo.Learner, itertools.count(1)
    divergence = learner._divergence

    def twice(self, batch):
        if next(calls) == 9:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return divergence(self, batch)

    monkeypatch.setattr(learner, "_divergence", twice)
    with pytest.raises(KeyboardInterrupt):
        train(Drift, tmp_path / "parts", options)
    go_on(Drift, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_impatience_while_episodes_are_replayed_leaves_the_checkpoint_alone(tmp_path):
    class Impatient(Drift):
        now = False

        def reset(self, *, seed=None, options=None):
            if Impatient.now:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
            return super().reset(seed=seed)

    train(Drift, tmp_path / "whole", ROLLOUTS | SYNC)
    with pytest.raises(SystemExit):
        train(Impatient, tmp_path / "parts", ROLLOUTS | SYNC, stop_at=200)
    Impatient.now = True
    with pytest.raises(KeyboardInterrupt):
        go_on(Impatient, tmp_path / "parts")
    Impatient.now = False
    go_on(Impatient, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_an_environment_that_goes_elsewhere_takes_no_file_with_it(tmp_path, monkeypatch):
    class Wandering(Drift):
        def reset(self, *, seed=None, options=None):
            os.chdir(tmp_path / "elsewhere")
            return super().reset(seed=seed)

    (tmp_path / "elsewhere").mkdir()
    for again in (False, True):
        monkeypatch.chdir(tmp_path)
        if again:
            go_on(Wandering, "run", steps=500)
        else:
            train(Wandering, "run", ROLLOUTS)
    assert covary.load(tmp_path / "run").steps >= 500
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_processes_do_not_go_on_with_one_run(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with pytest.raises(SystemExit):
        train(Drift, tmp_path / "run", ROLLOUTS | SYNC, stop_at=200)
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    other = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(covary.UsageError, match="one process at a time"):
        go_on(Drift, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == lines
    os.close(other)
    go_on(Drift, tmp_path / "run")


# ------------------------------------------------------------------------------------------- processes that die


class Dying(Drift):
    """Ends its process in some steps, once for each of the files that forbid it a second time."""

    FILES: tuple[tuple[int, str], ...] = ()
    HOME = 0
    seen = 0

    def step(self, action):
        if os.getpid() != Dying.HOME:
            Dying.seen += 1
            for at, file in Dying.FILES:
                if Dying.seen == at and not os.path.exists(file):
                    Path(file).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


@pytest.fixture
def dying(tmp_path, monkeypatch):
    monkeypatch.setattr(Dying, "HOME", os.getpid())
    monkeypatch.setattr(Dying, "FILES", ((30, str(tmp_path / "once")), (75, str(tmp_path / "twice"))))
    return Dying


@KINDS
def test_a_process_that_dies_is_followed_by_another(algo, dying, tmp_path, capsys):
    options = algo | ASYNC | {"restart_workers": True}
    train(Drift, tmp_path / "whole", options)
    train(dying, tmp_path / "parts", options, quiet=False)
    said = capsys.readouterr().out
    assert (tmp_path / "twice").exists()
    assert said.count("was ended by SIGKILL; another took its place") == 2
    assert_same(tmp_path / "parts", tmp_path / "whole")


@KINDS
def test_a_process_that_dies_is_named_and_what_was_learned_is_saved(algo, dying, tmp_path):
    train(Drift, tmp_path / "whole", algo | ASYNC)
    last = algo["n_envs"] - 1
    with pytest.raises(covary.UsageError, match=rf"environments \d to {last}, was ended by SIGKILL(.|\n)*restart"):
        train(dying, tmp_path / "parts", algo | ASYNC)
    with pytest.raises(covary.UsageError, match="was ended by SIGKILL"):
        go_on(dying, tmp_path / "parts")
    go_on(dying, tmp_path / "parts")
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_process_that_dies_in_every_step_ends_the_run(dying, tmp_path, monkeypatch):
    def step(self, action):
        if os.getpid() != Dying.HOME:
            os.kill(os.getpid(), signal.SIGKILL)
        return Drift.step(self, action)

    monkeypatch.setattr(Dying, "step", step)
    with pytest.raises(covary.UsageError, match="was ended by SIGKILL"):
        train(dying, tmp_path / "run", ONLINE | ASYNC | {"restart_workers": True})


def test_one_that_is_not_decided_by_its_seed_cannot_be_put_back(dying, tmp_path, monkeypatch):
    monkeypatch.setattr(Dying, "reset", LoadedDice.reset)
    with pytest.raises(covary.UsageError, match="must be where they were"):
        train(dying, tmp_path / "run", ONLINE | ASYNC | {"restart_workers": True})


class Told(Dying):
    """Says all that decides it, and dies in nothing but steps."""

    def state_dict(self):
        return {"x": self.x, "age": self.age, "dice": self.np_random.bit_generator.state}

    def load_state_dict(self, state):
        self.x, self.age = state["x"], state["age"]
        self.np_random.bit_generator.state = state["dice"]


class Endless(Told):
    LENGTH, FAR = 10**9, np.inf


@pytest.mark.parametrize("at", now_and_then([1, 4, 60], [4]))
@pytest.mark.parametrize("env", [Told, Endless])
@pytest.mark.parametrize("algo", [ROLLOUTS, ONLINE], ids=["ppo", "actor_critic"])
def test_a_process_that_dies_after_its_state_was_loaded_is_followed_by_another(
    algo, env, at, dying, tmp_path, monkeypatch, capsys
):
    """Nobody knows its episode's first actions by then: it is had again from the state, and the actions since."""
    options = algo | ASYNC | {"restart_workers": True}
    monkeypatch.setattr(Dying, "FILES", ())
    train(env, tmp_path / "whole", options)
    with pytest.raises(SystemExit):
        train(env, tmp_path / "parts", options, stop_at=33)
    monkeypatch.setattr(Dying, "FILES", ((at, str(tmp_path / "once")), (at + 9, str(tmp_path / "twice"))))
    go_on(env, tmp_path / "parts", quiet=False)
    assert capsys.readouterr().out.count("was ended by SIGKILL; another took its place") == 2
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_an_episode_that_is_too_long_is_not_said_to_be_undecided(dying, tmp_path, monkeypatch):
    monkeypatch.setattr("covary.envs.rebuilding.History.BYTES", 512)
    monkeypatch.setattr(Dying, "FILES", ((90, str(tmp_path / "once")),))
    with pytest.raises(covary.UsageError, match=r"environment 1: its episode is too long(.|\n)*--resume") as caught:
        train(Endless, tmp_path / "run", ONLINE | ASYNC | {"restart_workers": True})
    assert "not decided" not in str(caught.value)


class Dicey(Told):
    """Its state says nothing of its dice."""

    def load_state_dict(self, state):
        super().load_state_dict(state | {"dice": np.random.default_rng().bit_generator.state})


def test_one_whose_state_does_not_decide_it_is_told_so(dying, tmp_path, monkeypatch):
    options = ONLINE | ASYNC | {"restart_workers": True}
    monkeypatch.setattr(Dying, "FILES", ())
    with pytest.raises(SystemExit):
        train(Dicey, tmp_path / "run", options, stop_at=5)
    monkeypatch.setattr(Dying, "FILES", ((4, str(tmp_path / "once")),))
    with pytest.raises(covary.UsageError, match=r"must be where they were(.|\n)*its state_dict and its actions since"):
        go_on(Dicey, tmp_path / "run")


class Frail(Told):
    """A process of these dies in `load_state_dict`, or in a reset that follows another process's end."""

    FATAL, MOST = "load_state_dict", 1

    def dies(self, where):
        file = Path(Dying.FILES[0][1] if Dying.FILES else "nowhere")
        if where != self.FATAL or os.getpid() == Dying.HOME or not (file.exists() or where == "load_state_dict"):
            return
        for k in range(self.MOST):
            if not (mark := file.with_name(f"{where} {k}")).exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    def reset(self, *, seed=None, options=None):
        self.dies("reset")
        return super().reset(seed=seed)

    def load_state_dict(self, state):
        self.dies("load_state_dict")
        super().load_state_dict(state)


@pytest.mark.parametrize("algo", [ROLLOUTS, ONLINE], ids=["ppo", "actor_critic"])
def test_a_process_that_dies_while_it_is_put_back_is_followed_by_another(algo, dying, tmp_path, monkeypatch, capsys):
    options = algo | ASYNC | {"restart_workers": True}
    monkeypatch.setattr(Frail, "FATAL", "reset")
    train(Told, tmp_path / "whole", options)
    for file in Path(tmp_path).glob("*ce"):
        file.unlink()
    train(Frail, tmp_path / "parts", options, quiet=False)
    assert (tmp_path / "reset 0").exists()
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_process_that_dies_whenever_it_is_put_back_is_told_as_such(dying, tmp_path, monkeypatch):
    monkeypatch.setattr(Frail, "FATAL", "reset")
    monkeypatch.setattr(Frail, "MOST", 2)
    with pytest.raises(covary.UsageError, match="was ended by SIGKILL, soon after it took another's place") as caught:
        train(Frail, tmp_path / "run", ONLINE | ASYNC | {"restart_workers": True})
    assert "--restart-workers" not in str(caught.value)


class DiesInItsThirdReset(Drift):
    resets, home, file = 0, 0, ""

    def reset(self, *, seed=None, options=None):
        cls = DiesInItsThirdReset
        if os.getpid() != cls.home:
            cls.resets += 1
            if cls.resets == 3 and not os.path.exists(cls.file):
                Path(cls.file).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed=seed)


def test_a_process_that_dies_as_one_of_its_episodes_starts_anew_brings_the_others_back(tmp_path, monkeypatch):
    monkeypatch.setattr(DiesInItsThirdReset, "home", os.getpid())
    monkeypatch.setattr(DiesInItsThirdReset, "file", str(tmp_path / "once"))
    actions = np.random.default_rng(0).uniform(-1, 1, (9, 4, 2)).astype(np.float32)

    def adapter_of(env):
        return Adapter(build(resolve(env), 4, "async", 2), lambda i, k: 100 * i + k)

    whole, other = adapter_of(Drift), adapter_of(DiesInItsThirdReset)
    try:
        obs = whole.reset()
        for action in actions[:5]:
            obs = whole.step(action).obs
        arrays, meta = describe(whole, obs)
        meta["ages"][3] = -1  # as if its episode were too long
        arrays["envs.actions"] = arrays["envs.actions"][:-5]
        said = []
        other.restart_workers, other.say = True, said.append
        resumed = resume(other, arrays, meta)
        assert resumed.fresh.tolist() == [False, False, False, True]
        np.testing.assert_array_equal(resumed.obs[:3], obs[:3])
        np.testing.assert_array_equal(resumed.obs[3], Drift().reset(seed=301)[0].astype(np.float32))
        for action in actions[5:]:
            step, its = whole.step(action), other.step(action)
            np.testing.assert_array_equal(step.obs[:3], its.obs[:3])
            np.testing.assert_array_equal(step.reward[:3], its.reward[:3])
        assert len(said) == 1
        assert "another took its place, and its environments are where they were" in said[0]
    finally:
        whole.close()
        other.close()


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "not restarted"])
@pytest.mark.parametrize("algo", [ROLLOUTS, ONLINE], ids=["ppo", "actor_critic"])
def test_a_process_that_dies_while_its_state_is_loaded(algo, restart, dying, tmp_path, monkeypatch, capsys):
    options = algo | ASYNC | {"restart_workers": restart}
    monkeypatch.setattr(Dying, "FILES", ())
    train(Told, tmp_path / "whole", options)
    with pytest.raises(SystemExit):
        train(Frail, tmp_path / "parts", options, stop_at=33)
    monkeypatch.setattr(Dying, "FILES", ((10**9, str(tmp_path / "once")),))
    if not restart:
        with pytest.raises(covary.UsageError, match=r"was ended by SIGKILL(.|\n)*--restart-workers"):
            go_on(Frail, tmp_path / "parts")
    go_on(Frail, tmp_path / "parts", quiet=False)
    assert capsys.readouterr().out.count("another took its place") == restart
    assert (tmp_path / "load_state_dict 0").exists()
    assert_same(tmp_path / "parts", tmp_path / "whole")


# --------------------------------------------------------------------------------------- states that were changed


def wrong(data):
    """`data` with one entry, at any depth, missing or something else."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(pairs)[:9]:
        for other in (..., None, "x", [], {}, -1, 2.5, 1e300, 2**70, True, [[]], {"dict": 3}, {"tuple": []}):
            changed = dict(data) if isinstance(data, dict) else list(data)
            if other is ...:
                del changed[key]
            else:
                changed[key] = other
            yield f"{key}={other!r}", changed
        if isinstance(value, dict | list):
            for label, inner in wrong(value):
                changed = dict(data) if isinstance(data, dict) else list(data)
                changed[key] = inner
                yield f"{key}.{label}", changed


@pytest.mark.parametrize(
    ("env", "options"),
    [
        (Drift, ROLLOUTS | SYNC),
        pytest.param(Described, ONLINE | GENERAL | SYNC, marks=pytest.mark.slow),
        (Choices, ONLINE | SYNC),
    ],
    ids=["ppo", "described", "choices"],
)
def test_every_entry_of_where_a_run_stood_can_be_wrong(env, options, tmp_path):
    """Nothing but a UsageError ever comes of it, or a run that goes on."""
    with pytest.raises(SystemExit):
        train(env, tmp_path / "run", options | {"epochs": 1} if "horizon" in options else options, stop_at=75)
    place = find_checkpoint(tmp_path / "run")
    arrays, good = read_checkpoint(place)
    config = (tmp_path / "run" / "config.json").read_bytes()
    refused = went_on = 0
    for label, changed in itertools.islice(wrong(good["run"]), 5, None, 17):
        (tmp_path / "run" / "config.json").write_bytes(config)
        for other in Run.open(tmp_path / "run").checkpoints():
            shutil.rmtree(other)
        write_checkpoint(place, arrays, good | {"run": changed})
        try:
            go_on(env, tmp_path / "run", steps=good["steps"] + 1)
            went_on += 1
        except covary.UsageError:
            refused += 1
        except Exception as error:
            raise AssertionError(label) from error
    assert refused > 20
    assert went_on > 0


def test_every_array_of_where_a_run_stood_can_be_wrong(tmp_path):
    with pytest.raises(SystemExit):
        train(Drift, tmp_path / "run", ROLLOUTS | SYNC, stop_at=75)
    place = find_checkpoint(tmp_path / "run")
    arrays, good = read_checkpoint(place)
    names = [name for name in arrays if name.startswith(("envs.", "generators.", "report.", "rollout."))]
    assert len(names) > 15
    for name in names:
        for other in (None, np.zeros((3, 5, 7), arrays[name].dtype), arrays[name].astype(np.uint8)[..., None]):
            rest = {k: v for k, v in arrays.items() if k != name}
            write_checkpoint(place, rest if other is None else rest | {name: other}, good)
            with pytest.raises(covary.UsageError):
                go_on(Drift, tmp_path / "run", steps=good["steps"] + 1)
