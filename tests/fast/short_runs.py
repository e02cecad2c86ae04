"""Whole trainings that are over at once, and an environment that goes wrong in one of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from worlds import Choice, Line, Plane

import covary

SMALL = {
    "ppo": {"n_envs": 3, "horizon": 20, "minibatch": 16, "epochs": 2, "steps": 180},
    "a2c": {"n_envs": 3, "horizon": 5, "steps": 180},
    "trpo": {"n_envs": 3, "horizon": 20, "minibatch": 16, "critic_epochs": 2, "steps": 180},
    "actor_critic": {"n_envs": 3, "steps": 180},
    "stream_ac": {"steps": 180},
}
ALGORITHMS = pytest.mark.parametrize("algo", SMALL)
ENVIRONMENTS = pytest.mark.parametrize("env", [Plane, pytest.param(Choice, marks=pytest.mark.slow)])


def train(env, algo, out="run", **options):
    sizes = {"policy": {"hidden": (8, 7)}, "critic": {"hidden": (8, 7)}}
    return covary.train(env, algo, out=str(out), quiet=True, **(SMALL[algo] | sizes | options))


def chosen(out="run"):
    return json.loads((Path(out) / "config.json").read_text())["chosen"]


def broken(field, value, at):
    """An environment that gives this value in its `at`-th step; every fifth ends an episode."""

    class Broken(Line):
        count = 0

        def step(self, action):
            obs, reward, *rest = super().step(action)
            self.count += 1
            if self.count == at:
                obs, reward = (obs, value) if field == "reward" else (np.full_like(obs, value), reward)
            return obs, reward, *rest

    return Broken
