"""Numbers that are not finite are told as on the general path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import ALGORITHMS, ENVIRONMENTS, broken, train
from twins import assert_close
from worlds import Plane

from covary import training
from covary.choices import choose
from covary.envs.faults import EnvironmentFault
from covary.errors import UsageError
from covary.runs import Run, read_checkpoint


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("at", [35, 38])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("field", ["observation", "reward"])
def test_numbers_that_are_not_finite_are_told_as_on_the_general_path(field, value, at, n, here):
    told, kept = [], []
    for fast in (True, False):
        with pytest.raises(EnvironmentFault) as caught:
            train(broken(field, value, at), "actor_critic", f"run-{fast}", n_envs=n, save_every=20 * n, fast=fast)
        told.append(str(caught.value))
        place = Run.open(Path(f"run-{fast}")).checkpoints()[-1]
        kept.append(read_checkpoint(place))
        assert kept[-1][1]["steps"] == n * (at - 1)
    assert told[0] == told[1]
    assert f"{value} in {field}" in told[0]
    for name, array in kept[0][0].items():
        assert np.isfinite(array).all(), name
        assert_close(array, kept[1][0][name], 1e-3, name)


def poisoned(where):
    """A chooser that first makes one number of a network NaN."""

    def choose_then(agent, *arguments):
        made = choose(agent, *arguments)
        with torch.no_grad():
            where(agent).bias[0] = torch.nan
        return made

    return choose_then


@ALGORITHMS
@ENVIRONMENTS
@pytest.mark.parametrize("network", ["policy", "critic"])
def test_a_nan_in_an_update_is_told_as_on_the_general_path(network, env, algo, here, monkeypatch):
    monkeypatch.setattr(
        training, "choose", poisoned(lambda a: (a.policy if network == "policy" else a.learner.critic).torso[0])
    )
    told = []
    for fast in (True, False):
        with pytest.raises(UsageError) as caught:
            train(env, algo, f"run-{fast}", fast=fast, save_every=60)
        told.append(str(caught.value))
        assert not Run.open(Path(f"run-{fast}")).checkpoints()
    assert told[0] == told[1]
    rules = ["Training must stay finite."] + ["A policy's actions must be finite."] * (env is Plane)
    assert told[0].splitlines()[0] in rules


@ALGORITHMS
def test_a_learning_rate_that_is_far_too_high_is_told_as_on_the_general_path(algo, here):
    rates = {"learning_rate": 1e30} if algo == "ppo" else {"actor_lr": 1e30, "critic_lr": 1e30}
    told = []
    for fast in (True, False):
        with pytest.raises(UsageError) as caught:
            train(Plane, algo, f"run-{fast}", fast=fast, **rates)
        told.append(str(caught.value).splitlines())
        for place in Run.open(Path(f"run-{fast}")).checkpoints():
            assert all(np.isfinite(array).all() for array in read_checkpoint(place)[0].values())
    assert told[0][0] == told[1][0]
    assert told[0][2:] == told[1][2:]
