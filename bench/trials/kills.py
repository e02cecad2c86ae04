"""kill -9 at random moments: a run that is killed and resumed, again and again, beside one that was never stopped.

A row for each run that was killed at least once: how often, whether a file of it could ever not be read, and how many
of its arrays and lines of metrics differ from the undisturbed run's.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import covary
from covary.runs import find_checkpoint, read_checkpoint

ROLLOUTS = {"algo": "ppo", "n_envs": 4, "horizon": 128, "epochs": 3, "steps": 6000, "save_every": 1000}
SHORT = {"algo": "a2c", "steps": 20_000, "save_every": 1000}
NATURAL = {"algo": "trpo", "n_envs": 4, "horizon": 128, "critic_epochs": 3, "steps": 6000, "save_every": 1000}
ONLINE = {"algo": "actor_critic", "steps": 6000, "save_every": 700}
FULL = {"policy": {"covariance": "full", "state_dependent": True}}
TRACED = ONLINE | {"actor_lam": 0.9, "critic_lam": 0.7}
STREAM = {"algo": "stream_ac", "steps": 4000, "save_every": 500}
GENERAL, ASYNC, SYNC = {"fast": False}, {"vectorization": "async"}, {"vectorization": "sync"}
EVALUATED = {"eval_every": 2000, "eval_episodes": 3}
HELIOSTAT = "covary.envs:covary/Heliostat-v0"
WORKLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("Pendulum-v1", ROLLOUTS | SYNC),
    "ppo, evaluated": ("CartPole-v1", ROLLOUTS | SYNC | EVALUATED),
    "ppo, processes": ("Pendulum-v1", ROLLOUTS | ASYNC),
    "ppo, general path": ("CartPole-v1", ROLLOUTS | SYNC | GENERAL),
    "ppo, vector environment, full covariance": (HELIOSTAT, ROLLOUTS | FULL),
    "a2c": ("Pendulum-v1", SHORT | SYNC),
    "a2c, general path, processes": ("CartPole-v1", SHORT | ASYNC | GENERAL),
    "trpo": ("Pendulum-v1", NATURAL | SYNC),
    "actor_critic": ("Pendulum-v1", ONLINE),
    "actor_critic, 4 environments, processes": ("CartPole-v1", ONLINE | ASYNC | {"n_envs": 4, "steps": 12000}),
    "actor_critic, general path, evaluated": ("Pendulum-v1", ONLINE | GENERAL | EVALUATED | {"steps": 2100}),
    "actor_critic, traces": ("Pendulum-v1", TRACED),
    "actor_critic, traces, 4 environments, processes": ("CartPole-v1", TRACED | ASYNC | {"n_envs": 4, "steps": 12000}),
    "stream_ac": ("CartPole-v1", STREAM),
    "stream_ac, general path, evaluated": ("Pendulum-v1", STREAM | GENERAL | EVALUATED | {"steps": 2100}),
    "actor_critic, full covariance": (HELIOSTAT, ONLINE | FULL | EVALUATED),
}
PAST = {"algo": "sac", "batch": 32, "learning_starts": 200, "replay_size": 700, "steps": 1500, "save_every": 250}
SMALL = {"policy": {"hidden": (32, 32)}, "critic": {"hidden": (32, 32)}}
WORKLOADS |= {
    "sac": ("Pendulum-v1", PAST | SMALL | SYNC),
    "sac, prioritised, processes": ("Pendulum-v1", PAST | SMALL | ASYNC | {"n_envs": 2, "priority": 0.6}),
    "sac, full covariance, evaluated": (HELIOSTAT, PAST | FULL | EVALUATED),
    "td3": ("Pendulum-v1", PAST | SMALL | SYNC | {"algo": "td3"}),
    "mpo": ("Pendulum-v1", PAST | SMALL | SYNC | {"algo": "mpo"}),
    "mpo, diagonal, general path, evaluated": (
        HELIOSTAT,
        PAST | GENERAL | EVALUATED | {"algo": "mpo", "policy": {"covariance": "diagonal", "state_dependent": False}},
    ),
}
BIPED = ("BipedalWalker-v3", ROLLOUTS | ASYNC | EVALUATED | {"steps": 12000})


def left_behind(run: Path) -> dict[str, bytes]:
    """Every bit of a run's newest checkpoint, but for the process's own generators; and its metrics."""
    arrays, meta = read_checkpoint(find_checkpoint(run))
    bits = {name: x.tobytes() for name, x in arrays.items() if not name.startswith("generators.")}
    return bits | {"steps": str(meta["steps"]).encode(), "metrics": (run / "metrics.jsonl").read_bytes()}


def forked(work: Callable[[], Any]) -> int:
    """The process in which this is done, silently."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.setsid()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        work()
        code = 0
    finally:
        os._exit(code)


def killed(work: Callable[[], Any], after: float) -> bool:
    """Whether the process was still at work after so many seconds, and was killed.

    Raises:
        RuntimeError: it ended by itself, and not well.
    """
    child, until = forked(work), time.perf_counter() + after
    while time.perf_counter() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"a run ended with status {status}")
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def trials(name: str, env: str, options: dict[str, Any], n: int, seed: int) -> Iterator[dict[str, Any]]:
    """n kills of one workload."""
    rng = random.Random(f"{name} {seed}")
    options = options | {"preset": "none", "seed": seed, "quiet": True}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a curve may still be drawn there
        home = Path(folder)
        began = time.perf_counter()
        os.waitpid(forked(lambda: covary.train(env, out=home / "whole", **options)), 0)
        seconds, whole, kills = time.perf_counter() - began, left_behind(home / "whole"), 0
        for number in itertools.count():
            if kills >= n:
                break
            run, here, unreadable = home / str(number), 0, 0
            work = functools.partial(covary.train, env, out=run, **options)
            while killed(work, rng.uniform(0.02, 0.8 * seconds) if here < 4 and kills + here < n else 1e9):
                here += 1
                if not (run / "config.json").exists():
                    shutil.rmtree(run, ignore_errors=True)  # it had not begun
                    continue
                work = functools.partial(covary.train, resume=run, quiet=True)
                try:
                    if any((run / "checkpoints").glob("[0-9]*")):
                        covary.load(run)
                except covary.UsageError:
                    unreadable += 1
            parts = left_behind(run)
            different = [k for k in whole.keys() | parts.keys() if whole.get(k) != parts.get(k)]
            kills += here
            if here:
                yield {"workload": name, "kills": here, "different": sorted(different), "unreadable": unreadable}


def run(n: int = 200, seed: int = 0) -> Iterator[dict[str, Any]]:
    """n kills over all workloads, and five of a BipedalWalker."""
    np.random.seed(seed)  # noqa: NPY002 (some environments draw from it)
    torch.set_num_threads(1)  # what forks must have no other threads, or its children wait for them for ever
    each = -(-n // len(WORKLOADS))
    for name, (env, options) in WORKLOADS.items():
        yield from trials(name, env, options, each, seed)
    yield from trials("ppo, BipedalWalker-v3, processes", *BIPED, min(5, n), seed)
