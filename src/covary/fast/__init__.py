"""Kernels for the usual case: multilayer perceptrons with one of our policies, trained on a CPU.

They do the general path's arithmetic in place, in the memory of the modules' own parameters, and are compiled by Numba
when they are first needed.
"""

from __future__ import annotations

from typing import Any


def attach(agent: Any) -> str | None:
    """Puts an agent on the fast path where that knows everything about it; else the reason why not."""
    from covary.fast import cache
    from covary.fast.tables import Unknown

    cache.wait()
    try:
        if agent.learner.judges_actions:
            from covary.fast.perceptrons import FastNetworks as Fast
        else:
            from covary.fast.path import FastPath as Fast  # type: ignore[assignment]
    except (ImportError, OSError) as error:  # OSError: LLVM's own library cannot be loaded
        return f"no Numba ({(str(error) or type(error).__name__).splitlines()[0]})"
    try:
        agent.fast = Fast(agent.learner)
    except Unknown as unknown:
        return str(unknown)
    agent.learner.fast = agent.fast
    return None


def detach(agent: Any) -> None:
    """Back to the general path."""
    if agent.fast is not None and agent.learner.judges_actions:
        agent.fast.detach()
    agent.fast = agent.learner.fast = None
