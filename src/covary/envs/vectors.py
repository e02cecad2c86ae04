"""From a source to a vector environment, each of whose environments says what it did wrong."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

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


class Guarded(gymnasium.Wrapper):
    """Names what an environment did wrong: which one, in which call, and the line in its own code."""

    holds_nothing = True  # that a checkpoint would have to keep

    def __init__(self, env: gymnasium.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self.index, self.calls = index, 0
        space = env.observation_space
        self._usual = (space.shape, space.dtype) if isinstance(space, gymnasium.spaces.Box) else None
        self._step = env.step

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        try:
            result = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise raised(f"reset of environment {self.index}", error) from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise self._fault("reset returns (observation, info).", "reset", f"{type(result).__name__}")
        self._check_obs(result[0], "reset")
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.calls += 1
        try:
            result = self._step(action)
        except Exception as error:
            raise raised(f"step {self.calls} of environment {self.index}", error) from error
        if not isinstance(result, tuple) or len(result) != 5:
            given = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise self._fault("step returns (observation, reward, terminated, truncated, info).", "step", given)
        obs: Any = result[0]
        reward: Any = result[1]
        if type(result[2]) not in _BOOLS or type(result[3]) not in _BOOLS:
            raise self._fault(
                "terminated and truncated are one bool each.",
                "step",
                f"terminated {result[2]!r}, truncated {result[3]!r}",
            )
        if type(reward) in _REALS and type(obs) is np.ndarray and (obs.shape, obs.dtype) == self._usual:
            return result  # as nearly every step is
        self._check_obs(obs, "step")
        if (type(reward) is not float and np.ndim(reward) > 0) or isinstance(reward, str) or reward is None:
            given = f"reward {reward!r}"
            raise self._fault("A reward is one real number.", "step", given)
        return result

    def _check_obs(self, obs: Any, call: str) -> None:
        space = self.env.observation_space
        if isinstance(space, gymnasium.spaces.Box):
            shape, dtype = np.shape(obs), getattr(obs, "dtype", None)
            if shape != space.shape:
                raise self._fault(
                    f"An observation has the shape of its space, {space.shape}.", call, f"observation of shape {shape}"
                )
            if dtype is None:
                dtype = np.asarray(obs).dtype
            if dtype != space.dtype and not np.can_cast(dtype, space.dtype, "same_kind"):
                raise self._fault(
                    f"An observation has the dtype of its space, {space.dtype}.", call, f"observation of dtype {dtype}"
                )
        elif isinstance(space, gymnasium.spaces.Discrete) and not space.contains(obs):
            raise self._fault(f"An observation lies in its space, {space}.", call, f"observation {obs!r}")

    def _fault(self, rule: str, call: str, given: str) -> EnvironmentFault:
        where = f"{call} {self.calls}" if call == "step" else call
        return EnvironmentFault(
            rule,
            given=f"{given} from environment {self.index}, {where}",
            fix="`covary check-env` lists every rule this environment breaks",
        )


class _Maker:
    """Makes the i-th guarded environment; a class, so that it can travel to a worker process."""

    def __init__(self, source: Source, index: int) -> None:
        self.source, self.index = source, index

    def __call__(self) -> gymnasium.Env[Any, Any]:
        return Guarded(self.source.make(), self.index)


class InProcess(SyncVectorEnv):
    """Environments in this process. The adapter steps them one by one and not through `step`, which merges infos that
    nobody asked for and copies everything twice: 10 us for one environment, 3 us for each of many."""


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
        return source.vector
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
    makers = [_Maker(source, i) for i in range(n_envs)]
    if vectorization == "async":
        if multiprocessing.current_process().daemon:
            raise UsageError(
                "A process that belongs to a pool may start no others.", given="async", fix="vectorization sync"
            )
        return Workers(makers, processes or max(cores(), 2))
    venv = InProcess(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    distinct(list(venv.envs))
    return venv
