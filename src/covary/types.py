"""What travels between the rooms. Nothing here has behaviour.

One shape alphabet everywhere: T time, N environments, B batch, K critics, S samples, O observation, D action; B* any
batch shape. Sequences are time-major.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

Exploration = Literal["white", "correlated"]
"""How the noise of one step goes with that of the step before."""


class Rollout(NamedTuple):
    """T steps of N environments. An online algorithm gets T = 1.

    The environment's flags never travel further: `discount` is gamma, or 0 where the world stopped; `lam`, by which
    an algorithm multiplies its lambda, is 1, or 0 where the episode was cut; `valid` is 0 for a step that never
    happened (the phantom of a vector environment that resets itself on the next step).
    """

    obs: Tensor  # (T, N, O) raw
    latent: Tensor  # (T, N, D) continuous, (T, N) discrete
    reward: Tensor  # (T, N)
    discount: Tensor  # (T, N)
    lam: Tensor  # (T, N)
    valid: Tensor  # (T, N)
    next_obs: Tensor  # (T, N, O) the one the step really led to, also where the episode ended


class Learner(Protocol):
    """What the training loop and a checkpoint need of an algorithm."""

    horizon: int  # vector steps between updates
    online: bool  # whether it learns from each step as it comes, and from nothing else
    judges_actions: bool  # whether the critic is of actions, QValues, or of states, Value
    needs_gaussian: bool  # whether every dimension of its policy must be a Gaussian's
    policy: Any  # covary.policies.Policy
    critic: Any  # covary.nets.Value or QValues
    networks: dict[str, Any]  # every network but the policy, by the name it is saved under
    memory: Any  # a covary.replay.Replay that `update` learns from, or None
    reward_scale: Any  # covary.returns.ReturnScale
    optimizers: dict[str, Any]  # covary.optim.Adam by name
    generator: torch.Generator  # all its random numbers
    lap: Callable[[str], None] | None  # called with "targets" once these are there, for a profile
    on_nonfinite: str  # at a number that is not finite: "stop" raises covary.guard.NonFinite, "skip" leaves it out
    skipped: int  # what was left out
    nonfinite: Any  # why, the last time: a covary.guard.NonFinite
    fast: Any  # a covary.fast.path.FastPath that takes over what it knows, or None

    def update(self, rollout: Rollout, progress: float) -> Mapping[str, Tensor | float]:
        """Learns from a rollout; progress in [0, 1] is the share of the run that is over. Named scalars to log."""
        ...

    def explored(self, noise: NDArray[Any]) -> NDArray[Any]:
        """The noise by which it acts now, from what a density's draw is made of."""
        ...

    def numbers(self) -> dict[str, Any]:
        """What else it remembers between updates, as JSON."""
        ...

    def load_numbers(self, numbers: dict[str, Any]) -> None: ...
