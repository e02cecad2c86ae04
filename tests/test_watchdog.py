"""The watchdog: silent over healthy runs, and every rule of it shown to bark."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import covary
from covary import loop
from covary.agent import Agent
from covary.envs.adapter import Adapter
from covary.settings import settle
from covary.watchdog import AT_LINES, AT_START, Seen, Watchdog


class Ended(NamedTuple):
    ret: float
    length: int
    terminated: bool


class Flagged:
    """An environment that remembers how its latest step ended."""

    def __init__(self, env):
        self._env, self.terminated = env, False

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, action):
        result = self._env.step(action)
        self.terminated = bool(result[2])
        return result


class Overheard(Adapter):
    """An adapter that keeps what a watchdog is to see."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.envs = [Flagged(env) for env in self.envs]
        self.actions, self.ended, self.latest = deque(maxlen=1000), [], np.zeros((0, 0))
        Overheard.last = self

    def step(self, action):
        self.actions.extend(action)
        step = super().step(action)
        self.latest = step.next_obs
        return step

    def _note(self, i, number):
        super()._note(i, number)
        self.ended.append(Ended(*self.episodes[-1][2:4], self.envs[i].terminated))


@contextmanager
def watched():
    """Every training in here is watched; yields what was noted."""
    noted = []

    class Report(loop._Report):
        watchdog = None

        def write(self, agent, obs, extra):
            if self.watchdog is None:
                options = {"algo": agent.algo, "preset": "none", "policy": agent.policy_config}
                settings = settle("", options)
                settings = type(settings)(settings.run, agent.config, agent.policy_config, agent.critic_config, {})
                # as it was at the start: `steps` is what tells whether a run is fresh
                with mock.patch.object(agent, "steps", 0):
                    self.watchdog = Watchdog(agent, settings, 1, lambda text: None, noted.append)
                self.watchdog.start()
            records = []
            with mock.patch.object(self.run, "append", lambda name, line: records.append(line)):
                super().write(agent, obs, extra)
            a = Overheard.last
            self.watchdog.look(records[0], Seen(np.array(a.actions), a.latest, list(a.ended)))
            a.ended.clear()

    with mock.patch.object(loop, "_Report", Report), mock.patch.object(loop, "Adapter", Overheard):
        yield noted


def trained(env, algo="ppo", steps=3000, seed=0, **options):
    """The names of the rules that barked."""
    with watched() as noted:
        covary.train(env, algo, steps, seed, quiet=True, vectorization="sync", **options)
    return [note["rule"] for note in noted]
