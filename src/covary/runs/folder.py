"""A run's folder: its config, its lines and its checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from covary.errors import UsageError
from covary.runs import checkpoints, files, finding
from covary.runs.checkpoints import check_format, write_checkpoint
from covary.runs.files import read_json
from covary.runs.finding import number_of
from covary.runs.tensorfile import Arrays

KEPT = 3  # checkpoints, besides the best


class Run:
    """A run folder that exists. `Run.create` makes one, `Run.open` checks one."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path.absolute(), config  # an environment may change the working directory
        self.named = path  # as the user wrote it, for messages

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> Run:
        """Raises UsageError if the folder exists already or cannot be written."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            held = "a run" if (path / "config.json").exists() else "something else"
            raise UsageError(
                "A new run needs a folder of its own.",
                given=f"{path}, which holds {held}",
                fix=f"another --out, or `covary train --resume {path}` to go on with it",
            )
        run = cls(path, config)
        with files.writing(path, "The run folder must be writable.", fix="--out FOLDER"):
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        run.write_config()
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Raises UsageError if there is no run, or its config.json is broken or of another version."""
        file = path / "config.json"
        if not file.is_file():
            near = sorted(str(p.parent) for p in path.parent.glob("*/config.json"))[-3:] if path.parent.is_dir() else []
            raise UsageError(
                "A run is a folder with a config.json.",
                given=f"{path}, {'which has none' if path.exists() else 'which does not exist'}",
                fix=f"there is {', '.join(near)}" if near else "",
            )
        config = read_json(file)
        if not isinstance(config.get("algo"), str) or not isinstance(config.get("env"), dict):
            raise UsageError("config.json must hold a run's settings.", given=f"{file} without algo or env")
        check_format(config, file)
        return cls(path, config)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Raises UsageError while another process goes on with this run."""
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    "A run goes on in one process at a time.",
                    given=f"{self.named}, which another process has",
                    fix="wait for that one, or copy the folder",
                ) from error
            except OSError:  # a file system that has no locks
                pass
            yield
        finally:
            os.close(descriptor)

    def write_config(self) -> None:
        """Raises UsageError where the disk takes no more; the one before is then still there."""
        self.write("config", self.config)

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Writes NAME.json, whole or not at all. Raises UsageError where the disk takes no more."""
        file = self.path / f"{name}.json"
        with files.writing(file):
            files.replace(file, (json.dumps(record, indent=2) + "\n").encode())

    # ---- lines

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics or timing; it is on its way to the disk when this returns.

        Raises:
            UsageError: the disk takes no more; nothing of the line is then there, and all before it is.
        """
        file = self.path / f"{name}.jsonl"
        line = json.dumps(_finite(record), allow_nan=False).encode() + b"\n"
        with files.writing(file):
            _append(file, line)

    def lines(self, name: str = "metrics") -> Iterator[dict[str, Any]]:
        """The lines of metrics or timing; a torn one is passed over."""
        yield from (record for _, record in self._lines(name) if record is not None)

    def _lines(self, name: str) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Each line as it stands in the file, and its record where it is one."""
        try:
            with open(self.path / f"{name}.jsonl", "rb") as file:
                for line in file:
                    yield line, _record(line)
        except FileNotFoundError:
            return

    def cut_back(self, step: int, taken: int) -> None:
        """Drops what was logged after `step`, which a resumed run will log again, and a torn last line.

        What stays, stays byte for byte. Checkpoints after the one of `taken` steps, from which the run goes on, are set
        aside as `aside-N`, so that they are not taken for what the resumed run will write.

        Raises:
            UsageError: the disk takes no more; nothing that was logged is then lost.
        """
        for name in ("metrics", "timing", "warnings"):
            file = self.path / f"{name}.jsonl"
            with files.writing(file):
                if (kept := self._until(name, step)) is not None:
                    _shorten(file, kept)
        for place in self.checkpoints():
            if number_of(place) > taken:
                aside = place.with_name(f"aside-{number_of(place):012d}")
                with files.writing(place):
                    files.remove(aside)
                    os.rename(place, aside)

    def _until(self, name: str, step: int) -> bytes | None:
        """All lines of a file but the records after `step` and what is torn at its end; None where there is none."""
        kept, tail, seen = bytearray(), bytearray(), False
        for line, record in self._lines(name):
            seen = True
            if record is None:
                tail += line  # stays if a record follows it
            elif record["step"] <= step:
                kept += tail + line
                tail.clear()
        if kept and not kept.endswith(b"\n"):
            kept += b"\n"
        return bytes(kept) if seen else None

    # ---- checkpoints

    def best_score(self) -> float:
        """Of the best checkpoint, which may be one that a run went back behind; of the lines, where it says none."""
        scores: list[Any] = [line.get("eval_return") for line in self.lines()]
        with contextlib.suppress(UsageError):
            scores.append(checkpoints.read_checkpoint(self.path / "checkpoints" / "best")[1].get("eval_return"))
        return max((score for score in scores if isinstance(score, float)), default=-math.inf)

    def checkpoints(self) -> list[Path]:
        """From the oldest to the newest; the best is not among them."""
        return finding.numbered(self.path / "checkpoints")

    def save(self, step: int, tensors: Arrays, meta: dict[str, Any], *, best: bool = False) -> Path:
        """Writes a checkpoint, whole or not at all, and drops the oldest beyond the last three.

        Raises:
            UsageError: the disk takes no more; the checkpoints before are still there.
        """
        folder = self.path / "checkpoints"
        target = folder / ("best" if best else f"{step:012d}")
        with files.writing(folder, "A checkpoint must be writable."):
            for left in folder.glob(".*"):  # by a writer that was killed
                if left.suffix in (".tmp", ".old"):
                    checkpoints.tidy(folder / left.name.removeprefix(".").removesuffix(left.suffix))
        write_checkpoint(target, tensors, meta)
        if not best:
            until = [place for place in self.checkpoints() if number_of(place) <= step]
            for old in until[:-KEPT]:
                checkpoints.remove_checkpoint(old)
        return target


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite is logged as a string, so that it is seen and not lost."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None where it is torn or no record of a step."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def _append(path: Path, line: bytes) -> None:
    """A line of its own, whole or not at all. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        if end and _last_byte(file, end) != b"\n":  # a torn one keeps a line to itself
            line = b"\n" + line
        try:
            files.put(file, line)
        except BaseException:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)


def _last_byte(file: int, end: int) -> bytes:
    os.lseek(file, end - 1, os.SEEK_SET)
    return os.read(file, 1)


def _shorten(file: Path, kept: bytes) -> None:
    """Leaves `kept` of a file: cuts it where that is how it starts, else puts another in its place. Raises OSError."""
    data = file.read_bytes()
    if data == kept:
        return
    if not data.startswith(kept):
        files.replace(file, kept)
        return
    descriptor = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.ftruncate(descriptor, len(kept))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
