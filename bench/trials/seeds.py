"""The same seed again: twice, on one thread and on two, in one process and in two. A row for each pair of runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trials.kills import left_behind

HELIOSTAT = "covary.envs:covary/Heliostat-v0"
ROLLOUTS = ["--algo", "ppo", "--steps", "16384", "--save-every", "8192"]
ONLINE = ["--algo", "actor_critic", "--steps", "6000", "--n-envs", "2"]
SYNC, ASYNC, GENERAL = ["--vectorization", "sync"], ["--vectorization", "async"], ["--no-fast"]
PAIRS: dict[str, tuple[str, list[str], list[str], str, str]] = {
    # what is compared: the environment, the options of each run, and how many threads each has
    "ppo, twice": ("Pendulum-v1", [*ROLLOUTS], [*ROLLOUTS], "1", "1"),
    "ppo, 1 and 2 threads": (HELIOSTAT, [*ROLLOUTS, *SYNC], [*ROLLOUTS, *SYNC], "1", "2"),
    "ppo, 1 and 2 processes": ("Pendulum-v1", [*ROLLOUTS, *SYNC], [*ROLLOUTS, *ASYNC], "1", "1"),
    "ppo, general path, twice": ("CartPole-v1", [*ROLLOUTS, *GENERAL], [*ROLLOUTS, *GENERAL], "1", "1"),
    "actor_critic, twice": ("Pendulum-v1", [*ONLINE], [*ONLINE], "1", "1"),
    "actor_critic, 1 and 2 threads": ("CartPole-v1", [*ONLINE], [*ONLINE], "1", "2"),
    "actor_critic, 1 and 2 processes": ("CartPole-v1", [*ONLINE, *SYNC], [*ONLINE, *ASYNC], "1", "1"),
    "actor_critic, general path, twice": ("Pendulum-v1", [*ONLINE, *GENERAL], [*ONLINE, *GENERAL], "1", "1"),
}


def run(n: int = len(PAIRS), seed: int = 0) -> Iterator[dict[str, Any]]:
    """The first n pairs, each run by a command of its own."""
    for name, (env, *options, one, other) in list(PAIRS.items())[:n]:
        with tempfile.TemporaryDirectory() as folder:
            ends = []
            for k, (given, threads) in enumerate(zip(options, (one, other), strict=True)):
                out = Path(folder) / str(k)
                command = [sys.executable, "-m", "covary", "train", env, *given, "--seed", str(seed), "--out", str(out)]
                environment = os.environ | {"OMP_NUM_THREADS": threads}
                subprocess.run(command, check=True, capture_output=True, env=environment)
                ends.append(left_behind(out))
        different = sorted(k for k in ends[0].keys() | ends[1].keys() if ends[0].get(k) != ends[1].get(k))
        yield {"pair": name, "different": different}
