"""From a checkpoint back to the middle of an episode.

An environment that can describe its own state does so by two methods, named as PyTorch's are:

    state_dict()            -> a dict of numbers, strings, None, arrays, and dicts, lists and tuples of these
    load_state_dict(state)     takes it back, after a reset

Any other is rebuilt: reset with the seed of its episode, it takes the actions since. That gives the same state wherever
an episode is decided by its seed and its actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from numpy.typing import NDArray

from covary.envs.faults import EnvironmentFault, raised
from covary.errors import UsageError


class History:
    """The actions of N environments, each since its episode began.

    Attributes:
        began: (N,) the row of each episode's first action.
        lost: (N,) whether an episode is too long to be kept.
        taken_up: by environment, what it said of itself in the middle of its episode, and its return by then: where
            that was loaded, the actions are kept from there.
    """

    # For episodes that never end: to replay more would take longer than to start another.
    STEPS, BYTES = 100_000, 2**26

    RECENT = 1000  # actions, for whoever wants to see the latest

    def __init__(self, n: int) -> None:
        self.rows: NDArray[Any] = np.zeros((0, n), np.float32)
        self.end = 0
        self.began = np.zeros(n, np.int64)
        self.lost = np.zeros(n, bool)
        self.taken_up: dict[int, tuple[list[Any], float]] = {}
        self.recent = -(-self.RECENT // n)  # rows that stay, however short episodes are

    def add(self, action: NDArray[Any]) -> None:
        """action: (N, *D), of every environment."""
        if self.end == len(self.rows):
            self._make_room(action)
        self.rows[self.end] = action
        self.end += 1

    def _make_room(self, action: NDArray[Any]) -> None:
        first = max(0, min(int(np.where(self.lost, self.end, self.began).min()), self.end - self.recent))
        kept = self.rows[first : self.end]
        if len(kept) > self.STEPS or 2 * len(kept) * action.nbytes > self.BYTES:
            self.lost[:] = True
            first, kept = self.end, kept[:0]
        self.began = np.maximum(self.began - first, 0)
        self.end = len(kept)
        rows = np.empty((max(64, 2 * len(kept)), *action.shape), action.dtype)
        rows[: len(kept)] = kept.reshape(len(kept), *action.shape)
        self.rows = rows

    def restart(self, environments: Any) -> None:
        """These environments have begun an episode."""
        self.began[environments], self.lost[environments] = self.end, False
        if self.taken_up:
            for i in np.arange(len(self.began))[environments]:
                self.taken_up.pop(int(i), None)

    def fill(self, rows: NDArray[Any], ages: Sequence[int], taken_up: dict[int, tuple[list[Any], float]]) -> None:
        """Takes over what is known: the latest rows (T, N, *D), of which the last `age` are each environment's; -1
        where nothing is known."""
        self.taken_up = taken_up
        self.rows, self.end = rows, len(rows)
        self.began = self.end - np.maximum(np.array(ages, np.int64), 0)
        self.lost = np.array(ages) < 0

    def latest(self) -> NDArray[Any]:
        """About RECENT of the latest actions, (K, *D)."""
        rows = self.rows[max(0, self.end - self.recent) : self.end]
        return rows.reshape(-1, *rows.shape[2:])

    def of(self, i: int) -> NDArray[Any] | None:
        """(T, *D) of environment i since its episode began; None where they are not known."""
        return None if i in self.taken_up else self.since(i)

    def since(self, i: int) -> NDArray[Any] | None:
        """(T, *D) of environment i since its episode began or was taken up; None where they were too many."""
        return None if self.lost[i] else self.rows[self.began[i] : self.end, i].copy()


class Place(NamedTuple):
    """Where one environment stands in its episode."""

    seed: int
    actions: NDArray[Any] | None  # (T, *shape) since then, as the environment takes them; None: they are not known
    state: list[Any] | None  # what its layers said before the actions, the outermost first; None: they say nothing
    ret: float = 0.0  # its return before the actions


class Rebuilt(NamedTuple):
    """What an environment showed when it was rebuilt."""

    obs: Any  # None where its own description was loaded, and nothing done since: it shows nothing then
    ret: float
    trouble: str  # why it is not where it was; empty otherwise


def state_of(env: gymnasium.Env[Any, Any]) -> list[Any] | None:
    """What the layers of an environment say of their state, outermost first; None where one of them cannot."""
    states: list[Any] = []
    while True:
        if describes_itself(env):
            try:
                states.append(env.state_dict())  # type: ignore[attr-defined]
            except Exception as error:
                raise raised("state_dict", error) from error
        elif isinstance(env, TimeLimit):
            states.append(env._elapsed_steps)
        elif not _holds_nothing(env):
            return None
        if not isinstance(env, gymnasium.Wrapper):
            return states
        env = env.env


def load_state(env: gymnasium.Env[Any, Any], states: Sequence[Any]) -> None:
    """The inverse of `state_of`, on an environment that was reset."""
    left = list(states)
    while True:
        if describes_itself(env):
            env.load_state_dict(left.pop(0))  # type: ignore[attr-defined]
        elif isinstance(env, TimeLimit):
            env._elapsed_steps = int(left.pop(0))  # type: ignore[assignment]
        if not isinstance(env, gymnasium.Wrapper):
            break
        env = env.env
    if left:
        raise ValueError(f"{len(left)} layers more than there are")


def describes_itself(layer: Any) -> bool:
    return all(callable(getattr(type(layer), name, None)) for name in ("state_dict", "load_state_dict"))


def _holds_nothing(layer: Any) -> bool:
    return isinstance(layer, OrderEnforcing | PassiveEnvChecker) or getattr(layer, "holds_nothing", False)


def rebuild(env: gymnasium.Env[Any, Any], place: Place) -> Rebuilt:
    """Puts an environment where it was."""
    obs: Any
    obs, _ = env.reset(seed=place.seed)
    if place.state is not None:
        try:
            load_state(env, place.state)
        except Exception as error:
            raise UsageError(
                "load_state_dict of an environment takes what its state_dict gave.",
                given=f"{type(error).__name__}: {error}",
                cause="the environment's own code, another version of it, or a checkpoint that was changed",
            ) from error
        obs = None
    elif place.actions is None:
        return Rebuilt(None, 0.0, "its episode is too long to be replayed")
    actions = place.actions if place.actions is not None else ()
    total = place.ret
    for t, action in enumerate(actions, 1):
        obs, reward, terminated, truncated, _ = env.step(action.copy())
        total += float(reward)
        if terminated or truncated:
            return Rebuilt(obs, total, f"replayed, its episode ends after {t} of {len(actions)} steps")
    return Rebuilt(None if obs is None else np.array(obs), total, "")


def rebuild_together(venv: Any, places: Sequence[Place]) -> list[Rebuilt]:
    """The same for a vector environment that resets by mask and steps all of its environments at once: those whose
    episodes are younger are reset on the way."""
    n = len(places)
    actions = [np.zeros((0,)) if place.actions is None else place.actions for place in places]
    ages, totals, troubles = [len(a) for a in actions], np.zeros(n), [""] * n
    for i, place in enumerate(places):
        if place.actions is None:
            troubles[i] = "its episode is too long to be replayed"
    longest = max(ages)
    seeds = [place.seed for place in places]
    obs, _ = venv.reset(seed=seeds)
    raw = np.array(obs)
    action = np.stack([next(a[0] for a in actions if len(a))] * n) if longest else np.zeros(0)
    for t in range(longest):
        fresh = np.array([t > 0 and longest - age == t for age in ages])
        if fresh.any():
            venv.reset(seed=_masked(seeds, fresh), options={"reset_mask": fresh})
        under_way = np.array([longest - age <= t for age in ages])
        for i in np.flatnonzero(under_way).tolist():
            action[i] = actions[i][t - (longest - ages[i])]
        obs, reward, terminated, truncated, _ = venv.step(action.copy())
        raw = np.array(obs)
        totals[under_way] += np.asarray(reward, np.float64)[under_way]
        ended = np.logical_or(terminated, truncated)
        for i in np.flatnonzero(ended & under_way).tolist():
            troubles[i] = troubles[i] or f"replayed, its episode ends after {t - (longest - ages[i]) + 1} steps"
        if ended.any():  # those whose own episode has not begun yet, or that went astray
            venv.reset(seed=_masked(seeds, ended), options={"reset_mask": ended})
    fresh = np.array([longest > 0 and age == 0 for age in ages])
    if fresh.any():
        obs, _ = venv.reset(seed=_masked(seeds, fresh), options={"reset_mask": fresh})
        raw[fresh] = np.asarray(obs)[fresh]
    return [Rebuilt(raw[i], float(totals[i]), troubles[i]) for i in range(n)]


def _masked(seeds: Sequence[int], mask: NDArray[np.bool_]) -> list[int | None]:
    return [seed if wanted else None for seed, wanted in zip(seeds, mask, strict=True)]


# ---- what a state is made of, as JSON and arrays


def packed(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """A state as JSON, its arrays put into `arrays` under names that begin with `name`.

    Raises:
        EnvironmentFault: something that is neither a number, a string, None, an array nor a dict, list or tuple.
    """
    if value is None or isinstance(value, bool | str | int) or (type(value) is float and np.isfinite(value)):
        return value
    if type(value) is float:
        return {"float": str(value)}
    if isinstance(value, np.ndarray | np.generic) and (array := np.asarray(value)).dtype.kind in "biuf":
        key = f"{name}.{len(arrays)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():  # a checkpoint's tensors are finite
            arrays[key] = np.frombuffer(array.tobytes(), np.uint8)
            return {"bits": [key, array.dtype.str, list(array.shape)]}
        arrays[key] = np.array(array)
        return {"array" if isinstance(value, np.ndarray) else "scalar": key}
    if isinstance(value, dict):
        pairs = [[packed(k, name, arrays), packed(v, name, arrays)] for k, v in value.items()]
        return {"dict": pairs}
    if type(value) in (list, tuple):
        return {type(value).__name__: [packed(each, name, arrays) for each in value]}
    raise EnvironmentFault(
        "state_dict of an environment holds numbers, strings, None, arrays, and dicts, lists and tuples of these.",
        given=f"{type(value).__module__}.{type(value).__qualname__} in {name}",
        fix="np.asarray of a tensor; generator.bit_generator.state of a generator; tuple(x) of a named tuple",
    )


def unpacked(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The inverse of `packed`. Raises KeyError, TypeError or ValueError where it is not one."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    make: dict[str, Callable[[Any], Any]] = {
        "float": float,
        "bits": lambda told: np.frombuffer(arrays[told[0]].tobytes(), told[1]).reshape(told[2]).copy(),
        "array": lambda key: arrays[key].copy(),
        "scalar": lambda key: arrays[key][()],
        "dict": lambda pairs: {_hashable(unpacked(k, arrays)): unpacked(v, arrays) for k, v in pairs},
        "list": lambda each: [unpacked(one, arrays) for one in each],
        "tuple": lambda each: tuple(unpacked(one, arrays) for one in each),
    }
    return make[kind](inner)


def _hashable(key: Any) -> Any:
    hash(key)
    return key
