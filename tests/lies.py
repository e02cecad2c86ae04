"""Environments that break their word, each in one way: the table `LIES`, and vector environments in `VECTOR_LIES`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

HELD = "held"  # training goes on
SAME = "held, with the honest environment's numbers"


class Honest(gym.Env):
    """A point on a line, and the step; episodes of 5 steps, of which those right of 0 terminate."""

    observation_space = Box(-100, 100, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    length = 5

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1), 0
        return self.first()

    def first(self):
        return self.obs(), {}

    def obs(self):
        return np.array([self.x, self.t], np.float32)

    def step(self, action):
        self.t += 1
        self.x = float(self.x + 0.1 * action[0])
        over, right = self.t >= self.length, self.x > 0
        return self.outcome(self.obs(), float(self.t), over and right, over and not right, {})

    def outcome(self, *values):
        return values


def changed(**members: Any) -> type[Honest]:
    return type("Liar", (Honest,), members)


def gives(place: int, change: Callable[[Any], Any]) -> type[Honest]:
    """Honest, but one of step's five values is changed in the third step of each episode."""

    def outcome(self, *values):
        if self.t == 3:
            values = (*values[:place], change(values[place]), *values[place + 1 :])
        return values

    return changed(outcome=outcome)


def shows(change: Callable[[Any], Any]) -> type[Honest]:
    """Honest, but its observations are changed from the third step on."""
    return changed(obs=lambda self: change(Honest.obs(self)) if self.t >= 3 else Honest.obs(self))


def always_shows(change: Callable[[Any], Any], **members: Any) -> type[Honest]:
    return changed(obs=lambda self: change(Honest.obs(self)), **members)


def raises(error: Callable[[], BaseException]) -> type[Honest]:
    def outcome(self, *values):
        if self.t == 3:
            raise error()
        return values

    return changed(outcome=outcome)


# ------------------------------------------------------------------------------------------------- memory


class Reuses(Honest):
    """One buffer for every observation."""

    def obs(self):
        self.buffer = getattr(self, "buffer", np.zeros(2, np.float32))
        self.buffer[:] = Honest.obs(self)
        return self.buffer


class SharesItsBuffer(Honest):
    """One buffer for every observation of every environment."""

    buffer = np.zeros(2, np.float32)

    def obs(self):
        self.buffer[:] = Honest.obs(self)
        return self.buffer


class ChangesLater(Honest):
    """Spoils what it returned before, at its next call."""

    last = None

    def obs(self):
        if self.last is not None:
            self.last[:] = -77
        self.last = Honest.obs(self)
        return self.last


class ChangesTheAction(Honest):
    def step(self, action):
        result = Honest.step(self, action)
        action[:] = 99
        return result


class KeepsTheAction(Honest):
    """Shows the action in its observation's own memory, which it writes to later."""

    def step(self, action):
        result = Honest.step(self, action)
        if getattr(self, "kept", None) is not None:
            self.kept[:] = 99
        self.kept = action
        return result


# ------------------------------------------------------------------------------------------------- spaces


class OldBox:
    """What the old gym's Box looks like from here."""


OldBox.__module__, OldBox.__qualname__ = "gym.spaces.box", "Box"


def nan_bounds() -> Box:
    space = Box(-1, 1, (1,), np.float32)
    space.high[0] = np.nan
    return space


def swapped_bounds() -> Box:
    space = Box(-1, 1, (1,), np.float32)
    space.low[0], space.high[0] = 1, -1
    return space


class Grows(Honest):
    """Another observation space in the second episode."""

    episodes = 0

    def first(self):
        self.episodes += 1
        if self.episodes > 1:
            self.observation_space = Box(-100, 100, (3,), np.float32)
        return self.obs(), {}

    def obs(self):
        return np.zeros(2 if self.episodes < 2 else 3, np.float32)


class MovesItsActions(Honest):
    episodes = 0

    def first(self):
        self.episodes += 1
        self.action_space = Box(-self.episodes, self.episodes, (1,), np.float32)
        return self.obs(), {}


class WritesBounds(Honest):
    def __init__(self):
        self.action_space = Box(-1, 1, (1,), np.float32)

    def first(self):
        self.action_space.high[:] += 1
        return self.obs(), {}


class Differs(Honest):
    """Each environment has one dimension more than the one before."""

    made = 1

    def __init__(self):
        Differs.made += 1
        self.observation_space = Box(-100, 100, (Differs.made,), np.float32)

    def obs(self):
        return np.zeros(self.observation_space.shape, np.float32)


# -------------------------------------------------------------------------------------------- resets and ends


class IgnoresItsSeed(Honest):
    def first(self):
        self.x = np.random.default_rng().uniform(-1, 1)
        return self.obs(), {}


class NoOptions(Honest):
    def reset(self, *, seed=None):
        return Honest.reset(self, seed=seed)


class NoSeed(Honest):
    def reset(self, *, options=None):
        return Honest.reset(self)


class Endless(Honest):
    def outcome(self, obs, reward, terminated, truncated, info):
        return obs, reward, False, False, info


class EndsAtOnce(Honest):
    def outcome(self, obs, reward, terminated, truncated, info):
        return obs, reward, True, False, info


class StaysOver(Honest):
    """Once over, over for ever: each later episode ends with its first step."""

    over = False

    def outcome(self, obs, reward, terminated, truncated, info):
        self.over = self.over or terminated or truncated
        return obs, reward, self.over, False, info


class Strict(Honest):
    """Raises where it is stepped past the end."""

    def step(self, action):
        assert self.t < 5, "stepped past the end"
        return Honest.step(self, action)


# ---------------------------------------------------------------------------------------- what belongs to all


class DrawsFromEverybody(Honest):
    def first(self):
        self.x = np.random.uniform(-1, 1)  # noqa: NPY002
        return self.obs(), {}


class SeedsEverybody(Honest):
    def reset(self, *, seed=None, options=None):
        random.seed(seed)
        Honest.reset(self, seed=seed)
        self.x = random.random()
        return self.obs(), {}


class SharesItsState(Honest):
    total = 0

    def outcome(self, obs, reward, *rest):
        type(self).total += 1
        return obs, float(self.total), *rest


class ChangesFolder(Honest):
    def first(self):
        os.chdir("/")
        return self.obs(), {}


class Forks(Honest):
    """Makes a copy of the process, which ends by itself."""

    def first(self):
        if not (child := os.fork()):
            os._exit(0)
        os.waitpid(child, 0)
        return self.obs(), {}


class ForksAndReturns(Honest):
    """Makes a copy of the process in the first step, and lets it come back."""

    forked = False

    def outcome(self, *values):
        if not self.forked:
            self.forked = True
            if child := os.fork():
                os.waitpid(child, 0)
        return values


# ------------------------------------------------------------------------------------------------ odd objects


class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


class Unshowable:
    def __repr__(self):
        raise ValueError("no picture")


class Odd(BaseException):
    pass


class CannotClose(Honest):
    def close(self):
        raise RuntimeError("the window is stuck")


class CannotBeMade(Honest):
    def __init__(self):
        raise RuntimeError("no licence")


class OddInfo(Honest):
    """Infos that no two of which can be merged."""

    def first(self):
        k = int(self.np_random.integers(1, 9))
        return self.obs(), {"x": np.zeros(k), "y": (None, "a", 1.0)[k % 3], 5: object()}


ONE = Honest()


class Lie(NamedTuple):
    make: Callable[[], gym.Env]
    check: str  # part of a finding of check_env; "" where it has none
    training: str  # HELD, SAME, or a part of the message


LIES = {
    "honest": Lie(Honest, "", SAME),
    # observations
    "obs outside its bounds": Lie(always_shows(lambda x: x + np.float32(1000)), "lies within its space's bounds", HELD),
    "obs of another shape": Lie(shows(lambda x: x[:1]), "its space's shape", "shape of its space, (2,)"),
    "obs with a batch dimension": Lie(shows(lambda x: x[None]), "its space's shape", "shape (1, 2)"),
    "ragged obs": Lie(shows(lambda x: [[1.0], [1.0, 2.0]]), "is a NumPy array", "array of numbers"),
    "float64 obs": Lie(always_shows(lambda x: x.astype(np.float64)), "dtype fits", SAME),
    "obs drifts to float64": Lie(shows(lambda x: x.astype(np.float64)), "dtype fits", SAME),
    "obs drifts to ints": Lie(shows(lambda x: x.astype(np.int64)), "dtype fits", HELD),
    "obs drifts to objects": Lie(shows(lambda x: x.astype(object)), "dtype fits", "dtype object"),
    "obs drifts to text": Lie(shows(lambda x: x.astype(str)), "dtype fits", "has the dtype of its space"),
    "complex obs": Lie(shows(lambda x: x + 0j), "dtype fits", "dtype complex64"),
    "big-endian obs": Lie(shows(lambda x: x.astype(">f4")), "", SAME),
    "obs that cannot be written to": Lie(always_shows(lambda x: np.broadcast_to(x, (2,))), "", SAME),
    "list": Lie(always_shows(lambda x: x.tolist()), "is a NumPy array", SAME),
    "tuple": Lie(shows(lambda x: tuple(x.tolist())), "is a NumPy array", SAME),
    "tensor": Lie(always_shows(torch.tensor), "is a NumPy array", SAME),
    "tensor with a gradient": Lie(shows(lambda x: torch.tensor(x, requires_grad=True)), "is a NumPy array", SAME),
    "masked array without a mask": Lie(shows(np.ma.masked_array), "", SAME),
    "masked array": Lie(shows(lambda x: np.ma.masked_array(x, [False, True])), "masked", "masked entries"),
    "obs None": Lie(shows(lambda x: None), "is a NumPy array", "shape of its space"),
    "obs NaN": Lie(shows(lambda x: x * np.float32("nan")), "no NaN", "finite numbers as observation"),
    "obs infinite": Lie(shows(lambda x: x + np.float32("inf")), "no NaN", "finite numbers as observation"),
    "obs beyond float32": Lie(
        shows(lambda x: x.astype(np.float64) + 1e300), "within its space's bounds", "finite numbers as observation"
    ),
    "obs no choice": Lie(
        changed(observation_space=Discrete(4), obs=lambda self: self.t), "lies in its space", "lies in its space"
    ),
    "choice as a float": Lie(
        changed(observation_space=Discrete(9), obs=lambda self: float(self.t)), "lies in its space", "observation 0.0"
    ),
    # memory
    "reused buffer": Lie(Reuses, "does not change afterwards", SAME),
    "buffer of all environments": Lie(SharesItsBuffer, "does not change afterwards", SAME),
    "obs changed later": Lie(ChangesLater, "does not change afterwards", SAME),
    "action changed in place": Lie(ChangesTheAction, "is left as it is", SAME),
    "action kept and changed": Lie(KeepsTheAction, "", SAME),
    # spaces
    "no observation space": Lie(
        changed(observation_space=None), "Gymnasium spaces", "observation_space is a Gymnasium"
    ),
    "old observation space": Lie(changed(observation_space=OldBox()), "old gym", "gym.spaces.box.Box"),
    "no action space": Lie(changed(action_space=None), "Gymnasium spaces", "action_space is a Gymnasium space"),
    "NaN in the action space": Lie(changed(action_space=nan_bounds()), "bounds are numbers", "low < high"),
    "swapped action bounds": Lie(changed(action_space=swapped_bounds()), "low < high", "low < high"),
    "equal action bounds": Lie(changed(action_space=Box(1, 1, (1,), np.float32)), "low < high", "low < high"),
    "whole actions": Lie(changed(action_space=Box(-1, 1, (1,), np.int64)), "floating-point", "floating-point"),
    "actions without bounds": Lie(changed(action_space=Box(-np.inf, np.inf, (1,), np.float32)), "", HELD),
    "observation space grows": Lie(Grows, "spaces of an environment stay", "shape of its space, (2,)"),
    "action space moves": Lie(MovesItsActions, "spaces of an environment stay", "spaces of an environment stay"),
    "bounds are written to": Lie(WritesBounds, "spaces of an environment stay", "spaces of an environment stay"),
    "every one another space": Lie(Differs, "", "have the same spaces"),
    "one object for all": Lie(lambda: ONE, "", "object of its own"),
    # resets and ends
    "reset ignores its seed": Lie(IgnoresItsSeed, "same seed", HELD),
    "reset without options": Lie(NoOptions, "accepts options=", SAME),
    "reset without seed": Lie(NoSeed, "accepts seed=", "reset accepts seed="),
    "reset gives obs alone": Lie(changed(first=lambda self: self.obs()), "(obs, info)", "(observation, info)"),
    "reset gives three": Lie(changed(first=lambda self: (self.obs(), 0.0, {})), "(obs, info)", "(observation, info)"),
    "reset with info None": Lie(
        changed(first=lambda self: (self.obs(), None)), "info is a dict", "(observation, info)"
    ),
    "no end": Lie(Endless, "An episode ends", HELD),
    "an end in every step": Lie(EndsAtOnce, "", HELD),
    "over for ever": Lie(StaysOver, "same seed", HELD),
    "strict about its end": Lie(Strict, "", SAME),
    "a limit of the old API": Lie(
        changed(outcome=lambda self, *v: (*v[:4], {"TimeLimit.truncated": v[2]})), "only time is up", SAME
    ),
    # what step returns
    "four values": Lie(changed(outcome=lambda self, *v: v[:4]), "five values", "4 values"),
    "six values": Lie(changed(outcome=lambda self, *v: (*v, 0)), "five values", "6 values"),
    "a list of five": Lie(changed(outcome=lambda self, *v: list(v)), "five values", "list"),
    "reward in an array": Lie(gives(1, lambda r: np.array([r])), "one real number", "array([3.])"),
    "reward in an array without dimensions": Lie(gives(1, np.array), "one real number", SAME),
    "reward as a tensor": Lie(gives(1, lambda r: torch.tensor(r, requires_grad=True)), "one real number", SAME),
    "reward as a fraction": Lie(gives(1, Fraction), "one real number", SAME),
    "reward of float16": Lie(gives(1, np.float16), "", SAME),
    "reward None": Lie(gives(1, lambda r: None), "one real number", "reward None"),
    "reward as text": Lie(gives(1, str), "one real number", "reward '3.0'"),
    "complex reward": Lie(gives(1, complex), "one real number", "reward (3+0j)"),
    "reward True": Lie(gives(1, bool), "", HELD),
    "reward a whole number": Lie(gives(1, int), "", SAME),
    "huge reward": Lie(gives(1, lambda r: 10**400), "reward is finite", "one real number"),
    "reward NaN": Lie(gives(1, lambda r: float("nan")), "reward is finite", "finite numbers as reward"),
    "reward infinite": Lie(gives(1, lambda r: np.float32("inf")), "reward is finite", "finite numbers as reward"),
    "reward that cannot be shown": Lie(gives(1, lambda r: Unshowable()), "one real number", "a Unshowable"),
    "terminated as a number": Lie(gives(2, int), "terminated is a bool", "one bool each"),
    "terminated None": Lie(gives(2, lambda x: None), "terminated is a bool", "terminated None"),
    "truncated in an array": Lie(gives(3, lambda x: np.array([x])), "truncated is a bool", "one bool each"),
    "flags of NumPy": Lie(changed(outcome=lambda self, *v: (*v[:2], np.bool_(v[2]), np.bool_(v[3]), {})), "", SAME),
    "info None": Lie(gives(4, lambda x: None), "info is a dict", "info None"),
    "infos that cannot be merged": Lie(OddInfo, "", SAME),
    # errors
    "an error": Lie(raises(lambda: KeyError("goal")), "KeyError: 'goal'", "KeyError: 'goal'"),
    "exit": Lie(raises(lambda: SystemExit(3)), "SystemExit: 3", "SystemExit: 3"),
    "an error of no kind": Lie(raises(Odd), "Odd", "must not raise: Odd"),
    "StopIteration": Lie(raises(StopIteration), "StopIteration", "must not raise: StopIteration"),
    "an error without words": Lie(raises(Mute), "message raises ValueError", "Mute: its own message raises"),
    "cannot be made": Lie(CannotBeMade, "", "no licence"),
    "cannot be closed": Lie(CannotClose, "", SAME),
    # what belongs to the whole process
    "np.random": Lie(DrawsFromEverybody, "random numbers of its own", HELD),
    "seeds random": Lie(SeedsEverybody, "random numbers of its own", HELD),
    "state of all environments": Lie(SharesItsState, "belongs to one environment", HELD),
    "another folder": Lie(ChangesFolder, "working directory", SAME),
    "forks": Lie(Forks, "", SAME),
    "forks and returns": Lie(ForksAndReturns, "only one that comes back", SAME),
}
MEMORY = ("reused buffer", "buffer of all environments", "obs changed later", "action changed in place",
          "action kept and changed", "tensor", "list")  # fmt: skip


# --------------------------------------------------------------------------------------- vector environments


class Longer(Honest):
    length = 7


class Pair(SyncVectorEnv):
    """Two of them, whose episodes end at different times; those below do otherwise than they say."""

    mode = AutoresetMode.NEXT_STEP
    said: Any = None

    def __init__(self) -> None:
        super().__init__([Honest, Longer], autoreset_mode=self.mode)
        if self.said is not None:
            self.metadata = {**self.metadata, "autoreset_mode": self.said}

    def step(self, actions):
        return self.told(*super().step(actions))

    def told(self, *values):
        return values


def pair(mode: str, said: Any = None, **members: Any) -> type[Pair]:
    said = AutoresetMode[said] if isinstance(said, str) and said in AutoresetMode.__members__ else said
    return type("LyingPair", (Pair,), {"mode": AutoresetMode[mode], "said": said, **members})


def forgets_the_mask(self, *, seed=None, options=None):
    return SyncVectorEnv.reset(self, seed=seed)


def no_reset(self, actions):
    """Goes on after the end, as if nothing had been."""
    self._autoreset_envs[:] = False
    return Pair.step(self, actions)


def without_final(self, *values):
    return (*values[:4], {key: value for key, value in values[4].items() if "final" not in key})


def empty_final(self, *values):
    if "final_obs" in values[4]:
        values[4]["final_obs"][:] = None
    return values


def miscounted(venv: Pair, n: int) -> Pair:
    venv.num_envs = n
    return venv


VECTOR_LIES = {
    "NEXT_STEP": (pair("NEXT_STEP"), HELD),
    "SAME_STEP": (pair("SAME_STEP"), HELD),
    "DISABLED": (pair("DISABLED"), HELD),
    "says NEXT_STEP, does SAME_STEP": (pair("SAME_STEP", "NEXT_STEP"), "here, NEXT_STEP"),
    "says DISABLED, does SAME_STEP": (pair("SAME_STEP", "DISABLED"), "here, DISABLED"),
    "says SAME_STEP, does NEXT_STEP": (pair("NEXT_STEP", "SAME_STEP"), "here, SAME_STEP"),
    "says NEXT_STEP, does DISABLED": (pair("DISABLED", "NEXT_STEP", step=no_reset), "here, NEXT_STEP"),
    "resets all": (pair("DISABLED", reset=forgets_the_mask), "were not to be reset"),
    "says nonsense": (pair("NEXT_STEP", "sometimes"), "is an AutoresetMode"),
    "no final_obs": (pair("SAME_STEP", told=without_final), 'no "final_obs"'),
    "empty final_obs": (pair("SAME_STEP", told=empty_final), 'info["final_obs"]'),
    "three, they say": (lambda: miscounted(pair("NEXT_STEP")(), 3), "num_envs = 3"),
    "none, they say": (lambda: miscounted(pair("NEXT_STEP")(), 0), "how many environments"),
    "rewards in a column": (
        pair("NEXT_STEP", told=lambda self, o, r, *rest: (o, r[:, None], *rest)),
        "gives reward of shape (2,)",
    ),
    "half the batch": (pair("NEXT_STEP", told=lambda self, o, *rest: (o[:1], *rest)), "shape (1, 2)"),
    "flags as numbers": (
        pair("NEXT_STEP", told=lambda self, o, r, a, b, i: (o, r, a.astype(int), b, i)),
        "gives terminated as bool",
    ),
    "four values of a pair": (pair("NEXT_STEP", told=lambda self, *v: v[:4]), "4 values"),
    "text for rewards": (
        pair("NEXT_STEP", told=lambda self, o, r, *rest: (o, r.astype(str), *rest)),
        "gives reward as real numbers",
    ),
    "NaN of a pair": (
        pair("NEXT_STEP", told=lambda self, o, *rest: (o * np.float32("nan"), *rest)),
        "finite numbers as observation",
    ),
    "a pair that raises": (
        pair("NEXT_STEP", told=lambda self, *v: {}["goal"]),
        "must not raise: KeyError: 'goal'",
    ),
}
