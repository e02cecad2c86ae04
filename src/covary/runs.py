"""A run is a folder. This room writes and reads it, and knows nothing of torch.

config.json            all settings, versions and the seed; written first
metrics.jsonl          what was learned, a line a report: decided by seed and settings alone
timing.jsonl           clock times and steps per second
checkpoints/N/         agent.json and agent.safetensors after N steps, complete or absent
checkpoints/best/      the best by evaluation, where there is any
profile.json           where the time went, if it was asked for
curve.png              at the end
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from covary.errors import UsageError

FORMAT = 1
KEPT = 3  # checkpoints, besides the best
Arrays = dict[str, NDArray[Any]]


class Run:
    """A run folder that exists. `Run.create` makes one, `Run.open` checks one."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config

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
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            run.write_config()
        except OSError as error:
            raise UsageError(
                "The run folder must be writable.", given=f"{path}: {error.strerror}", fix="--out FOLDER"
            ) from error
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
        _check_format(config, file)
        return cls(path, config)

    def write_config(self) -> None:
        _write(self.path / "config.json", json.dumps(self.config, indent=2) + "\n")

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Writes NAME.json."""
        _write(self.path / f"{name}.json", json.dumps(record, indent=2) + "\n")

    # ---- lines

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics or timing; it is on its way to the disk when this returns."""
        file = self.path / f"{name}.jsonl"
        try:
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(_finite(record), allow_nan=False) + "\n")
        except OSError as error:
            raise UsageError("A run's folder must stay writable.", given=f"{file}: {error}") from error

    def lines(self, name: str = "metrics") -> Iterator[dict[str, Any]]:
        """The lines of metrics or timing; a torn last line is passed over."""
        with contextlib.suppress(FileNotFoundError), self._open(name) as file:
            for line in file:
                with contextlib.suppress(json.JSONDecodeError):
                    if isinstance(record := json.loads(line), dict) and isinstance(record.get("step"), int):
                        yield record

    def _open(self, name: str) -> TextIO:
        return open(self.path / f"{name}.jsonl", encoding="utf-8", errors="replace")

    def cut_back(self, step: int) -> None:
        """Drops what was logged after `step`, which a resumed run will log again."""
        for name in ("metrics", "timing"):
            kept = [line for line in self.lines(name) if line.get("step", 0) <= step]
            _write(self.path / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    # ---- checkpoints

    def checkpoints(self) -> list[Path]:
        """From the oldest to the newest; the best is not among them."""
        found = (p for p in (self.path / "checkpoints").glob("*") if p.name.isdecimal() and p.is_dir())
        return sorted(found, key=lambda p: int(p.name))

    def save(self, step: int, tensors: Arrays, meta: dict[str, Any], *, best: bool = False) -> Path:
        """Writes a checkpoint, whole or not at all, and drops the oldest beyond the last three."""
        target = self.path / "checkpoints" / ("best" if best else f"{step:012d}")
        write_checkpoint(target, tensors, meta)
        for old in self.checkpoints()[:-KEPT]:
            shutil.rmtree(old)
        return target


def _check_format(data: dict[str, Any], file: Path) -> None:
    if data.get("format") != FORMAT:
        raise UsageError(
            f"This version of Covary reads format {FORMAT}.",
            given=f"{file}: format {data.get('format')!r}, written by Covary {data.get('covary')}",
            fix="the version of Covary that wrote it",
        )


def read_json(file: Path) -> dict[str, Any]:
    """Raises UsageError unless the file holds one JSON object of finite numbers."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file.name} must be readable JSON.", given=f"{file}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{file.name} must hold a JSON object.", given=f"{file}: {type(data).__name__}")
    return data


def _finite(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite is logged as a string, so that it is seen and not lost."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


_FILES = ("agent.json", "agent.safetensors")


def write_checkpoint(target: Path, tensors: Arrays, meta: dict[str, Any]) -> None:
    """agent.json and agent.safetensors under a temporary name, then renamed. Replaces a checkpoint and nothing else.

    Raises:
        UsageError: a target that holds something else, or a disk that takes no more.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if target.exists() and not (target.is_dir() and {p.name for p in target.iterdir()} <= set(_FILES)):
        raise UsageError(
            "A checkpoint is a folder of its own.",
            given=f"{target}, which holds something else",
            fix="a folder that does not exist yet",
        )
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file({k: np.asarray(v, order="C") for k, v in tensors.items()}, temporary / "agent.safetensors")
        _write(temporary / "agent.json", json.dumps({"format": FORMAT, **meta}, indent=2, allow_nan=False) + "\n")
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)  # left by a writer that was killed
            target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UsageError(
            "A checkpoint must be writable.", given=f"{target}: {error}", cause="a full disk, or no permission"
        ) from error


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint itself, or the newest of a run.

    Raises:
        UsageError: neither is there.
    """
    path = Path(path)
    if (path / "agent.json").is_file() or (path / "agent.safetensors").is_file():
        return path
    if not path.exists():
        raise UsageError("A run or checkpoint must exist.", given=path)
    if not (path / "config.json").is_file():
        raise UsageError("A run holds a config.json, a checkpoint an agent.json.", given=f"{path}, which has neither")
    found = Run(path, {}).checkpoints()
    if not found:
        raise UsageError(
            "This run has no checkpoint yet.",
            given=path,
            cause="it was stopped before its first one",
            fix=f"covary train --resume {path}",
        )
    return found[-1]


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Raises UsageError where a file is missing, empty, corrupted or of another version."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    meta = read_json(path / "agent.json")
    _check_format(meta, path / "agent.json")
    try:
        return load_file(path / "agent.safetensors"), meta
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UsageError(
            "A checkpoint must be whole.",
            given=f"{path / 'agent.safetensors'}: {error}",
            cause="a copy that was cut short, or a disk that was full",
            fix=f"remove {path}: the next older one is then the newest",
        ) from error
