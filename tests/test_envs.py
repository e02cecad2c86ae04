"""The adapter's flags by hand in every autoreset mode, environments by any name, odd spaces, and faults with a name."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import worlds
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from worlds import Counting, Line

from covary.envs.adapter import Adapter, episode_seed
from covary.envs.faults import EnvironmentFault
from covary.envs.sources import rebuild, resolve
from covary.envs.spaces import Decoder, Encoder, from_json, to_json
from covary.envs.vectors import build
from covary.errors import UsageError

GAMMA = 0.5
WORLDS = Path(worlds.__file__)


def walk(venv, steps, seed=7):
    """Everything an adapter says in so many steps of one or more environments, and the adapter."""
    adapter = Adapter(venv, lambda i, k: episode_seed(seed, i, k), GAMMA)
    first = adapter.reset()
    taken = [adapter.step(np.zeros((adapter.n, 1), np.float32)) for _ in range(steps)]
    fields = ("obs", "next_obs", "reward", "discount", "lam", "valid")
    return adapter, first, {name: np.stack([getattr(step, name) for step in taken]) for name in fields}


# Counting: episodes of 2 steps (terminates), 3 (truncated), 1 (terminates), 2 (truncated), ...
NEXT = [[0, 1], [0, 2], [1, 1], [1, 2], [1, 3], [2, 1], [3, 1], [3, 2]]  # where each step led
OBS = [[0, 1], [1, 0], [1, 1], [1, 2], [2, 0], [3, 0], [3, 1], [4, 0]]  # where the next one starts
REWARD = [1, 2, 11, 12, 13, 21, 31, 32]
DISCOUNT = [0.5, 0, 0.5, 0.5, 0.5, 0, 0.5, 0.5]
LAM = [1, 0, 1, 1, 0, 0, 1, 0]
EPISODES = [(0, 3.0, 2), (1, 36.0, 3), (2, 21.0, 1), (3, 63.0, 2)]  # number, return, length


def same_step(n=1):
    return SyncVectorEnv([Counting] * n, autoreset_mode=AutoresetMode.SAME_STEP)


def built(vectorization):
    return lambda n=1: build(resolve(Counting), n, vectorization)


@pytest.mark.parametrize("make", [built("sync"), built("async"), same_step], ids=["sync", "async", "same step"])
def test_flags_by_hand(make):
    venv = make()
    adapter, first, got = walk(venv, 8)
    venv.close()
    assert first.tolist() == [[0, 0]]
    assert got["next_obs"][:, 0].tolist() == NEXT
    assert got["obs"][:, 0].tolist() == OBS
    assert got["reward"][:, 0].tolist() == REWARD
    assert got["discount"][:, 0].tolist() == DISCOUNT
    assert got["lam"][:, 0].tolist() == LAM
    assert got["valid"].all()
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}
    assert [(e.ret, e.length) for e in adapter.episodes] == [(ret, length) for _, ret, length in EPISODES]
    if not adapter.self_resetting:
        assert [e.number for e in adapter.episodes] == [0, 1, 2, 3]
        assert adapter.started.tolist() == [5]


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_next_step_by_hand(vector):
    """A phantom step follows each end: it leads from the last observation to the first of the next episode, and is
    neither a step, nor an episode's, nor anybody's reward."""
    venv = vector([Counting], autoreset_mode=AutoresetMode.NEXT_STEP)
    adapter, _, got = walk(venv, 11)
    venv.close()
    assert got["valid"][:, 0].tolist() == [1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 1]
    real = got["valid"][:, 0] > 0
    assert got["next_obs"][real, 0].tolist() == NEXT
    assert got["reward"][real, 0].tolist() == REWARD
    assert got["discount"][real, 0].tolist() == DISCOUNT
    assert got["lam"][real, 0].tolist() == LAM
    assert got["reward"][~real, 0].tolist() == [0, 0, 0]
    # The observation that a step starts from is right wherever a step happened.
    before = np.concatenate([[[0, 0]], got["obs"][:-1, 0]])
    assert before[real].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0], [3, 0], [3, 1]]
    assert [(e.ret, e.length) for e in adapter.episodes] == [(ret, length) for _, ret, length in EPISODES]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_environments_that_end_at_different_times(mode):
    """Each of three environments, one of them an episode ahead, another two, says the same as it does alone."""

    class Ahead(Counting):
        def __init__(self, by):
            super().__init__()
            self.episode += by

    def makers(ahead):
        return [lambda by=by: Ahead(by) for by in ahead]

    together, _, got = walk(SyncVectorEnv(makers((0, 1, 2)), autoreset_mode=mode), 30)
    for i in range(3):
        alone, _, one = walk(SyncVectorEnv(makers((i,)), autoreset_mode=mode), 30)
        for name, array in one.items():
            assert np.array_equal(got[name][:, i], array[:, 0]), name
        mine = [(e.ret, e.length) for e in together.episodes if e.env == i]
        assert mine == [(e.ret, e.length) for e in alone.episodes]
        assert len(mine) > 5


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_every_episode_has_its_own_seed(vectorization):
    venv = build(resolve(Counting), 3, vectorization)
    walk(venv, 8, seed=11)
    seeds = venv.get_attr("seeds")
    venv.close()
    for i in range(3):
        assert list(seeds[i]) == [episode_seed(11, i, k) for k in range(5)]
    everything = {episode_seed(s, i, k) for s in range(20) for i in range(20) for k in range(20)}
    assert len(everything) > 8000 - 15, "different run, environment or episode: another seed (8000 of 2^32)"


def test_one_that_resets_itself_is_seeded_once():
    venv = same_step(2)
    walk(venv, 8, seed=11)
    assert [list(seeds) for seeds in venv.get_attr("seeds")] == [
        [episode_seed(11, 0, 0) + i, None, None, None, None] for i in range(2)
    ]


def play(venv, steps=200, seed=3):
    adapter = Adapter(venv, lambda i, k: episode_seed(seed, i, k), 0.99)
    actions = np.random.default_rng(0).uniform(-1, 3, (steps, adapter.n, 2)).astype(np.float32)
    trace = [adapter.reset()]
    for action in actions:
        step = adapter.step(action[..., : np.prod(venv.single_action_space.shape, dtype=int)])
        trace += [step.obs, step.next_obs, step.reward, step.discount, step.lam]
    venv.close()
    return trace, adapter.episodes


@pytest.mark.parametrize("env", ["covary/Heliostat-v0", "Pendulum-v1", Line], ids=str)
def test_sync_and_async_give_the_same_bits(env):
    """And so does Heliostat's own vector version, which is what "auto" builds."""
    source = resolve(f"covary.envs:{env}" if str(env).startswith("covary") else env)
    reference = play(build(source, 3, "sync"))
    assert len(reference[1]) >= 3
    for vectorization in ("async", "auto"):
        trace, episodes = play(build(source, 3, vectorization))
        assert all(np.array_equal(a, b) for a, b in zip(reference[0], trace, strict=True))
        assert reference[1] == episodes


def test_heliostat_is_built_by_its_vector_version_and_wrappers_are_not_lost():
    auto = build(resolve("covary.envs:covary/Heliostat-v0"), 3, "auto")
    assert type(auto).__name__ == "HeliostatVectorEnv"
    cartpole = build(resolve("CartPole-v1"), 3, "auto")  # its vector version resets itself: not ours to seed
    assert isinstance(cartpole, SyncVectorEnv)
    cartpole.close()


# ------------------------------------------------------------------------------------------------ any name


def test_resolve_takes_whatever_names_an_environment(monkeypatch):
    monkeypatch.chdir(WORLDS.parent)
    vector = SyncVectorEnv([Line])
    named = {
        "Pendulum-v1": "Pendulum-v1",
        "covary.envs:covary/Heliostat-v0": "Heliostat-v0",
        "worlds.py:Line": "Line",
        f"{WORLDS}:Line": "Line",
        "worlds:Line": "Line",
        "covary.envs.heliostat:Heliostat": "Heliostat",
    }
    for name, short in named.items():
        source = resolve(name)
        assert source.name == short
        assert isinstance(source.make(), gym.Env)
        assert source.make() is not source.make()
    assert resolve(Line).name == "Line"
    assert type(resolve(lambda: Line()).make()) is Line
    assert resolve(vector).vector is vector
    assert resolve(gym.make("Pendulum-v1")).name == "Pendulum-v1"
    assert build(resolve(Line()), 1).num_envs == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CartPol-v1", ["'CartPol-v1'", "CartPole-v1"]),
        ("Heliostat-v0", ["covary/Heliostat-v0"]),
        ("nowhere.py:Thing", ["nowhere.py", "must exist"]),
        (f"{WORLDS.parent}/world.py:Line", ["must exist", "worlds.py"]),
        (f"{WORLDS}:Lin", ["must define Lin", "Line"]),
        (f"{WORLDS}:WORLD", ["must define WORLD"]),
        (str(WORLDS), ["worlds.py:MyEnv", "class"]),
        ("no_such_module:Thing", ["no_such_module", "importable"]),
        ("no_such_module:Thing-v0", ["no_such_module"]),
        ("covary.envs.heliostat:Heliostats", ["must define Heliostats", "heliostat:Heliostat"]),
        ("sys:exit", ["sys"]),
        (17, ["17"]),
        (None, ["None"]),
    ],
)
def test_names_of_nothing(name, says):
    with pytest.raises(UsageError) as caught:
        resolve(name)
    for words in says:
        assert words in str(caught.value)


def test_a_file_that_raises_names_its_line(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import gymnasium\n\nx = 1 // 0\n")
    with pytest.raises(UsageError, match=r"ZeroDivisionError(.|\n)*broken\.py:3"):
        resolve(f"{file}:Env")


def test_a_file_may_import_what_stands_beside_it(tmp_path):
    (tmp_path / "parts_of_it.py").write_text("STEPS = 3\n")
    shutil.copy(WORLDS, tmp_path / "own.py")
    with open(tmp_path / "own.py", "a") as file:
        file.write("\nfrom parts_of_it import STEPS\n")
    assert resolve(f"{tmp_path}/own.py:Line").make().steps == 5


@pytest.mark.parametrize("name", ["RaisesAtOnce", "NeedsArguments"])
def test_one_that_cannot_be_made(name):
    with pytest.raises(UsageError, match=r"no simulator found|size") as caught:
        build(resolve(getattr(worlds, name)), 1)
    assert "__init__" in str(caught.value) or "worlds.py:" in str(caught.value)


@pytest.mark.parametrize("made", [7, object(), types.SimpleNamespace(step=1), SyncVectorEnv([Line])])
def test_a_callable_must_make_an_environment(made):
    with pytest.raises(UsageError, match=r"gymnasium\.Env"):
        build(resolve(lambda: made), 1)


def test_rebuild_runs_only_what_was_recorded(tmp_path):
    said = []
    run = tmp_path / "run"
    run.mkdir()
    file = shutil.copy(WORLDS, tmp_path / "mine.py")
    recipe = resolve(f"{file}:Line").recipe
    assert rebuild(recipe, run, said.append).make().steps == 5
    assert len(said) == 1
    assert recipe["sha256"][:12] in said[0]

    inside = shutil.copy(WORLDS, run / "mine.py")
    for changed in (
        recipe | {"path": str(inside), "file": str(inside)},
        recipe | {"path": str(tmp_path / "gone.py")},
        recipe | {"path": 7},
        {"object": "lambda"},
        {"id": "os:system"},
        {"id": "worlds:Line"},
        {"id": 5},
        {},
    ):
        with pytest.raises(UsageError, match="--env"):
            rebuild(changed, run, said.append)
    Path(file).write_text(WORLDS.read_text() + "\n")
    with pytest.raises(UsageError, match="SHA-256"):
        rebuild(recipe, run, said.append)
    assert len(said) == 1


def test_rebuild_by_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "crane_world.py").write_text(WORLDS.read_text())
    recipe = resolve("crane_world:Line").recipe
    assert rebuild(recipe, tmp_path / "run", print).make().steps == 5
    trap = tmp_path / "trap.py"  # a recipe that hashes one file and names another's module: only the first is run
    trap.write_text("raise SystemExit('imported by name')")
    assert rebuild(recipe | {"module": "trap"}, tmp_path / "run", print).make().steps == 5


# ------------------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("space", "obs", "wanted"),
    [
        (Box(-9, 9, (2,), np.float64), [[1.5, 2.0]], [[1.5, 2.0]]),
        (Box(0, 255, (2, 2, 1), np.uint8), [[[[1], [2]], [[3], [255]]]], [[1, 2, 3, 255]]),
        (Box(-5, 5, (2,), np.int64), [[-3, 4]], [[-3, 4]]),
        (Box(-5, 5, (2, 3), np.float32), [[[1, 2, 3], [4, 5, 6]]], [[1, 2, 3, 4, 5, 6]]),
        (Box(-5, 5, (), np.float32), [2.5], [[2.5]]),
        (Discrete(3), [2, 0], [[0, 0, 1], [1, 0, 0]]),
        (Discrete(3, start=-4), [-4, -2], [[1, 0, 0], [0, 0, 1]]),
    ],
    ids=str,
)
def test_observations_become_vectors(space, obs, wanted):
    encoded = Encoder(space)(np.array(obs, space.dtype))
    assert encoded.dtype == np.float32
    assert encoded.tolist() == wanted
    assert Encoder(space).size == encoded.shape[1]


def test_encoded_observations_are_copies():
    buffer = np.zeros((1, 2), np.float32)
    encoded = Encoder(Box(-1, 1, (2,), np.float32))(buffer)
    buffer[:] = 1
    assert encoded.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "space", [gym.spaces.Dict(a=Discrete(2)), gym.spaces.MultiBinary(3), gym.spaces.Text(3), Box(0, 1, (0,))], ids=str
)
def test_observations_that_are_no_vector_are_refused(space):
    with pytest.raises(UsageError):
        Encoder(space)


@pytest.mark.parametrize(
    ("space", "action", "wanted"),
    [
        (Box(-2, 2, (2, 3), np.float32), [[0, 1, 2, 3, -4, -1]], [[[0, 1, 2], [2, -2, -1]]]),
        (Box(-2, 2, (2,), np.float64), [[0.5, 7]], [[0.5, 2]]),
        (Box(0.25, np.inf, (1,), np.float64), [[0.125]], [[0.25]]),
        (Box(-np.inf, 3, (1,), np.float32), [[5]], [[3]]),
        (Box(-2, 2, (), np.float32), [[1.5]], [1.5]),
    ],
    ids=str,
)
def test_actions_take_the_shape_dtype_and_bounds_of_their_space(space, action, wanted):
    given = np.array(action, np.float32)
    kept = given.copy()
    decoded = Decoder(space)(given)
    assert decoded.dtype == space.dtype
    assert decoded.tolist() == wanted
    assert all(np.asarray(one) in space for one in decoded)
    assert np.array_equal(given, kept), "what was scored is not changed"


def test_discrete_actions_start_where_their_space_does():
    decoded = Decoder(Discrete(3, start=5))(np.array([0, 2]))
    assert decoded.tolist() == [5, 7]
    assert all(one in Discrete(3, start=5) for one in decoded)


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        (MultiDiscrete([3, 2], start=[5, -1]), [[5, 0], [7, -1]]),
        (MultiDiscrete([[3], [2]], dtype=np.int8), [[[0], [1]], [[2], [0]]]),
        (MultiBinary(2), [[0, 1], [1, 0]]),
        (MultiBinary((1, 2)), [[[0, 1]], [[1, 0]]]),
    ],
    ids=str,
)
def test_several_choices_take_the_shape_dtype_and_start_of_their_space(space, wanted):
    given = np.array([[0, 1], [1 if isinstance(space, MultiBinary) else 2, 0]])
    decoded = Decoder(space)(given)
    assert decoded.dtype == space.dtype
    assert decoded.tolist() == wanted
    assert all(one in space for one in decoded)


@pytest.mark.parametrize(
    "space",
    [
        Box(-1, 1, (2, 3), np.float32),
        Box(np.array([0, -np.inf]), np.array([np.inf, 7]), dtype=np.float64),
        Box(0, 255, (4, 4, 1), np.uint8),
        Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
        Box(0, np.iinfo(np.uint64).max, (1,), np.uint64),
        Box(np.float32(0.1), np.float32(2 / 3), (1,), np.float32),
        Box(-1, 1, (), np.float32),
        Discrete(4, start=-2),
        MultiDiscrete([3, 2, 5]),
        MultiDiscrete([[3, 2], [1, 5]], dtype=np.int8, start=[[0, -7], [100, 1]]),
        MultiBinary(3),
        MultiBinary((3,)),
        MultiBinary((2, 3)),
    ],
    ids=str,
)
def test_spaces_survive_json(space):
    import json

    assert from_json(json.loads(json.dumps(to_json(space), allow_nan=False))) == space


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "Box"},
        {"kind": "Discrete", "n": 0, "start": 0},
        {"kind": "Discrete", "n": "x", "start": 0},
        {"kind": ["Box"]},
        {"kind": "MultiBinary", "n": 0},
        {"kind": "MultiBinary", "n": [2**20, 2**20]},
        {"kind": "MultiBinary", "n": [[3]]},
        {"kind": "MultiBinary", "n": True},
        {"kind": "MultiDiscrete", "nvec": [2, 3], "start": [0, 0], "shape": [2], "dtype": "float32"},
        {"kind": "MultiDiscrete", "nvec": [2, 0], "start": [0, 0], "shape": [2], "dtype": "int64"},
        {"kind": "MultiDiscrete", "nvec": [2, 3], "start": [0], "shape": [2], "dtype": "int64"},
        {"kind": "MultiDiscrete", "nvec": [2, 3], "start": [0, 0], "shape": [3], "dtype": "int64"},
        {"kind": "MultiDiscrete", "nvec": [2**22, 2**22, 1], "start": [0, 0, 0], "shape": [3], "dtype": "int64"},
        {"kind": "MultiDiscrete", "nvec": [2, 300], "start": [0, 0], "shape": [2], "dtype": "int8"},
        {"kind": "Box", "low": -1, "high": 1, "shape": [2], "dtype": "object"},
        {"kind": "Box", "low": [1, 2, 3], "high": 1, "shape": [2], "dtype": "float32"},
        {"kind": "Box", "low": -1, "high": 1, "shape": [10**6, 10**6], "dtype": "float32"},
        {"kind": "Box", "low": 1, "high": -1, "shape": [2], "dtype": "float32"},
    ],
    ids=str,
)
def test_broken_descriptions_of_spaces_are_refused(data):
    with pytest.raises(UsageError, match="space"):
        from_json(data)


# -------------------------------------------------------------------------------------------------- faults


def faulty(**change):
    """Line, in which environment 1 of 2 goes wrong in its third step."""

    class Faulty(Line):
        made = 0

        def step(self, action):
            self.count = getattr(self, "count", 0) + 1
            outcome = dict(
                zip(("obs", "reward", "terminated", "truncated", "info"), Line.step(self, action), strict=True)
            )
            if self.index == 1 and self.count == 3:
                outcome |= {key: value() if callable(value) else value for key, value in change.items()}
            return tuple(value for value in outcome.values() if value is not ...)

    def make():
        env = Faulty()
        env.index = Faulty.made
        Faulty.made += 1
        return env

    return make


def fail():
    raise RuntimeError("the motor is off")  # this line is named


FAULTS = {
    "nan obs": ({"obs": np.array([np.nan], np.float32)}, ["nan", "observation", "step 3"]),
    "infinite obs": ({"obs": np.array([-np.inf], np.float32)}, ["-inf", "observation", "step 3"]),
    "nan reward": ({"reward": float("nan")}, ["nan", "reward", "step 3"]),
    "infinite reward": ({"reward": float("inf")}, ["inf", "reward", "step 3"]),
    "reward array": ({"reward": np.array([1.0])}, ["reward", "array([1.])", "step 3"]),
    "reward none": ({"reward": lambda: None}, ["reward", "None", "step 3"]),
    "reward text": ({"reward": "1"}, ["reward", "'1'", "step 3"]),
    "shape": ({"obs": np.zeros(2, np.float32)}, ["(2,)", "(1,)", "step 3"]),
    "more dimensions": ({"obs": np.zeros((1, 1), np.float32)}, ["(1, 1)", "(1,)", "step 3"]),
    "dtype": ({"obs": np.array(["x"])}, ["dtype", "<U1", "step 3"]),
    "complex": ({"obs": np.array([1j])}, ["dtype", "complex", "step 3"]),
    "obs none": ({"obs": lambda: None}, ["observation", "step 3"]),
    "four values": ({"truncated": ...}, ["4 values", "terminated, truncated", "step 3"]),
    "raises": ({"obs": fail}, ["RuntimeError: the motor is off", "step 3", "test_envs.py:", "this line is named"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault):
    change, says = FAULTS[fault]
    with pytest.raises(EnvironmentFault) as caught:
        walk(build(resolve(faulty(**change)), 2, "sync"), 4)
    for words in [*says, "environment 1"]:
        assert words in str(caught.value)


@pytest.mark.parametrize("fault", ["nan obs", "shape", "four values", "raises"])
def test_a_fault_in_a_worker_is_named(fault, capfd):
    """The same message from another process, and no traceback beside it."""
    change, says = FAULTS[fault]

    class Indexed(gym.Wrapper):
        def reset(self, *, seed=None, options=None):
            self.env.index = int(seed == episode_seed(7, 1, 0))
            return self.env.reset(seed=seed, options=options)

    venv = build(resolve(lambda: Indexed(faulty(**change)())), 2, "async")
    with pytest.raises(UsageError) as caught:
        walk(venv, 4)
    venv.close(terminate=True)
    for words in [*says, "environment 1"]:
        assert words in str(caught.value)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_nan_in_a_later_reset_is_of_the_environment_that_gave_it(vectorization):
    class Bad(Counting):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed, options=options)
            return obs * (np.nan if seed == episode_seed(7, 2, 1) else 1), info

    venv = build(resolve(Bad), 3, vectorization)
    with pytest.raises(EnvironmentFault, match=r"environment 2, reset"):
        walk(venv, 8)
    venv.close()


def test_a_fault_in_reset_is_named():
    class Bad(Line):
        def reset(self, *, seed=None, options=None):
            return Line.reset(self, seed=seed)[0]

    with pytest.raises(EnvironmentFault, match=r"\(observation, info\)(.|\n)*environment 0, reset"):
        walk(build(resolve(Bad), 1), 1)


def test_the_users_line_is_named_in_a_folder_called_covary(tmp_path):
    """A clone of this project is a folder called covary, in which people put their environments."""
    folder = tmp_path / "covary"
    folder.mkdir()
    text = (
        "import numpy\nfrom worlds import Line\n\n\nclass Own(Line):\n"
        "    def step(self, action):\n        return numpy.linalg.inv(numpy.zeros((2, 2)))\n"
    )
    (folder / "own.py").write_text(text)
    with pytest.raises(EnvironmentFault, match=r"own\.py:7"):
        walk(build(resolve(f"{folder}/own.py:Own"), 1), 1)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("scale", [1e300, -1e39])
def test_numbers_beyond_float32_are_named(scale):
    class Huge(Line):
        observation_space = Box(-np.inf, np.inf, (1,), np.float64)

        def draw(self):
            return Line.draw(self).astype(np.float64) * 0 + scale

    with pytest.raises(EnvironmentFault, match="observation"):
        walk(build(resolve(Huge), 1), 1)


def test_float64_and_list_observations_of_a_float32_space_are_taken():
    class Loose(Line):
        def draw(self):
            return list(Line.draw(self).astype(np.float64))

    _, first, got = walk(build(resolve(Loose), 1), 12)
    assert np.abs(first).max() <= 1
    assert np.isfinite(got["obs"]).all()


def test_one_object_is_one_environment():
    with pytest.raises(UsageError, match="n_envs=1"):
        build(resolve(Line()), 2)
    with pytest.raises(UsageError, match="vectorization"):
        build(resolve(Line), 2, "fork")


def test_a_worker_that_is_killed_is_said_to_be(capfd):
    import os
    import signal

    venv = build(resolve(Line), 2, "async")
    adapter = Adapter(venv, lambda i, k: k)
    adapter.reset()
    os.kill(venv.processes[0].pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"async(.|\n)*memory"):
        [adapter.step(np.zeros((2, 1), np.float32)) for _ in range(3)]
    venv.close()
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------------------- EnvPool


def test_without_envpool_one_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UsageError, match=r"envpool:Pendulum-v1(.|\n)*covary\[envpool\]"):
        resolve("envpool:Pendulum-v1")


def test_a_task_of_envpool_gives_the_same_bits_twice():
    pytest.importorskip("envpool", reason="an extra that the tests do without")
    traces = [play(build(resolve("envpool:Pendulum-v1"), 3, seed=5), 250) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(traces[0][0], traces[1][0], strict=True))
    assert [e.length for e in traces[0][1]] == [200] * 3
    assert not np.array_equal(traces[0][0][0], play(build(resolve("envpool:Pendulum-v1"), 3, seed=6), 2)[0][0])
