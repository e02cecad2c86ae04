"""Settings from JSON: every field is of the type it is declared with, or one message says which is not."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from covary.errors import UsageError

T = TypeVar("T")

MOST_ENVS = 2**20
MOST_TRANSITIONS = 2**28  # in a rollout: a few GB for the smallest observations
LONGEST = 4096  # characters of a word; no path is longer
MOST_ITEMS = 2**18  # of a list: a quarter of a second to look at


def from_json(cls: type[T], data: Any, name: str) -> T:
    """The dataclass `cls` from what JSON kept of it; a field that an older version did not have gets its default.

    Args:
        name: what `data` is called in messages, as "agent.json: policy".

    Raises:
        UsageError: no object, an unknown or missing field, a value of another type, or one that `cls` refuses.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{name} must be an object of settings.", given=shown(data))
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise UsageError(f"{name} holds what this version does not know.", given=shown(key))
    values, kinds = {}, _types(cls)  # type: ignore[arg-type]
    for key, field in fields.items():
        if key in data:
            values[key] = _value(data[key], kinds[key], f"{name}.{key}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{name} must hold {key}.", given="it does not")
    _check_amounts(values, name)
    try:
        return cls(**values)
    except UsageError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{name} must hold settings that fit each other.", given=str(error)[:200]) from error


def shown(value: Any) -> str:
    """A value in a message: short, and in characters that any terminal has."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,}"
    return ascii(value[:80] if isinstance(value, str) else value)[:120]


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(value: Any, kind: Any, name: str) -> Any:
    """The value with lists made tuples. Raises UsageError unless it is of this type."""
    fits, made = _fit(value, kind)
    if not fits:
        plain = getattr(kind, "__name__", "") if isinstance(kind, type) else ""
        raise UsageError(f"{name} is of type {plain or str(kind).replace('typing.', '')}.", given=shown(value))
    return made


def _fit(value: Any, kind: Any) -> tuple[bool, Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True, value
    if kind is None or kind is types.NoneType:
        return value is None, None
    if origin in (Union, types.UnionType):
        return next((found for each in inner if (found := _fit(value, each))[0]), (False, None))
    if origin is Literal:
        return isinstance(value, str) and value in inner, value
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > MOST_ITEMS:
            return False, None
        each = [_fit(x, inner[0]) for x in value]  # tuple[X, ...]
        return all(fits for fits, _ in each), tuple(made for _, made in each)
    if kind is float:
        return type(value) in (int, float), value
    if kind is int:
        return type(value) is int, value
    if kind is bool:
        return type(value) in (bool, int) and value in (0, 1), value == 1
    return isinstance(value, kind) and not (isinstance(value, str) and len(value) > LONGEST), value


def _check_amounts(values: dict[str, Any], name: str) -> None:
    """What takes memory before anything is learned. Raises UsageError where no machine has so much."""
    n_envs = values.get("n_envs") or 1
    if n_envs > MOST_ENVS:
        raise UsageError(f"{name}.n_envs is at most {MOST_ENVS:,}.", given=shown(n_envs))
    if n_envs * (horizon := values.get("horizon") or 1) > MOST_TRANSITIONS:
        raise UsageError(
            f"{name}: n_envs times horizon is at most {MOST_TRANSITIONS:,}.",
            given=f"{shown(n_envs)} times {shown(horizon)}",
        )
    for key, value in values.items():
        if type(value) is int and key != "seed" and abs(value) >= 2**63:
            raise UsageError(f"{name}.{key} is a number of 64 bits.", given=shown(value))
