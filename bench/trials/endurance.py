"""Eight hours of a robot's life in fast time: does memory grow, does a file stay open?

Eight hours at 50 steps a second are 1.44 million online updates; PPO gets 2.88 million steps, those of eight hours at
100 a second. A row for each workload: resident memory in MB and open files, the medians over ten parts of the run.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

import covary
from trials.kills import forked


class Endless(gymnasium.Env[Any, Any]):
    """Two numbers that drift back to 0; nothing ever ends, so that nothing is ever forgotten by an episode's end."""

    def __init__(self) -> None:
        self.observation_space = Box(-10, 10, (2,), np.float32)
        self.action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = np.zeros(2, np.float32)
        return self.x.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x = np.clip(0.9 * self.x + 0.1 * action + 0.01, -10, 10).astype(np.float32)
        return self.x.copy(), -float(self.x @ self.x), False, False, {}


WORKLOADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "actor_critic, an episode that never ends": (Endless, {"algo": "actor_critic", "steps": 1_440_000}),
    "actor_critic, CartPole-v1": ("CartPole-v1", {"algo": "actor_critic", "steps": 1_440_000, "eval_every": 200_000}),
    "ppo, Pendulum-v1, processes": (
        "Pendulum-v1",
        {"algo": "ppo", "steps": 2_880_000, "vectorization": "async", "eval_every": 300_000},
    ),
}


def _resident() -> float:
    """Of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _watched(env: Any, options: dict[str, Any], home: Path) -> None:
    """Trains, and notes memory and open files five times a second into a file that is not the run's."""
    over = threading.Event()

    def watch() -> None:
        with open(home / "samples", "w", encoding="utf-8") as samples:
            while not over.wait(0.2):
                print(time.monotonic(), _resident(), len(os.listdir("/proc/self/fd")), file=samples, flush=True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        covary.train(env, out=home / "run", preset="none", quiet=True, **options)
    finally:
        over.set()
        watcher.join()


def run(n: int = 1, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Each workload for the n-th part of its steps: the samples' medians over tenths of the run."""
    for name, (env, options) in WORKLOADS.items():
        steps = options["steps"] // n
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            _, status = os.waitpid(forked(lambda: _watched(env, options | {"steps": steps, "seed": seed}, home)), 0)  # noqa: B023
            samples = np.loadtxt(home / "samples", ndmin=2)
        tenths = np.array_split(samples[:, 1:], min(10, len(samples)))
        memory, files = ([round(float(np.median(part[:, k])), 2) for part in tenths] for k in (0, 1))
        yield {"workload": name, "steps": steps, "status": status, "resident_mb": memory, "open_files": files}
