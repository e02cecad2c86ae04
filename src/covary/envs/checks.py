"""Does an environment keep Gymnasium's rules? Every rule that it breaks, with the fix, instead of the first assert."""

from __future__ import annotations

import copy
import inspect
import os
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit


@dataclass(frozen=True)
class Broken:
    """One rule that an environment breaks: the rule, what it does instead, the usual cause, and what to write."""

    rule: str
    given: str
    cause: str
    fix: str


# name: (rule, usual cause, fix). Each rule is reported once, where it was broken first.
_RULES = {
    "env": (
        "The environment is a gymnasium.Env.",
        "It derives from the old gym.Env, or from nothing.",
        "class MyEnv(gymnasium.Env): with observation_space, action_space, reset and step",
    ),
    "observation_space": (
        "observation_space is a Gymnasium space.",
        "It was never set, or comes from the old gym package.",
        "self.observation_space = gymnasium.spaces.Box(low, high, shape, np.float32) in __init__",
    ),
    "action_space": (
        "action_space is a Gymnasium space.",
        "It was never set, or comes from the old gym package.",
        "self.action_space = gymnasium.spaces.Box(low, high, shape, np.float32) in __init__",
    ),
    "action_dtype": (
        "A continuous action space has a floating-point dtype.",
        "dtype=int in Box rounds every action to a whole number.",
        "Box(..., dtype=np.float32), or Discrete or MultiDiscrete where the actions are choices",
    ),
    "action_nan": (
        "An action space's bounds are numbers.",
        "The bounds were computed from data that holds NaN.",
        "finite bounds, or -np.inf and np.inf where there is none",
    ),
    "action_bounds": (
        "In every dimension of an action space, low is less than high.",
        "low and high are swapped, or the dimension cannot move.",
        "swap them, or leave the fixed dimension out of the action",
    ),
    "reset_seed": (
        "reset accepts seed=.",
        "The environment was written for the old API with a method seed().",
        "def reset(self, *, seed=None, options=None): super().reset(seed=seed)",
    ),
    "reset_options": (
        "reset accepts options=.",
        "The parameter was left out because it is not used.",
        "def reset(self, *, seed=None, options=None)",
    ),
    "reset_error": ("reset does not raise.", "", "mend the line named above"),
    "reset_result": (
        "reset returns (obs, info).",
        "The old API returned the observation alone.",
        "return obs, {}",
    ),
    "info": ("info is a dict.", "None or a list was returned instead of an empty dict.", "return {} as info"),
    "obs_type": (
        "A Box observation is a NumPy array.",
        "A list, a Python number or a tensor was returned.",
        "np.asarray(obs, dtype=self.observation_space.dtype)",
    ),
    "obs_keys": (
        "A Dict or Tuple observation has exactly its space's parts.",
        "A part was forgotten, renamed or added.",
        "return every part that observation_space names, and no other",
    ),
    "obs_shape": (
        "An observation has its space's shape.",
        "A batch dimension was added or lost, or shape= in the space is out of date.",
        "reshape the observation, or correct shape= in observation_space",
    ),
    "obs_dtype": (
        "An observation's dtype fits its space's dtype.",
        "NumPy computes in float64, a Box is float32 unless told.",
        "obs.astype(self.observation_space.dtype)",
    ),
    "obs_finite": (
        "An observation holds no NaN and no infinity.",
        "A division by zero, or a simulation that diverged.",
        "find the first operation that is not finite; end the episode before the state diverges",
    ),
    "obs_bounds": (
        "An observation lies within its space's bounds.",
        "The bounds were guessed, or the state leaves them by rounding.",
        "widen low and high of observation_space, or np.clip the observation",
    ),
    "obs_space": (
        "An observation lies in its space.",
        "The space describes something else than what is returned.",
        "make observation_space.contains(obs) true",
    ),
    "sample": ("The action space can be sampled.", "", "mend the space's definition"),
    "step_error": (
        "step accepts every action of the action space.",
        "The action has another shape, type or range than step expects.",
        "mend the line named above, or describe in action_space what step accepts",
    ),
    "step_old": (
        "step returns five values.",
        "The old API returned (obs, reward, done, info).",
        "return obs, reward, terminated, truncated, info; terminated where the world ended, truncated at a time limit",
    ),
    "step_result": (
        "step returns five values.",
        "A value was forgotten or added.",
        "return obs, reward, terminated, truncated, info",
    ),
    "reward_type": (
        "reward is one real number.",
        "The reward was computed from arrays and kept their shape, or a path returns none.",
        "float(reward); an array of shape (1,) would broadcast in a loss",
    ),
    "reward_finite": (
        "reward is finite.",
        "A logarithm or a division at zero.",
        "bound the reward where it is computed",
    ),
    "terminated": (
        "terminated is a bool.",
        "An int, None or an array was returned.",
        "bool(terminated)",
    ),
    "truncated": ("truncated is a bool.", "An int, None or an array was returned.", "bool(truncated)"),
    "aliased": (
        "An observation that was returned does not change afterwards.",
        "step writes into the array that it returned before, so stored transitions change too.",
        "return obs.copy()",
    ),
    "seeded": (
        "The same seed and the same actions give the same episode.",
        "Random numbers come from np.random or random, or something survives the reset.",
        "super().reset(seed=seed) and draw from self.np_random; set all of the state in reset",
    ),
}


def check_env(env: gym.Env[Any, Any], *, seed: int = 0, steps: int = 200) -> list[Broken]:
    """Every rule of the Gymnasium API that env is seen to break in two equal runs of at most steps random steps.

    Nothing is printed or raised: what reset and step raise is in the list, with the line in the user's code. The
    wrappers that gymnasium.make adds are looked through, since they raise on what shall be listed. The environment
    stays open; it is somewhere in an episode afterwards.

    Args:
        env: a single environment, not a vector environment.
        seed: of the environment and of the actions.
        steps: at most this many in each run; episodes that end are followed by others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(_Examination(env, seed, steps).findings.values())


class _Failed(Exception):
    """What comes next cannot be examined; the reason is among the findings."""


class _Examination:
    def __init__(self, env: Any, seed: int, steps: int) -> None:
        self.findings: dict[str, Broken] = {}
        self.horizon = steps  # TimeLimit is looked through, but its promise to the environment is kept
        while type(env) in (PassiveEnvChecker, OrderEnforcing, TimeLimit):
            self.horizon = min(self.horizon, getattr(env, "_max_episode_steps", steps))
            env = env.env
        self.env, self.seed, self.steps = env, seed, steps
        try:
            self.examine()
        except _Failed:
            pass

    def found(self, name: str, given: object) -> None:
        rule, cause, fix = _RULES[name]
        self.findings.setdefault(name, Broken(rule, str(given), cause, fix))

    def call(self, name: str, function: Callable[[], Any], where: str) -> Any:
        try:
            return function()
        except Exception as error:
            self.found(name, f"{where} raised {type(error).__name__}: {error} ({_user_line(error)})")
            raise _Failed from error

    def examine(self) -> None:
        if not isinstance(self.env, gym.Env):
            self.found("env", f"{type(self.env).__module__}.{type(self.env).__qualname__}")
        can_see, can_act = self.space("observation_space"), self.space("action_space")
        can_act = can_act and self.action_bounds()
        for name in ("seed", "options"):
            if not self.accepts(name):
                self.found(f"reset_{name}", f"reset{inspect.signature(self.layers()[-1].reset)}")
        first = self.run(can_see, can_act)
        second = self.run(can_see, can_act)
        if not self.accepts("seed"):
            return
        for t, (a, b) in enumerate(zip(first, second, strict=False)):
            for part, x, y in zip(("obs", "reward", "terminated", "truncated"), a, b, strict=False):
                if not _same(x, y):
                    self.found(
                        "seeded", f"{part} {_short(x)}, then {_short(y)}, at step {t} after reset(seed={self.seed})"
                    )
