"""Files that are whole or absent, and JSON that may come from anyone.

What is written goes under a temporary name, to the disk, and only then under its own. What is read is measured first.
Every call of the system stands here, so that a test can let each one fail in turn.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from covary.errors import UsageError

MOST_JSON = 2**24  # bytes: the costliest text, lists of a number each, takes sixty times as much memory, below 1 GB
DEEPEST = 64  # levels of lists and objects; Covary's own files have five
LONGEST = 80  # characters of a number: 256 bits have 78 digits, a generator's state has 128


class Unreadable(ValueError):
    """Why a file is not what it should be, in a few words."""


# -------------------------------------------------------------------------------------------------- reading


@contextlib.contextmanager
def opened(path: Path, most: int, *, links: bool = True) -> Iterator[tuple[int, int]]:
    """A descriptor to read from and the file's size.

    Raises:
        Unreadable: no such file, one of more than `most` bytes, a device, a pipe, or a link where `links` is False.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody writes to would be waited for
    flags |= getattr(os, "O_BINARY", 0) | (0 if links else getattr(os, "O_NOFOLLOW", 0))
    try:
        file = os.open(path, flags)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise Unreadable(why or str(error)) from error
    except ValueError as error:  # a NUL in the name
        raise Unreadable(str(error)) from error
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable("it is no file")
        if about.st_size > most:
            raise Unreadable(f"{about.st_size:,} bytes, where at most {most:,} are read")
        yield file, about.st_size
    finally:
        os.close(file)


def read(path: Path, most: int, *, links: bool = True) -> bytes:
    """Raises Unreadable as `opened` does, and where the file shrinks meanwhile."""
    with opened(path, most, links=links) as (file, size):
        return read_from(file, size)


def read_from(file: int, size: int) -> bytes:
    """The next `size` bytes. Raises Unreadable where there are fewer."""
    parts, left = [], size
    try:
        while left and (part := os.read(file, left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise Unreadable(error.strerror) from error
    if left:
        raise Unreadable(f"{size - left:,} bytes of {size:,}")
    return b"".join(parts)  # the very object where there is one


def digest_of(file: int, size: int) -> str:
    """The SHA-256 of the first `size` bytes, read in small parts; the file stands at its start afterwards."""
    digest, left = hashlib.sha256(), size
    while left:
        part = read_from(file, min(left, 2**20))
        digest.update(part)
        left -= len(part)
    os.lseek(file, 0, os.SEEK_SET)
    return digest.hexdigest()


def parse_json(data: bytes) -> dict[str, Any]:
    """One JSON object of finite numbers, each key once.

    Raises:
        Unreadable: anything else, and what is too long, too deep or not UTF-8.
    """
    if len(data) > MOST_JSON:
        raise Unreadable(f"{len(data):,} bytes, where at most {MOST_JSON:,} are read")
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
        if "\\ud" in text.lower():  # half a character cannot be printed, or kept in a file's name
            json.dumps(value, ensure_ascii=False).encode()
        depth = _depth(value)
    except RecursionError:
        depth = DEEPEST + 1
    except ValueError as error:
        raise Unreadable(str(error)[:200]) from error
    if depth > DEEPEST:
        raise Unreadable(f"lists and objects within each other more than {DEEPEST} deep")
    if not isinstance(value, dict):
        raise Unreadable(f"a JSON object is expected, and this is a {type(value).__name__}")
    return value


def read_json(file: Path) -> dict[str, Any]:
    """Raises UsageError unless the file holds one JSON object of finite numbers, of at most 16 MB."""
    try:
        return parse_json(read(file, MOST_JSON))
    except Unreadable as error:
        raise UsageError(f"{file.name} must be readable JSON.", given=f"{file}: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that stands there twice")
    return found


def _integer(text: str) -> int:
    if len(text) > LONGEST:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _float(text: str) -> float:
    if len(text) > LONGEST or not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:LONGEST]} is no number that a computer holds")
    return number


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _depth(value: Any) -> int:
    """Levels of lists and objects, level by level; more than `DEEPEST` are not counted."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        inner = [x for x in level if isinstance(x, list | dict)]
        level = [x for each in inner for x in (each.values() if isinstance(each, dict) else each)]
        depth += bool(inner)
        if not inner:
            break
    return depth


# -------------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def writing(place: Path, rule: str = "A run's folder must stay writable.", fix: str = "") -> Iterator[None]:
    """One message for whatever the system refuses meanwhile. Raises UsageError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EFBIG)
        go_on = "make room, then go on" if full else "make it writable, then go on"
        raise UsageError(
            rule,
            given=f"{place}: {error.strerror or error}",
            cause="a full disk" if full else "no permission, or a folder that another process changes",
            fix=fix if fix and not full else f"{go_on}: what was there before is still good",
        ) from error


def write(path: Path, *pieces: bytes | memoryview) -> None:
    """A new file of these, one after another, on the disk when this returns. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags, 0o666)
    try:
        for data in pieces:
            put(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def put(file: int, data: bytes | memoryview) -> None:
    """All of `data`, however little the system takes at once."""
    view = memoryview(data)
    while view:
        if not (taken := os.write(file, view)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[taken:]


def replace(path: Path, data: bytes) -> None:
    """The file under its name, whole; until then the one before. Raises OSError, and leaves nothing behind."""
    temporary = beside(path, "tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # left by a writer that was killed
    try:
        write(temporary, data)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        remove(temporary)
        raise


def beside(path: Path, ending: str) -> Path:
    """The hidden name for what is on its way to `path` or from it."""
    return path.with_name(f".{path.name}.{ending}")


def sync_folder(path: Path) -> None:
    """Puts the names in a folder on the disk, on systems that can be asked to. Raises OSError."""
    if os.name == "nt":
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that have no such thing
            raise
    finally:
        os.close(folder)


def remove(path: Path) -> None:
    """A file, link or folder, if it is there; what cannot be removed stays, and is in nobody's way."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
