"""How much of a test runs every time, and how much in `make stress`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def now_and_then(values: Iterable[Any], now: Collection[Any]) -> list[Any]:
    """Parameters, of which those that are not among `now` run in `make stress` only."""
    return [value if value in now else pytest.param(value, marks=pytest.mark.slow) for value in values]
