"""Actor-critic agents whose policies are exact distributions on your own action space.

The names below are imported when they are first used, so that `import covary` and `covary --help` need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covary.agent import Agent, load
    from covary.errors import UsageError
    from covary.evaluation import evaluate
    from covary.heads import PolicyConfig
    from covary.policies import Policy
    from covary.training import train, untrained

__version__ = "0.1.0"

_HOME = {
    "Agent": "agent",
    "Policy": "policies",
    "PolicyConfig": "heads",
    "UsageError": "errors",
    "evaluate": "evaluation",
    "load": "agent",
    "train": "training",
    "untrained": "training",
}

__all__ = ["Agent", "Policy", "PolicyConfig", "UsageError", "__version__", "evaluate", "load", "train", "untrained"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"covary.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'covary' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
