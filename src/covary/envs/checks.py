"""Does an environment keep Gymnasium's rules? Every rule that it breaks, with the fix, instead of the first assert."""

from __future__ import annotations

import contextlib
import copy
import inspect
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Mapping
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
# fmt: off
_RULES = {
    "env": ("The environment is a gymnasium.Env.", "It derives from the old gym.Env, or from nothing.",
            "class MyEnv(gymnasium.Env), with observation_space, action_space, reset and step"),
    "space": ("observation_space and action_space are Gymnasium spaces.", "One is not set, or comes from the old gym.",
              "self.action_space = gymnasium.spaces.Box(low, high, shape, np.float32) in __init__"),
    "action dtype": ("A continuous action space has a floating-point dtype.", "dtype=int rounds every action.",
                     "Box(..., dtype=np.float32), or Discrete or MultiDiscrete where the actions are choices"),
    "action nan": ("An action space's bounds are numbers.", "They were computed from data that holds NaN.",
                   "finite bounds, or -np.inf and np.inf where there is no bound"),
    "action bounds": ("In every dimension of an action space, low < high.", "They are swapped, or equal.",
                      "swap them, or leave a dimension that cannot move out of the action"),
    "action sample": ("An action space can be sampled.", "Its bounds or its dtype contradict each other.",
                      "make action_space.sample() work"),
    "seed": ("reset accepts seed=.", "The environment has the old method seed() instead.",
             "def reset(self, *, seed=None, options=None): super().reset(seed=seed)"),
    "options": ("reset accepts options=.", "It was left out because it is not used.",
                "def reset(self, *, seed=None, options=None)"),
    "reset raises": ("reset does not raise.", "", "mend the line that is named"),
    "reset": ("reset returns (obs, info).", "The old API returned the observation alone.", "return obs, {}"),
    "info": ("info is a dict.", "None stands for an empty dict.", "return {} for an empty info"),
    "obs type": ("A Box observation is a NumPy array.", "A list, a Python number or a tensor was returned.",
                 "np.asarray(obs, dtype=self.observation_space.dtype)"),
    "obs shape": ("An observation has its space's shape.", "A batch dimension too many, or an outdated shape=.",
                  "reshape the observation, or correct shape= in observation_space"),
    "obs dtype": ("An observation's dtype fits its space's.", "NumPy computes in float64, a Box is float32 by default.",
                  "obs.astype(self.observation_space.dtype)"),
    "obs finite": ("An observation holds no NaN and no infinity.", "A division by zero, or a diverging simulation.",
                   "find the first operation that is not finite; end the episode before the state diverges"),
    "obs bounds": ("An observation lies within its space's bounds.", "They were guessed, or rounding leaves them.",
                   "widen low and high of observation_space, or np.clip the observation"),
    "obs space": ("An observation lies in its space.", "The space describes something else than what is returned.",
                  "make observation_space.contains(obs) true"),
    "obs copy": ("An observation that was returned does not change afterwards.",
                 "The environment writes into the array that it returned, so stored transitions change too.",
                 "return obs.copy()"),
    "step raises": ("step accepts every action of action_space.", "It expects another shape, type or range.",
                    "mend the line that is named, or describe in action_space what step accepts"),
    "step": ("step returns five values.", "The old API returned four: obs, reward, done, info.",
             "return obs, reward, terminated, truncated, info: terminated where the world ended, truncated where "
             "only time was up"),
    "reward": ("reward is one real number.", "Computed from arrays, it kept their shape; or a path returns none.",
               "float(reward); an array of shape (1,) broadcasts in a loss"),
    "reward finite": ("reward is finite.", "A logarithm or a division at zero.", "bound it where it is computed"),
    "terminated": ("terminated is a bool.", "An int, None or an array was returned.", "bool(terminated)"),
    "truncated": ("truncated is a bool.", "An int, None or an array was returned.", "bool(truncated)"),
    "same": ("The same seed and the same actions give the same episode.",
             "Random numbers come from np.random or random, or something survives the reset.",
             "super().reset(seed=seed), draw from self.np_random, and set all of the state in reset"),
}
# fmt: on


def check_env(env: gym.Env[Any, Any], *, seed: int = 0, steps: int = 200) -> list[Broken]:
    """Every rule of the Gymnasium API that env is seen to break in two equal runs of random steps.

    Nothing is printed or raised: what reset and step raise is in the list, with the line in the user's code. The
    wrappers that gymnasium.make adds are looked through, since they raise on what shall be listed. The environment
    is not closed.

    Args:
        env: a single environment, not a vector environment.
        seed: of the environment and of the actions.
        steps: in each run; an episode that ends is followed by the next one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examination = _Examination(env, seed, steps)
        with contextlib.suppress(_Stop):
            examination.examine()
    return list(examination.findings.values())


class _Stop(Exception):
    """What comes next cannot be examined; the reason is among the findings."""


class _Examination:
    def __init__(self, env: Any, seed: int, steps: int) -> None:
        self.findings: dict[str, Broken] = {}
        self.seed, self.steps, self.horizon = seed, steps, steps
        while type(env) in (PassiveEnvChecker, OrderEnforcing, TimeLimit):
            # The environment may rely on TimeLimit's promise that no episode is longer.
            self.horizon = min(self.horizon, getattr(env, "_max_episode_steps", steps))
            env = env.env
        self.env = env

    def found(self, name: str, given: str) -> None:
        rule, cause, fix = _RULES[name]
        self.findings.setdefault(name, Broken(rule, given, cause, fix))

    def call(self, name: str, function: Callable[[], Any], where: str) -> Any:
        try:
            return function()
        except Exception as error:
            line = _user_line(error) or f"in {type(self.env).__module__}.{type(self.env).__qualname__}"
            self.found(name, f"{where} raised {type(error).__name__}: {error} ({line})")
            raise _Stop from error

    def examine(self) -> None:
        if not isinstance(self.env, gym.Env):
            self.found("env", f"{type(self.env).__module__}.{type(self.env).__qualname__}")
            if not (callable(getattr(self.env, "reset", None)) and callable(getattr(self.env, "step", None))):
                raise _Stop
        self.obs_space, action_space = self.space("observation_space"), self.space("action_space")
        self.action_space = action_space if action_space is not None and self.can_be_sampled(action_space) else None
        self.reset_arguments = {name for name in ("seed", "options") if self.reset_accepts(name)}
        first, second = self.run(), self.run()
        for t, (a, b) in enumerate(zip(first, second, strict=False)):
            for name, x, y in zip(("obs", "reward", "terminated", "truncated"), a, b, strict=False):
                if "seed" in self.reset_arguments and not _same(x, y):
                    self.found(
                        "same", f"{name} was {_short(x)}, then {_short(y)}, {t} calls after reset(seed={self.seed})"
                    )

    def space(self, name: str) -> gym.Space[Any] | None:
        space = self.call("space", lambda: getattr(self.env, name, None), name)
        if isinstance(space, gym.Space):
            return space
        kind = f"{type(space).__module__}.{type(space).__qualname__}"
        old = " of the old gym package" if kind.startswith("gym.") else ""
        self.found("space", f"{name} is " + ("not set" if space is None else kind + old))
        return None

    def can_be_sampled(self, space: gym.Space[Any]) -> bool:
        if not isinstance(space, gym.spaces.Box):
            return True
        given = f"Box of {space.dtype}, low {_short(space.low)}, high {_short(space.high)}"
        if np.issubdtype(space.dtype, np.integer):
            self.found("action dtype", given)
        if np.isnan(space.low).any() or np.isnan(space.high).any():
            self.found("action nan", given)
            return False
        if (space.low >= space.high).any():
            self.found("action bounds", given)
        return True

    def reset_accepts(self, name: str) -> bool:
        layers = [self.env]
        while isinstance(layers[-1], gym.Wrapper):
            layers.append(layers[-1].env)
        for layer in layers:
            parameters = inspect.signature(layer.reset).parameters
            if name not in parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                self.found(name, f"{type(layer).__qualname__}.reset{inspect.signature(layer.reset)}")
                return False
        return True

    def run(self) -> list[tuple[Any, ...]]:
        """What reset and each step returned, until the steps are used up or something raised."""
        trace: list[tuple[Any, ...]] = []
        with contextlib.suppress(_Stop):
            obs = self.reset("reset", seeded=True)
            trace.append((_copy(obs),))
            actions = self.action_space
            if actions is None:
                return trace
            self.call("action sample", lambda: actions.seed(self.seed), "action_space.seed")
            age = 0
            for t in range(1, self.steps + 1):
                kept, was = obs, trace[-1][0]
                action = self.call("action sample", actions.sample, "action_space.sample")
                obs, *others = self.step(action, f"step {t}")
                trace.append((_copy(obs), *others))
                age += 1
                if not _same(kept, was):
                    self.found("obs copy", f"step {t} changed the observation that the call before it had returned")
                if age >= self.horizon or _true(others[1]) or _true(others[2]):
                    kept, was, age = obs, trace[-1][0], 0
                    obs = self.reset(f"reset after step {t}", seeded=False)
                    trace.append((_copy(obs),))
                    if not _same(kept, was):
                        self.found("obs copy", f"reset changed the observation that step {t} had returned")
        return trace

    def reset(self, where: str, *, seeded: bool) -> Any:
        given = {"seed": self.seed, "options": None} if seeded else {}
        arguments = {name: value for name, value in given.items() if name in self.reset_arguments}
        result = self.call("reset raises", lambda: self.env.reset(**arguments), where)
        if isinstance(result, tuple) and len(result) == 2:
            obs, info = result
            self.check_info(info, where)
        else:
            self.found("reset", f"{where} returned {_short(result)}")
            obs = result[0] if isinstance(result, tuple) and result else result
        self.check_obs(obs, where)
        return obs

    def step(self, action: Any, where: str) -> tuple[Any, Any, Any, Any]:
        result = self.call("step raises", lambda: self.env.step(_copy(action)), f"{where} with action {_short(action)}")
        if not isinstance(result, tuple) or len(result) != 5:
            values = f"{len(result)} values" if isinstance(result, tuple) else _short(result)
            self.found("step", f"{where} returned {values}")
            if not isinstance(result, tuple) or len(result) != 4:
                raise _Stop
            result = (*result[:3], False, result[3])  # the old API: its other values can still be examined
        obs, reward, terminated, truncated, info = result
        self.check_obs(obs, where)
        if not isinstance(reward, (int, float, np.integer, np.floating)):
            self.found("reward", f"{where} returned {_short(reward)}")
        elif not np.isfinite(reward):
            self.found("reward finite", f"{where} returned {reward}")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, (bool, np.bool_)):
                self.found(name, f"{where} returned {_short(flag)}")
        self.check_info(info, where)
        return obs, _copy(reward), terminated, truncated

    def check_info(self, info: Any, where: str) -> None:
        if not isinstance(info, dict):
            self.found("info", f"{where} returned {_short(info)}")

    def check_obs(self, obs: Any, where: str) -> None:
        if isinstance(self.obs_space, gym.spaces.Box):
            self.check_array(f"obs of {where}", self.obs_space, obs)
        elif self.obs_space is not None and not self.obs_space.contains(obs):
            self.found("obs space", f"obs of {where} is {_short(obs)}, not in {self.obs_space}")

    def check_array(self, name: str, box: gym.spaces.Box, obs: Any) -> None:
        if not isinstance(obs, (np.ndarray, np.generic)):
            self.found("obs type", f"{name} is {_short(obs)}")
            try:
                obs = np.asarray(obs, box.dtype)
            except Exception:
                return
        if obs.shape != box.shape:
            self.found("obs shape", f"{name} has shape {obs.shape}, its space {box.shape}")
        if not np.can_cast(obs.dtype, box.dtype):
            self.found("obs dtype", f"{name} has dtype {obs.dtype}, its space {box.dtype}")
        if obs.dtype.kind not in "biuf":
            return
        if not np.isfinite(obs).all():
            self.found("obs finite", f"{name} is {_short(obs)}")
        elif obs.shape == box.shape and ((obs < box.low) | (obs > box.high)).any():
            at = tuple(int(i) for i in np.argwhere((obs < box.low) | (obs > box.high))[0])
            self.found("obs bounds", f"{name}{list(at)} is {obs[at]}, outside [{box.low[at]}, {box.high[at]}]")


def _user_line(error: Exception) -> str:
    """Where the error arose in the user's own code: innermost, but in neither Python, nor its packages, nor here."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [f for f in frames if not f.filename.startswith((*libraries, "<"))]
    return f"{(own or frames)[-1].filename}:{(own or frames)[-1].lineno}" if frames else ""


def _copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # for example a tensor that requires grad; then it is only looked at
        return value


def _true(flag: Any) -> bool:
    try:
        return bool(flag)
    except Exception:
        return False


def _same(a: Any, b: Any) -> bool:
    """Equal to the bit, NaN being equal to itself; True of what cannot be compared."""
    try:
        if isinstance(a, Mapping):
            return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
        if isinstance(a, tuple):
            return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())
    except Exception:
        return True


def _short(value: Any) -> str:
    """A value as one short line, an array with its shape."""
    text = " ".join(repr(value.tolist() if isinstance(value, np.ndarray) else value).split())
    text = text if len(text) <= 80 else text[:77] + "..."
    return text + (f" of shape {value.shape}" if isinstance(value, np.ndarray) else f" ({type(value).__name__})")
