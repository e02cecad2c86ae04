"""The doctor: says, to the line, why a network does not learn.

    covary doctor train.py            runs a script and names the line
    covary.doctor.watch(actor=…)      the same around some code
    covary.doctor.assert_learns(…)    the same in a test suite

It knows torch, numpy and rich, and nothing else of Covary.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covary.doctor.checkup import Checkup, assert_learns, watch
    from covary.doctor.findings import Finding

__all__ = ["Checkup", "Finding", "assert_learns", "watch"]


def __getattr__(name: str) -> Any:
    """torch is imported with the first of them, and not for `covary doctor --help`."""
    if name not in __all__:
        raise AttributeError(f"module 'covary.doctor' has no attribute {name!r}; it has {', '.join(__all__)}")
    room = "findings" if name == "Finding" else "checkup"
    return getattr(importlib.import_module(f"covary.doctor.{room}"), name)
