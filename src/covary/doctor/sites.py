"""Where in the user's own code something happened, and the source that stands there."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from types import CodeType, FrameType

import torch

OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCH = os.path.dirname(os.path.realpath(torch.__file__)) + os.sep
_LIBRARY = tuple(
    {
        os.path.realpath(path) + os.sep
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        if (path := sysconfig.get_paths().get(name))
    }
)


@dataclass(frozen=True, slots=True)
class Site:
    """One place in the user's code; lines count from 1, columns from 0."""

    file: str
    line: int
    function: str
    column: int = 0
    end_line: int = 0

    @property
    def source(self) -> str:
        """The line itself, without its indentation."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def place(self) -> tuple[str, int]:
        return self.file, self.line

    def at(self, line: int) -> Site:
        """Another line of the same file."""
        return Site(self.file, line, self.function)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@functools.cache
def is_users(filename: str) -> bool:
    """Whether a file is the user's own: not Python's, not an installed package's, not the doctor's."""
    if not filename or (filename.startswith("<") and not filename.startswith("<ipython")):
        return False
    path = os.path.realpath(filename)
    if path.startswith(OWN) or "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith(_LIBRARY)


_SITES: dict[tuple[CodeType, int], Site] = {}
_STACKS: dict[tuple[tuple[CodeType, int], ...], tuple[Site, ...]] = {}
_USERS: dict[CodeType, bool] = {}


def _of(code: CodeType, last: int) -> Site:
    site = _SITES.get((code, last))
    if site is None:
        position = (code.co_firstlineno, code.co_firstlineno, 0, 0)
        for i, found in enumerate(code.co_positions()):
            if i == last // 2 and found[0] is not None:
                position = found  # type: ignore[assignment]
                break
        line, end, column, _ = position
        site = _SITES[code, last] = Site(
            os.path.abspath(code.co_filename), line, code.co_name, column or 0, end or line
        )
    return site


def user_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's own code, from `frame` outwards."""
    users = _USERS
    while frame is not None:
        code = frame.f_code
        known = users.get(code)
        if known is None:
            known = users[code] = is_users(code.co_filename)
        if known:
            return frame
        frame = frame.f_back
    return None


def by_the_user(depth: int = 1) -> bool:
    """Whether the user's own code called PyTorch here, and no library between the two."""
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None and not is_users(name := frame.f_code.co_filename):
        path = os.path.realpath(name)
        if not path.startswith((OWN, _TORCH)) and not name.startswith("<") and "functools" not in name:
            return False
        frame = frame.f_back
    return frame is not None


def site_of(frame: FrameType | None) -> Site | None:
    """The site in `frame` itself, resolved to the very line of a multi-line statement."""
    if frame is None:
        return None
    site = _of(frame.f_code, frame.f_lasti)
    line = frame.f_lineno
    return (
        site if line == site.line or line is None else Site(site.file, line, site.function, site.column, site.end_line)
    )


def here(depth: int = 1) -> Site | None:
    """The innermost site in the user's code; None where no frame is the user's."""
    frame = user_frame(sys._getframe(depth + 1))
    return None if frame is None else _of(frame.f_code, frame.f_lasti)


def stack(depth: int = 1, most: int = 8) -> tuple[Site, ...]:
    """The user's frames from the innermost outwards."""
    found: list[Site] = []
    frame = user_frame(sys._getframe(depth + 1))
    while frame is not None and len(found) < most:
        found.append(_of(frame.f_code, frame.f_lasti))
        frame = user_frame(frame.f_back)
    return tuple(found)


def first_own(made: tuple[Site, ...], others: tuple[tuple[Site, ...], ...]) -> Site | None:
    """Of the user's frames, innermost first, the first through which none of the others went.

    A helper (or a constructor) that made or wrote other things rightly is not the line to change; its caller is.
    """
    shared = {site.place for other in others for site in other}
    return next((site for site in made if site.place not in shared), made[0] if made else None)


@functools.cache
def tree(file: str) -> ast.Module | None:
    """The parsed file, or None where it cannot be read or is no Python."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return None


@functools.cache
def statement(file: str, line: int) -> ast.stmt | None:
    """The innermost statement that covers a line."""
    module, best = tree(file), None
    for node in ast.walk(module) if module else ():
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            size = (node.end_lineno or node.lineno) - node.lineno
            if best is None or size <= (best.end_lineno or best.lineno) - best.lineno:
                best = node
    return best


@functools.cache
def text(file: str, line: int) -> str:
    """The source of the innermost statement at a line, for a compound statement its head; one line, single spaces."""
    node = statement(file, line)
    if node is None:
        return linecache.getline(file, line).strip()
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
    lines = linecache.getlines(file)[node.lineno - 1 : max(last, node.lineno)]
    return " ".join(" ".join(lines).split())
