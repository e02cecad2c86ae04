"""Environments that live on a device: N at once, tensors in and tensors out, nothing read back to the host.

An environment offers a version of this kind by a static method of its class, `on_device(num_envs, device)`; or the
object itself is handed to `covary.train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TensorStep(NamedTuple):
    """One step of N environments. Where an episode ended, `next_obs` is its true last observation and `obs` the first
    of the next episode; everywhere else they are the same."""

    obs: Tensor  # (N, *O) float32, where the next step starts
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool
    truncated: Tensor  # (N,) bool
    next_obs: Tensor  # (N, *O) float32, where this step led


@runtime_checkable
class TensorEnv(Protocol):
    """N environments on one device, which reset themselves in the step in which an episode ends.

    No call may wait for the device: no `.item()`, no Python `if` over a tensor, no shape that depends on values
    (`nonzero`, indexing by a mask). Resets are drawn for all N at each step and taken by `torch.where`. A tensor that
    was returned is not written to again.

    Attributes:
        num_envs: N.
        single_observation_space: of one environment, a gymnasium Box.
        single_action_space: of one environment, a gymnasium Box, Discrete, MultiDiscrete or MultiBinary.
        device: where all tensors are.
    """

    num_envs: int
    single_observation_space: Any
    single_action_space: Any
    device: torch.device

    def reset(self, seed: int) -> Tensor:
        """Starts an episode in every environment. The seed decides this reset and all later ones. -> (N, *O) float32"""
        ...

    def step(self, action: Tensor) -> TensorStep:
        """action: (N, *D) float32 inside a Box, (N,) int64 of a Discrete."""
        ...
