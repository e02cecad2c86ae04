"""A user's mistake gets one message: the rule, what was given, the likely cause and the fix."""

from __future__ import annotations


class UsageError(ValueError):
    """Something the user can put right. The command line prints it alone and exits with 2.

    Args:
        rule: what holds, in one sentence.
        given: what was given instead.
        cause: the usual cause, where there is one.
        fix: what to write.
    """

    def __init__(self, rule: str, *, given: object = None, cause: str = "", fix: str = "") -> None:
        lines = [rule]
        lines += [f"  given: {given}"] if given is not None else []
        lines += [f"  cause: {cause}"] if cause else []
        lines += [f"  fix:   {fix}"] if fix else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:  # an environment may raise it in another process
        return (_rebuilt, (str(self),))


def _rebuilt(message: str) -> UsageError:
    return UsageError(message)
