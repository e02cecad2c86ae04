"""A vector environment that was handed in, held to its word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from covary.envs.faults import EnvironmentFault, raised
from covary.errors import UsageError

_FINAL = ("final_obs", "final_observation")


class GuardedVector(VectorWrapper):
    """Names what a vector environment did wrong, above all where it resets otherwise than it says.

    By metadata["autoreset_mode"] it says when an environment whose episode ended starts the next one: NEXT_STEP, on a
    step of its own that ignores the action; SAME_STEP, at once, the last observation being info["final_obs"]; DISABLED,
    when reset(options={"reset_mask": mask}) asks for it.

    Raises:
        EnvironmentFault: spaces or a number of environments that contradict each other; later on, whatever breaks a
            rule.
    """

    def __init__(self, venv: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(venv)
        self.steps = 0
        n: Any = getattr(venv, "num_envs", None)
        if not isinstance(n, int | np.integer) or n < 1:
            raise self._fault("num_envs is how many environments there are, 1 or more.", f"{n!r}")
        for name in ("single_observation_space", "single_action_space"):
            if not isinstance(getattr(venv, name, None), gymnasium.Space):
                raise self._fault(f"{name} is a Gymnasium space.", f"{getattr(venv, name, None)!r}")
        try:
            self.mode = AutoresetMode(venv.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        except ValueError as error:
            raise self._fault('metadata["autoreset_mode"] is an AutoresetMode.', str(error)) from error
        self.shape = (int(n), *(venv.single_observation_space.shape or ()))
        batch = getattr(venv, "observation_space", None)
        if isinstance(batch, gymnasium.spaces.Box) and batch.shape != self.shape:
            raise self._fault(
                f"observation_space is num_envs = {n} of single_observation_space.", f"{batch.shape}, not {self.shape}"
            )
        self._obs: NDArray[Any] | None = None  # the latest, where it is known
        self._resetting = np.zeros(n, bool)  # whose next step is none

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        mask = (options or {}).get("reset_mask")
        result = self._called("reset", lambda: self.env.reset(seed=seed, options=options))  # type: ignore[arg-type]
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._fault("reset returns (observations, info).", f"{type(result).__name__} from reset")
        obs = self._array("observation", result[0], self.shape, "reset")
        if mask is not None and self._obs is not None and not np.array_equal(obs[~mask], self._obs[~mask]):
            raise self._lie("the observations of environments that were not to be reset change as well", "reset")
        self._obs, self._resetting = obs.copy(), np.zeros(self.shape[0], bool)
        return obs, result[1]

    def put_back(self, resetting: NDArray[np.bool_]) -> None:
        """Its environments were told where they stand; `resetting`: the next step is none for these."""
        self._obs, self._resetting = None, resetting

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.steps += 1
        result = self._called("step", lambda: self.env.step(actions))
        if not isinstance(result, tuple) or len(result) != 5:
            given = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            rule = "step returns (observations, rewards, terminated, truncated, info)."
            raise self._fault(rule, f"{given} from step {self.steps}")
        n = self.shape[:1]
        where = f"step {self.steps}"
        obs = self._array("observation", result[0], self.shape, where)
        reward = self._array("reward", result[1], n, where, "biuf")
        terminated, truncated = (
            self._array(name, x, n, where, "b")
            for name, x in zip(("terminated", "truncated"), result[2:4], strict=True)
        )
        info = result[4]
        if not isinstance(info, dict):
            raise self._fault("info is a dict.", f"{type(info).__name__} from {where}")
        ended = terminated | truncated
        self._check_mode(reward, ended, info, where)
        self._resetting = ended if self.mode is AutoresetMode.NEXT_STEP else self._resetting
        if self.mode is AutoresetMode.DISABLED:
            self._obs = obs.copy()
        return obs, reward, terminated, truncated, info

    def _check_mode(self, reward: NDArray[Any], ended: NDArray[np.bool_], info: dict[str, Any], where: str) -> None:
        was = self._resetting
        if (ended & was).any() or (reward[was] != 0).any():
            raise self._lie("the step after an episode's end, which only resets, has a reward or ends another", where)
        final = next((info[key] for key in _FINAL if key in info), None)
        if self.mode is not AutoresetMode.SAME_STEP:
            if final is not None:
                raise self._lie("info holds final_obs, so it resets at once", where)
            return
        if not ended.any():
            return
        if "final_obs" not in info:
            raise self._lie('info has no "final_obs" where an episode ended', where)
        for i in np.flatnonzero(ended):
            if np.shape(final[i]) != self.shape[1:]:  # type: ignore[index]
                given = f'info["final_obs"][{i}] of shape {np.shape(final[i])}'  # type: ignore[index]
                raise self._lie(f"{given} where an episode ended, an observation has {self.shape[1:]}", where)

    def _array(self, name: str, value: Any, shape: tuple[int, ...], where: str, kinds: str = "") -> NDArray[Any]:
        try:
            array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        except Exception as error:
            raise self._fault(
                f"A vector environment gives {name} as an array.", f"{type(value).__name__} from {where}"
            ) from error
        if array.shape != shape:
            raise self._fault(
                f"A vector environment of {self.shape[0]} gives {name} of shape {shape}.",
                f"shape {array.shape} from {where}",
            )
        dtype = self.env.single_observation_space.dtype
        if array.dtype.kind not in kinds if kinds else not np.can_cast(array.dtype, dtype, "same_kind"):  # type: ignore[arg-type]
            kind = {"b": "bool", "biuf": "real numbers"}.get(kinds, str(dtype))
            raise self._fault(f"A vector environment gives {name} as {kind}.", f"dtype {array.dtype} from {where}")
        return array

    def _called(self, call: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            raise raised(f"{call}{f' {self.steps}' * (call == 'step')} of {self._name}", error) from error

    @property
    def _name(self) -> str:
        return type(self.env.unwrapped).__name__

    def _lie(self, given: str, where: str) -> UsageError:
        return self._fault(
            f'metadata["autoreset_mode"] is what a vector environment does; here, {self.mode.name}.',
            f"{given}, in {where}",
            "the mode that it really has: NEXT_STEP, SAME_STEP or DISABLED",
        )

    def _fault(self, rule: str, given: str, fix: str = "") -> EnvironmentFault:
        return EnvironmentFault(rule, given=f"{given}, by {self._name}", fix=fix)
