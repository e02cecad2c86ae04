"""Observation spaces as vectors of float32, actions in the environment's own shape and dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
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
        shaped = action.reshape(self.shape).astype(space.dtype)
        if isinstance(space, gymnasium.spaces.MultiBinary):
            return shaped
        assert isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete)
        return shaped + space.start


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
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        nvec, start = (x.reshape(-1).tolist() for x in (space.nvec, space.start))
        return {
            "kind": "MultiDiscrete",
            "nvec": nvec,
            "start": start,
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
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


MOST = 2**23  # numbers in a space, three images of 1600 x 1600 pixels: a second and 200 MB to make it
_DTYPES = [
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
]


def from_json(data: Any) -> gymnasium.Space[Any]:
    """The space that `to_json` described. Raises UsageError where `data` describes none."""
    try:
        if not isinstance(data, dict):
            raise ValueError("no object")
        make = _MADE.get(data.get("kind"))  # type: ignore[arg-type]
        if make is None:
            raise ValueError(f"none of {', '.join(_MADE)}")
        return make(**{k: v for k, v in data.items() if k != "kind"})
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            "The description of a space is broken.", given=f"{_shown(data)}: {str(error)[:200]}"
        ) from error


def _shown(data: Any) -> str:
    if not isinstance(data, dict):
        return type(data).__name__
    pairs = [(k, f"{len(v):,} values" if isinstance(v, list | dict) and len(v) > 4 else v) for k, v in data.items()]
    return ascii({k[:20]: v[:40] if isinstance(v, str) else v for k, v in pairs[:6]})[:300]


def _discrete(n: Any, start: Any) -> gymnasium.Space[Any]:
    if not (type(n) is int and type(start) is int and 0 < n <= MOST and abs(start) < 2**62):
        raise ValueError(f"n is a whole number from 1 to {MOST:,}")
    return gymnasium.spaces.Discrete(n, start=start)


def _whole(values: Any, least: int, most: int) -> bool:
    return isinstance(values, list) and all(type(n) is int and least <= n <= most for n in values)


def _multi_binary(n: Any) -> gymnasium.Space[Any]:
    shape = n if isinstance(n, list) else [n]
    if not _whole(shape, 1, MOST) or len(shape) > 32 or math.prod(shape) > MOST:
        raise ValueError(f"n is a whole number from 1 to {MOST:,}, or a shape of so many")
    return gymnasium.spaces.MultiBinary(n)


def _multi_discrete(nvec: Any, start: Any, shape: Any, dtype: Any) -> gymnasium.Space[Any]:
    if dtype not in _DTYPES or np.dtype(dtype).kind not in "iu":
        raise ValueError("a dtype of no whole numbers")
    if not _whole(shape, 1, MOST) or len(shape) > 32:
        raise ValueError("a shape that is none")
    if not _whole(nvec, 1, MOST) or sum(nvec) > MOST or not _whole(start, -(2**62), 2**62):
        raise ValueError(f"nvec holds whole numbers from 1, {MOST:,} in all, and start whole numbers")
    if not len(nvec) == len(start) == math.prod(shape):
        raise ValueError(f"{len(nvec):,} in nvec and {len(start):,} in start for a shape of {math.prod(shape):,}")
    kind = np.dtype(dtype)
    first, sizes = (np.array(x, kind).reshape(shape) for x in (start, nvec))
    return gymnasium.spaces.MultiDiscrete(sizes, kind.type, start=first)


def _box(low: Any, high: Any, shape: Any, dtype: Any) -> gymnasium.Space[Any]:
    if dtype not in _DTYPES:
        raise ValueError("a dtype that is none")
    if not (isinstance(shape, list) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)):
        raise ValueError("a shape that is none")
    if (size := math.prod(shape)) > MOST:
        raise ValueError(f"more than {MOST:,} numbers")
    kind = np.dtype(dtype)
    return gymnasium.spaces.Box(
        _bound(low, size, kind).reshape(shape), _bound(high, size, kind).reshape(shape), tuple(shape), kind.type
    )


_MADE: dict[str, Callable[..., gymnasium.Space[Any]]] = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": _multi_binary,
}


def _bound(given: Any, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One bound, or one for each of `size` numbers; "inf" and "-inf" are words. (size,)"""
    each = given if isinstance(given, list) else [given] * size if size == 0 else [given]
    if len(each) not in (1, size):
        raise ValueError(f"{len(each):,} bounds for {size:,} numbers")
    kinds: tuple[Any, ...] = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}[dtype.kind]
    words = ("inf", "-inf") if dtype.kind == "f" else ()
    if not all(type(x) in kinds or (type(x) is str and x in words) for x in each):
        raise ValueError(f"a bound that is no {dtype.name}")
    with np.errstate(over="ignore"):
        bound = np.array([float(x) if dtype.kind == "f" else x for x in each], dtype)
    if dtype.kind == "f" and np.count_nonzero(np.isinf(bound)) != sum(isinstance(x, str) for x in each):
        raise ValueError(f"a bound that {dtype.name} cannot hold")
    return np.broadcast_to(bound, (size,))
