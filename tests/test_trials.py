"""Small samples of what bench/ measures, and that no other file has: it runs, and sees what it is to see."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from sizes import now_and_then

import covary

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in ("trials", "returns", "peers")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name", now_and_then(["ppo", "a2c", "trpo", "actor_critic, 4 environments, processes"], ["ppo"])
)
def test_kills_at_random_moments(bench, name):
    kills = bench("trials.kills")
    rows = list(kills.trials(name, *kills.WORKLOADS[name], 3, 0))
    assert sum(row["kills"] for row in rows) >= 3
    assert [row for row in rows if row["different"] or row["unreadable"]] == []


def test_the_trial_of_kills_sees_a_run_that_is_not_the_same(bench, monkeypatch):
    """One that forgets its noise when it goes on."""
    kills = bench("trials.kills")
    restore = covary.agent.Agent.restore

    def forgetful(self, arrays, meta):
        restore(self, arrays, meta)
        self.learner.generator.manual_seed(1)
        self.ahead = self.ahead[:0]

    monkeypatch.setattr(covary.agent.Agent, "restore", forgetful)
    rows = list(kills.trials("actor_critic", *kills.WORKLOADS["actor_critic"], 6, 0))
    assert any(row["different"] for row in rows)


def test_memory_and_open_files(bench, monkeypatch):
    endurance = bench("trials.endurance")
    some = {name: work for name, work in endurance.WORKLOADS.items() if "never ends" in name}
    monkeypatch.setattr(endurance, "WORKLOADS", some)
    (row,) = endurance.run(40)
    assert row["status"] == 0
    assert row["steps"] == 36_000
    assert 100 < row["resident_mb"][-1] < row["resident_mb"][0] + 100
    assert max(row["open_files"]) <= row["open_files"][0] + 2


def test_a_row_of_the_table_of_returns(bench, tmp_path):
    returns = bench("returns")
    row = returns.Row("a few steps", "CartPole-v1", 600, "actor_critic", episodes=3)
    record = returns.measure((row, 100, True))
    agent = covary.train("CartPole-v1", "actor_critic", 600, 100, "none", out=str(tmp_path / "run"), quiet=True)
    assert record["return_mean"] == covary.evaluate(agent, "CartPole-v1", 3, seed=returns.EVALUATION).returns.mean()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lived = sum(line["return"] * n for line, n in zip(lines, _new(lines), strict=True) if n)
    assert record["trained_return"] == pytest.approx(lived / lines[-1]["episodes"]), "fewer episodes than are counted"
    assert record["falls"] == 0
    returns.keep(record, tmp_path / "rows.jsonl")
    returns.keep(record, tmp_path / "rows.jsonl")
    assert returns.rows_on_file(tmp_path / "rows.jsonl") == [record]


def _new(lines):
    """Episodes that ended since the line before."""
    return [b["episodes"] - a["episodes"] for a, b in zip([{"episodes": 0}, *lines], lines, strict=False)]


def test_falls_are_counted_after_twenty_episodes_in_a_row(bench):
    falls = bench("returns").falls
    steady = [500.0] * 20
    assert falls([200.0, *steady[1:], 200.0]) == 0
    assert falls([*steady, 200.0, 200.0]) == 1
    assert falls([*steady, 400.0, 299.0, *steady, 1.0]) == 2
