"""Heliostat as tensors: thousands of mirrors at once, on whatever device. The laws are those of `heliostat`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from covary.envs import heliostat
from covary.envs.heliostat import STEPS, SUN_ELEVATION
from covary.envs.tensors import TensorStep


def direction(angles: Tensor) -> Tensor:
    """Unit vectors, (*B, 3), of (azimuth, elevation), (*B, 2), in rad."""
    (cos_azimuth, cos_elevation), (sin_azimuth, sin_elevation) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    return torch.stack((cos_elevation * cos_azimuth, cos_elevation * sin_azimuth, sin_elevation), -1)


_STATE = ("count", "sun", "turn", "vectors")


class HeliostatTensors:
    """N heliostats, a `covary.envs.tensors.TensorEnv`: observations (N, 9), actions (N, 2), rewards (N,).

    The same as `covary.envs.heliostat.Heliostat` but for two things. It computes in float32, so that it agrees with the
    float64 of that one to about 1e-5 after an episode's 64 steps. And all its episodes are drawn from one generator on
    the device, which `reset(seed)` seeds: a run is decided by its seed, but no episode has one of its own. The numbers
    that a seed gives are those of the device: a GPU draws others than a CPU.

    An action that is NaN gives a reward that is NaN; nothing is raised here, since that would wait for the device.

    Args:
        num_envs: N.
        device: of all tensors.
    """

    def __init__(self, num_envs: int = 4096, device: torch.device | str = "cpu") -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, got {num_envs}.")
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = heliostat.spaces()
        self.generator = torch.Generator(device)

        def constant(*numbers: float) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float32, device=device)

        self._draw_low, self._draw_high = constant(*heliostat.DRAW_LOW), constant(*heliostat.DRAW_HIGH)
        self.device = self._draw_low.device  # with its index, where "cuda" was asked for
        self._low, self._high = constant(*heliostat.ACTION_LOW), constant(*heliostat.ACTION_HIGH)
        self._lowest, self._highest = constant(-math.inf, SUN_ELEVATION[0]), constant(math.inf, SUN_ELEVATION[1])
        self._start = direction(constant(*heliostat.START)).expand(num_envs, 3)
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._count = torch.zeros(num_envs, dtype=torch.int64, device=device)
        # sun: azimuth and elevation, turn: of both in a step, each (N, 2) in rad; vectors: to sun and target, (N, 6)
        self._sun = self._turn = torch.zeros(num_envs, 2, device=device)
        self._vectors = torch.zeros(num_envs, 6, device=device)

    def reset(self, seed: int) -> Tensor:
        """Starts an episode in every mirror. (N, 9)"""
        self.generator.manual_seed(seed)
        sun, turn, target = self._draw()
        return self.start(sun, turn, target)

    def start(self, sun: Tensor, turn: Tensor, target: Tensor) -> Tensor:
        """Starts these episodes: the sun's azimuth and elevation, what they change by in a step, and the target's
        azimuth and elevation, each (N, 2) in rad. -> (N, 9)"""
        self._sun, self._turn, self._count = sun, turn, torch.zeros_like(self._count)
        self._vectors = direction(torch.stack((sun, target))).transpose(0, 1).flatten(1)
        return torch.cat((self._vectors, self._start), -1)

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """An episode for every mirror: sun, turn and target, as `start` takes them."""
        shape = (self.num_envs, 6)
        uniform = torch.rand(shape, generator=self.generator, device=self.device)
        drawn = torch.lerp(self._draw_low, self._draw_high, uniform)
        return drawn[:, 0:4:2], drawn[:, 1:4:2], drawn[:, 4:]

    def step(self, action: Tensor) -> TensorStep:
        """action: (N, 2) in rad, clipped to the box."""
        held = torch.clamp(action, self._low, self._high)
        moved = torch.clamp(self._sun + self._turn, self._lowest, self._highest)
        fresh_sun, fresh_turn, fresh_target = self._draw()
        normal, next_sun, first_sun, first_target = direction(
            torch.stack((held, moved, fresh_sun, fresh_target))
        ).unbind()
        sun, target = self._vectors[:, :3], self._vectors[:, 3:]
        ray = 2.0 * (normal * sun).sum(-1, keepdim=True) * normal - sun
        reward = (ray * target).sum(-1).clamp(-1.0, 1.0)

        count = self._count + 1
        over = count >= STEPS
        ended = over.unsqueeze(-1)
        next_obs = torch.cat((next_sun, target, normal), -1)
        obs = torch.where(ended, torch.cat((first_sun, first_target, self._start), -1), next_obs)
        self._sun = torch.where(ended, fresh_sun, moved)
        self._turn = torch.where(ended, fresh_turn, self._turn)
        self._count = count.masked_fill(over, 0)
        self._vectors = obs[:, :6]
        return TensorStep(obs, reward, self._never, over, next_obs)

    def state_dict(self) -> dict[str, Tensor]:
        """All that its next steps depend on."""
        return {**{name: getattr(self, f"_{name}") for name in _STATE}, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes it back. Raises ValueError where it is of another number of mirrors."""
        for name in _STATE:
            if state[name].shape != getattr(self, f"_{name}").shape:
                raise ValueError(f"{name} of shape {tuple(state[name].shape)} for {self.num_envs} mirrors")
            setattr(self, f"_{name}", state[name].clone())
        self.generator.set_state(state["generator"].cpu())
