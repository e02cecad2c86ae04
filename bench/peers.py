"""Others' agents on the tasks of the table of returns."""

from __future__ import annotations

import os
import pickle
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

STREAMING = Path(__file__).parent.parent / ".streaming-drl"  # a clone of mohmdelsayed/streaming-drl at 407dca7
COUNTED = 100  # episodes at the end of training, of what is not evaluated


def sb3(env_id: str, steps: int, preset: str, seed: int, evaluation: int) -> tuple[np.ndarray, np.ndarray]:
    """Stable-Baselines3 as its documentation starts, on the same 100 evaluation episodes."""
    import gymnasium
    from stable_baselines3 import PPO

    from covary import presets
    from covary.envs.adapter import Adapter
    from covary.envs.sources import resolve
    from covary.envs.vectors import build
    from covary.evaluation import evaluation_seed

    shared = {}
    if preset == "auto":
        settings = presets.find(env_id, "ppo")
        shared = {"gamma": settings["gamma"], "gae_lambda": settings["lam"]}
    model = PPO("MlpPolicy", gymnasium.make(env_id), seed=seed, device="cpu", **shared)
    model.learn(steps)
    venv = build(resolve(env_id), 8)
    adapter = Adapter(venv, lambda env, episode: evaluation_seed(evaluation, env + 8 * episode))
    obs = adapter.reset()
    errors: list[tuple[int, np.ndarray]] = []
    returns: list[float] = []
    while len(returns) < 104:  # all eight end together: thirteen rounds, of which the first 100 episodes count
        step = adapter.step(model.predict(obs, deterministic=True)[0])
        errors.append((len(returns), step.info["error_deg"]))
        returns += [episode.ret for episode in adapter.episodes]
        adapter.episodes.clear()
        obs = step.obs
    counted = [error[: 100 - first] for first, error in errors]
    return np.array(returns[:100]), np.concatenate(counted)


def streaming(env_id: str, steps: int, seed: int) -> np.ndarray:
    """(100,) returns of the last episodes of training by the published script of Stream AC(lambda), with its defaults.

    The script was written for Gymnasium 0.29, where an episode's return is an array of one number; here it gets that.
    It evaluates nothing.
    """
    import gymnasium

    if not STREAMING.exists():
        raise SystemExit(f"the published script is not there. Fix: clone it into {STREAMING.name}")

    class Recorded(gymnasium.wrappers.RecordEpisodeStatistics):  # type: ignore[type-arg]
        def step(self, action: Any) -> Any:
            obs, reward, terminated, truncated, info = super().step(action)
            if "episode" in info:
                info["episode"]["r"] = [float(info["episode"]["r"])]
            return obs, reward, terminated, truncated, info

    sys.path.insert(0, str(STREAMING))
    usual, here = gymnasium.wrappers.RecordEpisodeStatistics, os.getcwd()
    script = runpy.run_path(str(STREAMING / "stream_ac_continuous.py"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where it leaves its returns
        try:
            gymnasium.wrappers.RecordEpisodeStatistics = Recorded  # type: ignore[misc]
            script["main"](env_id, seed, 1.0, 0.99, 0.8, steps, 0.01, 3.0, 2.0, False, False)
            (file,) = Path(folder).rglob("seed_*.pkl")
            returns, _, _ = pickle.loads(file.read_bytes())
        finally:
            os.chdir(here)
            gymnasium.wrappers.RecordEpisodeStatistics = usual  # type: ignore[misc]
            sys.path.remove(str(STREAMING))
    return np.array(returns[-COUNTED:], dtype=np.float64)
