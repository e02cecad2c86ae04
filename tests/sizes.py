"""How much of a test runs every time, and how much in `make stress`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def now_and_then(values: Iterable[Any], now: Collection[Any]) -> list[Any]:
    """Parameters, of which those that are not among `now` run in `make stress` only."""
    return [value if value in now else _seldom(value) for value in values]


def _seldom(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
