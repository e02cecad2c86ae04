"""What a run does at a number that is not finite: stop, leave it out, or roll back."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sizes import now_and_then
from torch import nn

import covary
from covary.envs.adapter import Adapter
from covary.envs.sources import resolve
from covary.envs.vectors import build
from covary.fast.path import FastPath
from covary.runs import Run, find_checkpoint, read_checkpoint

BAD: dict[str, set[int]] = {"steps": set(), "field": set()}


class Spoiled(gymnasium.Env):
    """A short walk; in some of its steps, counted over all episodes, it shows a number that is not finite."""

    def __init__(self):
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1, 1, (1,), np.float32)
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.age = self.np_random.normal(size=2).astype(np.float32), 0
        return self.x.copy(), {}

    def step(self, action):
        self.count += 1
        self.age += 1
        self.x = (self.x + 0.1 * action + 0.1 * self.np_random.normal(size=2)).astype(np.float32)
        obs, reward = self.x.copy(), float(-np.abs(self.x).sum())
        if self.count in self.steps():
            if "reward" in self.fields():
                reward = np.nan
            else:
                obs[1] = np.inf
        return obs, reward, False, self.age >= 10, {}

    def steps(self):
        return {13, 40, 41, 90}

    def fields(self):
        return {"observation"}


class SpoiledReward(Spoiled):
    def fields(self):
        return {"reward"}


class Sound(Spoiled):
    def steps(self):
        return set()


class Armed(Spoiled):
    """Goes wrong when it is told to, and not again when the same is done again."""

    now = False

    def steps(self):
        now, Armed.now = Armed.now, False
        return {self.count} if now else set()


@pytest.fixture
def armed(monkeypatch):
    """Says at which steps of the run, counted over all that is done again, the environment goes wrong."""
    steps, took, step = set(), itertools.count(1), Adapter.step

    def arming(self, action):
        Armed.now = next(took) in steps
        return step(self, action)

    monkeypatch.setattr(Adapter, "step", arming)
    yield steps
    Armed.now = False


TINY = {"policy": {"hidden": (8,)}, "critic": {"hidden": (8,)}, "preset": "none", "seed": 3, "quiet": True}
ROLLOUTS = {"algo": "ppo", "n_envs": 2, "horizon": 16, "minibatch": 8, "epochs": 2, "steps": 320, **TINY}
ONLINE = {"algo": "actor_critic", "n_envs": 2, "steps": 320, **TINY}
SHORT = {"algo": "a2c", "n_envs": 2, "horizon": 5, "steps": 320, **TINY}
NATURAL = {"algo": "trpo", "n_envs": 2, "horizon": 16, "minibatch": 8, "critic_epochs": 2, "steps": 320, **TINY}
BOTH = pytest.mark.parametrize("algo", [ROLLOUTS, SHORT, NATURAL, ONLINE], ids=lambda options: options["algo"])
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])


def finite(out):
    arrays, meta = read_checkpoint(find_checkpoint(out))
    assert all(np.isfinite(x).all() for x in arrays.values())
    return arrays, meta


@BOTH
@PATHS
@pytest.mark.parametrize("vectorization", now_and_then(["sync", "async"], ["sync"]))
@pytest.mark.parametrize("env", now_and_then([Spoiled, SpoiledReward], [SpoiledReward]))
def test_steps_that_are_spoiled_are_left_out(env, vectorization, fast, algo, tmp_path):
    agent = covary.train(
        env, out=tmp_path / "run", **algo | {"fast": fast, "vectorization": vectorization, "on_nonfinite": "skip"}
    )
    _, meta = finite(tmp_path / "run")
    assert agent.steps >= 320
    assert agent.learner.skipped == 8, "four in each of the two environments"
    last = list(Run.open(tmp_path / "run").lines())[-1]
    assert last["skipped"] == 8
    kept = [json.loads(p.read_text()) for p in (tmp_path / "run" / "nonfinite").glob("*.json")]
    assert len(kept) == 1
    assert kept[0]["environment"] == 0
    assert kept[0]["kind"] == ("observation" if env is Spoiled else "reward")
    assert "environment 0" in kept[0]["told"]
    with np.load(next((tmp_path / "run" / "nonfinite").glob("*.npz"))) as batch:
        assert not np.isfinite(batch[kept[0]["kind"]]).all()
        assert batch["action"].shape == (2, 1)
    ended = meta["run"]["report"]["episodes"] + len(meta["run"]["report"]["finished"])
    assert sum(meta["run"]["envs"]["started"]) == ended + 8 + 2, "the spoiled episodes count as none"


@pytest.mark.parametrize("vectorization", ["sync", "async", "vector"])
def test_a_step_that_is_left_out_is_no_step(vectorization):
    """Its reward counts for nobody, nothing bootstraps from it, and a new episode begins."""
    if vectorization == "vector":
        made = SyncVectorEnv([Spoiled, Spoiled], autoreset_mode=AutoresetMode.DISABLED)
        venv = build(resolve(made), 2)
    else:
        venv = build(resolve(Spoiled), 2, vectorization, 2)
    seeds = []
    adapter = Adapter(venv, lambda i, k: seeds.append((i, k)) or 100 * i + k, 0.9)
    adapter.forgiving = True
    obs = adapter.reset()
    try:
        for t in range(1, 16):
            before = obs
            step = adapter.step(np.zeros((2, 1), np.float32))
            obs = step.obs
            if t == 13:
                assert step.valid.tolist() == [0, 0]
                assert step.lam.tolist() == [0, 0]
                assert step.discount.tolist() == [1, 1]
                assert step.reward.tolist() == [0, 0]
                np.testing.assert_array_equal(step.next_obs, before)
                fresh, _ = Sound().reset(seed=2)
                np.testing.assert_array_equal(step.obs[0], fresh)
            else:
                assert step.valid.tolist() == [1, 1]
                assert np.isfinite(step.next_obs).all()
        assert [(e.env, e.length) for e in adapter.episodes] == [(0, 10), (1, 10)]
        assert adapter.started.tolist() == [3, 3]
        assert list(adapter._length) == [2, 2]
        assert len(adapter.left_out) == 2
    finally:
        adapter.close()


class SpoiledAndDying(Sound):
    """Environment 3 shows what is not finite in its 13th step, and its process ends as the next episode begins."""

    seed, home, file, length = 0, 0, "", 10

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        if self.count == 13 and seed >= 300 and os.getpid() != self.home and not os.path.exists(self.file):
            Path(self.file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(seed=seed)

    def steps(self):
        return {13} if 300 <= self.seed < 400 else set()

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, self.age >= self.length if self.seed // 100 == 2 else truncated, info


@pytest.mark.parametrize("length", [10, 13], ids=["under way", "ended"])
def test_a_process_that_dies_as_a_step_is_left_out_brings_its_others_back(length, tmp_path, monkeypatch):
    monkeypatch.setattr(SpoiledAndDying, "length", length)
    monkeypatch.setattr(SpoiledAndDying, "home", os.getpid())
    monkeypatch.setattr(SpoiledAndDying, "file", str(tmp_path / "once"))
    actions = np.random.default_rng(0).uniform(-1, 1, (24, 4, 1)).astype(np.float32)

    def steps_of():
        adapter = Adapter(build(resolve(SpoiledAndDying), 4, "async", 2), lambda i, k: 100 * i + k, 0.9)
        adapter.forgiving = adapter.restart_workers = True
        adapter.say = said.append
        try:
            adapter.reset()
            steps = [adapter.step(action) for action in actions]
            return steps, adapter.episodes
        finally:
            adapter.close()

    said = []
    (tmp_path / "once").touch()
    steps, episodes = steps_of()
    (tmp_path / "once").unlink()
    others, its_episodes = steps_of()
    assert (tmp_path / "once").exists()
    assert len(said) == 1
    assert "another took its place" in said[0]
    assert episodes == its_episodes
    for step, other in zip(steps, others, strict=True):
        for field in ("table", "next_obs", "obs"):
            np.testing.assert_array_equal(getattr(step, field), getattr(other, field))


@BOTH
@PATHS
def test_a_run_that_is_stopped_goes_on_as_if_nothing_had_been(algo, fast, tmp_path, armed):
    options = algo | {"fast": fast, "vectorization": "sync"}
    covary.train(Sound, out=tmp_path / "whole", **options)
    armed.add(160 + 75)
    with pytest.raises(covary.UsageError, match=r"inf in observation\[1\] of environment 0"):
        covary.train(Armed, out=tmp_path / "run", **options)
    assert len(list((tmp_path / "run" / "nonfinite").glob("*.json"))) == 1
    finite(tmp_path / "run")
    covary.train(Armed, resume=tmp_path / "run", quiet=True)
    a, b = (finite(tmp_path / name)[0] for name in ("whole", "run"))
    assert [name for name in a if not name.startswith("generators") and a[name].tobytes() != b[name].tobytes()] == []
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@BOTH
@PATHS
@pytest.mark.parametrize("at", [(75,), (75, 76, 130)], ids=len)
def test_a_run_is_rolled_back_at_half_the_rate(at, algo, fast, tmp_path, armed, capsys):
    armed.update(at)
    times = len(at)
    options = {"fast": fast, "vectorization": "sync", "on_nonfinite": "rollback", "save_every": 64, "quiet": False}
    covary.train(Armed, out=tmp_path / "run", **algo | options)
    said = capsys.readouterr().out
    assert said.count("times the learning rate") == times
    assert f"on at {0.5**times:g} times the learning rate" in said
    arrays, meta = finite(tmp_path / "run")
    assert float(arrays["adam.scale"]) == 0.5**times
    assert meta["steps"] >= 320
    steps = [line["step"] for line in Run.open(tmp_path / "run").lines()]
    assert steps == sorted(set(steps))
    assert all("actor_loss" in line for line in Run.open(tmp_path / "run").lines()), "gathered after going back as well"
    agent = covary.load(tmp_path / "run")
    assert agent.learner.optimizer.scale == 0.5**times


def test_the_best_is_not_replaced_by_what_is_worse_after_going_back(tmp_path, armed, monkeypatch):
    scores = iter([5.0, 9.0, 7.0, 8.0, 6.0, 7.5, *range(100)])

    def evaluated(agent, source, episodes, **options):
        return SimpleNamespace(returns=np.array([float(next(scores))]))

    monkeypatch.setattr("covary.loop.evaluate", evaluated)
    armed.add(75)  # after the evaluation at step 128, which scored 9; the last checkpoint is that of step 96
    options = {"on_nonfinite": "rollback", "save_every": 96, "eval_every": 64, "vectorization": "sync"}
    covary.train(Armed, out=tmp_path / "run", **ROLLOUTS | options)
    lines = [line["eval_return"] for line in Run.open(tmp_path / "run").lines() if "eval_return" in line]
    _, meta = read_checkpoint(tmp_path / "run" / "checkpoints" / "best")
    assert (meta["steps"], meta["eval_return"]) == (128, 9.0), lines


def test_rolling_back_ends_somewhere(tmp_path, armed, capsys):
    armed.update(range(75, 1000, 12))
    options = ONLINE | {"vectorization": "sync", "on_nonfinite": "rollback", "save_every": 64, "quiet": False}
    with pytest.raises(covary.UsageError, match="inf in observation"):
        covary.train(Armed, out=tmp_path / "run", **options)
    assert capsys.readouterr().out.count("times the learning rate") == 5


def test_without_a_checkpoint_there_is_nothing_to_roll_back_to(tmp_path):
    with pytest.raises(covary.UsageError, match="inf in observation"):
        covary.train(Spoiled, out=tmp_path / "run", **ROLLOUTS | {"on_nonfinite": "rollback", "vectorization": "sync"})


def test_a_pass_that_is_undone_leaves_what_the_passes_before_it_learned(tmp_path, monkeypatch):
    options = ROLLOUTS | {"epochs": 4, "target_kl": 0.0, "vectorization": "sync", "fast": True}
    covary.train(Sound, out=tmp_path / "whole", **options)
    epoch, calls = FastPath.epoch, itertools.count(1)

    def spoiling(self, batch, order):
        seen = epoch(self, batch, order)
        if next(calls) == 11:  # the third pass of the third update
            self.optimizer.vector.fill_(np.nan)
            seen[0] = np.nan
        return seen

    monkeypatch.setattr(FastPath, "epoch", spoiling)
    covary.train(Sound, out=tmp_path / "run", **options)
    assert next(calls) > 40 + 2 + 4, "two passes and four minibatches more than without"
    a, b = (finite(tmp_path / name)[0] for name in ("whole", "run"))
    assert [name for name in a if not name.startswith("generators") and a[name].tobytes() != b[name].tobytes()] == []


class Root(nn.Module):
    """A torso whose slope is not finite, once."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 4)
        self.calls = 0

    def forward(self, x):
        y = self.linear(x)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == 20:
                return (0 * y).abs().sqrt()
        return torch.tanh(y)


@BOTH
def test_a_gradient_is_named_kept_and_rolled_back(algo, tmp_path, capsys):
    options = {"on_nonfinite": "rollback", "save_every": 32, "quiet": False, "vectorization": "sync"}
    covary.train(Sound, out=tmp_path / "run", torso=Root(), **algo | options)
    assert "times the learning rate" in capsys.readouterr().out
    kept = [json.loads(p.read_text()) for p in (tmp_path / "run" / "nonfinite").glob("*.json")]
    assert kept[0]["update"] > 1
    finite(tmp_path / "run")


def test_the_option_is_checked():
    with pytest.raises(covary.UsageError, match="on_nonfinite is one of stop, skip, rollback"):
        covary.train(Sound, on_nonfinite="ignore")
