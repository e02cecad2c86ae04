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
        """Raises UsageError where the observations are no numbers, of another shape, or no choices of a Discrete."""
        if not self.one_hot:
            try:
                copy = np.array(obs, np.float32, order="C")  # environments reuse their buffers
                if copy.size == len(copy) * self.size and not np.iscomplexobj(obs):
                    return copy.reshape(len(copy), self.size)
            except (TypeError, ValueError):
                pass
            raise self._fault(obs)
        try:
            given = np.asarray(obs)
            index = given.astype(np.int64) - int(self.space.start)  # type: ignore[attr-defined]
            whole = given.dtype.kind in "iub" or (given.dtype.kind == "f" and (given == np.floor(given)).all())
        except (TypeError, ValueError, OverflowError) as error:
            raise self._fault(obs) from error
        if not whole or index.ndim != 1 or ((index < 0) | (index >= self.size)).any():
            raise self._fault(obs)
        x = np.zeros((len(index), self.size), np.float32)
        x[np.arange(len(index)), index] = 1.0
        return x

    def _fault(self, obs: Any) -> UsageError:
        if self.one_hot:
            return UsageError(f"An observation lies in its space, {self.space}.", given=_short(obs))
        return UsageError(f"Observations are (N, *{self.space.shape}) real numbers.", given=_short(obs))


def _short(obs: Any) -> str:
    shape = f" of shape {obs.shape}" if isinstance(obs, np.ndarray) else ""
    text = " ".join(repr(obs.tolist() if shape else obs).split())
    return (text if len(text) <= 120 else text[:117] + "...") + shape


class Decoder:
    """Actions of a policy -> those of the environment: shaped, cast and, for unclipped Gaussians, clipped."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.space = space
        self.shape = (-1, *(space.shape or ()))

    def __call__(self, action: NDArray[Any]) -> NDArray[Any]:
        """(N, D) or (N,) -> (N, *shape)"""
        space = self.space
        if isinstance(space, gymnasium.spaces.Box):
            shaped = action.reshape(self.shape).astype(space.dtype)
            np.minimum(shaped, space.high, out=shaped)  # np.clip takes four times as long for so few numbers
            return np.maximum(shaped, space.low, out=shaped)
        assert isinstance(space, gymnasium.spaces.Discrete)
        return action.astype(space.dtype) + space.start


def check_spaces(observation: gymnasium.Space[Any], action: gymnasium.Space[Any], venv: Any) -> None:
    """Raises UsageError unless a vector environment has the spaces that an agent was made for."""
    for name, mine, its in (
        ("observation", observation, venv.single_observation_space),
        ("action", action, venv.single_action_space),
    ):
        if mine != its:
            raise UsageError(
                f"An agent runs in environments with the {name} space it was trained on.",
                given=f"{its}; trained on {mine}",
                cause="another environment, or another version of it",
            )


# ------------------------------------------------------------------------------------------- spaces as JSON


def to_json(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a space; bounds that are all equal are kept once."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    assert isinstance(space, gymnasium.spaces.Box)

    def bound(x: NDArray[Any]) -> Any:
        flat = [str(v) if np.isinf(v) else v for v in x.reshape(-1).tolist()]
        return flat[0] if len(set(flat)) == 1 else flat

    return {
        "kind": "Box",
        "low": bound(space.low),
        "high": bound(space.high),
        "shape": list(space.shape),
        "dtype": str(space.dtype),
    }


def from_json(data: dict[str, Any]) -> gymnasium.Space[Any]:
    """Raises UsageError where `data` describes no space."""
    try:
        if data["kind"] == "Discrete":
            return gymnasium.spaces.Discrete(int(data["n"]), start=int(data["start"]))
        shape, dtype = tuple(int(n) for n in data["shape"]), np.dtype(data["dtype"])
        if not (np.issubdtype(dtype, np.number) or dtype.kind == "b") or np.prod(shape) > 1e8:
            raise ValueError(dtype)

        def bound(x: Any) -> NDArray[Any]:
            each = np.asarray(
                [x] if isinstance(x, int | float | str) else x, None if dtype.kind in "iu" else np.float64
            )
            return np.broadcast_to(each.astype(dtype), (int(np.prod(shape)),)).reshape(shape)

        return gymnasium.spaces.Box(bound(data["low"]), bound(data["high"]), shape, dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("The description of a space is broken.", given=repr(data)[:200]) from error
