"""From a source to a vector environment, each of whose environments says what it did wrong."""

from __future__ import annotations

import contextlib
import inspect
import multiprocessing
import os
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from covary.envs.batches import GuardedVector
from covary.envs.faults import EnvironmentFault, raised
from covary.envs.sources import Source
from covary.envs.workers import Workers, distinct
from covary.errors import UsageError

Vectorization = Literal["auto", "sync", "async", "tensors"]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_BOOLS = (bool, np.bool_)
_REALS = frozenset((float, int, np.float64, np.float32))
_LARGEST = float(np.finfo(np.float32).max)  # a whole number may be larger than any float

_births = 0  # of copies of a process, as one of them counts those before it


def _born() -> None:
    global _births
    _births += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_born)


class Guarded(gymnasium.Wrapper):
    """Names what an environment did wrong: which one, in which call, and the line in its own code.

    What it hands on is what it promises: an observation with the shape of the space and a dtype that fits, one number,
    two bools, a dict. Observations of a reset are copies; those of a step are to be copied before the next call.

    Raises:
        EnvironmentFault: spaces that are not set or none of Gymnasium's; later on, whatever breaks a rule.
    """

    holds_nothing = True  # that a checkpoint would have to keep

    def __init__(self, env: gymnasium.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index, self.calls = index, 0
        self.limits = 0  # episodes told as terminated while info["TimeLimit.truncated"] was true
        self._spaces = self._own_space("observation_space"), self._own_space("action_space")
        self._seen = self._spaces[0]
        self._bounds = _bounds(self._spaces[1])
        self._usual = (self._seen.shape, self._seen.dtype) if isinstance(self._seen, gymnasium.spaces.Box) else None
        self._step = env.step

    def _own_space(self, name: str) -> gymnasium.Space[Any]:
        space = getattr(self.env, name, None)
        if isinstance(space, gymnasium.spaces.Box) and not (space.low <= space.high).all():
            i = tuple(int(k) for k in np.argwhere(~(space.low <= space.high))[0])
            raise EnvironmentFault(
                f"In every dimension of {name}, low < high.",
                given=f"low {space.low[i]} and high {space.high[i]} at {list(i)} in environment {self.index}",
                cause="bounds in the wrong order, or computed from data that holds NaN",
            )
        if isinstance(space, gymnasium.Space):
            return space
        kind = f"{type(space).__module__}.{type(space).__qualname__}"
        raise EnvironmentFault(
            f"{name} is a Gymnasium space.",
            given=f"{'none' if space is None else kind} in environment {self.index}",
            cause="it is not set in __init__" if space is None else "a space of the old gym, or of one's own",
            fix=f"self.{name} = gymnasium.spaces.Box(low, high, shape, np.float32) in __init__",
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        births = _births
        try:
            result = self.env.reset(seed=seed) if options is None else self.env.reset(seed=seed, options=options)
        except KeyboardInterrupt:
            raise  # that is a person
        except BaseException as error:
            raise self._raised("reset", error) from error
        if births != _births:
            os._exit(1)  # a copy of this process, which the environment let come back
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise self._fault("reset returns (observation, info).", "reset", f"{type(result).__name__}")
        obs = self._observation(result[0], "reset")
        self._check_spaces()
        return np.array(obs) if self._usual else obs, result[1]  # others may share the array

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.calls += 1
        births = _births
        try:
            result = self._step(action)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._raised("step", error) from error
        if births != _births:
            os._exit(1)
        if not isinstance(result, tuple) or len(result) != 5:
            given = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise self._fault("step returns (observation, reward, terminated, truncated, info).", "step", given)
        obs: Any = result[0]
        reward: Any = result[1]
        if type(result[2]) not in _BOOLS or type(result[3]) not in _BOOLS:
            given = f"terminated {_short(result[2])}, truncated {_short(result[3])}"
            raise self._fault("terminated and truncated are one bool each.", "step", given)
        if result[2] and isinstance(result[4], dict) and result[4].get("TimeLimit.truncated") is True:
            self.limits += 1
        usual = type(reward) in _REALS and type(obs) is np.ndarray and (obs.shape, obs.dtype) == self._usual
        if usual and type(result[4]) is dict and (type(reward) is not int or -_LARGEST <= reward <= _LARGEST):
            return result  # as nearly every step is
        if not isinstance(result[4], dict):
            raise self._fault("info is a dict.", "step", f"info {_short(result[4])}", "return {} for an empty info")
        return self._observation(obs, "step"), self._number(reward), result[2], result[3], result[4]

    def close(self) -> None:
        """An environment that cannot be closed must not hide why it is: `covary check-env` is who says so."""
        with contextlib.suppress(Exception):
            self.env.close()

    def _observation(self, obs: Any, call: str) -> Any:
        space = self._seen
        if not isinstance(space, gymnasium.spaces.Box):
            if isinstance(space, gymnasium.spaces.Discrete) and not space.contains(obs):
                raise self._fault(f"An observation lies in its space, {space}.", call, f"observation {_short(obs)}")
            return obs
        if isinstance(obs, np.ma.MaskedArray) and np.ma.getmaskarray(obs).any():
            raise self._fault("An observation has no masked entries.", call, f"observation {_short(obs)}")
        try:
            array = np.asarray(obs.detach().cpu() if hasattr(obs, "detach") else obs)  # a tensor may require grad
        except Exception as error:
            given = f"observation {_short(obs)}"
            raise self._fault("An observation is an array of numbers.", call, given) from error
        if array.shape != space.shape:
            raise self._fault(
                f"An observation has the shape of its space, {space.shape}.",
                call,
                f"observation of shape {array.shape}",
            )
        if array.dtype != space.dtype and not np.can_cast(array.dtype, space.dtype, "same_kind"):
            raise self._fault(
                f"An observation has the dtype of its space, {space.dtype}.",
                call,
                f"observation of dtype {array.dtype}",
            )
        return array

    def _number(self, reward: Any) -> float:
        """A reward as a float; of arrays, only those without dimensions are one."""
        if np.ndim(reward) == 0 and not isinstance(reward, str | bytes | complex | np.complexfloating):
            try:
                number = float(reward.detach() if hasattr(reward, "detach") else reward)
                if not _LARGEST < abs(number) < np.inf:  # what is not finite is said with its name elsewhere
                    return number
            except (TypeError, ValueError, OverflowError):
                pass
        raise self._fault("A reward is one real number.", "step", f"reward {_short(reward)}", "float(reward)")

    def _check_spaces(self) -> None:
        for name, space in zip(("observation_space", "action_space"), self._spaces, strict=True):
            now = getattr(self.env, name, None)
            if now is not space and now != space:
                given = f"{name} {_short(now)}, which was {space},"
                raise self._fault("The spaces of an environment stay as they are.", "reset", given)
        if _bounds(self._spaces[1]) != self._bounds:
            given = f"other bounds written into action_space {self._spaces[1]}"
            raise self._fault("The spaces of an environment stay as they are.", "reset", given)

    def _raised(self, call: str, error: BaseException) -> UsageError:
        where = f"step {self.calls}" if call == "step" else call
        if call == "reset" and isinstance(error, TypeError) and (missing := self._missing()):
            return EnvironmentFault(
                f"reset accepts {missing}.",
                given=f"{_short(str(error))} from environment {self.index}",
                fix="def reset(self, *, seed=None, options=None): super().reset(seed=seed)",
            )
        return raised(f"{where} of environment {self.index}", _telling(error))

    def _missing(self) -> str:
        """The arguments that the environment's own reset does not take."""
        parameters = inspect.signature(self.env.unwrapped.reset).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return ""
        wanted = ("seed",) if "options" in parameters or self.env is self.env.unwrapped else ("seed", "options")
        return " and ".join(f"{name}=" for name in wanted if name not in parameters)

    def _fault(self, rule: str, call: str, given: str, fix: str = "") -> EnvironmentFault:
        where = f"{call} {self.calls}" if call == "step" else call
        return EnvironmentFault(
            rule,
            given=f"{given} from environment {self.index}, {where}",
            fix=(f"{fix}; " if fix else "") + "`covary check-env` lists every rule this environment breaks",
        )


def _bounds(space: gymnasium.Space[Any]) -> bytes:
    """A copy of a Box's bounds, quick to compare."""
    return space.low.tobytes() + space.high.tobytes() if isinstance(space, gymnasium.spaces.Box) else b""


def _short(value: Any) -> str:
    """A value as one line; its type where it cannot even be shown."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= 120 else text[:117] + "..."


def _telling(error: BaseException) -> Exception:
    """The error itself, or one of the same name in its place: where it is none that `except Exception` sees, such as
    SystemExit, or where its own message raises."""
    try:
        text = str(error)
        if isinstance(error, Exception):
            return error
    except Exception as other:
        text = f"its own message raises {type(other).__name__}"
    return type(type(error).__name__, (Exception,), {})(text).with_traceback(error.__traceback__)


class _Maker:
    """Makes the i-th guarded environment; a class, so that it can travel to a worker process.

    agreed: the spaces of the first that was made, filled in by whoever makes it, in this process.
    """

    def __init__(self, source: Source, index: int, agreed: list[gymnasium.Space[Any]]) -> None:
        self.source, self.index, self.agreed = source, index, agreed

    def __call__(self) -> gymnasium.Env[Any, Any]:
        env = Guarded(self.source.make(), self.index)
        spaces = [env.observation_space, env.action_space]
        if not self.agreed:
            self.agreed.extend(spaces)
        for name, mine, first in zip(("observation", "action"), spaces, self.agreed, strict=True):
            if mine != first:
                raise EnvironmentFault(
                    "All environments of a run have the same spaces.",
                    given=f"{name} space {mine} in environment {self.index}, {first} in the first",
                    cause="a space that is drawn at random, or depends on how many there are",
                )
        return env


class InProcess(SyncVectorEnv):
    """Environments in this process. The adapter steps them one by one and not through `step`, which merges infos that
    nobody asked for and copies everything twice: 10 us for one environment, 3 us for each of many."""

    def _add_info(self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int) -> dict[str, Any]:
        """Infos of different shapes cannot be merged, and nobody reads those of a reset."""
        return vector_infos


def guarded_vector(venv: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """One that was handed in, its word checked; those that Covary makes itself are checked inside."""
    ours = isinstance(venv, InProcess | Workers | GuardedVector) or hasattr(venv, "tensors")
    return venv if ours else GuardedVector(venv)


def build(
    source: Source,
    n_envs: int,
    vectorization: Vectorization = "auto",
    processes: int = 0,
    seed: int = 0,
    device: str = "cpu",
) -> VectorEnv[Any, Any, Any]:
    """A vector environment of `n_envs`, in DISABLED autoreset unless it was handed in as it is or lives on a device.

    `auto`: the environment's own tensors where it offers any and the device is a GPU; else its own vector version where
    it has one that resets by mask; else one after another in this process. `async`: over this many processes, this one
    among them (0: as many as there are cores). seed: of a pool, which takes none later.
    """
    if vectorization not in get_args(Vectorization):
        raise UsageError("vectorization is auto, sync, async or tensors.", given=repr(vectorization))
    if source.vector is not None:
        return guarded_vector(source.vector)
    if vectorization == "tensors" or (vectorization == "auto" and device.startswith("cuda")):
        if source.on_device is not None:
            from covary.envs.hosted import host

            return host(source.on_device(n_envs, device))
        if vectorization == "tensors":
            raise UsageError(
                "vectorization tensors needs an environment that offers them.",
                given=f"{source.name}, whose class has no on_device(num_envs, device)",
                fix="vectorization auto; docs/device.md has what such an environment is",
            )
    if source.pool is not None:
        return source.pool(n_envs, seed)
    if source.single and n_envs > 1:
        raise UsageError(
            "One environment object is one environment.",
            given=f"n_envs={n_envs}",
            fix="n_envs=1, or hand in a class or a callable that makes environments",
        )
    env_id = source.recipe.get("id")
    if vectorization == "auto" and n_envs > 1 and isinstance(env_id, str):
        env_id = env_id.rpartition(":")[2]  # its module is imported by now
        spec = gymnasium.spec(env_id)
        if spec.vector_entry_point is not None and not spec.kwargs:
            venv = gymnasium.make_vec(env_id, num_envs=n_envs, vectorization_mode="vector_entry_point")
            if venv.metadata.get("autoreset_mode") is AutoresetMode.DISABLED:
                return venv
            venv.close()
    agreed: list[gymnasium.Space[Any]] = []
    makers = [_Maker(source, i, agreed) for i in range(n_envs)]
    if vectorization == "async":
        if multiprocessing.current_process().daemon:
            raise UsageError(
                "A process that belongs to a pool may start no others.", given="async", fix="vectorization sync"
            )
        return Workers(makers, processes or max(cores(), 2))
    venv = InProcess(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    distinct(list(venv.envs))
    return venv
