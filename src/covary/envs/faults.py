"""What an environment did wrong, told with the line in its own code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covary.errors import UsageError


class EnvironmentFault(UsageError):
    """The environment broke its own rules, or raised, in the middle of a run."""


class NonFiniteStep(EnvironmentFault):
    """An environment gave a number that is not finite. Attributes: `where`, as JSON can hold it, and `batch`, the
    actions and what came back, as `covary.guard.NonFinite` has them."""

    def __init__(self, rule: str, *, where: dict[str, Any], batch: dict[str, Any], **told: Any) -> None:
        super().__init__(rule, **told)
        self.where, self.batch = where, batch


def not_finite(
    x: NDArray[np.float32], field: str, call: str, environments: Any, action: NDArray[Any], steps: int
) -> UsageError:
    """The fault of whoever made a number of x one that is not finite: an environment, or the policy that gave action.

    x: what all environments gave, or those of these numbers. steps: vector steps so far.
    """
    if call == "step" and not np.isfinite(action).all():
        return UsageError(
            "A policy's actions must be finite.",
            given=f"{action[~np.isfinite(action)][0]} as an action in step {steps}",
            cause="a learning rate that is too high, or rewards of a very large scale",
            fix="a learning rate ten times lower; the checkpoints before this step are good",
        )
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
    entry = f"[{where[1]}]" if len(where) > 1 else ""
    number = where[0] if environments is None else int(environments[where[0]])
    return NonFiniteStep(
        f"An environment gives finite numbers as {field}.",
        given=f"{x[where]} in {field}{entry} of environment {number}, {call} {steps}",
        cause="a division by zero or an unstable simulation in the environment's own code",
        fix="`covary check-env` on this environment; end the episode before it diverges",
        where={"kind": field, "environment": number, "call": call, "vector_step": steps},
        batch={"action": np.array(action), field: np.array(x)},
    )


def raised(during: str, error: Exception) -> UsageError:
    """The fault of an environment that raised `error` during a call, unless that says it all already."""
    if isinstance(error, UsageError):
        return error
    return EnvironmentFault(
        f"An environment must not raise: {type(error).__name__}: {error}",
        given=f"in {during}",
        cause=line_of(error),
        fix="mend that line; `covary check-env` tries the environment alone",
    )


def line_of(error: BaseException) -> str:
    """The innermost line that is the user's own: neither of Python, nor of a package, nor of what calls it here."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    here = Path(__file__).parent
    callers = (*(here / f"{name}.py" for name in ("faults", "sources", "vectors", "batches")), here.parent)
    own = [
        f
        for f in frames
        if not f.filename.startswith((*libraries, "<"))
        and Path(f.filename) not in callers
        and Path(f.filename).parent not in callers
    ]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}, {last.line}"
