"""The systems, each of which trains a workload with the stopwatch in its environments.

Every import is inside the function that needs it: what a process imports counts for its memory and its start.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from yardstick.stopwatch import Stopwatch
from yardstick.workloads import A2C_LR, ACTOR_LR, CLIP, CRITIC_LR, GAMMA, LAM, LR, POINT_MASS, STARTS, Workload

More = dict[str, Any]  # what a system adds to its row


def environment(w: Workload, watch: Stopwatch) -> More:
    """Random actions, drawn beforehand; one environment as it is, several in gymnasium's SyncVectorEnv."""
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    same_step = AutoresetMode.SAME_STEP  # every step is then a step of the environments with the stopwatch, too
    env: Any = watch.make() if w.online else SyncVectorEnv([watch.make] * w.n_envs, autoreset_mode=same_step)
    actions = [env.action_space.sample() for _ in range(256)]
    env.reset(seed=0)
    for t in itertools.count():
        _, _, terminated, truncated, _ = env.step(actions[t % 256])
        if watch.stopped:
            break
        if w.online and (terminated or truncated):
            env.reset()
    return {}


def covary(w: Workload, watch: Stopwatch, policy: dict[str, Any] | None = None, **options: Any) -> More:
    """covary.train as a user calls it; and its profile, where that was asked for."""
    import covary

    shape: dict[str, Any] = {"policy": {"hidden": w.hidden} | (policy or {}), "critic": {"hidden": w.hidden}}
    shape |= {"gamma": GAMMA, "n_envs": w.n_envs, "vectorization": "sync", "save_every": 10_000}
    algo = w.algo
    if w.online:
        shape |= {"actor_lr": ACTOR_LR, "critic_lr": CRITIC_LR}
        if w.env_id == POINT_MASS:
            shape["policy"] = {"covariance": "full"} | shape["policy"]
    elif algo == "a2c":
        shape |= {"horizon": w.horizon, "actor_lr": A2C_LR, "critic_lr": A2C_LR}
    elif algo == "sac":
        shape |= {"learning_rate": LR, "batch": w.minibatch, "learning_starts": STARTS}
    else:
        shape |= {"horizon": w.horizon, "minibatch": w.minibatch, "epochs": w.epochs, "learning_rate": LR, "lam": LAM}
        shape["target_kl"] = 0.0  # every epoch of everyone is run
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        covary.train(watch.make, algo, w.total, preset="none", quiet=True, out=str(run), **(shape | options))
        return {"profile": json.loads((run / "profile.json").read_text())} if options.get("profile") else {}


def by_hand(w: Workload, watch: Stopwatch) -> More:
    from yardstick.by_hand import train

    train(w, watch)
    return {}


def peer(w: Workload, watch: Stopwatch, library: str) -> More:
    """The algorithm of Stable-Baselines3, or of SBX, which takes the same words, as its documentation starts."""
    import importlib

    from stable_baselines3.common.env_util import make_vec_env

    settings: dict[str, Any] = {"learning_rate": LR, "gamma": GAMMA}
    nets = {"pi": list(w.hidden), "vf": list(w.hidden)}
    if w.algo == "ppo":
        settings |= {"gae_lambda": LAM, "clip_range": CLIP}
        settings |= {"n_steps": w.horizon, "batch_size": w.minibatch, "n_epochs": w.epochs}
    elif w.algo == "a2c":
        settings |= {"learning_rate": A2C_LR, "n_steps": w.horizon}
    else:
        settings |= {"batch_size": w.minibatch, "learning_starts": STARTS}
        nets = {"pi": list(w.hidden), "qf": list(w.hidden)}
    place = {"device": "cpu"} if library == "stable_baselines3" else {}
    venv = make_vec_env(watch.make, n_envs=w.n_envs, seed=0)  # a DummyVecEnv
    kind = getattr(importlib.import_module(library), w.algo.upper())
    kind("MlpPolicy", venv, policy_kwargs={"net_arch": nets}, seed=0, verbose=0, **place, **settings).learn(w.total)
    return {}


SYSTEMS: dict[str, Callable[[Workload, Stopwatch], More]] = {
    "environment": environment,
    "covary": covary,
    "covary-general": partial(covary, fast=False),
    "hand-written": by_hand,
    "sb3": partial(peer, library="stable_baselines3"),
    "sbx": partial(peer, library="sbx"),
    "covary-full": partial(covary, policy={"covariance": "full"}),
    "covary-two-cores": partial(covary, vectorization="auto"),
    "covary-profile": partial(covary, profile=True),
}

PACKAGES = {"hand-written": ("torch",), "sb3": ("torch", "stable-baselines3"), "sbx": ("jax", "sbx-rl")}
COVARY_PACKAGES = ("torch", "covary", "numba")
