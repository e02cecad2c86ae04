"""What a run chooses by looking at the machine, and keeps."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import Line

import covary
from covary import algorithms, choices
from covary.envs.vectors import InProcess
from covary.envs.workers import Workers
from covary.fast import blas

TINY = {"n_envs": 4, "horizon": 10, "minibatch": 16, "epochs": 1, "steps": 80, "quiet": True}


class Slow(Line):
    """Its steps take a millisecond."""

    def step(self, action):
        time.sleep(1e-3)
        return super().step(action)


class Watched(Line):
    """Counts its steps, over all that were made."""

    made: list[Watched] = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.steps = 0
        self.made.append(self)

    def step(self, action):
        self.steps += 1
        return super().step(action)


def chosen(run):
    return json.loads(Path(run, "config.json").read_text())["chosen"]


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(choices, "cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_slow_environments_are_spread_and_quick_ones_are_not(here):
    covary.train(Slow, out="slow", **TINY)
    covary.train(Line, out="quick", **TINY)
    assert chosen("slow")["processes"] == 2
    assert chosen("quick")["processes"] == 1


@pytest.mark.usefixtures("two_cores")
def test_the_bits_do_not_depend_on_it(here):
    for name, vectorization in (("auto", "auto"), ("sync", "sync"), ("async", "async")):
        covary.train(Slow, out=name, vectorization=vectorization, **TINY)
    texts = {Path(name, "metrics.jsonl").read_bytes() for name in ("auto", "sync", "async")}
    assert len(texts) == 1


@pytest.mark.usefixtures("two_cores")
def test_a_resumed_run_repeats_it(here):
    covary.train(Slow, out="run", **TINY)
    config = json.loads(Path("run/config.json").read_text())
    config["chosen"]["processes"] = 1  # as if it had been chosen on a machine with one core
    Path("run/config.json").write_text(json.dumps(config))
    covary.train(Slow, resume="run", steps=160, quiet=True)
    assert chosen("run")["processes"] == 1


@pytest.mark.usefixtures("two_cores")
def test_no_environment_of_the_run_is_stepped_to_look_at_it():
    from covary.envs.sources import resolve
    from covary.settings import RunOptions

    Watched.made.clear()
    venv, processes = choices.environments(resolve(Watched), 3, RunOptions())
    assert processes == 1
    assert type(venv) is InProcess
    own = {id(env.unwrapped) for env in venv.envs}
    assert [env.steps for env in Watched.made if id(env) in own] == [0, 0, 0]
    assert sum(env.steps for env in Watched.made if id(env) not in own) > 0


@pytest.mark.usefixtures("two_cores")
def test_one_that_fails_while_it_is_looked_at_is_left_to_training(here):
    class Bad(Slow):
        def step(self, action):
            raise RuntimeError("gears")

    with pytest.raises(covary.UsageError, match="gears"):
        covary.train(Bad, out="run", **TINY)


def test_shares_are_stepped_where_they_belong():
    venv = Workers([Line] * 5, 3)
    assert [len(venv.row.envs), len(venv.processes)] == [2, 2]
    assert len(venv.get_attr("action_space")) == 5
    venv.close()
    assert not any(process.is_alive() for process in venv.processes)


def shared():
    return shared.one


shared.one = Line()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_one_object_handed_out_again_is_refused(vectorization, here):
    with pytest.raises(covary.UsageError, match="object of its own"):
        covary.train(shared, vectorization=vectorization, out="run", **TINY)


WITH_TORCH = f"""
import torch, covary
from worlds import Line


class Torchy(Line):
    def step(self, action):
        torch.randn(600, 600) @ torch.randn(600, 600)
        return super().step(action)


torch.set_num_threads(2)
torch.randn(900, 900) @ torch.randn(900, 900)
covary.train(Torchy, vectorization="async", out="run", **{TINY})
"""


def test_environments_that_use_torch_are_spread(tmp_path):
    """A forked process has none of torch's other threads: left alone, it would wait for them for ever."""
    run_apart(WITH_TORCH, tmp_path)


def run_apart(code, folder):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


IN_A_POOL = """
import multiprocessing, torch, covary
from test_choices import Slow, TINY


def job(vectorization):
    try:
        return covary.train(Slow, vectorization=vectorization, fast=False, out=vectorization, **TINY).steps
    except covary.UsageError as error:
        return str(error).splitlines()[0]


torch.set_num_threads(2)
torch.randn(900, 900) @ torch.randn(900, 900)
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.apply(job, ("auto",)) == 80
    assert "start no others" in pool.apply(job, ("async",))
"""


def test_in_a_process_of_a_pool(tmp_path):
    """Which is forked after torch has used its threads, and may start no processes of its own."""
    run_apart(IN_A_POOL, tmp_path)


def test_an_agent_can_be_pickled(here):
    agent = covary.train(Line, out="run", profile=True, **TINY)
    again = pickle.loads(pickle.dumps(agent))
    assert (again.act(np.zeros(1), True) == agent.act(np.zeros(1), True)).all()


@pytest.mark.parametrize("name", ["fast", "profile"])
def test_switches_are_true_or_false(name):
    with pytest.raises(covary.UsageError, match=f"{name} is True or False"):
        covary.train(Line, **{name: "no"})


def test_large_layers_are_left_to_pytorch_where_it_shows_no_blas(here, monkeypatch):
    covary.train(Line, out="run", policy={"hidden": (300, 300)}, **TINY)
    assert chosen("run")["path"] == "fast"
    monkeypatch.setattr(blas, "ADDRESS", None)
    covary.train(Line, out="other", policy={"hidden": (300, 300)}, **TINY)
    assert "large" in chosen("other")["why"]


def test_small_networks_get_one_thread_without_a_trial(monkeypatch):
    """Whose outcome would differ from run to run, and the last bits with it."""
    sizes = (((64, 64), 256), ((256, 256), 64), ((16,), 2048))
    agents = [covary.untrained(Line, fast=False, policy={"hidden": h}, minibatch=minibatch) for h, minibatch in sizes]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: pytest.fail("tried"))
    assert [choices.choose(agent, False).threads for agent in agents] == [1, 1, 1]


def test_threads_are_probed_without_a_trace():
    agent = covary.untrained(Line, fast=False, policy={"hidden": (300, 300)}, critic={"hidden": (300, 300)})
    before = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    choice = choices.choose(agent, False)
    assert choice.path == "general"
    assert choice.threads >= 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], x) for name, x in agent.policy.state_dict().items())


@pytest.mark.parametrize("algo", algorithms.NAMES)
def test_a_switch_of_an_algorithm_is_on_or_off(algo):
    config = algorithms.find(algo).Config
    switches = [field.name for field in dataclasses.fields(config) if isinstance(field.default, bool)]
    assert "scale_rewards" in switches
    for name in switches:
        for value in ("no", 1, None):
            with pytest.raises(covary.UsageError, match=f"{name} is True or False"):
                config(**{name: value})


@pytest.mark.parametrize("name", ["state_dependent", "layer_norm", "normalize_obs"])
def test_so_is_one_of_a_policy(name):
    with pytest.raises(covary.UsageError, match=f"policy.{name} is True or False"):
        covary.untrained("Pendulum-v1", policy={name: "no"})
