"""Covary takes its own medicine: its algorithms and its examples under the doctor."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import worlds
from clinic import examine, serious
from sizes import now_and_then

import covary
from covary import doctor
from covary.algorithms import NAMES, find

EXAMPLES = Path(covary.__file__).parents[2] / "examples"


NUMBERS_ONLY = [name for name in NAMES if find(name).Learner.judges_actions]
FEW = {"ppo": {"n_envs": 2, "horizon": 64}, "trpo": {"n_envs": 2, "horizon": 64}, "a2c": {"n_envs": 2}}
USUAL = ("ppo", "actor_critic", "sac")
SMALL = {"policy": {"hidden": (32, 32)}, "critic": {"hidden": (32, 32)}}
FEW |= {algo: {"learning_starts": 64, "batch": 16, **SMALL} for algo in NUMBERS_ONLY}
BY_HAND = {"sac": ("temperature_adam",), "mpo": ("dual_adam",)}
"""Optimizers whose slopes an update writes down, so that no gradient reaches what they move."""


@pytest.mark.parametrize(
    ("algo", "env"),
    now_and_then(
        [(algo, "Pendulum-v1") for algo in NAMES]
        + [(algo, "CartPole-v1") for algo in NAMES if algo not in NUMBERS_ONLY],
        [(algo, "Pendulum-v1") for algo in USUAL],
    ),
)
def test_every_algorithm_is_healthy(algo, env, tmp_path):
    few = FEW.get(algo, {})
    agent = covary.untrained(env, algo, seed=0, **few)
    optimizers = [adam for name, adam in agent.learner.optimizers.items() if name not in BY_HAND.get(algo, ())]
    sizes = sorted(tuple(p.shape) for adam in optimizers for p in adam.parameters if p.numel())
    with doctor.watch() as checkup:
        covary.train(env, algo, 150, seed=0, out=str(tmp_path / "run"), preset="none", **few)
    assert [finding for finding in checkup.findings if finding.severity != "note"] == []
    assert checkup.troubles == []
    assert len(checkup.case.backwards) >= 10
    reached = checkup.case.reached
    assert sorted(checkup.case.shapes[key] for key in reached) == sizes, "every parameter is reached by a gradient"


DENSITIES = {
    "squashed, full": (worlds.Plane, {"covariance": "full", "state_dependent": True}),
    "wrapped, full": (worlds.Plane, {"covariance": "full", "periodic": (0,), "state_dependent": True}),
    "wrapped, diagonal": (worlds.Plane, {"covariance": "diagonal", "periodic": (0, 1)}),
    "low rank": (worlds.Solid, {"covariance": "lowrank"}),
    "fixed": (worlds.Plane, {"covariance": "fixed"}),
    "clipped": (worlds.Plane, {"covariance": "diagonal", "bounds": "clip"}),
    "mean in the box": (worlds.Plane, {"covariance": "diagonal", "bounds": "mean"}),
    "beta": (worlds.Plane, {"covariance": "diagonal", "bounds": "beta"}),
    "beta beside": (worlds.Plane, {"covariance": "diagonal", "bounds": ("beta", "squash")}),
    "choices": (worlds.Choice, {}),
    "several choices": (worlds.Dials, {}),
    "switches": (worlds.Switches, {}),
}
CHOICES = {"choices", "several choices", "switches"}
BETAS = {"beta", "beta beside"}
REFUSED = {
    "sac": CHOICES | {"fixed", "clipped"},
    "td3": CHOICES | BETAS | set(DENSITIES) - {"fixed"},
    "ddpg": CHOICES | BETAS | set(DENSITIES) - {"fixed"},
    "mpo": CHOICES | BETAS | {"fixed", "clipped"},
}
SOME = {("ppo", "wrapped, full"), ("a2c", "beta beside")}


@pytest.mark.parametrize(("algo", "density"), now_and_then(product(NAMES, DENSITIES), SOME))
def test_every_density_is_healthy_or_refused(algo, density, tmp_path):
    env, policy = DENSITIES[density]
    options = {**FEW.get(algo, {}), "policy": {"hidden": (16,), **policy}, "critic": {"hidden": (16,)}}
    if density in REFUSED.get(algo, ()):
        with pytest.raises(covary.UsageError, match="fix:"):
            covary.untrained(env, algo, seed=0, **options)
        return
    with doctor.watch() as checkup:
        agent = covary.train(env, algo, 300, seed=0, out=str(tmp_path / "run"), preset="none", **options)
    assert [finding for finding in checkup.findings if finding.severity != "note"] == []
    assert checkup.troubles == []
    assert agent.steps >= 300
    assert len(checkup.case.backwards) >= 4


@pytest.mark.slow
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
