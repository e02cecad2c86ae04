"""What an environment did wrong, told with the line in its own code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Any

from covary.errors import UsageError


class EnvironmentFault(UsageError):
    """The environment broke its own rules, or raised, in the middle of a run."""


class NonFiniteStep(EnvironmentFault):
    """An environment gave a number that is not finite. Attributes: `where`, as JSON can hold it, and `batch`, the
    actions and what came back, as `covary.guard.NonFinite` has them."""

    def __init__(self, rule: str, *, where: dict[str, Any], batch: dict[str, Any], **told: Any) -> None:
        super().__init__(rule, **told)
        self.where, self.batch = where, batch


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
