"""Where compiled kernels are kept, and compiling them before they are needed; imports nothing heavy.

Compiling takes some seconds once for each machine and version. `compile_ahead` lets other cores do what can be done
beside each other while this process still imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))).hexdigest()[:16]
"""Of this room's source: Numba looks at the file of a kernel alone, and not at those of the kernels that it calls."""

SHARES = {
    "a2c": (("dense", "steps", "descent", "batches"), ("densities", "rollouts")),
    "actor_critic": (("dense", "steps", "descent"), ("densities", "stepwise", "online")),
    "ddpg": (("dense", "descent", "diagonal"), ("values", "running")),
    "mpo": (("dense", "descent", "diagonal"), ("values", "running")),
    "ppo": (("dense", "steps", "descent"), ("densities", "rollouts")),
    "sac": (("dense", "descent", "diagonal"), ("values", "running")),
    "stream_ac": (("dense", "steps", "descent"), ("densities", "stepwise", "streaming")),
    "td3": (("dense", "descent", "diagonal"), ("values", "running")),
    "trpo": (("dense", "steps", "descent"), ("densities", "rollouts")),
}
"""Which rooms an algorithm needs, in two shares that take about as long as each other."""
SHARE = "COVARY_KERNELS"
"""The variable that tells a process to compile these rooms alone."""

_children: list[subprocess.Popen[bytes]] = []


def folder() -> Path | None:
    """Where compiled kernels are kept; None where nothing can be written, so that each process compiles its own."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        place = Path(chosen)
    else:
        home = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}.get(sys.platform, "~/.cache")
        place = Path(os.environ.get("XDG_CACHE_HOME") or home) / "covary"
    try:
        kept = place.expanduser() / f"kernels-{STAMP}"
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept):
            return kept
    except (OSError, RuntimeError):  # no home, no rights, no space
        return None


def compile_ahead(algo: str | None) -> None:
    """Starts compiling what an algorithm needs and is not there yet, each share in a process of its own, where there is
    a core for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kept = folder()
    if cores == 1 or kept is None or _children:
        return
    for share in SHARES.get(algo or "ppo", ()):
        if missing := [room for room in share if not any(kept.glob(f"*/{room}.*.nbi"))]:
            code = "; ".join(f"import covary.fast.{room}" for room in missing)
            quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            quiet["env"] = os.environ | {SHARE: " ".join(f"covary.fast.{room}" for room in missing)}
            try:
                _children.append(subprocess.Popen([sys.executable, "-P", "-c", code], **quiet))
            except OSError:  # it will be compiled here
                return


def wait() -> None:
    """Until what `compile_ahead` started is there; what failed will be tried again by whoever imports it."""
    while _children:
        child = _children.pop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(120)
