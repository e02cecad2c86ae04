"""What agent.json says of an agent, checked by type and against the tensors beside it before any network is made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from covary import algorithms
from covary.errors import UsageError
from covary.heads import PolicyConfig
from covary.typed import from_json, shown

MOST_LAYERS = 256
MOST_CELLS = 2**24  # of the table of several choices, as many a dimension as the largest has: 134 MB
MOST_ACTIONS = 4096  # dimensions of a Box: a head keeps a table of their pairs, 134 MB for so many
KINDS: dict[str, type] = {"algo": str, "steps": int, "seed": int, "custom_torso": bool, "learner": dict}
NEVER_NEGATIVE = ("adam.second", "adam.steps", "obgd.steps", "normalizer.count", "normalizer.m2", "normalizer.inv_std")

Arrays = Mapping[str, NDArray[Any]]


class Described(NamedTuple):
    """What an agent is made of, spaces aside."""

    algo: str
    seed: int
    custom_torso: bool
    config: Any
    policy: PolicyConfig
    critic: Any  # a covary.agent.CriticConfig


def read(meta: Mapping[str, Any], critic: type, place: object) -> Described:
    """Raises UsageError where an entry is missing or of another type, or settings do not fit each other."""
    name = f"{place}/agent.json:"
    for key in (*KINDS, "config", "policy", "critic", "observation_space", "action_space"):
        if key not in meta:
            raise UsageError("agent.json must describe an agent.", given=f"{place}: no {key}")
    for key, kind in KINDS.items():
        if type(meta[key]) is not kind:
            raise UsageError(f"{name} {key} is of type {kind.__name__}.", given=shown(meta[key]))
    check_state(meta, place)
    if not 0 <= meta["seed"] < 2**256:
        raise UsageError(f"{name} seed is a number of at most 256 bits, 0 or above.", given=shown(meta["seed"]))
    if len(meta["algo"]) > 100:
        raise UsageError(f"{name} algo is a name.", given=shown(meta["algo"]))
    return Described(
        meta["algo"],
        meta["seed"],
        meta["custom_torso"],
        from_json(algorithms.find(meta["algo"]).Config, meta["config"], f"{name} config"),
        from_json(PolicyConfig, meta["policy"], f"{name} policy"),
        from_json(critic, meta["critic"], f"{name} critic"),
    )


def check_same(said: Described, settings: Described, place: object) -> None:
    """Raises UsageError unless a checkpoint describes the agent of these settings, those in its run's config.json."""
    for name, its, theirs in zip(Described._fields, said, settings, strict=True):
        if its != theirs:
            raise UsageError(
                "A run goes on with the settings it was started with.",
                given=f"{name} is {shown(str(theirs))} in config.json, and {shown(str(its))} in {place}",
                cause="a file that was changed",
            )


def check_state(meta: Mapping[str, Any], place: object) -> None:
    """Raises UsageError where what is no setting, but where training was, is of another type."""
    for key in ("steps", "noise"):
        value = meta.get(key, 0)  # the first runs kept no noise
        if type(value) is not int or not 0 <= value < 2**62:
            raise UsageError(f"{place}/agent.json: {key} is a whole number, 0 or above.", given=shown(value))
    started = meta.get("episodes_started")
    counts = started is None or isinstance(started, list)
    if not counts or not all(type(n) is int and 0 <= n < 2**62 for n in started or ()):
        raise UsageError(f"{place}/agent.json: episodes_started counts episodes.", given=shown(started))


def check_size(said: Described, observations: int, action_space: Any, arrays: Arrays, place: object) -> None:
    """Raises UsageError where the networks described hold more numbers than the tensors, or no sane number of them."""
    kept = sum(x.size for name, x in arrays.items() if name.startswith(("policy.", "critic.")))
    policy, critic = said.policy.hidden, said.critic.hidden
    dims = math.prod(action_space.shape or ())
    if max(len(policy), len(critic)) > MOST_LAYERS or dims > MOST_ACTIONS:
        raise UsageError(
            f"An agent has at most {MOST_LAYERS} layers and {MOST_ACTIONS:,} dimensions of action.",
            given=f"{place}: {max(len(policy), len(critic)):,} layers, {dims:,} dimensions",
        )
    if said.custom_torso:  # whose size is its user's
        policy = critic = ()
        observations = 1
    needed = _body(observations, policy) + _body(observations, critic)
    features = policy[-1] if policy else observations
    if hasattr(action_space, "nvec") and dims * int(action_space.nvec.max(initial=0)) > MOST_CELLS:
        raise UsageError(
            f"Several choices have at most {MOST_CELLS:,} dimensions times choices of the largest.",
            given=f"{place}: {dims:,} times {int(action_space.nvec.max()):,}",
        )
    if hasattr(action_space, "nvec"):
        outputs = int(action_space.nvec.sum())
    else:
        outputs = int(action_space.n) if hasattr(action_space, "n") and not action_space.shape else dims
    needed += (features + 1) * outputs
    coupled = _gaussians(said.policy, dims)
    if said.policy.covariance == "full":
        needed += coupled * (coupled - 1) // 2
    if said.policy.covariance == "lowrank":
        needed += coupled * (said.policy.rank or 1)
    if needed > kept:
        raise UsageError(
            "A checkpoint must hold the networks that it describes.",
            given=f"{place}: {shown(needed)} numbers described, {kept:,} in its tensors",
            cause="a file that was changed",
        )


def _gaussians(policy: PolicyConfig, dims: int) -> int:
    """How many dimensions of an action have couplings: a Beta is independent of all others."""
    words = (policy.bounds,) if isinstance(policy.bounds, str) else policy.bounds or ("auto",)
    circles = {i % dims for i in policy.periodic} if dims else set()
    return sum(words[i % len(words)] != "beta" or i in circles for i in range(dims))


def _body(inputs: int, hidden: Sequence[int]) -> int:
    """Numbers in the layers of `covary.nets.mlp`."""
    widths = (inputs, *hidden)
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


def check_arrays(given: Arrays, own: Arrays) -> None:
    """Raises ValueError where a tensor that an agent has is kept in another shape or dtype, or below 0 where that
    cannot be. One that is missing is for whoever takes them over to judge: older versions kept less."""
    for name, array in own.items():
        if name not in given or name == "noise":
            continue
        its = given[name]
        shape = () if its.shape == (1,) and array.shape == () else its.shape  # format 1 had no tensor of shape ()
        if shape != array.shape or its.dtype != array.dtype:
            raise ValueError(f"{name} of {its.dtype} {its.shape}, where {array.dtype} {array.shape} is needed")
        if name.endswith(NEVER_NEGATIVE) and (its < 0).any():
            raise ValueError(f"{name} holds {its[its < 0][0]}")


def check_noise(rows: int, noise: NDArray[Any] | None, like: NDArray[Any], uniform: Any) -> None:
    """Raises ValueError unless `noise`, (rows, N, W) or (rows, N), could have been drawn where `like`, (0, 1, W) or
    (0, 1), was. uniform: whether its numbers are uniform and not normal, or (W,) which of them are."""
    if noise is None or len(noise.shape) < 2 or len(noise) != rows:
        raise ValueError(f"noise for {rows} steps, where {'none' if noise is None else noise.shape} is there")
    if noise.shape[2:] != like.shape[2:] or noise.dtype != like.dtype:
        raise ValueError(f"noise of {noise.dtype} {noise.shape}")
    if not np.where(uniform, (noise >= 0) & (noise < 1), np.abs(noise) < 100).all():
        raise ValueError("noise that no generator draws")


def check_numbers(given: Any, own: Any, name: str) -> None:
    """Raises ValueError where a number, word or list that an agent has is kept as something else, or below 0 where it
    counts something. What is missing is for whoever takes them over to judge."""
    if isinstance(own, dict):
        if not isinstance(given, dict):
            raise ValueError(f"{name} is an object, given {shown(given)}")
        for key, value in own.items():
            if key in given:
                check_numbers(given[key], value, f"{name}.{key}")
        return
    fits = type(given) in (int, float) if type(own) is float else type(given) is type(own)
    if own is not None and not fits:
        raise ValueError(f"{name} is of type {type(own).__name__}, given {shown(given)}")
    counts = type(own) is int or name.endswith((".count", ".m2"))
    if counts and not 0 <= given < (2**62 if type(own) is int else 3e38):
        raise ValueError(f"{name} is 0 or above, given {shown(given)}")
