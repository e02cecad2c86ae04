"""Observation spaces as vectors of float32, actions in the environment's own shape and dtype."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from covary.errors import UsageError


class Encoder:
    """(N, ...) observations of a Box of any dtype and shape, or of a Discrete (one-hot), -> (N, O) float32."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.space = space
        if isinstance(space, gymnasium.spaces.Discrete):
            self.one_hot, self.size = True, int(space.n)
        elif isinstance(space, gymnasium.spaces.Box):
            self.one_hot, self.size = False, int(np.prod(space.shape))
            if self.size == 0:
                raise UsageError("An observation holds at least one number.", given=space)
        else:
            raise UsageError(
                "The observation space is a Box or Discrete.",
                given=space,
                fix="gymnasium.wrappers.FlattenObservation, which makes a Box of most other spaces",
            )

    def __call__(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        n = len(obs)
        if not self.one_hot:
            return np.array(obs, np.float32).reshape(n, self.size)  # a copy: environments reuse their buffers
        x = np.zeros((n, self.size), np.float32)
        x[np.arange(n), np.asarray(obs, np.int64) - int(self.space.start)] = 1.0  # type: ignore[attr-defined]
        return x


class Decoder:
    """Actions of a policy -> those of the environment: shaped, cast and, for unclipped Gaussians, clipped."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.space = space

    def __call__(self, action: NDArray[Any]) -> NDArray[Any]:
        """(N, D) or (N,) -> (N, *shape)"""
        space = self.space
        if isinstance(space, gymnasium.spaces.Box):
            shaped = action.reshape(len(action), *space.shape).astype(space.dtype)
            return np.clip(shaped, space.low, space.high, out=shaped)
        assert isinstance(space, gymnasium.spaces.Discrete)
        return action.astype(space.dtype) + space.start
