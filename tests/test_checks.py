"""check_env names every rule that an environment breaks, and none of a right one."""

from __future__ import annotations

import random
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from covary.envs.checks import Broken, check_env
from covary.envs.heliostat import Heliostat


class Right(gym.Env):
    """A point on a line; each broken environment below changes one thing of it."""

    observation_space = Box(-10, 10, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def obs(self):
        return np.array([self.x, self.t / 10], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1), 0
        return self.obs(), {}

    def outcome(self, reward, terminated):
        return self.obs(), reward, terminated, False, {}

    def step(self, action):
        assert self.t < 20, "stepped past the end"
        self.t += 1
        self.x = float(np.clip(self.x + 0.1 * action[0], -2, 2))
        return self.outcome(-self.x * self.x, self.t == 20)


def changed(**members):
    return type("Changed", (Right,), members)()


def ends_with(**change):
    """Right, with some of step's five values changed by functions of the old one."""

    def outcome(self, reward, terminated):
        values = {"obs": self.obs(), "reward": reward, "terminated": terminated, "truncated": False, "info": {}}
        return tuple(change[name](value) if name in change else value for name, value in values.items())

    return changed(outcome=outcome)


def sees(make):
    """Right, with the observation changed by a function of it."""
    return changed(obs=lambda self: make(Right.obs(self)))


class Reused(Right):
    def obs(self):
        self.buffer = getattr(self, "buffer", np.zeros(2, np.float32))
        self.buffer[:] = Right.obs(self)
        return self.buffer


class OnlyResetReuses(Right):
    """Copies in step, but writes the first observation of the next episode into the last one of this."""

    last = None

    def obs(self):
        if self.t == 0 and self.last is not None:
            self.last[:] = Right.obs(self)
            return self.last.copy()
        self.last = Right.obs(self)
        return self.last


def old_reset(self):
    return Right.reset(self, seed=0)


def bare_reset(self, *, seed=None, options=None):
    return Right.reset(self, seed=seed)[0]


def unseeded_reset(self, *, seed=None, options=None):
    Right.reset(self, seed=seed)
    self.x = random.random()
    return self.obs(), {}


def leaky_step(self, action):
    self.total = getattr(self, "total", 0.0) + 1.0  # survives the reset
    obs, _, *rest = Right.step(self, action)
    return obs, self.total, *rest


def failing_reset(self, *, seed=None, options=None):
    raise KeyError("no such goal")


def failing_step(self, action):
    return np.linalg.inv(np.zeros((2, 2)))  # raised inside NumPy, on behalf of this line


OldBox = type("Box", (), {"__module__": "gym.spaces.box"})

# name: (environment, exactly the rules that it breaks, each by a part of its text, and a part of what was given)
BROKEN = {
    "no observation space": (changed(observation_space=None), {"are Gymnasium spaces": "observation_space is not set"}),
    "old action space": (changed(action_space=OldBox()), {"are Gymnasium spaces": "gym.spaces.box.Box of the old gym"}),
    "integer actions": (changed(action_space=Box(-1, 1, (1,), np.int64)), {"floating-point": "int64"}),
    "equal bounds": (changed(action_space=Box(np.float32([0]), np.float32([0]))), {"low < high": "low [0.0]"}),
    "reset without seed": (
        changed(reset=lambda self, *, options=None: old_reset(self)),
        {"accepts seed=": "(*, options=None)"},
    ),
    "reset without options": (
        changed(reset=lambda self, *, seed=None: Right.reset(self, seed=seed)),
        {"accepts options=": "(*, seed=None)"},
    ),
    "oldest reset": (changed(reset=old_reset), {"accepts seed=": "()", "accepts options=": "()"}),
    "reset returns obs": (changed(reset=bare_reset), {"reset returns (obs, info)": "reset returned"}),
    "reset without info dict": (
        changed(reset=lambda self, *, seed=None, options=None: (Right.reset(self, seed=seed)[0], None)),
        {"info is a dict": "reset returned None"},
    ),
    "reset raises": (changed(reset=failing_reset), {"reset does not raise": "KeyError: 'no such goal'"}),
    "list obs": (sees(lambda x: x.tolist()), {"is a NumPy array": "(list)"}),
    "tall obs": (sees(lambda x: x[:, None]), {"its space's shape": "shape (2, 1), its space (2,)"}),
    "float64 obs": (sees(lambda x: x.astype(np.float64)), {"dtype fits": "dtype float64, its space float32"}),
    "NaN obs": (sees(lambda x: x * np.float32("nan")), {"no NaN": "nan"}),
    "infinite obs": (sees(lambda x: x + np.float32("inf")), {"no NaN": "inf"}),
    "obs out of bounds": (sees(lambda x: x + np.float32([0, 9])), {"within its space's bounds": "[1] is 10.1"}),
    "two mistakes in obs": (
        sees(lambda x: x[:1].astype(np.float64)),
        {"its space's shape": "(1,)", "dtype fits": "float64"},
    ),
    "discrete obs": (
        changed(observation_space=Discrete(3), obs=lambda self: 3),
        {"lies in its space": "3 (int), not in Discrete(3)"},
    ),
    "dict obs": (
        changed(observation_space=Dict(a=Discrete(3)), obs=lambda self: {"b": 0}),
        {"lies in its space": "{'b': 0}"},
    ),
    "reused buffer": (Reused(), {"does not change afterwards": "step 1 changed"}),
    "buffer reused by reset": (OnlyResetReuses(), {"does not change afterwards": "reset changed"}),
    "four values": (
        changed(outcome=lambda self, reward, terminated: (self.obs(), reward, terminated, {})),
        {"step returns five values": "4 values"},
    ),
    "four values and more": (
        changed(outcome=lambda self, reward, terminated: (self.obs(), None, int(terminated), [])),
        {"step returns five": "4", "one real number": "None", "terminated is": "0 (int)", "info is a dict": "[]"},
    ),
    "three values": (
        changed(outcome=lambda self, reward, terminated: (self.obs(), reward, terminated)),
        {"step returns five values": "3 values"},
    ),
    "nothing": (changed(outcome=lambda self, reward, terminated: None), {"step returns five values": "None"}),
    "reward array": (ends_with(reward=lambda r: np.array([r])), {"one real number": "of shape (1,)"}),
    "reward None": (ends_with(reward=lambda r: None), {"one real number": "None (NoneType)"}),
    "reward str": (ends_with(reward=str), {"one real number": "(str)"}),
    "reward complex": (ends_with(reward=complex), {"one real number": "(complex)"}),
    "reward NaN": (ends_with(reward=lambda r: float("nan")), {"reward is finite": "nan"}),
    "terminated int": (ends_with(terminated=int), {"terminated is a bool": "step 1 returned 0 (int)"}),
    "truncated None": (ends_with(truncated=lambda x: None), {"truncated is a bool": "None"}),
    "info None": (ends_with(info=lambda x: None), {"info is a dict": "step 1 returned None"}),
    "not seeded": (changed(reset=unseeded_reset), {"same seed": "obs was", "numbers of its own": "random moved on"}),
    "not reset": (changed(step=leaky_step), {"same seed": "reward was 1.0 (float), then 201.0 (float), 1 calls"}),
    "step raises": (changed(step=failing_step), {"step accepts every action": "LinAlgError: Singular matrix"}),
    "step signature": (
        changed(step=lambda self: Right.step(self, [0.0])),
        {"step accepts every action": "(in test_checks.Changed)"},
    ),
    "everything": (
        ends_with(obs=list, reward=lambda r: None, terminated=int, truncated=int, info=list),
        {
            "is a NumPy array": "(list)",
            "one real number": "None",
            "terminated is": "(int)",
            "truncated is": "(int)",
            "info is": "[]",
        },
    ),
}


def named(findings, rule):
    (finding,) = [f for f in findings if rule in f.rule]
    return finding


@pytest.mark.parametrize("name", BROKEN)
def test_exactly_the_broken_rules_are_listed(name, capfd):
    env, rules = BROKEN[name]
    findings = check_env(env)
    assert len(findings) == len(rules), findings
    for rule, given in rules.items():
        finding = named(findings, rule)
        assert given in finding.given
        assert finding.fix
    assert capfd.readouterr() == ("", "")


def test_nan_bounds():
    space = Box(-1, 1, (2,), np.float32)
    space.high[1] = np.nan  # Box itself refuses NaN, but not what is written into it later
    finding = named(check_env(changed(action_space=space)), "bounds are numbers")
    assert "nan" in finding.given


def test_swapped_bounds():
    space = Box(-1, 1, (2,), np.float32)
    space.low[1], space.high[1] = 1, -1
    assert "high [1.0, -1.0]" in named(check_env(changed(action_space=space)), "low < high").given


def test_what_is_no_environment():
    old = types.SimpleNamespace(reset=lambda: np.zeros(2, np.float32), step=None)
    assert "types.SimpleNamespace" in named(check_env(old), "gymnasium.Env").given
    duck = types.SimpleNamespace(
        observation_space=Right.observation_space,
        action_space=Right.action_space,
        reset=lambda seed=None: np.zeros(2, np.float32),
        step=lambda action: (np.zeros(2, np.float32), 0.0, False, {}),
    )
    rules = [f.rule for f in check_env(duck)]
    assert len(rules) == 4  # no gymnasium.Env; no options=; obs alone; four values
    assert isinstance(check_env(duck)[0], Broken)


@pytest.mark.parametrize(("function", "rule"), [(failing_step, "step accepts"), (failing_reset, "reset does not")])
def test_an_exception_is_reported_with_the_users_line(function, rule):
    env = changed(**{function.__name__.removeprefix("failing_"): function})
    line = function.__code__.co_firstlineno + 1
    assert named(check_env(env), rule).given.endswith(f"({__file__}:{line})")


def test_what_make_wraps_around_is_looked_through():
    """Else gymnasium's own wrappers raise before the rule can be named, or warn."""
    name = "CovaryTest/FourValues-v0"
    four = BROKEN["four values"][0]
    gym.register(name, lambda: four, max_episode_steps=5)
    try:
        (finding,) = check_env(gym.make(name))
    finally:
        del gym.registry[name]
    assert "five values" in finding.rule


def test_a_time_limit_is_kept():
    """An environment may rely on it: this one has five steps of data."""

    def step(self, action):
        self.t += 1
        return self.obs(), [1.0, 2.0, 3.0, 4.0, 5.0][self.t - 1], False, False, {}

    five = changed(step=step)
    assert check_env(gym.wrappers.TimeLimit(five, 5)) == []
    assert "IndexError" in named(check_env(five), "step accepts").given


def test_steps_are_capped():
    count = []
    endless = changed(step=lambda self, action: count.append(0) or (self.obs(), 0.0, False, False, {}))
    assert "none in 10,000 random steps" in named(check_env(endless, steps=30), "episode ends").given
    assert len(count) == 60 + 10_000 - 30  # two runs, which must agree, and what the second goes on for
    del count[:]
    at_once = changed(step=lambda self, action: count.append(0) or (self.obs(), 0.0, True, False, {}))
    check_env(at_once, steps=30)
    assert len(count) == 60


def half_infinite():
    return changed(action_space=Box(np.float32([0]), np.float32([np.inf])))


@pytest.mark.parametrize(
    "make",
    [
        Right,
        Heliostat,
        half_infinite,
        lambda: changed(action_space=Box(-np.inf, np.inf, (1,), np.float32)),
        lambda: changed(action_space=Discrete(2), step=lambda self, action: Right.step(self, [action])),
        lambda: changed(observation_space=Box(-10, 10, (2,), np.float64)),  # float32 fits into float64
        lambda: changed(reset=lambda self, **kwargs: Right.reset(self, **kwargs)),
        lambda: changed(observation_space=Dict(a=Discrete(3)), obs=lambda self: {"a": 0}),
        lambda: ends_with(reward=np.float32, terminated=np.bool_, truncated=np.bool_),
        lambda: ends_with(reward=lambda r: 1),
        lambda: gym.wrappers.RescaleAction(Right(), np.float32(-3), np.float32(3)),
        lambda: gym.make("covary/Heliostat-v0"),
        lambda: gym.make("CartPole-v1"),
        lambda: gym.make("Pendulum-v1"),
        lambda: gym.make("MountainCarContinuous-v0"),
    ],
)
def test_a_right_environment_has_no_findings(make, capfd):
    env = make()
    assert check_env(env) == []
    env.close()
    assert capfd.readouterr() == ("", "")
