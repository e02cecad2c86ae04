"""One paper per file, each with the same five parts: docstring, Config, what it learns, the losses, update."""

from __future__ import annotations

import difflib
import importlib
from types import SimpleNamespace
from typing import Any

from covary.errors import UsageError

NAMES = ("a2c", "actor_critic", "ddpg", "mpo", "ppo", "sac", "stream_ac", "td3", "trpo")


def find(name: str) -> Any:
    """The module of an algorithm: `Config`, `Learner` and `ROUTES`.

    Raises:
        UsageError: an unknown name, with the nearest.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(str(name).lower().replace("-", "_"), NAMES, n=1, cutoff=0.3)
        aliases = {"ac": "actor_critic", "td": "actor_critic", "a3c": "a2c"}
        near = near or [aliases[name]] if name in aliases else near
        raise UsageError(
            f"The algorithm is one of {', '.join(NAMES)}.",
            given=repr(name),
            fix=f"did you mean {near[0]}?" if near else "",
        )
    if name == "ddpg":
        td3 = importlib.import_module("covary.algorithms.td3")
        return SimpleNamespace(**vars(td3) | {"Config": td3.DDPG})
    return importlib.import_module(f"covary.algorithms.{name}")
