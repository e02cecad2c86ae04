"""Environments that break their word: each is held right, to the number, or is told off in one message."""

from __future__ import annotations

import os

import numpy as np
import pytest
from lies import HELD, LIES, MEMORY, SAME, VECTOR_LIES, Honest, raises

import covary
from covary import loop
from covary.envs.adapter import Adapter, episode_seed
from covary.envs.checks import check_env
from covary.envs.sources import resolve
from covary.envs.vectors import build
from covary.errors import UsageError

SHORT = {"ppo": {"horizon": 8, "minibatch": 8, "epochs": 1}, "a2c": {}, "trpo": {"horizon": 8}, "actor_critic": {}}


@pytest.fixture(autouse=True)
def _same_folder(monkeypatch):
    monkeypatch.setattr(loop, "draw", lambda run: None)  # no curve: half of the time of so short a run
    before = os.getcwd()
    yield
    os.chdir(before)


def trained(env, algo, out, **options):
    return covary.train(env, algo, 64, out=out, quiet=True, **SHORT[algo], **options)


def told(error):
    """One message: what holds, what was given; no word of Covary's inside."""
    text = str(error)
    assert "\n  given: " in text
    assert "covary/envs" not in text
    return text


@pytest.mark.parametrize("name", [n for n in LIES if n != "cannot be made"])
def test_check_env_names_the_lie(name, capfd):
    lie = LIES[name]
    findings = check_env(lie.make(), steps=40)
    assert bool(findings) is bool(lie.check), findings
    assert any(lie.check in f"{f.rule} {f.given}" for f in findings) or not lie.check, findings
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("algo", SHORT)
@pytest.mark.parametrize("name", LIES)
def test_training(tmp_path, name, algo, capfd):
    lie = LIES[name]
    train = lambda: trained(lie.make, algo, tmp_path / "run", n_envs=2, vectorization="sync")  # noqa: E731
    if lie.training in (HELD, SAME):
        agent = train()
        assert agent.fast is None  # taken off again, so it was on
        assert agent.steps == 64
        assert all(p.isfinite().all() for p in agent.policy.parameters())
    else:
        with pytest.raises(UsageError) as caught:
            train()
        assert lie.training in told(caught.value)
    assert "Traceback" not in "".join(capfd.readouterr())


def walk(make, vectorization, steps=23):
    """Everything an adapter says of two environments whose policy is a random one."""
    venv = build(resolve(make), 2, vectorization, processes=2 if vectorization == "async" else 0)
    adapter = Adapter(venv, lambda i, k: episode_seed(3, i, k), 0.5)
    rng = np.random.default_rng(0)
    try:
        first = adapter.reset()
        kept = first.copy()
        taken = [adapter.step(rng.uniform(-1, 1, (2, 1)).astype(np.float32)) for _ in range(steps)]
        stored = [np.concatenate([step.table.ravel(), step.obs.ravel(), step.next_obs.ravel()]) for step in taken]
        assert (first == kept).all(), "what was stored changed"
        return np.concatenate([first.ravel(), *stored]), [tuple(e[:4]) for e in adapter.episodes]
    finally:
        venv.close()


@pytest.mark.parametrize("name", [n for n, lie in LIES.items() if lie.training == SAME])
def test_numbers_are_those_of_the_honest_one(name):
    numbers, episodes = walk(LIES[name].make, "sync")
    right, ends = walk(Honest, "sync")
    assert (numbers == right).all()
    assert episodes == ends
    assert len(ends) == 8


@pytest.mark.parametrize("name", MEMORY)
def test_numbers_over_processes(name):
    numbers, episodes = walk(LIES[name].make, "async")
    right, ends = walk(Honest, "sync")
    assert (numbers == right).all()
    assert episodes == ends


@pytest.mark.parametrize("name", ["six values", "exit", "an error without words", "masked array", "huge reward"])
def test_a_lie_in_another_process_is_told(name):
    """Both environments lie; the message may be of either."""
    with pytest.raises(UsageError) as caught:
        walk(LIES[name].make, "async")
    assert LIES[name].training in told(caught.value)


def test_spaces_are_the_same_over_processes():
    with pytest.raises(UsageError, match="have the same spaces"):
        walk(LIES["every one another space"].make, "async")


def test_a_person_may_interrupt_an_environment(tmp_path):
    """KeyboardInterrupt is not the environment's fault; the run is saved and it goes up."""
    with pytest.raises(KeyboardInterrupt):
        trained(raises(KeyboardInterrupt), "ppo", tmp_path / "run", n_envs=2, vectorization="sync")
    with pytest.raises(KeyboardInterrupt):
        check_env(raises(KeyboardInterrupt)())


@pytest.mark.parametrize("algo", SHORT)
@pytest.mark.parametrize("name", VECTOR_LIES)
def test_vector_environments(tmp_path, name, algo):
    make, expected = VECTOR_LIES[name]
    if expected == HELD:
        agent = trained(make(), algo, tmp_path / "run")
        assert 64 <= agent.steps <= 64 + 16
        return
    with pytest.raises(UsageError) as caught:
        trained(make(), algo, tmp_path / "run")
    assert expected in told(caught.value)


def test_the_environment_and_the_call_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"environment 0, step 3"):
        trained(LIES["info None"].make, "ppo", tmp_path / "run", n_envs=2)


def test_limits_of_the_old_api_are_counted():
    venv = build(resolve(LIES["a limit of the old API"].make), 2, "sync")
    adapter = Adapter(venv, lambda i, k: episode_seed(3, i, k), 0.5)
    adapter.reset()
    ends = np.stack([adapter.step(np.zeros((2, 1), np.float32)).discount == 0 for _ in range(40)]).sum(0)
    assert 0 < ends.sum() < len(adapter.episodes)
    assert [env.limits for env in venv.envs] == ends.tolist()


def test_a_directory_is_not_lost(tmp_path, monkeypatch):
    """An environment that goes elsewhere is put back by check_env, which looks at it first."""
    monkeypatch.chdir(tmp_path)
    check_env(LIES["another folder"].make())
    assert os.getcwd() == str(tmp_path)
