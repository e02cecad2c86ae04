"""Covary takes its own medicine: its algorithms and its examples under the doctor."""

from __future__ import annotations

from pathlib import Path

import pytest
from clinic import examine, serious

import covary
from covary import doctor
from covary.algorithms import NAMES

EXAMPLES = Path(covary.__file__).parents[2] / "examples"


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.parametrize("algo", NAMES)
def test_every_algorithm_is_healthy(algo, env, tmp_path):
    agent = covary.untrained(env, algo, seed=0)
    sizes = sorted(tuple(p.shape) for p in agent.learner.optimizer.parameters if p.numel())
    few = {"ppo": {"n_envs": 2, "horizon": 64}, "trpo": {"n_envs": 2, "horizon": 64}, "a2c": {"n_envs": 2}}.get(
        algo, {}
    )
    with doctor.watch() as checkup:
        covary.train(env, algo, 300, seed=0, out=str(tmp_path / "run"), preset="none", **few)
    assert [finding for finding in checkup.findings if finding.severity != "note"] == []
    assert checkup.troubles == []
    assert len(checkup.case.backwards) >= 10
    reached = checkup.case.reached
    assert sorted(checkup.case.shapes[key] for key in reached) == sizes, "every parameter is reached by a gradient"


def test_every_example_is_healthy_but_the_broken_one():
    paths = sorted(EXAMPLES.glob("*.py"))
    heard = examine(paths, arguments=("600",))
    for path, record in heard.items():
        assert record["said"] is not None, record
        found = serious(record)
        if path.stem == "original_question":  # it shows the question's own fault, and then the mended agent
            assert [(one["code"], one["source"]) for one in found][:1] == [("graph-cut", found[0]["source"])]
            assert ".detach().numpy()" in found[0]["source"]
        else:
            assert found == [], path
            assert record["code"] == 0
            assert record["said"]["watched"]["backwards"] >= 9
