"""Which checkpoint is meant: one that is named, or the newest of a run that is whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from covary.errors import UsageError
from covary.runs.checkpoints import MANIFEST, META, TENSORS, Broken, read_checkpoint
from covary.runs.files import beside
from covary.runs.tensorfile import Arrays

Found = tuple[Path, Arrays, dict[str, Any]]


def standing(path: Path) -> Path:
    """The path, or the checkpoint that a killed writer left waiting beside it."""
    if path.name and not path.exists() and (old := beside(path, "old")).is_dir():
        return old
    return path


def is_checkpoint(path: Path) -> bool:
    return any((path / name).is_file() for name in (META, TENSORS, MANIFEST))


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder of them, from the oldest to the newest; the best is not among them."""
    names = {p.name.removeprefix(".").removesuffix(".old") for p in folder.glob("*") if not p.is_symlink()}
    places = (standing(folder / name) for name in names if name.isascii() and name.isdecimal())
    return sorted((p for p in places if p.is_dir()), key=number_of)


def number_of(place: Path) -> int:
    """The step in the name of a numbered checkpoint."""
    return int(place.name.removeprefix(".").removesuffix(".old"))


def newest_checkpoint(path: str | Path, say: Callable[[str], None] | None = None) -> Found:
    """The checkpoint at `path`, or the newest of the run there that is whole: its folder, tensors and description.

    Args:
        say: is told, in one line each, which newer ones are passed over and why; None prints on stderr.

    Raises:
        UsageError: neither is there, none is whole, or the newest is of a version that this one does not know.
    """
    path = standing(Path(path))
    if is_checkpoint(path):
        return path, *read_checkpoint(path)
    passed: list[tuple[Path, Broken]] = []
    for place in reversed(_of_run(path)):
        try:
            found = read_checkpoint(place)
        except Broken as error:
            passed.append((place, error))
            continue
        for other, broken in passed:
            (say or _tell)(f"{other} is passed over, it is not whole ({broken.why}); {place.name} is taken")
        return place, *found
    raise UsageError(
        "A run needs one whole checkpoint.",
        given=f"{path}, where none of {len(passed)} is. " + "; ".join(f"{p}: {e.why}" for p, e in passed[:3]),
        cause="copies that were cut short, a disk that was full, or files that were changed",
        fix=f"remove {path / 'checkpoints'}, then `covary train --resume {path}` starts again from its settings",
    )


def find_checkpoint(path: str | Path, say: Callable[[str], None] | None = None) -> Path:
    """A checkpoint itself, or the newest of a run that is whole.

    Raises:
        UsageError: as `newest_checkpoint`; a checkpoint that is named itself is not read yet.
    """
    path = standing(Path(path))
    return path if is_checkpoint(path) else newest_checkpoint(path, say)[0]


def _of_run(path: Path) -> list[Path]:
    """Raises UsageError where there is no run, or none of its checkpoints."""
    if not path.exists():
        raise UsageError("A run or checkpoint must exist.", given=path)
    if not (path / "config.json").is_file():
        raise UsageError("A run holds a config.json, a checkpoint an agent.json.", given=f"{path}, which has neither")
    if not (found := numbered(path / "checkpoints")):
        raise UsageError(
            "This run has no checkpoint yet.",
            given=path,
            cause="it was stopped before its first one",
            fix=f"covary train --resume {path}",
        )
    return found


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
