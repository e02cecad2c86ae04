"""Every call of the system by which a run is saved fails in turn, or is where the process dies.

    python bench/trials/writes.py                  every position, in about a minute
    python bench/trials/writes.py --n 50 --seed 7  some of them

A run with two good checkpoints and a best one gets another state: as a new checkpoint, as one at a step that is there
already, as the best, as a line of metrics, as metrics cut back, as another config. Position by position, the call

    error       raises "No space left on device"
    short       writes half of what it was given, then raises
    killed      is where the process ends, before the call
    torn        writes half, and there the process ends

Afterwards the run's newest checkpoint and its best must be, bit for bit, the state before or the state after; metrics
must hold every line from before that was not to be cut away; and the same save, tried again, must succeed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from covary import UsageError
from covary.runs import Run, newest_checkpoint

CALLS = ("open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir", "ftruncate")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a folder that no disk slows
WAYS = ("error", "short", "killed", "torn")


class Interrupted:
    """os.* with one call that goes wrong: the `at`-th, counted from 0; None for none, to count them all."""

    def __init__(self, at: int | None, way: str = "error") -> None:
        self.at, self.way, self.count, self.name = at, way, 0, ""
        self.kept: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> Interrupted:
        for name in CALLS:
            self.kept[name] = getattr(os, name)
            setattr(os, name, self._instead(name))
        return self

    def __exit__(self, *error: object) -> None:
        for name, function in self.kept.items():
            setattr(os, name, function)

    def _instead(self, name: str) -> Callable[..., Any]:
        before = self.kept[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            reads = name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR)
            if reads:
                return before(*args, **kwargs)
            here, self.count = self.count, self.count + 1
            if here != self.at:
                return before(*args, **kwargs)
            self.name = name
            if self.way in ("short", "torn") and name == "write":
                before(args[0], args[1][: len(args[1]) // 2])
            if self.way in ("killed", "torn"):
                os._exit(9)
            if name == "close":
                before(*args, **kwargs)  # an error on closing leaves nothing open
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return call


# ------------------------------------------------------------------------------------------- what is saved


def _state(step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"x": np.full(100, step, np.float32), "y": np.arange(step)}, {"steps": step}


LINES = 6


def _before(path: Path) -> Run:
    run = Run.create(path, {"algo": "ppo", "env": {}, "format": 2, "state": "before"})
    for step in range(1, LINES + 1):
        run.append("metrics", {"step": step, "x": 0.1 * step})
        run.append("timing", {"step": step, "seconds": 1.5})
    for step in (2, 4):
        run.save(step, *_state(step))
    run.save(3, *_state(3), best=True)
    return run


def _config(run: Run) -> None:
    run.config = run.config | {"state": "after"}
    run.write_config()


SAVES: dict[str, Callable[[Run], object]] = {
    "a new checkpoint": lambda run: run.save(6, *_state(6)),
    "a fourth checkpoint": lambda run: [run.save(step, *_state(step)) for step in (5, 6, 7)],
    "the same step again": lambda run: run.save(4, *_state(40)),
    "the best": lambda run: run.save(5, *_state(5), best=True),
    "a line": lambda run: run.append("metrics", {"step": LINES + 1, "x": 0.7}),
    "cut back": lambda run: run.cut_back(4, 4),
    "the config": _config,
}
AFTER = {"a new checkpoint": (4, 6), "a fourth checkpoint": (4, 5, 6, 7), "the same step again": (4, 40)}
BEST = {"the best": (3, 5)}


def _lost(save: str, path: Path) -> str:
    """What of the run cannot be read as it was before or as it should be after; empty where all can."""
    try:
        run = Run.open(path)
        told: list[str] = []
        _, arrays, meta = newest_checkpoint(path, told.append)
        if meta["steps"] not in AFTER.get(save, (4,)) or told:
            return f"the newest is {meta['steps']}, {told}"
        _, best, about = newest_checkpoint(path / "checkpoints" / "best")
        if about["steps"] not in BEST.get(save, (3,)):
            return f"the best is {about['steps']}"
        for got, step in ((arrays, meta["steps"]), (best, about["steps"])):
            wanted = _state(step)[0]
            if set(got) != set(wanted) or any(got[k].tobytes() != v.tobytes() for k, v in wanted.items()):
                return f"other bits at {step}"
        for name in ("metrics", "timing"):
            steps = [line["step"] for line in run.lines(name)]
            every = list(range(1, LINES + 2))
            least = 4 if save == "cut back" else LINES
            if steps != every[: len(steps)] or len(steps) < least:
                return f"{name}: {steps}"
        if run.config["state"] not in ("before", "after"):
            return "the config"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _whole_again(save: str, path: Path) -> str:
    """The same once more, without a fault: it must succeed, and leave nothing behind."""
    try:
        SAVES[save](Run.open(path))
    except Exception as error:
        return f"again: {type(error).__name__}: {error}"
    if left := [p.name for p in (path / "checkpoints").glob(".*")] if save in AFTER or save in BEST else []:
        return f"left behind: {left}"
    lines = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    torn = [line for line in lines if not line.endswith(b"\n")]
    return f"torn: {torn}" if torn else ""


# --------------------------------------------------------------------------------------------- one by one


def _calls(save: str, run: Path, work: Path) -> int:
    """How many calls a save takes."""
    shutil.copytree(run, work)
    opened = Run.open(work)
    with Interrupted(None) as counted:
        SAVES[save](opened)
    shutil.rmtree(work)
    return counted.count


def _fail(save: str, work: Path, at: int, way: str) -> str:
    """What is wrong after the `at`-th call failed; empty where nothing is."""
    run = Run.open(work)
    with Interrupted(at, way) as interrupted:
        try:
            SAVES[save](run)
        except UsageError as error:
            said = str(error)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        else:
            said = ""
    if said and not (str(work) in said and "No space left" in said and said.count("given:") == 1):
        return f"says {said!r} at {interrupted.name}"
    if not said and not _done(save, work):
        return f"says nothing at {interrupted.name}, and nothing is saved"
    return ""


def _done(save: str, work: Path) -> bool:
    """Whether the state after is there, all of it: a call that only tidies up may fail without a word."""
    run = Run.open(work)
    if save in AFTER:
        return bool(newest_checkpoint(work)[2]["steps"] == AFTER[save][-1])
    if save in BEST:
        return bool(newest_checkpoint(work / "checkpoints" / "best")[2]["steps"] == BEST[save][-1])
    steps = [line["step"] for line in run.lines()]
    return {"a line": steps[-1] > LINES, "cut back": steps[-1] == 4, "the config": run.config["state"] == "after"}[save]


def _kill(save: str, work: Path, at: int, way: str) -> str:
    run = Run.open(work)
    with warnings_off():
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), Interrupted(at, way):
            SAVES[save](run)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "" if os.waitstatus_to_exitcode(status) == 9 else f"the process was not killed: {status}"


@contextlib.contextmanager
def warnings_off() -> Iterator[None]:
    """A fork beside PyTorch's threads is safe where the child uses none of them, and Python 3.12 warns all the same."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def run(n: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each save and way: positions tried, runs lost. At most `n` positions in all, spread over the rows."""
    rng = np.random.default_rng(seed)
    ways = WAYS if hasattr(os, "fork") else WAYS[:2]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        origin, work = Path(folder) / "origin", Path(folder) / "run"
        _before(origin)
        counts = {save: _calls(save, origin, work) for save in SAVES}
        pairs = [(save, way) for save in SAVES for way in ways]
        for i, (save, way) in enumerate(pairs):
            share = n // len(pairs) + (i < n % len(pairs))
            positions = sorted(rng.permutation(counts[save])[:share].tolist())
            row: dict[str, Any] = {"save": save, "way": way, "calls": counts[save], "tried": 0, "lost": 0}
            row["problems"] = []
            for at in positions:
                shutil.copytree(origin, work)
                how = (_fail if way in ("error", "short") else _kill)(save, work, at, way)
                wrong = how or _lost(save, work) or _whole_again(save, work)
                shutil.rmtree(work)
                row["tried"] += 1
                row["lost"] += bool(wrong)
                row["problems"] += [f"call {at}: {wrong}"] if wrong and len(row["problems"]) < 5 else []
            yield row
    yield from full_disk()


# ---------------------------------------------------------------------------------------------- a real one


@contextlib.contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """A file system of its own, of so many kilobytes. Raises OSError where this user may not mount one."""
    place = Path(tempfile.mkdtemp())
    options = f"size={kilobytes}k,nr_inodes=200"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    try:
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            raise PermissionError("no file system may be mounted here")
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
    finally:
        place.rmdir()


def full_disk() -> Iterator[dict[str, Any]]:
    """Rows for a disk that really is full, and for a limit on the size of files."""
    for name, trial in (("a full disk", _fill), ("a limit on files", _limit)):
        row: dict[str, Any] = {"save": name, "way": "real", "tried": 0, "lost": 0, "problems": []}
        try:
            for wrong in trial():
                row["tried"] += 1
                row["lost"] += bool(wrong)
                row["problems"] += [wrong] if wrong else []
        except PermissionError as error:
            row["skipped"] = str(error)
        yield row


def _large(step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"x": np.full(12_000, step, np.float32)}, {"steps": step}


def _until_refused(run: Run) -> Iterator[str]:
    """Saves and logs until the disk takes no more; then the last that was saved must be there."""
    saved = 0
    for step in range(1, 20):
        try:
            run.append("metrics", {"step": step, "text": "x" * 3000})
            run.save(step, *_large(step))
            saved = step
        except UsageError as error:
            _, arrays, meta = newest_checkpoint(run.path)
            good = meta["steps"] == saved and (arrays["x"] == saved).all() and str(run.path) in str(error)
            whole = all(line.endswith(b"\n") for line in (run.path / "metrics.jsonl").read_bytes().splitlines(True))
            yield "" if good and whole else f"after {saved}: {meta['steps']}, {error}"


def _fill() -> Iterator[str]:
    for kilobytes in (132, 160, 190, 220):
        with small_disk(kilobytes) as place:
            wrong = list(_until_refused(Run.create(place / "run", {"algo": "ppo", "env": {}, "format": 2})))
            yield from wrong or [f"{kilobytes} kB were never full"]


def _limit() -> Iterator[str]:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {"algo": "ppo", "env": {}, "format": 2})
        run.append("metrics", {"step": 0})
        run.save(1, *_large(1))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
        try:
            run.save(2, *_large(2))
        except UsageError as error:
            limited = str(error)
        else:
            limited = ""
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        yield "" if str(run.path) in limited and newest_checkpoint(run.path)[2]["steps"] == 1 else f"said {limited!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lost = 0
    for row in run(args.n, args.seed):
        print(json.dumps(row), flush=True)
        lost += row["lost"]
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
