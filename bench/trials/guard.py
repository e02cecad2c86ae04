"""What the look for numbers that are not finite costs: the time of an update with it over that of one before it was
there.

    python bench/trials/guard.py                 every case, 105 rounds
    python bench/trials/guard.py --rounds 10 --before v0.1.0

Both versions live in one process, the older one taken out of git's history, and take turns at the same updates on the
same numbers; the ratio is of the shortest times, which a busy machine disturbs least. `same_bits` says whether the
weights were the same at the end.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

ROOT = Path(__file__).parents[2]
CASES = {  # algorithm, whether by kernels, hidden layers, settings, updates in a turn
    "ppo general": ("ppo", False, (64, 64), {"n_envs": 8, "horizon": 64, "minibatch": 64, "epochs": 2}, 1),
    "ppo general, large minibatches": ("ppo", False, (64, 64), {"n_envs": 16, "horizon": 64, "epochs": 2}, 1),
    "ppo fast": ("ppo", True, (64, 64), {"n_envs": 16, "epochs": 4}, 1),
    "ppo fast, a short rollout": ("ppo", True, (64, 64), {"n_envs": 8, "horizon": 64, "minibatch": 64, "epochs": 2}, 1),
    "actor_critic general": ("actor_critic", False, (64, 64), {}, 20),
    "actor_critic fast": ("actor_critic", True, (64, 64), {}, 500),
    "actor_critic fast, 32": ("actor_critic", True, (32, 32), {}, 500),
    "actor_critic fast, 256": ("actor_critic", True, (256, 256), {}, 100),
}
OBS, ACTIONS = 6, 2
TURNS = 7  # before both start anew


def before_the_guard() -> str:
    """The commit before the one that brought it."""
    log = ["git", "log", "--diff-filter=A", "--format=%H", "-1", "--", "src/covary/guard.py"]
    return subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() + "^"


def of_covary() -> dict[str, Any]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "covary"}


def taken_for(modules: dict[str, Any]) -> None:
    """Makes this version the one that `covary` is: the fast path looks its classes up by their names."""
    for name in of_covary():
        del sys.modules[name]
    sys.modules.update(modules)


def version(source: Path) -> dict[str, Any]:
    """The modules of the package in this folder, beside any other version that was imported before."""
    taken_for({})
    sys.path.insert(0, str(source))
    try:
        for name in ("algorithms", "agent", "heads", "types", "fast.path", "fast.online", "fast.rollouts"):
            importlib.import_module(f"covary.{name}")
        importlib.import_module("covary.algorithms").find("ppo")
        importlib.import_module("covary.algorithms").find("actor_critic")
        return of_covary()
    finally:
        sys.path.remove(str(source))


def both(before: str) -> tuple[dict[str, Any], dict[str, Any]]:
    archive = subprocess.run(["git", "archive", before, "src"], cwd=ROOT, capture_output=True, check=True).stdout
    folder = tempfile.mkdtemp()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return version(Path(folder) / "src"), version(ROOT / "src")


class Turns:
    """One version's updates of a case."""

    def __init__(self, modules: dict[str, Any], case: str, seed: int) -> None:
        taken_for(modules)
        covary = {name.removeprefix("covary."): module for name, module in modules.items()}
        algo, fast, hidden, options, self.updates = CASES[case]
        slow = {"learning_rate": 1e-7, "target_kl": 0.0} if algo == "ppo" else {"actor_lr": 1e-7, "critic_lr": 1e-7}
        config = covary["algorithms"].find(algo).Config(**{"n_envs": 1} | slow | options)
        policy, critic = covary["heads"].PolicyConfig(hidden=hidden), covary["agent"].CriticConfig(hidden=hidden)
        spaces = Box(-np.inf, np.inf, (OBS,)), Box(-1, 1, (ACTIONS,))
        self.agent = covary["agent"].Agent(algo, *spaces, config=config, policy=policy, critic=critic, seed=seed)
        self.fast = covary["fast.path"].FastPath(self.agent.learner) if fast else None
        self.agent.learner.fast = self.fast
        rng = np.random.default_rng(seed)
        t, n = self.agent.learner.horizon, config.n_envs
        obs, next_obs = rng.standard_normal((2, t, n, OBS)).astype(np.float32)
        latent = rng.standard_normal((t, n, ACTIONS)).astype(np.float32)
        flags = np.ones((5, t, n), np.float32)
        flags[0] = rng.standard_normal((t, n))
        parts = (obs, latent, *flags[:4], next_obs)
        self.rollout = covary["types"].Rollout(*map(torch.from_numpy, parts))
        self.step = obs[0], latent[0], np.ascontiguousarray(flags[:, 0]), next_obs[0], np.zeros(3)

    def __call__(self) -> float:
        """Seconds of an update."""
        if self.fast is not None and self.agent.learner.online:
            learn, step = self.fast.learn, self.step
            began = time.perf_counter()
            for _ in range(self.updates):
                learn(*step)
        else:
            update, rollout = self.agent.learner.update, self.rollout
            began = time.perf_counter()
            for _ in range(self.updates):
                update(rollout, 0.0)
        return (time.perf_counter() - began) / self.updates


def run(n: int, seed: int, *, before: str = "", cases: tuple[str, ...] = tuple(CASES)) -> Iterator[dict[str, Any]]:
    """A row for each case: `ratio` of the shortest of n turns each."""
    torch.set_num_threads(1)
    versions = both(before or before_the_guard())
    for case in cases:
        times: list[list[float]] = [[], []]
        kept: list[Any] = []
        for k in range(n):
            if k % TURNS == 0:  # new ones, elsewhere in memory: where arrays begin is worth some percent by itself
                kept.append(np.ones(1000 + 16 * k))
                order = (0, 1) if k % 2 else (1, 0)
                made = {which: Turns(versions[which], case, seed) for which in order}
                turns = [made[0], made[1]]
            for which in (0, 1) if k % 2 else (1, 0):
                times[which].append(turns[which]())
        least, middle = [min(each) for each in times], [float(np.median(each)) for each in times]
        vectors = [turn.agent.learner.optimizer.vector for turn in turns]
        yield {
            "trial": "guard",
            "case": case,
            "seed": seed,
            "rounds": n,
            "microseconds": [round(1e6 * each, 2) for each in least],
            "ratio": round(least[1] / least[0], 4),
            "ratio_of_medians": round(middle[1] / middle[0], 4),
            "same_bits": bool(torch.equal(*vectors)),
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=105)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", default="", help="a commit; the one before the guard when left out")
    parser.add_argument("--case", nargs="*", default=list(CASES))
    given = parser.parse_args()
    for row in run(given.rounds, given.seed, before=given.before, cases=tuple(given.case)):
        print(json.dumps(row), flush=True)
