"""One measurement in a process of its own: the parent's side, and the child's."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from yardstick.stopwatch import Stopwatch
from yardstick.systems import COVARY_PACKAGES, PACKAGES, SYSTEMS
from yardstick.workloads import POINT_MASS, STARTS, Workload

SCRIPT = Path(__file__).parent.parent / "overhead.py"
SBX_PYTHON = SCRIPT.parent.parent / ".venv-sbx" / "bin" / "python"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CORES = {"covary-two-cores": 2}  # of what has more than one
PATIENCE = 900  # seconds, after which a process is taken to hang


# ----------------------------------------------------------------------------------------------- in the child


def measure(w: Workload, system: str, began: float) -> dict[str, Any]:
    """One measurement, in this process, which was started at `began`, in seconds since 1970."""
    cores = CORES.get(system, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch(w, folder)
        more = SYSTEMS[system](w, watch)
        first, start, stop = watch.read()
    steps, wall, cpu = w.measured * w.horizon * w.n_envs, stop.wall - start.wall, stop.cpu - start.cpu
    here = stop.pid == os.getpid()  # else that is the processor time of the environments alone
    row: dict[str, Any] = {"cores": cores, "steps": steps, "cpu_seconds": cpu if here else None, "wall_seconds": wall}
    row |= {"steps_per_cpu_second": steps / cpu if here else None, "steps_per_wall_second": steps / wall}
    row["first_update_seconds"] = None if system == "environment" else first.date - began
    row["rss_mb"] = peak_memory()
    names = ["gymnasium", "numpy", *["mujoco"] * w.env_id.startswith("HalfCheetah")]
    names += PACKAGES.get(system, COVARY_PACKAGES if system.startswith("covary") else ())
    row["versions"] = {"python": platform.python_version()} | versions(names)
    return row | more


def peak_memory() -> float | None:
    """In MB, of this process. Linux counts a parent's in getrusage, which is as high as what started the process."""
    with contextlib.suppress(OSError):
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith("VmHWM:"):
                return int(text.split()[1]) / 1024
    if importlib.util.find_spec("resource") is None:  # Windows
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def versions(names: list[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


# ---------------------------------------------------------------------------------------------- in the parent


def in_a_process(w: Workload, system: str, quick: bool, cache: str) -> dict[str, Any]:
    """A row. cache: the folder for compiled kernels; where it is empty, a start with it so is measured before.

    Raises:
        RuntimeError: the error that the process ended with, or that it did not end.
    """
    cold = {}
    if system == "covary" and not os.listdir(cache):
        cold = {"first_update_cold_seconds": command(w, cache)}
    return _run(w, system, quick, cache) | cold


def command(w: Workload, cache: str) -> float:
    """Seconds from `covary train` to its first line of metrics, just after the first update (online: some hundred steps
    later), as a user has them: on all cores."""
    place = f"{SCRIPT.parent / 'yardstick' / 'workloads.py'}:PointMass" if w.env_id == POINT_MASS else w.env_id
    words = ["train", place, "--algo", w.algo, "--preset", "none"]
    steps = STARTS + 1 if w.algo == "sac" else max(w.n_envs * w.horizon, 1000)
    words += ["--steps", str(steps), "--n-envs", str(w.n_envs)]
    words += [] if w.online else ["--horizon", str(w.horizon)]
    words += ["--learning-starts", str(STARTS)] if w.algo == "sac" else []
    words += ["--minibatch", str(w.minibatch)] if w.algo == "ppo" else []
    env = {name: value for name, value in os.environ.items() if name not in THREADS} | {"NUMBA_CACHE_DIR": cache}
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        script = [sys.executable, "-m", "covary", *words, "--out", "run"]
        done = subprocess.run(script, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(last_words(done.stderr) or f"exit status {done.returncode}")
        first = Path(folder, "run", "timing.jsonl").read_text().splitlines()[0]
    return float(json.loads(first)["time"]) - began


def _run(w: Workload, system: str, quick: bool, cache: str) -> dict[str, Any]:
    words = ["bench/overhead.py", "--measure", system, "--workload", w.name, *["--quick"] * quick]
    python = str(SBX_PYTHON) if system == "sbx" else sys.executable
    env = {name: value for name, value in os.environ.items() if name not in THREADS}
    env |= {} if system in CORES else dict.fromkeys(THREADS, "1")
    env |= {"NUMBA_CACHE_DIR": cache, "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo writes its log where it stands
        script = [python, str(SCRIPT), *words[1:], "--began", repr(time.time())]
        try:
            done = subprocess.run(script, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(str(error)) from error
    if done.returncode or not done.stdout:
        raise RuntimeError(last_words(done.stderr) or f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1]) | {"command": shlex.join(["python", *words])}


def last_words(text: str) -> str:
    """From a traceback the error alone: the last line that is not indented, with what is indented under it."""
    said: list[str] = []
    for line in reversed(text.strip().splitlines()):
        said.insert(0, line.strip())
        if line[:1].strip():
            break
    return " | ".join(part for part in said if part)


def missing(wanted: list[Workload]) -> dict[str, str]:
    """What cannot be measured here: systems and environments, each with the reason and the way to it."""
    gone: dict[str, str] = {}
    if importlib.util.find_spec("stable_baselines3") is None:
        gone["sb3"] = "Stable-Baselines3 is not installed. Fix: `make bench`, or pip install 'covary[bench]'"
    if not SBX_PYTHON.exists():
        gone["sbx"] = f"SBX has no environment of its own in {SBX_PYTHON.parent.parent.name}. Fix: make sbx"
    if importlib.util.find_spec("mujoco") is None:
        gone["HalfCheetah-v5"] = "MuJoCo is not installed. Fix: pip install 'gymnasium[mujoco]'"
    if len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) < 2:
        gone["covary-two-cores"] = "this process may use one core only"
    options = covary_options()
    if "fast" not in options:
        gone["covary-general"] = "this version of Covary has one path only, no option `fast`"
    if "profile" not in options:
        gone["covary-profile"] = "this version of Covary has no option `profile`"
    there = {system for w in wanted for system in w.systems} | {w.env_id for w in wanted}
    return {what: why for what, why in gone.items() if what in there}


def covary_options() -> set[str]:
    import inspect

    import covary
    from covary.settings import RunOptions

    return {*RunOptions.__dataclass_fields__, *inspect.signature(covary.train).parameters}
