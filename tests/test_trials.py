"""Small samples of the trials in bench/trials that no other file has: they run, and see what they are to see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sizes import now_and_then

import covary

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def trials(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield lambda name: __import__(f"trials.{name}", fromlist=[name])
    for name in [name for name in sys.modules if name.partition(".")[0] == "trials"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name", now_and_then(["ppo", "a2c", "trpo", "actor_critic, 4 environments, processes"], ["ppo"])
)
def test_kills_at_random_moments(trials, name):
    kills = trials("kills")
    rows = list(kills.trials(name, *kills.WORKLOADS[name], 3, 0))
    assert sum(row["kills"] for row in rows) >= 3
    assert [row for row in rows if row["different"] or row["unreadable"]] == []


def test_the_trial_of_kills_sees_a_run_that_is_not_the_same(trials, monkeypatch):
    """One that forgets its noise when it goes on."""
    kills = trials("kills")
    restore = covary.agent.Agent.restore

    def forgetful(self, arrays, meta):
        restore(self, arrays, meta)
        self.learner.generator.manual_seed(1)
        self.ahead = self.ahead[:0]

    monkeypatch.setattr(covary.agent.Agent, "restore", forgetful)
    rows = list(kills.trials("actor_critic", *kills.WORKLOADS["actor_critic"], 6, 0))
    assert any(row["different"] for row in rows)


def test_memory_and_open_files(trials, monkeypatch):
    endurance = trials("endurance")
    some = {name: work for name, work in endurance.WORKLOADS.items() if "never ends" in name}
    monkeypatch.setattr(endurance, "WORKLOADS", some)
    (row,) = endurance.run(40)
    assert row["status"] == 0
    assert row["steps"] == 36_000
    assert 100 < row["resident_mb"][-1] < row["resident_mb"][0] + 100
    assert max(row["open_files"]) <= row["open_files"][0] + 2
