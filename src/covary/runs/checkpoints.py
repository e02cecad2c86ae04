"""A checkpoint is a folder: agent.json, agent.safetensors, and manifest.json, which says what the other two must be.

It is made under a hidden name, put on the disk file by file, and only then gets its own. Where it replaces another,
that one waits beside it until the new one stands:

    write .N.tmp   ->   N to .N.old   ->   .N.tmp to N   ->   remove .N.old

Whoever finds nothing under N takes .N.old, which is whole; so there is no moment at which neither can be read. What a
killed writer left is put right by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import covary
from covary.errors import UsageError
from covary.runs import files, tensorfile
from covary.runs.files import Unreadable, beside
from covary.runs.tensorfile import Arrays, Buffer

FORMAT = 2
READS = (1, 2)  # 1 has no manifest, and is otherwise the same
META, TENSORS, MANIFEST = "agent.json", "agent.safetensors", "manifest.json"
LIMITS = {META: files.MOST_JSON, TENSORS: tensorfile.MOST_BYTES}


class OtherFormat(UsageError):
    """Written by a version of Covary that knows more than this one: nothing is wrong with it."""


class Broken(UsageError):
    """A checkpoint that is not what was written. `why`, in one line."""

    def __init__(self, file: Path, why: str) -> None:
        self.why = f"{file.name}: {why}"
        super().__init__(
            "A checkpoint must be whole.",
            given=f"{file}: {why}",
            cause="a copy that was cut short, a disk that was full, or a file that was changed",
            fix=f"remove {file.parent}, and the next older one is taken",
        )


def check_format(data: dict[str, Any], file: Path) -> None:
    """Raises OtherFormat unless `data` is of a format that can be read here."""
    if not (type(data.get("format")) is int and data["format"] in READS):
        raise OtherFormat(
            f"This version of Covary reads formats {' and '.join(map(str, READS))}.",
            given=f"{file}: format {_short(data.get('format'))}, written by Covary {_short(data.get('covary'))}",
            fix="the version of Covary that wrote it",
        )


def _short(value: Any) -> str:
    return ascii(value)[:80]


# -------------------------------------------------------------------------------------------------- writing


def write_checkpoint(target: Path, tensors: Arrays, meta: dict[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all. Replaces a checkpoint and nothing else.

    Raises:
        UsageError: a target that holds something else, numbers that are not finite, or a disk that takes no more; what
            was there before is still there.
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not (target.is_dir() and {p.name for p in target.iterdir()} <= {META, TENSORS, MANIFEST}):
        raise UsageError(
            "A checkpoint is a folder of its own.",
            given=f"{target}, which holds something else",
            fix="a folder that does not exist yet",
        )
    contents = _contents(target, tensors, meta)
    temporary, old = beside(target, "tmp"), beside(target, "old")
    try:
        with files.writing(target, "A checkpoint must be writable."):
            target.parent.mkdir(parents=True, exist_ok=True)
            tidy(target)
            os.mkdir(temporary)
            for name, pieces in contents.items():
                files.write(temporary / name, *pieces)
            files.sync_folder(temporary)
            _give_name(temporary, target, old)
            files.sync_folder(target.parent)
    except UsageError:
        files.remove(temporary)
        raise
    files.remove(old)


def _contents(target: Path, tensors: Arrays, meta: dict[str, Any]) -> dict[str, list[Buffer]]:
    """The files, each in pieces, in the order in which they are written. Raises UsageError for what could not be read
    again."""
    try:
        head = {"format": FORMAT, "covary": covary.__version__}
        text = json.dumps(head | meta | head, indent=2, allow_nan=False) + "\n"
        files.parse_json(text.encode())
        contents: dict[str, list[Buffer]] = {TENSORS: tensorfile.to_pieces(tensors), META: [text.encode()]}
    except ValueError as error:
        raise UsageError(
            "A checkpoint holds finite numbers, in files of a sane size.",
            given=f"{target}: {error}",
            cause="training that diverged",
        ) from error
    measured = {name: _measured(pieces) for name, pieces in contents.items()}
    return contents | {MANIFEST: [_manifest(covary.__version__, measured)]}


def _measured(pieces: list[Buffer]) -> tuple[int, str]:
    """Bytes and SHA-256 of a file that will hold these."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return sum(map(len, pieces)), digest.hexdigest()


def _manifest(version: str, measured: dict[str, tuple[int, str]]) -> bytes:
    """Written and compared byte for byte, so that nothing in it can change unseen."""
    listed = {name: {"bytes": measured[name][0], "sha256": measured[name][1]} for name in sorted(measured)}
    return (json.dumps({"format": FORMAT, "covary": version, "files": listed}, indent=2) + "\n").encode()


def _give_name(temporary: Path, target: Path, old: Path) -> None:
    if not os.path.lexists(target):
        os.rename(temporary, target)
        return
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise


def tidy(target: Path) -> None:
    """Puts right what a killed writer of `target` left: the one before gets its name back. Raises OSError."""
    old = beside(target, "old")
    if os.path.lexists(old) and not os.path.lexists(target):
        os.rename(old, target)
    for left in (beside(target, "tmp"), old):
        files.remove(left)


def remove_checkpoint(path: Path) -> None:
    """Takes the name off first, so that no half of a checkpoint is ever seen."""
    gone = beside(path, "tmp")
    files.remove(gone)
    try:
        os.rename(path, gone)
    except OSError:
        return  # it stays, and is in nobody's way
    files.remove(gone)


# -------------------------------------------------------------------------------------------------- reading


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Tensors and description, once sizes and checksums are as the manifest says.

    Raises:
        Broken: a file that is missing, cut short, changed, or no file.
        OtherFormat: one of another version.
    """
    folder = _identity(path)
    try:
        return _read(path)
    except Broken:
        if _identity(path) in (folder, None):
            raise
    return _read(path)  # it was replaced meanwhile, and what was read was half of each


def _identity(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return path.stat().st_ino
    return None


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    if os.path.lexists(path / MANIFEST):
        return _read_verified(path)
    meta = _parsed(path / META, _bytes(path / META, LIMITS[META]))
    check_format(meta, path / META)
    if meta["format"] != 1:
        raise Broken(path / MANIFEST, "it is missing")
    return _tensors(path), meta


def _read_verified(path: Path) -> tuple[Arrays, dict[str, Any]]:
    file = path / MANIFEST
    text = _bytes(file, 2**16)
    manifest = _parsed(file, text)
    check_format(manifest, file)
    listed = manifest.get("files")
    if manifest["format"] != FORMAT or not isinstance(listed, dict) or set(listed) != set(LIMITS):
        raise Broken(file, f"it must list {' and '.join(LIMITS)}")
    measured = {name: _measure(path / name, listed[name]) for name in LIMITS}
    data = _bytes(path / META, LIMITS[META])
    if hashlib.sha256(data).hexdigest() != measured[META][1]:
        raise Broken(path / META, "it changes while it is read")
    meta = _parsed(path / META, data)
    check_format(meta, path / META)
    if meta["format"] != FORMAT or text != _manifest(str(meta.get("covary")), measured):
        raise Broken(file, "it is not what was written")
    return _tensors(path), meta


def _measure(file: Path, listed: Any) -> tuple[int, str]:
    """Bytes and SHA-256 of a file. Raises Broken unless they are those listed."""
    if not isinstance(listed, dict) or set(listed) != {"bytes", "sha256"}:
        raise Broken(file.parent / MANIFEST, f"it must give the bytes and the sha256 of {file.name}")
    try:
        with files.opened(file, LIMITS[file.name], links=False) as (descriptor, size):
            if type(listed["bytes"]) is not int or size != listed["bytes"]:
                raise Unreadable(f"{size:,} bytes, where {_short(listed['bytes'])} were written")
            digest = files.digest_of(descriptor, size)
    except Unreadable as error:
        raise Broken(file, str(error)) from error
    if digest != listed["sha256"]:
        raise Broken(file, "its SHA-256 is not that of what was written")
    return size, digest


def _bytes(file: Path, most: int) -> bytes:
    try:
        return files.read(file, most, links=False)
    except Unreadable as error:
        raise Broken(file, str(error)) from error


def _parsed(file: Path, data: bytes) -> dict[str, Any]:
    try:
        return files.parse_json(data)
    except Unreadable as error:
        raise Broken(file, str(error)) from error


def _tensors(path: Path) -> Arrays:
    file = path / TENSORS
    try:
        with files.opened(file, LIMITS[TENSORS], links=False) as (descriptor, size):
            return tensorfile.from_file(descriptor, size)
    except Unreadable as error:
        raise Broken(file, str(error)) from error
