"""The ring of the past: what it gives back, what it draws how often, and what it refuses to hold."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import covary
from covary import UsageError, algorithms
from covary.priorities import Priorities
from covary.replay import Replay, in_words
from covary.runs import read_checkpoint, write_checkpoint
from covary.types import Rollout

SEEN, D = 3, 2
CPU = torch.device("cpu")


class Past:
    """N environments whose every observation is another number, told as the adapter tells them."""

    def __init__(self, n, mode="disabled", seed=0):
        self.n, self.mode, self.rng, self.numbers = n, mode, np.random.default_rng(seed), itertools.count(1)
        self.obs = np.stack([self.fresh() for _ in range(n)])
        self.phantom = np.zeros(n, bool)
        self.told = []  # every step that happened: (obs, latent, reward, discount, next_obs), by its reward

    def fresh(self):
        return np.full(SEEN, next(self.numbers), np.float32)

    def steps(self, t):
        """A rollout of t steps, in which a fifth end an episode, half of those by a death."""
        rows = []
        for _ in range(t):
            latent = self.rng.standard_normal((self.n, D)).astype(np.float32)
            reward = np.array([next(self.numbers) for _ in range(self.n)], np.float32)
            ended = (self.rng.random(self.n) < 0.2) & ~self.phantom
            died = ended & (self.rng.random(self.n) < 0.5)
            valid = (~self.phantom).astype(np.float32)
            led = np.stack([self.fresh() for _ in range(self.n)])
            discount, lam = np.where(died, 0.0, 0.9).astype(np.float32), (~ended).astype(np.float32)
            rows.append((self.obs, latent, reward, discount, lam, valid, led))
            for i in np.flatnonzero(valid):
                self.told.append((self.obs[i], latent[i], reward[i], discount[i], led[i]))
            self.phantom = ended if self.mode == "next step" else self.phantom
            restarts = ended if self.mode == "disabled" else np.zeros(self.n, bool)
            self.obs = np.where(restarts[:, None], np.stack([self.fresh() for _ in range(self.n)]), led)
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]
        return Rollout(*columns)


def assert_told_truly(replay, past, size):
    """Everything that can be drawn is a step that happened, whole; and each of the newest `size` is drawn."""
    newest = {float(reward): whole for whole in past.told[-size:] for reward in whole[2:3]}
    everything = {float(reward): whole for whole in past.told for reward in whole[2:3]}
    drawn = replay.sample(40 * size + 200, torch.Generator().manual_seed(1), CPU)
    seen = set()
    for obs, latent, reward, discount, next_obs in zip(
        drawn.obs, drawn.latent, drawn.reward, drawn.discount, drawn.next_obs, strict=True
    ):
        whole = everything[float(reward)]
        for mine, its in zip((obs, latent, discount, next_obs), (whole[0], whole[1], whole[3], whole[4]), strict=True):
            assert np.array_equal(mine.numpy(), its)
        seen.add(float(reward))
    return seen, newest


@pytest.mark.parametrize("mode", ["disabled", "next step"])
@pytest.mark.parametrize("priority", [0.0, 0.6])
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 3), lanes=st.integers(2, 12), parts=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_what_is_drawn_is_what_happened(priority, mode, n, lanes, parts):
    """Across the ends of episodes and of the ring, however the steps came in."""
    replay, past = Replay(lanes * n, n, SEEN, D, priority=priority), Past(n, mode)
    for t in parts:
        replay.add(past.steps(t))
        happened = sum(1 for whole in past.told)
        if not happened or not (replay.table.reshape(-1, 3)[: len(replay), 2] > 0).any():
            continue
        seen, newest = assert_told_truly(replay, past, min(happened, lanes))
        assert len(seen) <= lanes * n
        if mode == "disabled":  # every place holds one that happened
            held = {float(r) for r in replay.table.reshape(-1, 3)[: len(replay), 0]}
            assert held == {float(whole[2]) for whole in past.told[-min(lanes * n, happened) :]}
            assert seen <= held
            assert set(newest) & held


def test_last_observations_take_no_more_room_than_there_are_ends():
    replay, past = Replay(60, 2, SEEN, D), Past(2)
    for _ in range(50):
        replay.add(past.steps(20))
    live = int((replay._apart > 0).sum())
    assert live > 5, "some episodes ended in it"
    assert len(replay._free) + live == len(replay._last) <= 64


@pytest.mark.parametrize("priority", [0.0, 0.6])
def test_it_goes_on_to_the_bit_from_what_it_kept(priority):
    def pair():
        return Replay(30, 2, SEEN, D, priority=priority), Past(2)

    whole, past = pair()
    rollouts = [past.steps(t) for t in (7, 9, 1, 12)]
    for rollout in rollouts[:2]:
        whole.add(rollout)
    drawn = whole.sample(8, torch.Generator().manual_seed(0), CPU, 0.5)
    whole.prioritise(drawn.places, torch.linspace(0.1, 2.0, 8))
    other, _ = pair()
    other.load_state(whole.state())
    for rollout in rollouts[2:]:
        whole.add(rollout)
        other.add(rollout)
        a, b = (each.sample(50, torch.Generator().manual_seed(4), CPU, 0.5) for each in (whole, other))
        assert all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))
    mine, its = whole.state(), other.state()
    assert all(mine[name].tobytes() == its[name].tobytes() for name in mine)


@pytest.mark.parametrize("kept", [0, 3])
@pytest.mark.parametrize("priority", [0.0, 0.6])
def test_an_open_one_forgets_what_came_later(kept, priority):
    """As where a run goes back to a checkpoint."""
    replay, past = Replay(30, 2, SEEN, D, priority=priority), Past(2)
    if kept:
        replay.add(past.steps(kept))
    state = {name: array.copy() for name, array in replay.state().items()}
    replay.add(past.steps(15 - kept))
    drawn = replay.sample(20, torch.Generator().manual_seed(0), CPU)
    replay.prioritise(drawn.places, torch.full((20,), 3.0))
    replay.load_state(state)
    other = Replay(30, 2, SEEN, D, priority=priority)
    other.load_state(state)
    rollout = past.steps(4)
    for each in (replay, other):
        each.add(rollout)
    a, b = (each.sample(50, torch.Generator().manual_seed(4), CPU, 0.5) for each in (replay, other))
    assert all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))


def test_an_episode_that_cannot_be_gone_on_with_is_cut():
    replay, past = Replay(30, 2, SEEN, D), Past(2, "never")
    replay.add(past.steps(4))
    led = past.told[-2:]
    other = Replay(30, 2, SEEN, D)
    other.load_state(replay.state())
    past.obs = np.stack([past.fresh(), past.obs[1]])  # environment 0 starts anew
    other.add(past.steps(1))
    seen, _ = assert_told_truly(other, past, 10)
    assert {float(whole[2]) for whole in led} <= seen


@pytest.mark.parametrize(
    "broken",
    [
        {"replay.obs": np.zeros((4, 2, 9), np.float32)},
        {"replay.cut": np.ones((4, 2), bool)},
        {"replay.led": np.zeros((1, SEEN), np.float32)},
        {"replay.count": np.array(3)},
        {"replay.table": np.full((4, 2, 3), 0.5, np.float32)},
        {"replay.priority": np.full((4, 2), -1.0)},
        {"replay.priority": np.full((4, 2), 9.0)},
        {"replay.most": np.array(np.inf)},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_a_state_that_is_none_is_refused(broken):
    replay, past = Replay(30, 2, SEEN, D, priority=0.6), Past(2, "never")
    replay.add(past.steps(4))
    with pytest.raises((ValueError, KeyError)):
        Replay(30, 2, SEEN, D, priority=0.6).load_state(replay.state() | broken)


# -------------------------------------------------------------------------------------------------- settings

FROM_THE_PAST = pytest.mark.parametrize("algo", ["sac", "td3", "ddpg", "mpo"])


@FROM_THE_PAST
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"learning_starts": 10.0}, ["learning_starts must be a whole number", "10.0"]),
        ({"learning_starts": True}, ["learning_starts must be a whole number", "True"]),
        ({"learning_starts": -1}, ["learning_starts must be a whole number", "-1"]),
        ({"learning_starts": 31, "replay_size": 30}, ["would never be reached", "holds 30", "learning_starts 30 or"]),
        ({"learning_starts": 31, "replay_size": 31, "n_envs": 2}, ["would never be reached", "holds 30"]),
        ({"replay_folder": 5}, ["replay_folder is the path of a folder", "5", "leave it out"]),
        ({"replay_folder": True}, ["replay_folder is the path of a folder", "True"]),
    ],
    ids=str,
)
def test_settings_of_the_past_are_checked_when_they_are_made(algo, wrong, words):
    with pytest.raises(UsageError) as caught:
        algorithms.find(algo).Config(**wrong)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@FROM_THE_PAST
def test_a_path_is_as_good_as_its_text(algo, tmp_path):
    config = algorithms.find(algo).Config(replay_folder=tmp_path, learning_starts=30, replay_size=30)
    assert config.replay_folder == str(tmp_path)


@pytest.mark.parametrize("wrong", [{"replay_folder": "nowhere"}, {"replay_size": 10**13}], ids=str)
def test_a_replay_without_room_leaves_no_run_behind(tmp_path, wrong):
    with pytest.raises(UsageError, match=r"folder that is there|must fit into memory"):
        covary.train("Pendulum-v1", "sac", 100, out=tmp_path / "run", quiet=True, **wrong)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------- priorities


def test_places_are_drawn_as_often_as_their_priorities_say():
    """Proportional to (|delta| + 1e-6)^alpha: chi-squared, false alarm once in 10^6 suites."""
    tree, alpha, draws = Priorities(13, 0.7), 0.7, 200_000
    tree.welcome(np.arange(11), np.ones(11, bool))
    errors = np.array([0.1, 2.0, 0.5, 0.5, 4.0, 0.0, 1.0, 0.01, 3.0, 0.2, 0.7])
    tree.assign(np.arange(11), errors)
    wanted = (errors + 1e-6) ** alpha / ((errors + 1e-6) ** alpha).sum()
    uniform = np.random.default_rng(0).random(draws)
    index, weight = tree.draw(uniform, 1.0)
    counts = np.bincount(index, minlength=13)
    assert counts[11:].sum() == 0, "what never happened is never drawn"
    likely = wanted > 1e-3
    chi = ((counts[:11] - draws * wanted) ** 2 / (draws * wanted))[likely].sum()
    assert chi < 49.0  # 10 degrees of freedom at most, 3e-7; stratified draws vary less still
    exact = 1 / (11 * wanted[index])
    assert np.allclose(weight, exact / exact.max(), rtol=1e-6)
    assert np.allclose(tree.draw(uniform[:9], 0.0)[1], 1.0)


def test_new_ones_get_the_largest_priority_so_far():
    tree = Priorities(8, 0.5)
    tree.welcome(np.arange(4), np.ones(4, bool))
    tree.assign(np.array([0, 1, 0]), np.array([9.0, 1.0, 4.0]))
    assert tree.kept[:2] == pytest.approx([2.0, 1.0], rel=1e-5), "the last of a place that was drawn twice counts"
    tree.welcome(np.array([4]), np.ones(1, bool))
    assert tree.kept[4] == tree.most == pytest.approx(2.0, rel=1e-5)
    tree.welcome(np.array([0]), np.zeros(1, bool))
    assert tree.kept[0] == 0
    assert tree.present == 4
    assert tree.sums[1] == pytest.approx(tree.kept.sum())


# ------------------------------------------------------------------------------------------------------- room


def test_what_takes_more_than_there_is_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"(?s)must fit into memory.*replay_size.*replay_folder"):
        Replay(10**12, 1, 100, 5).open()
    with pytest.raises(UsageError, match="must fit on its disk"):
        Replay(10**9, 1, 10**6, 5, folder=str(tmp_path)).open()
    with pytest.raises(UsageError, match="folder that is there"):
        Replay(10, 1, 2, 1, folder=str(tmp_path / "nowhere")).open()


def test_a_file_holds_the_same(tmp_path):
    past = Past(2)
    rollout = past.steps(40)
    kept = []
    for folder in (None, str(tmp_path)):
        replay = Replay(50, 2, SEEN, D, folder=folder)
        assert f"{in_words(replay.nbytes)} of {'memory' if folder is None else 'a file in'}" in replay.open()
        replay.add(rollout)
        kept.append(replay)
    assert isinstance(kept[1].obs, np.memmap)
    a, b = (replay.sample(30, torch.Generator().manual_seed(2), CPU) for replay in kept)
    assert all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))
    assert list(tmp_path.iterdir()) == [], "nobody else sees it, and nothing is left behind"


@pytest.mark.parametrize("folder", [False, True])
def test_a_checkpoint_takes_no_copy_of_it(tmp_path, folder):
    """Of a ring that has gone round."""
    replay, n = Replay(40_000, 2, 60, D, folder=str(tmp_path) if folder else None, priority=0.5), 2
    replay.open()
    ones = torch.ones(100, n)
    obs = torch.randn(100, n, 60)
    rollout = Rollout(obs[:1], torch.zeros(1, n, D), *[ones[:1]] * 4, obs[1:2])
    replay.add(rollout)
    replay.count += 30_000
    for part in replay._parts.values():
        part[:] = 1.0
    tracemalloc.start()
    write_checkpoint(tmp_path / "checkpoint", replay.state(), {})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.25 * replay.nbytes
    arrays, _ = read_checkpoint(tmp_path / "checkpoint")
    other = Replay(40_000, 2, 60, D, priority=0.5)
    other.load_state(arrays)
    a, b = (each.sample(50, torch.Generator().manual_seed(4), CPU, 0.5) for each in (replay, other))
    assert all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))


def test_its_size_is_what_it_takes():
    replay = Replay(1000, 2, SEEN, D)
    replay.open()
    arrays = [replay.obs, replay.latent, replay.table, replay._apart]
    assert replay.nbytes == sum(array.nbytes for array in arrays)
    prioritised = Replay(1000, 2, SEEN, D, priority=0.5)
    prioritised.open()
    extra = prioritised.priorities.sums.nbytes
    assert prioritised.nbytes == sum(x.nbytes for x in (*prioritised._parts.values(), prioritised._apart)) + extra
