"""A user's mistake gets one message: the rule, what was given, the likely cause and the fix."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


class UsageError(ValueError):
    """Something the user can put right. The command line prints it alone and exits with 2.

    Args:
        rule: what holds, in one sentence.
        given: what was given instead.
        cause: the usual cause, where there is one.
        fix: what to write.
    """

    def __init__(self, rule: str, *, given: object = None, cause: str = "", fix: str = "") -> None:
        lines = [str(rule)]  # gymnasium raises again, with the error of a worker process as its message
        lines += [f"  given: {given}"] if given is not None else []
        lines += [f"  cause: {cause}"] if cause else []
        lines += [f"  fix:   {fix}"] if fix else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:  # an environment may raise it in another process
        return (_rebuilt, (str(self),))


def _rebuilt(message: str) -> UsageError:
    return UsageError(message)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises UsageError unless `value` is one of the choices."""
    if value not in choices:
        raise UsageError(f"{name} is one of {', '.join(choices)}.", given=repr(value))


def check_sizes(name: str, sizes: Sequence[object]) -> None:
    """Raises UsageError unless all are positive whole numbers."""
    if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        given = sizes[0] if len(sizes) == 1 else " ".join(map(str, sizes))
        raise UsageError(f"{name} must be a positive whole number.", given=given, fix="1 or more")


def check_switches(config: Any, room: str = "") -> None:
    """Raises UsageError unless every field of a config that is declared a bool is one. room: before its name."""
    for field in dataclasses.fields(config):
        if field.type in (bool, "bool") and not isinstance(value := getattr(config, field.name), bool):
            raise UsageError(f"{room}{field.name} is True or False.", given=repr(value))


def check_fields(
    config: Any,
    *,
    sizes: Sequence[str] = (),
    counts: Sequence[str] = (),
    positive: Sequence[str] = (),
    shares: Sequence[str] = (),
    floors: Sequence[str] = (),
) -> None:
    """Raises UsageError unless these fields of a config are whole numbers above 0, whole numbers from 0, numbers above
    0, in [0, 1], or numbers from 0; and unless all that are declared a bool are one."""
    check_switches(config)
    for name in sizes:
        check_sizes(name, (getattr(config, name),))
    for name in counts:
        value = getattr(config, name)
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            raise UsageError(f"{name} must be a whole number, 0 or above.", given=repr(value))
    for name in positive:
        if not 0 < getattr(config, name) < 3e38:  # what float32 can hold
            raise UsageError(f"{name} must be a positive number.", given=getattr(config, name), fix="above 0")
    for name in floors:
        if not 0 <= getattr(config, name) < 3e38:
            raise UsageError(f"{name} must be a number, 0 or above.", given=getattr(config, name))
    for name in shares:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{name} must lie in [0, 1].", given=getattr(config, name), fix="0 to 1")
