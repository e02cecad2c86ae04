"""An environment of tensors behind Gymnasium's interface: for evaluations, and for who learns from single steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from covary.envs.faults import EnvironmentFault
from covary.envs.tensors import TensorEnv, TensorStep
from covary.errors import UsageError


class Hosted(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """The vector environment whose steps are those of a `TensorEnv`, fetched one by one.

    Attributes:
        tensors: that environment, for whoever stays on its device.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, tensors: TensorEnv) -> None:
        self.tensors, self.num_envs = tensors, tensors.num_envs
        self.single_observation_space = tensors.single_observation_space
        self.single_action_space = tensors.single_action_space
        if not isinstance(self.single_observation_space, gymnasium.spaces.Box):
            raise UsageError(
                "An environment of tensors observes a Box.",
                given=self.single_observation_space,
                fix="torch.nn.functional.one_hot in the environment, for a Discrete",
            )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        number = seed[0] if isinstance(seed, list) else seed
        obs = self.tensors.reset(int(np.random.default_rng().integers(2**63)) if number is None else number)
        check(self.tensors, {"observation": obs}, "reset")
        return obs.cpu().numpy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        step = self.tensors.step(torch.as_tensor(actions, device=self.tensors.device))
        check_step(self.tensors, step)
        obs, reward, terminated, truncated, last = (part.cpu().numpy() for part in step)
        return obs, reward, terminated, truncated, {"final_obs": last}


class Lasting(Hosted):
    """The same for an environment of tensors that has a `state_dict` of its own: a run can go on in the middle."""

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.tensors.state_dict()  # type: ignore[attr-defined]
        return {name: x.cpu().numpy() if isinstance(x, Tensor) else x for name, x in state.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.tensors.device
        tensors = {k: torch.from_numpy(v).to(device) if isinstance(v, np.ndarray) else v for k, v in state.items()}
        self.tensors.load_state_dict(tensors)  # type: ignore[attr-defined]


def host(tensors: TensorEnv) -> Hosted:
    """The face that an environment of tensors gets."""
    lasting = all(callable(getattr(tensors, name, None)) for name in ("state_dict", "load_state_dict"))
    return Lasting(tensors) if lasting else Hosted(tensors)


def check_step(env: TensorEnv, step: TensorStep) -> None:
    """Raises EnvironmentFault unless the tensors of a step are what `TensorStep` says. Waits for nothing."""
    if not isinstance(step, tuple) or len(step) != 5:
        raise EnvironmentFault(
            "step of an environment of tensors returns TensorStep(obs, reward, terminated, truncated, next_obs).",
            given=type(step).__name__,
        )
    names = ("observation", "reward", "terminated", "truncated", "next_obs")
    check(env, dict(zip(names, step, strict=True)), "step")


def check(env: TensorEnv, parts: dict[str, Tensor], call: str) -> None:
    n, shape = env.num_envs, env.single_observation_space.shape
    for name, part in parts.items():
        wanted_shape = (n, *shape) if name in ("observation", "next_obs") else (n,)
        wanted_dtype = torch.bool if name in ("terminated", "truncated") else torch.float32
        tensor = isinstance(part, Tensor)
        good = tensor and (part.shape, part.dtype, part.device) == (wanted_shape, wanted_dtype, env.device)
        if not good:
            given = f"{part.dtype} {tuple(part.shape)} on {part.device}" if tensor else type(part).__name__
            raise EnvironmentFault(
                f"An environment of {n} on {env.device} gives {name} as {wanted_dtype} of shape {wanted_shape} there.",
                given=f"{given} in {call}",
            )
