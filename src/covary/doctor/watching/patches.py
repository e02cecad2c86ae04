"""Attributes that are replaced while someone watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patches:
    """Attributes that were replaced, so that they can be put back."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, bool]] = []

    def put(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replaces `owner.name` by make(original)."""
        own = name in vars(owner)
        original = getattr(owner, name)
        kept = vars(owner).get(name, original)
        new = make(original)
        if isinstance(kept, staticmethod):
            new = staticmethod(new)
        setattr(owner, name, new)
        self._undo.append((owner, name, kept, own))

    def undo(self) -> None:
        for owner, name, kept, own in reversed(self._undo):
            if own:
                setattr(owner, name, kept)
            else:
                delattr(owner, name)
        self._undo.clear()
