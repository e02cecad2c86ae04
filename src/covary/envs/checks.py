"""Does an environment keep Gymnasium's rules? Every rule that it breaks, with the fix, instead of the first assert."""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import random
import sys
import sysconfig
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from covary.envs.rules import RULES, Broken


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
        try:
            examination.examine()
        except _Stop:
            pass
        finally:
            examination.look_for_copies()
    return list(examination.findings.values())


ENDLESS = 10_000  # steps after which an episode is taken to have no end,
PATIENCE = 2.0  # or seconds


class _Stop(Exception):
    """What comes next cannot be examined; the reason is among the findings."""


class _Examination:
    def __init__(self, env: Any, seed: int, steps: int) -> None:
        self.findings: dict[str, Broken] = {}
        self.seed, self.steps, self.horizon = seed, steps, steps
        self.ended = False  # whether any episode has, or there is a time limit
        self.process, self.copies = os.getpid(), os.pipe()
        while type(env) in (PassiveEnvChecker, OrderEnforcing, TimeLimit):
            # The environment may rely on TimeLimit's promise that no episode is longer.
            self.horizon = min(self.horizon, getattr(env, "_max_episode_steps", steps))
            self.ended = self.ended or type(env) is TimeLimit
            env = env.env
        self.env = env

    def found(self, name: str, given: str) -> None:
        rule, cause, fix = RULES[name]
        self.findings.setdefault(name, Broken(rule, given, cause, fix))

    def call(self, name: str, function: Callable[[], Any], where: str) -> Any:
        try:
            result = function()
        except KeyboardInterrupt:
            raise  # that is a person
        except BaseException as error:
            line = _user_line(error) or f"in {type(self.env).__module__}.{type(self.env).__qualname__}"
            self.found(name, f"{where} raised {type(error).__name__}: {_text(error)} ({line})")
            raise _Stop from error
        finally:
            if os.getpid() != self.process:  # a copy that the environment let come back: only the first goes on
                os.write(self.copies[1], b"!")
                os._exit(0)
        return result

    def examine(self) -> None:
        if not isinstance(self.env, gym.Env):
            self.found("env", f"{type(self.env).__module__}.{type(self.env).__qualname__}")
            if not (callable(getattr(self.env, "reset", None)) and callable(getattr(self.env, "step", None))):
                raise _Stop
        self.obs_space, action_space = self.space("observation_space"), self.space("action_space")
        self.action_space = action_space if action_space is not None and self.can_be_sampled(action_space) else None
        self.reset_arguments = {name for name in ("seed", "options") if self.reset_accepts(name)}
        before, folder, spaces = _global_states(), os.getcwd(), (_copy(self.obs_space), _copy(action_space))
        first = self.run()
        owned = self.on_classes()  # what is loaded once may well be shared, so the first run is left out
        second = self.run()
        if changed := [name for name, value in self.on_classes().items() if not _same(owned.get(name), value)]:
            self.found("shared", f"{', '.join(changed[:3])} changed while it was stepped")
        self.check_surroundings(before, folder)
        for name, was in zip(("observation_space", "action_space"), spaces, strict=True):
            if was is not None and (now := getattr(self.env, name, None)) != was:
                self.found("spaces", f"{name} was {was}, and is {now} after {len(first) + len(second)} calls")
        for t, (a, b) in enumerate(zip(first, second, strict=False)):
            for name, x, y in zip(("obs", "reward", "terminated", "truncated"), a, b, strict=False):
                if "seed" in self.reset_arguments and not _same(x, y):
                    self.found(
                        "same", f"{name} was {_short(x)}, then {_short(y)}, {t} calls after reset(seed={self.seed})"
                    )
        if not (self.ended or self.stopped) and self.action_space is not None:
            self.look_for_an_end(self.action_space)

    def on_classes(self) -> dict[str, Any]:
        """Copies of the data on the environment's own classes, by Class.name."""
        classes = [
            c
            for c in type(getattr(self.env, "unwrapped", self.env)).__mro__
            if not c.__module__.startswith(("gymnasium.", "builtins"))
        ]
        return {
            f"{c.__qualname__}.{name}": _copy(value)
            for c in classes
            for name, value in vars(c).items()
            if isinstance(value, _DATA)
        }

    def check_surroundings(self, before: dict[str, Any], folder: str) -> None:
        """What belongs to the whole process, and not to one environment in it."""
        if drawn := [name for name, state in _global_states().items() if name in before and before[name] != state]:
            self.found("random", f"{' and '.join(drawn)} moved on while it was stepped")
        if (now := os.getcwd()) != folder:
            self.found("folder", f"it was {folder}, and is {now} afterwards")
            os.chdir(folder)

    def look_for_copies(self) -> None:
        """Each copy of this process that came back from a call has left a byte."""
        os.close(self.copies[1])
        os.set_blocking(self.copies[0], False)
        with contextlib.suppress(BlockingIOError):
            if os.read(self.copies[0], 1):
                self.found("fork", "a copy of this process came back from a call")
        os.close(self.copies[0])

    def look_for_an_end(self, actions: gym.Space[Any]) -> None:
        """Goes on with the episode under way."""
        began, t = time.perf_counter(), self.steps
        while not self.ended and t < ENDLESS and time.perf_counter() - began < PATIENCE:
            t += 1
            try:
                _, _, terminated, truncated, _ = self.env.step(actions.sample())
            except Exception:
                return  # nobody promised that it could be stepped so often
            self.ended = _true(terminated) or _true(truncated)
        if not self.ended:
            self.found("ends", f"none in {t:,} random steps, and no time limit")

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
        self.stopped = True
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
                over = _true(others[1]) or _true(others[2])
                self.ended = self.ended or over
                if age >= self.horizon or over:
                    kept, was, age = obs, trace[-1][0], 0
                    obs = self.reset(f"reset after step {t}", seeded=False)
                    trace.append((_copy(obs),))
                    if not _same(kept, was):
                        self.found("obs copy", f"reset changed the observation that step {t} had returned")
            self.stopped = False
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
        handed = _copy(action)
        result = self.call("step raises", lambda: self.env.step(handed), f"{where} with action {_short(action)}")
        if not _same(handed, action):
            self.found("action copy", f"{where} made {_short(handed)} of the action {_short(action)}")
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
        elif not abs(reward) <= _LARGEST:  # type: ignore[operator]
            self.found("reward finite", f"{where} returned {_short(reward)}")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, (bool, np.bool_)):
                self.found(name, f"{where} returned {_short(flag)}")
        self.check_info(info, where)
        if isinstance(info, dict) and _true(info.get("TimeLimit.truncated")) and _true(terminated):
            self.found("limit", f'{where} returned terminated {terminated} with info["TimeLimit.truncated"]')
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
        if isinstance(obs, np.ma.MaskedArray) and np.ma.getmaskarray(obs).any():
            self.found("obs masked", f"{name} is {_short(obs)}")
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


_DATA = (bool, int, float, list, dict, set, np.ndarray, np.generic)
_LARGEST = float(np.finfo(np.float32).max)


def _global_states() -> dict[str, Any]:
    """The states of the random numbers that everybody shares."""
    numpys: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    states: dict[str, Any] = {
        "random": random.getstate(),
        "np.random": (numpys["state"]["key"].tobytes(), numpys["state"]["pos"]),
    }
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = bytes(torch.get_rng_state().numpy())
    return states


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:
        return f"its own message raises {type(other).__name__}"


def _user_line(error: BaseException) -> str:
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
    try:
        text = " ".join(repr(value.tolist() if isinstance(value, np.ndarray) else value).split())
    except Exception:
        text = "what cannot be shown"
    text = text if len(text) <= 80 else text[:77] + "..."
    return text + (f" of shape {value.shape}" if isinstance(value, np.ndarray) else f" ({type(value).__name__})")
