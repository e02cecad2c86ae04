"""What a checkpoint keeps of the environments, and how a resumed run finds them where they were."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from covary.envs import replacing
from covary.envs.adapter import Adapter
from covary.envs.batches import GuardedVector
from covary.envs.rebuilding import (
    Place,
    Rebuilt,
    describes_itself,
    packed,
    rebuild,
    rebuild_together,
    state_of,
    unpacked,
)
from covary.errors import UsageError

Arrays = dict[str, NDArray[Any]]


class Resumed(NamedTuple):
    """Where a resumed run goes on."""

    obs: NDArray[np.float32]  # (N, O)
    fresh: NDArray[np.bool_]  # (N,) whether a new episode was started, since the old one could not be had again
    lines: list[str]  # to be said: why


def describe(adapter: Adapter, obs: NDArray[np.float32]) -> tuple[Arrays, dict[str, Any]]:
    """Where the environments stand: arrays by name, and the rest as JSON. obs: (N, O) what they showed last."""
    arrays: Arrays = {"envs.obs": np.array(obs, np.float32)}
    meta: dict[str, Any] = {
        "started": adapter.started.tolist(),
        "returns": [float(x) for x in adapter._return],
        "lengths": [int(x) for x in adapter._length],
        "steps": adapter.steps,
    }
    if describes_itself(_inner(adapter)):
        _check_whole(adapter)
        return arrays, meta | {
            "phantom": adapter._phantom.tolist(),
            "together": packed(_inner(adapter).state_dict(), "envs.state", arrays),
        }
    if adapter.self_resetting:
        return arrays, meta
    each = _states(adapter)
    if any(state is not None for state in each):
        _check_whole(adapter)
    meta["each"] = [None if state is None else packed(state, f"envs.{i}", arrays) for i, state in enumerate(each)]
    actions = [adapter.history.of(i) for i in range(adapter.n)]
    meta["ages"] = [-1 if kept is None else len(kept) for kept in actions]
    kept = [part for part, state in zip(actions, each, strict=True) if part is not None and len(part) and state is None]
    if kept:
        arrays["envs.actions"] = np.concatenate(kept)
    return arrays, meta


def _check_whole(adapter: Adapter) -> None:
    """Raises UsageError after a step that failed: what environments say of themselves may be of after it."""
    if adapter.torn:
        raise UsageError(
            "Environments that describe their own state are kept between two steps.",
            given="a step that failed in the middle",
            fix="go on from the last checkpoint",
        )


def _inner(adapter: Adapter) -> Any:
    """The vector environment as it was handed in."""
    return adapter.native.env if isinstance(adapter.native, GuardedVector) else adapter.native


def _states(adapter: Adapter) -> list[Any]:
    if adapter.workers is not None:
        return adapter.workers.states()
    envs = getattr(adapter.native, "envs", None) if adapter.envs is not None else None
    return [None] * adapter.n if envs is None else [state_of(env) for env in envs]


def resume(adapter: Adapter, arrays: Arrays, meta: dict[str, Any]) -> Resumed:
    """Puts the environments where `describe` saw them; those that cannot be put there start a new episode.

    Raises:
        UsageError: a description that is none; whatever the environments raise.
    """
    try:
        obs = arrays["envs.obs"]
        if obs.shape != (adapter.n, adapter.encode.size) or obs.dtype != np.float32:
            raise ValueError(f"observations {obs.dtype} {obs.shape}")
        started, lengths = (_counts(meta[name], adapter.n) for name in ("started", "lengths"))
        returns = _numbers(meta["returns"], adapter.n)
        adapter.started[:], (adapter.steps,) = started, _counts([meta["steps"]], 1)
        rebuilt = _rebuilt(adapter, arrays, meta, returns)
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UsageError(
            "A checkpoint must say where its environments stood.", given=f"{type(error).__name__}: {error}"
        ) from error
    if rebuilt is None:
        adapter.history.lost[:] = True
        line = "this vector environment resets itself and has no state_dict: its episodes start anew"
        return Resumed(adapter.reset(), np.ones(adapter.n, bool), [line])
    trouble = [replacing.trouble(adapter, i, each, obs[i], float(returns[i])) for i, each in enumerate(rebuilt)]
    fresh = np.array([bool(text) for text in trouble])
    for i in range(adapter.n):
        adapter._return[i], adapter._length[i] = float(returns[i]), int(lengths[i])
    if fresh.any():
        first = _start_anew(adapter, np.flatnonzero(fresh), obs)
        obs = obs.copy()
        obs[fresh] = first
    adapter._shown = obs
    if adapter.workers is not None:  # of the episodes after these
        adapter.workers.table.seeds[:] = [adapter.seed_of(i, int(k)) for i, k in enumerate(adapter.started)]
    return Resumed(obs, fresh, _lines(trouble))


def _start_anew(adapter: Adapter, which: NDArray[np.intp], obs: NDArray[np.float32]) -> NDArray[np.float32]:
    """A new episode in these environments. obs: (N, O) where the others stand; returns (len(which), O)."""
    places = {int(i): Place(adapter.seed_of(int(i), int(adapter.started[i])), np.zeros(0), None) for i in which}
    if adapter.workers is not None:
        shown = replacing.rebuild(adapter, adapter.workers, places, obs)
        first = np.stack([np.asarray(shown[i].obs) for i in places])
    elif adapter.envs is not None:
        first = np.stack([np.asarray(rebuild(adapter.native.envs[i], place).obs) for i, place in places.items()])
    else:
        mask = np.isin(np.arange(adapter.n), which)
        seeds = [places[i].seed if i in places else None for i in range(adapter.n)]
        first = np.asarray(adapter.native.reset(seed=seeds, options={"reset_mask": mask})[0])[which]
    for i in which:
        adapter._return[i], adapter._length[i] = 0.0, 0
    adapter.started[which] += 1
    adapter.history.restart(which)
    return adapter.encode(first)


def _lines(trouble: list[str]) -> list[str]:
    bad = [(i, text) for i, text in enumerate(trouble) if text]
    if not bad:
        return []
    who = f"environment {bad[0][0]}" + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else "")
    why = bad[0][1]
    cause = "" if "too long" in why else "; it is not decided by its seed and its actions, `covary check-env` says why"
    return [f"{who} goes on with a new episode: {why}{cause}"]


def _rebuilt(adapter: Adapter, arrays: Arrays, meta: dict[str, Any], returns: list[float]) -> list[Rebuilt] | None:
    """Every environment put where it was; None where that cannot be tried."""
    if "together" in meta:
        if not describes_itself(_inner(adapter)):
            raise UsageError(
                "A run goes on with an environment that has the state_dict of the one before.",
                given=type(adapter.native).__name__,
                fix="the same environment, or a new run with init_from",
            )
        seeds = [adapter.seed_of(i, int(k)) for i, k in enumerate(adapter.started)]
        adapter.native.reset(seed=seeds[0] if adapter.self_resetting else seeds)
        _inner(adapter).load_state_dict(unpacked(meta["together"], arrays))
        adapter._phantom[:] = np.array(_counts(meta["phantom"], adapter.n, 2), bool)
        if isinstance(adapter.native, GuardedVector):
            adapter.native.put_back(adapter._phantom.copy())
        adapter.history.lost[:] = True
        return [Rebuilt(None, 0.0, "")] * adapter.n
    if adapter.self_resetting or "each" not in meta:
        return None
    places = _places(adapter, arrays, meta, returns)
    if adapter.workers is not None:
        by_number = replacing.rebuild(adapter, adapter.workers, dict(enumerate(places)), arrays["envs.obs"])
        rebuilt = [by_number[i] for i in range(adapter.n)]
    elif adapter.envs is not None:
        rebuilt = [rebuild(env, place) for env, place in zip(adapter.native.envs, places, strict=True)]
    else:
        rebuilt = rebuild_together(adapter.native, places)
    return rebuilt


def _places(adapter: Adapter, arrays: Arrays, meta: dict[str, Any], returns: list[float]) -> list[Place]:
    """Where each environment stood; the history is filled with what it did since its episode began."""
    n, each = adapter.n, meta["each"]
    ages = [age - 1 for age in _counts([int(age) + 1 for age in meta["ages"]], n)]
    if not isinstance(each, list) or len(each) != n:
        raise ValueError(f"states of {n} environments")
    states = [None if state is None else unpacked(state, arrays) for state in each]
    known = [age if state is None else -1 for age, state in zip(ages, states, strict=True)]
    flat = arrays.get("envs.actions", np.zeros((0,), np.float32))
    wanted = adapter.action_shape
    if len(flat) and (flat.shape[1:] != wanted or flat.dtype.kind not in "fiu"):
        raise ValueError(f"actions {flat.dtype} {flat.shape}, each of shape {wanted}")
    if sum(max(age, 0) for age in known) != len(flat):
        raise ValueError(f"{len(flat)} actions of episodes that have {known}")
    history, at = adapter.history, 0
    longest = max([0, *known])
    rows = np.zeros((longest, n, *flat.shape[1:]), flat.dtype)
    places = []
    for i, age in enumerate(known):
        actions = None
        if age >= 0:
            rows[longest - age :, i] = flat[at : at + age]
            # the very arrays that a step hands over: decoded row by row
            actions = adapter.decode(flat[at : at + age]) if age else flat[:0]
            at += age
        places.append(Place(adapter.seed_of(i, int(adapter.started[i]) - 1), actions, states[i]))
    away = [] if adapter.workers is None else [i for share in adapter.workers.shares for i in share]
    # only a process that is lost takes more with it than can be asked
    taken_up = {i: (state, returns[i]) for i in away if (state := states[i]) is not None}
    history.fill(rows, [0 if i in taken_up else age for i, age in enumerate(known)], taken_up)
    return places


def _counts(values: Any, n: int, most: int = 2**62) -> list[int]:
    """Raises ValueError unless they are n whole numbers from 0."""
    good = isinstance(values, list) and all(isinstance(x, int) and 0 <= x < most for x in values)
    if not good or len(values) != n:
        raise ValueError(f"{n} whole numbers, 0 or above")
    return list(values)


def _numbers(values: Any, n: int) -> list[float]:
    if not isinstance(values, list) or len(values) != n or not all(type(x) in (int, float) for x in values):
        raise ValueError(f"{n} numbers")
    return [float(x) for x in values]
