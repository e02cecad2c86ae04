"""A checkpoint's files: whole or absent, read only once they add up, and readable for as long as there is a Covary.

The folders in tests/data/runs are runs of 64 steps as each released format wrote them, with what their agents did. A
new format gets its own, written by that version of Covary with

    import json, pathlib, numpy as np, torch, covary
    from covary.runs import FORMAT
    torch.set_num_threads(1)
    tiny = {"policy": {"hidden": (4,)}, "critic": {"hidden": (4,)}, "n_envs": 2, "vectorization": "sync", "seed": 1}
    tiny |= {"preset": "none", "quiet": True, "save_every": 64, "steps": 64}
    covary.train("Pendulum-v1", "ppo", horizon=16, minibatch=16, epochs=2, out=f"format-{FORMAT}-ppo", **tiny)
    covary.train("CartPole-v1", "actor_critic", out=f"format-{FORMAT}-actor_critic", **tiny)
    past = {"learning_starts": 16, "batch": 8, "replay_size": 50, "priority": 0.5}
    covary.train("Pendulum-v1", "sac", out=f"format-{FORMAT}-sac", **tiny | past)
    for algo in ("ppo", "actor_critic", "sac"):
        place = pathlib.Path(f"format-{FORMAT}-{algo}")
        (place / "curve.png").unlink()
        agent = covary.load(place)
        obs = np.random.default_rng(0).uniform(-2, 2, (6, *agent.observation_space.shape)).astype(np.float32)
        density = agent.policy(torch.from_numpy(obs))
        told = {"steps": agent.steps, "obs": obs.tolist(), "deterministic": agent.act(obs, deterministic=True).tolist()}
        told["log_prob"] = density.log_prob(torch.tensor(told["deterministic"])).tolist()
        x, head = agent.policy.normalizer(torch.from_numpy(obs)), agent.policy.head
        actions = head.geometry.from_action(torch.tensor(told["deterministic"])) if algo == "sac" else None
        seen = () if actions is None else (head.coordinates(actions),)
        told["value"] = agent.learner.critic(x, *seen).tolist()
        told["sampled"] = agent.act(obs).tolist()
        (place / "expected.json").write_text(json.dumps(told) + "\\n")
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

import covary
from covary import UsageError, algorithms, description
from covary.agent import Agent, CriticConfig
from covary.algorithms import ppo
from covary.heads import PolicyConfig
from covary.runs import (
    KEPT,
    Run,
    checkpoints,
    files,
    newest_checkpoint,
    read_checkpoint,
    read_json,
    tensorfile,
    write_checkpoint,
)
from covary.runs.checkpoints import FORMAT, READS, OtherFormat
from covary.runs.finding import number_of
from covary.settings import RunOptions
from covary.typed import from_json

RUNS = Path(__file__).with_name("data") / "runs"
PLACES = sorted(RUNS.iterdir())
TRIALS = Path(__file__).parents[1] / "bench" / "trials"


def trial(name):
    spec = importlib.util.spec_from_file_location(f"trials_{name}", TRIALS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of a run, copied."""
    place = Run.open(RUNS / f"format-{FORMAT}-ppo").checkpoints()[-1]
    return Path(shutil.copytree(place, tmp_path / "saved"))


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {"algo": "ppo", "env": {}, "format": FORMAT})


def state(step):
    return {"x": np.full(5, step, np.float32)}, {"steps": step}


def seal(place, **contents):
    """Puts bytes in place of a checkpoint's files, with a manifest that vouches for them."""
    for name, data in contents.items():
        (place / f"agent.{name}").write_bytes(data)
    listed = {
        name: {
            "bytes": len((place / name).read_bytes()),
            "sha256": hashlib.sha256((place / name).read_bytes()).hexdigest(),
        }
        for name in ("agent.json", "agent.safetensors")
    }
    text = json.dumps({"format": FORMAT, "covary": covary.__version__, "files": listed}, indent=2) + "\n"
    (place / "manifest.json").write_text(text)


# ------------------------------------------------------------------------------------------- every format


def test_a_run_of_every_format_is_kept():
    first = {"sac": 2}  # the format it came with
    kinds = ("ppo", "actor_critic", "sac")  # the other algorithms keep nothing that one of these does not
    wanted = {f"format-{n}-{algo}" for n in READS for algo in kinds if n >= first.get(algo, 1)}
    assert {p.name for p in PLACES} == wanted
    assert set(kinds) <= set(algorithms.NAMES)
    assert max(READS) == FORMAT
    for place in PLACES:
        assert f"format-{json.loads((place / 'config.json').read_text())['format']}-" in place.name


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_run_of_any_format_is_loaded_and_acts_as_it_did(place):
    told = json.loads((place / "expected.json").read_text())
    agent = covary.load(place)
    obs = np.array(told["obs"], np.float32)
    close = {"rtol": 1e-4, "atol": 1e-5}  # another processor may add in another order
    actions = agent.act(obs, deterministic=True)
    assert agent.steps == told["steps"]
    np.testing.assert_allclose(actions, told["deterministic"], **close)
    log_prob = agent.policy(torch.from_numpy(obs)).log_prob(torch.tensor(told["deterministic"]))
    np.testing.assert_allclose(log_prob.detach(), told["log_prob"], **close)
    x, seen = agent.policy.normalizer(torch.from_numpy(obs)), ()
    if agent.learner.judges_actions:
        latent = agent.policy.head.geometry.from_action(torch.tensor(told["deterministic"]))
        seen = (agent.policy.head.coordinates(latent),)
    value = agent.learner.critic(x, *seen)
    np.testing.assert_allclose(value.detach(), told["value"], **close)
    np.testing.assert_allclose(agent.act(obs), told["sampled"], **close)  # its random numbers go on


def own(arrays):
    """The names of what is the agent's, and not its run's."""
    return {
        name
        for name in arrays
        if not name.startswith(("envs.", "generators.", "report.", "rollout.", "replay.", "noise"))
    }


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_a_run_of_any_format_is_gone_on_with(place, tmp_path):
    run = Path(shutil.copytree(place, tmp_path / "run"))
    before, _ = read_checkpoint(Run.open(run).checkpoints()[-1])
    covary.train(resume=run, steps=128, quiet=True)
    assert [line["step"] for line in Run.open(run).lines()][-1] == 128
    newest, after, meta = newest_checkpoint(run)
    assert (meta["format"], meta["steps"]) == (FORMAT, 128)
    assert (newest / "manifest.json").is_file()
    assert own(after) == own(before)
    steps = [name for name in after if name.endswith("adam.steps")]
    assert steps
    assert all(after[name] > before[name] for name in steps)


# ------------------------------------------------------------------------------------------- the manifest


def test_the_manifest_says_what_the_files_are(run):
    place = run.save(1, *state(1))
    manifest = json.loads((place / "manifest.json").read_text())
    assert sorted(p.name for p in place.iterdir()) == ["agent.json", "agent.safetensors", "manifest.json"]
    assert (manifest["format"], manifest["covary"]) == (2, covary.__version__)
    for name in ("agent.json", "agent.safetensors"):
        data = (place / name).read_bytes()
        assert manifest["files"].pop(name) == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert manifest["files"] == {}


@pytest.mark.parametrize("name", ["manifest.json", "agent.json", "agent.safetensors"])
def test_every_byte_is_vouched_for(saved, name):
    data = (saved / name).read_bytes()
    for i in {0, 1, len(data) // 2, len(data) - 1, *np.random.default_rng(0).integers(0, len(data), 40).tolist()}:
        (saved / name).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(UsageError):
            read_checkpoint(saved)
    (saved / name).write_bytes(data)
    assert read_checkpoint(saved)[1]["steps"] == 64


GOOD = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "listed",
    [
        {"agent.json": GOOD},
        {"agent.json": GOOD, "agent.safetensors": GOOD, "x": GOOD},
        {"agent.json": GOOD, "../agent.safetensors": GOOD},
        {"agent.json": GOOD, "/dev/zero": GOOD},
        {"agent.json": GOOD, "agent.safetensors": [1, "0" * 64]},
        {"agent.json": GOOD, "agent.safetensors": {"bytes": 1e3, "sha256": "0" * 64}},
        {"agent.json": GOOD, "agent.safetensors": {"bytes": -1, "sha256": 5}},
        ["agent.json", "agent.safetensors"],
        None,
    ],
    ids=["too few", "too many", "above", "absolute", "a list", "a float", "negative", "names alone", "none"],
)
def test_a_manifest_lists_the_known_files_and_no_others(saved, listed):
    (saved / "manifest.json").write_text(json.dumps({"format": FORMAT, "covary": "0", "files": listed}))
    with pytest.raises(UsageError, match=r"manifest\.json|agent\.json"):
        covary.load(saved)


@pytest.mark.parametrize("name", ["manifest.json", "agent.json", "agent.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_what_is_no_file_is_not_read(saved, name, kind):
    data = (saved / name).read_bytes()
    (saved / name).unlink()
    if kind == "link":
        (saved.parent / "elsewhere").write_bytes(data)
        (saved / name).symlink_to(saved.parent / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(saved / name)  # whoever waits for it, waits for ever
    elif kind == "folder":
        (saved / name).mkdir()
    else:
        (saved / name).symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=f"{name}: it is (no file|a symbolic link)"):
        read_checkpoint(saved)


def test_a_manifest_that_was_taken_away_is_missed(saved):
    (saved / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"manifest\.json: it is missing"):
        read_checkpoint(saved)


# -------------------------------------------------------------------------------------------- which is read


def test_a_broken_newer_one_is_passed_over_in_a_line(run):
    for step in (1, 2, 3):
        run.save(step, *state(step))
    for place in run.checkpoints()[1:]:
        (place / "agent.json").write_bytes(b"{")
    said = []
    place, arrays, meta = newest_checkpoint(run.path, said.append)
    assert (place, meta["steps"], arrays["x"].tolist()) == (run.checkpoints()[0], 1, [1] * 5)
    assert [str(broken) in line for broken, line in zip(run.checkpoints()[:0:-1], said, strict=True)] == [True, True]
    assert all("agent.json: 1 bytes" in line and "\n" not in line for line in said)


def test_one_that_is_named_is_not_replaced_by_another(run):
    for step in (1, 2):
        run.save(step, *state(step))
    newest = run.checkpoints()[-1]
    (newest / "agent.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=str(newest)):
        newest_checkpoint(newest)
    (newest / "manifest.json").write_text('{"format": 3}')
    with pytest.raises(OtherFormat, match="format 3"):
        newest_checkpoint(run.path)


def test_what_was_passed_over_is_out_of_the_way_of_what_comes_after(run):
    """Else the resumed run's own checkpoints, which have lower numbers, would be the oldest, and dropped."""
    for step in (1, 10, 20, 30):
        run.save(step, *state(step))
    for place in run.checkpoints()[1:]:
        (place / "agent.json").write_bytes(b"{")
    run.cut_back(5, 10)
    assert [number_of(p) for p in run.checkpoints()] == [10]
    assert sorted(p.name for p in (run.path / "checkpoints").glob("aside-*")) == [f"aside-{n:012d}" for n in (20, 30)]
    for step in (11, 12, 13):
        run.save(step, *state(step))
    assert newest_checkpoint(run.path)[2]["steps"] == 13


def test_a_later_one_does_not_cost_an_earlier_one_its_place(run):
    for step in (100, 200, 300, 1, 2, 3, 4):
        run.save(step, *state(step))
    assert [number_of(p) for p in run.checkpoints()] == [2, 3, 4, 100, 200, 300]


def test_one_that_is_replaced_while_it_is_read_is_read_again(run, monkeypatch):
    place = run.save(1, *state(1), best=True)
    digest_of, seen = files.digest_of, []

    def slow(file, size):
        if not seen:
            seen.append(run.save(2, *state(2), best=True))
        return digest_of(file, size)

    monkeypatch.setattr(files, "digest_of", slow)
    arrays, meta = read_checkpoint(place)
    assert (arrays["x"][0], meta["steps"], len(seen)) == (2, 2, 1)


def test_one_that_waits_for_its_name_is_found(run):
    """Where a writer was killed between two names; and the next one gives it back."""
    place = run.save(1, *state(1), best=True)
    newest = run.save(1, *state(1))
    for each in (place, newest):
        each.rename(each.with_name(f".{each.name}.old"))
    assert newest_checkpoint(place)[2]["steps"] == 1
    assert newest_checkpoint(run.path)[2]["steps"] == 1
    run.save(2, *state(2))
    assert place.is_dir()
    assert newest.is_dir()


# -------------------------------------------------------------------------------------------- lines


def test_a_torn_line_is_not_glued_to_the_next(run):
    run.append("metrics", {"step": 1})
    file = run.path / "metrics.jsonl"
    for torn, steps in ((b'{"step": 2, "x', [1, 3]), (b'{"step": 2}', [1, 2, 3])):
        kept = b'{"step": 1}\n' + torn
        file.write_bytes(kept)
        run.append("metrics", {"step": 3})
        assert file.read_bytes() == kept + b'\n{"step": 3}\n'
        assert [line["step"] for line in run.lines()] == steps


def test_a_line_that_nests_without_end_is_passed_over(run):
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + b"[" * 10**5 + b'\n{"step": 2, "x": 1' + b"0" * 5000)
    assert [line["step"] for line in run.lines()] == [1]


def test_lines_that_stay_stay_byte_for_byte(run):
    lines = [b'{"step":1,  "x": 1.50}\n', b"not one of ours\n", b'{"step": 2, "loss": "nan"}\n', b'{"step": 3}\n']
    file = run.path / "metrics.jsonl"
    file.write_bytes(b"".join(lines) + b'{"step": 4')
    inode = file.stat().st_ino
    run.cut_back(3, 3)
    assert file.read_bytes() == b"".join(lines)
    run.cut_back(2, 2)
    assert file.read_bytes() == b"".join(lines[:3])
    assert file.stat().st_ino == inode, "cut, not written again"
    file.write_bytes(b'{"step": 1}\n{"step": 9}\n{"step": 2}')
    run.cut_back(2, 2)
    assert file.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    run.cut_back(0, 0)
    assert file.read_bytes() == b""
    assert not (run.path / "timing.jsonl").exists()


# -------------------------------------------------------------------------------------------- strict JSON


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": ' + "9" * 81 + "}", "81 digits"),
        ('{"a": ' + "9" * 10_000 + "}", "10,000 digits"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "64 deep"),
        ('{"a": ' * 300 + "1" + "}" * 300, "64 deep"),
        ("[" * 10**6, "64 deep"),
        ('{"a": 1, "a": 1}', "twice"),
        ('{"b": {"a": 1, "a": 2}}', "twice"),
        (b'{"a": "\xff"}', "utf-8"),
        ('{"a": "\\ud800"}', "surrogates"),
        ("[1]", "list"),
        ("", "Expecting"),
        ('{"a": "' + "x" * 2**24 + '"}', "16,777,"),
    ],
    ids=lambda x: x[:20] if isinstance(x, str) and len(x) < 40 else "text",
)
def test_json_that_is_refused(tmp_path, text, why):
    file = tmp_path / "agent.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=why) as caught:
        read_json(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_json_that_is_not(tmp_path):
    kept = {"state": 2**128 - 1, "negative": -(2**255), "tiny": 5e-324, "ü": "\U0001f600", "deep": [[[[{"x": []}]]]]}
    (tmp_path / "a.json").write_text(json.dumps(kept))
    assert read_json(tmp_path / "a.json") == kept


def test_json_takes_no_more_memory_than_it_may():
    """The costliest texts, at a thirty-second of the most bytes."""
    for part, end in ((b"[],", b"[]"), (b'{"a":1},', b"{}"), (b"[[0]],", b"0"), (b"1e9,", b"0")):
        tracemalloc.start()
        files.parse_json(b'{"a": [' + part * (files.MOST_JSON // 32 // len(part)) + end + b"]}")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**30 // 32, part


# -------------------------------------------------------------------------------------------- tensors


def entry(dtype="F32", shape=(2,), span=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


def tensors_of(header, body, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


HEADERS = {
    "no header": (b"", "header of 0 bytes"),
    "seven bytes": (b"\x01" * 7, "header"),
    "longer than the file": (tensors_of(b"{}", b"", 3), "header of 3 bytes"),
    "2**64 - 1 bytes": (tensors_of(b"{}", b"", 2**64 - 1), "header"),
    "more than a megabyte": (tensors_of(b" " * (2**20 + 1), b""), "header"),
    "no object": (tensors_of(b"[]      ", b""), "JSON object"),
    "a key twice": (tensors_of(b'{"a": 1, "a": 1}', b""), "twice"),
    "another dtype": (tensors_of({"a": entry("BF16", (4,))}, bytes(8)), "BF16"),
    "a dtype that is a list": (tensors_of({"a": entry(["F32"])}, bytes(8)), "dtype"),
    "a negative shape": (tensors_of({"a": entry(shape=(-1, -2))}, bytes(8)), "shape"),
    "a float shape": (tensors_of({"a": entry(shape=(2.0,))}, bytes(8)), "shape"),
    "a shape that is true": (tensors_of({"a": entry(shape=(True, 2))}, bytes(8)), "shape"),
    "a huge shape": (tensors_of({"a": entry(shape=(2**40, 2**40))}, bytes(8)), "does not take"),
    "a shape of too many": (tensors_of({"a": entry(shape=(1,) * 33)}, bytes(8)), "shape"),
    "an end before its beginning": (tensors_of({"a": entry(span=(8, 0))}, bytes(8)), "does not take"),
    "three offsets": (tensors_of({"a": entry(span=(0, 8, 8))}, bytes(8)), "data_offsets"),
    "a gap": (tensors_of({"a": entry(), "b": entry(span=(9, 17))}, bytes(17)), "begins at 9"),
    "an overlap": (tensors_of({"a": entry(), "b": entry(span=(4, 12))}, bytes(12)), "begins at 4"),
    "the same span": (tensors_of({"a": entry(), "b": entry()}, bytes(8)), "begins at 0"),
    "bytes after the last": (tensors_of({"a": entry()}, bytes(9)), "in a file that holds 9"),
    "bytes that are missing": (tensors_of({"a": entry()}, bytes(7)), "in a file that holds 7"),
    "another entry": (tensors_of({"a": entry() | {"x": 1}}, bytes(8)), "needs a dtype"),
    "metadata": (tensors_of({"__metadata__": {"a": "b"}}, b""), "needs a dtype"),
    "too many tensors": (tensors_of({f"{i}": 0 for i in range(10_001)}, b""), "10,001 tensors"),
    "nan": (tensors_of({"bias": entry()}, np.array([0, np.nan], np.float32).tobytes()), "'bias' holds nan"),
    "inf": (tensors_of({"bias": entry("F16", (4,))}, np.full(4, -np.inf, np.float16).tobytes()), "'bias' holds -inf"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_does_not_add_up(saved, name):
    data, why = HEADERS[name]
    seal(saved, safetensors=data)
    tracemalloc.start()
    with pytest.raises(UsageError, match=why):
        read_checkpoint(saved)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_any_order_of_names_adds_up(saved):
    """So does a tensor of nothing, and one of shape ()."""
    header = {"b": entry(span=(8, 16)), "none": entry(shape=(0, 3), span=(8, 8)), "a": entry("F64", (), (0, 8))}
    seal(saved, safetensors=tensors_of(header, np.arange(4, dtype=np.float32).tobytes()))
    arrays, _ = read_checkpoint(saved)
    assert {k: v.shape for k, v in arrays.items()} == {"a": (), "b": (2,), "none": (0, 3)}
    assert arrays["b"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("tensors", "meta", "why"),
    [
        ({"x": np.array([1, np.inf])}, {}, "'x' holds inf"),
        ({"x": np.zeros(2)}, {"a": float("nan")}, "nan"),
        ({"x": np.zeros(2)}, {"a": 10**100}, "101 digits"),
        ({"x": np.zeros(2)}, {"a": "x" * 2**24}, "at most"),
        ({"x": np.zeros(2, np.complex64)}, {}, "dtype"),
    ],
    ids=["inf", "nan", "a huge number", "too much", "complex"],
)
def test_what_could_not_be_read_is_not_written(run, tensors, meta, why):
    with pytest.raises(UsageError, match=why) as caught:
        run.save(1, tensors, meta)
    assert str(run.path) in str(caught.value)
    assert list((run.path / "checkpoints").iterdir()) == []


CHANGES = {
    "another dtype": lambda a: {"policy.torso.0.weight": a["policy.torso.0.weight"].astype(np.float64)},
    "one for all": lambda a: {"adam.first": a["adam.first"][:1]},
    "another shape": lambda a: {"policy.torso.0.weight": a["policy.torso.0.weight"].T.copy()},
    "a negative variance": lambda a: {"adam.second": -np.abs(a["adam.second"]) - 1},
    "negative steps": lambda a: {"adam.steps": np.array(-1)},
    "negative squares": lambda a: {"policy.normalizer.m2": a["policy.normalizer.m2"] - 1e6},
    "a generator of nothing": lambda a: {"generator": np.zeros_like(a["generator"])},
}


@pytest.mark.parametrize("name", CHANGES)
def test_tensors_that_do_not_fit_are_named(saved, name):
    arrays, meta = read_checkpoint(saved)
    changed = CHANGES[name](arrays)
    write_checkpoint(saved, arrays | changed, meta)
    with pytest.raises(UsageError, match="Invalid mt19937 state" if "generator" in changed else next(iter(changed))):
        covary.load(saved)


# -------------------------------------------------------------------------------------------- amounts


def box(n, **other):
    return {"kind": "Box", "low": -1.0, "high": 1.0, "shape": [n], "dtype": "float32"} | other


def several(nvec):
    zeros = [0] * len(nvec)
    return {"kind": "MultiDiscrete", "nvec": nvec, "start": zeros, "shape": [len(nvec)], "dtype": "int64"}


AMOUNTS = {
    "layers of a million": {"policy": {"hidden": [10**6, 10**6]}},
    "a critic of a million": {"critic": {"hidden": [10**6, 10**6]}},
    "a hundred thousand layers": {"policy": {"hidden": [1] * 10**5}},
    "a billion environments": {"config": {"n_envs": 10**9}},
    "no environment": {"config": {"n_envs": 0}},
    "a horizon of a billion": {"config": {"horizon": 10**9}},
    "a horizon of 10**30": {"config": {"horizon": 10**30}},
    "a learning rate of 10**60": {"config": {"learning_rate": 10**60}},
    "a billion observations": {"observation_space": box(10**9)},
    "8 million observations": {"observation_space": box(2**23)},
    "10**60 observations": {"observation_space": box(10**60)},
    "a billion actions": {"action_space": box(10**9)},
    "a million actions": {"action_space": box(10**6)},
    "10**12 choices": {"action_space": {"kind": "Discrete", "n": 10**12, "start": 0}},
    "a million choices": {"action_space": {"kind": "Discrete", "n": 10**6, "start": 0}},
    "a million choices at once": {"action_space": several([10**6])},
    "many dimensions of many choices": {"action_space": several([1] * 4000 + [10**4])},
    "a million switches": {"action_space": {"kind": "MultiBinary", "n": 10**6}},
    "a rank of a billion": {"policy": {"covariance": "lowrank", "rank": 10**9}},
    "a rank that is a word": {"policy": {"covariance": "lowrank", "rank": "1"}},
    "10**12 observed choices": {"observation_space": {"kind": "Discrete", "n": 10**12, "start": 0}},
    "a torso of one's own": {"custom_torso": True, "observation_space": box(2**23)},
    "low above high": {"action_space": box(1, low=2.0)},
    "bounds for two": {"action_space": box(1, low=[0.0, 0.0])},
    "a bound that is no number": {"action_space": box(1, low="nan")},
    "a bound beyond float32": {"action_space": box(1, high=1e300)},
    "half an integer": {"observation_space": box(3, dtype="int8", low=0.5)},
    "an integer out of range": {"observation_space": box(3, dtype="int8", high=300)},
    "objects": {"observation_space": box(3, dtype="object")},
    "a dtype with a path": {"observation_space": box(3, dtype="os.system")},
    "a word for a flag": {"config": {"anneal": "no"}},
    "a flag for a number": {"config": {"epochs": True}},
    "what no version knows": {"config": {"evil": 1}},
    "another algorithm": {"algo": "x" * 10**6},
    "a negative seed": {"seed": -1},
    "a seed of 260 bits": {"seed": 2**260},
    "steps that are a word": {"steps": "64"},
    "noise for a billion steps": {"noise": 10**9},
    "episodes that are words": {"episodes_started": ["1", "2"]},
    "numbers that are words": {"learner": {"updates": "9"}},
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_what_is_described_is_checked_before_it_is_made(saved, name):
    arrays, meta = read_checkpoint(saved)
    for key, change in AMOUNTS[name].items():
        inner = isinstance(change, dict) and "kind" not in change
        meta[key] = meta[key] | change if inner else change
    write_checkpoint(saved, arrays, meta)
    torso = torch.nn.Linear(3, 4) if "torso" in name else None
    before, began = peak_memory(), time.process_time()
    with pytest.raises(UsageError) as caught:
        covary.load(saved, torso=torso)
    assert time.process_time() - began < 2
    assert peak_memory() - before < 2**29
    assert len(str(caught.value)) < 1200
    assert str(caught.value).count("given:") == 1


@pytest.mark.parametrize("periodic", [(), (5,), (-1,)], ids=str)
@pytest.mark.parametrize("covariance", ["full", "lowrank"])
def test_beside_betas_only_gaussian_dimensions_have_couplings(tmp_path, covariance, periodic):
    actions = spaces.Box(-1, 1, (20,), np.float32)
    policy = PolicyConfig(bounds=("auto",) * 2 + ("beta",) * 18, covariance=covariance, periodic=periodic, hidden=(4,))
    agent = Agent("ppo", spaces.Box(-1, 1, (3,), np.float32), actions, policy=policy, critic=CriticConfig(hidden=(4,)))
    loaded = covary.load(agent.save(tmp_path / "saved"))
    assert torch.equal(loaded.policy.head.parts[0].coupling, agent.policy.head.parts[0].coupling)


def peak_memory():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_a_checkpoint_of_other_settings_is_seen(saved):
    said = description.read(read_checkpoint(saved)[1], CriticConfig, saved)
    description.check_same(said, said, saved)
    for other in (said._replace(seed=2), said._replace(config=ppo.Config(n_envs=10**6)), said._replace(algo="x")):
        with pytest.raises(UsageError, match=r"config\.json"):
            description.check_same(said, other, saved)


def test_settings_are_taken_only_in_their_own_types():
    assert from_json(PolicyConfig, {"hidden": [3], "init_std": 1}, "p") == PolicyConfig(hidden=(3,), init_std=1)
    assert from_json(ppo.Config, {}, "c") == ppo.Config(), "what an older version did not have"
    for cls, data, why in (
        (PolicyConfig, {"hidden": [3.0]}, "hidden"),
        (PolicyConfig, {"bounds": ["squash", "evil"]}, "bounds"),
        (PolicyConfig, {"covariance": 5}, "covariance"),
        (RunOptions, {"steps": 2**70}, "steps"),
        (RunOptions, {"vectorization": "evil"}, "vectorization"),
        (RunOptions, {"algo": "x" * 5000}, "algo"),
        (ppo.Config, {"gamma": "0.9"}, "gamma"),
        (ppo.Config, [], "object"),
    ):
        with pytest.raises(UsageError, match=why):
            from_json(cls, data, "settings")


# -------------------------------------------------------------------------------------------- trials


def test_changed_files_are_loaded_as_they_were_or_refused():
    rows = list(trial("files").run(300, 0))
    assert sum(row["inputs"] for row in rows) == 300
    assert all(row["refused"] + row["loaded"] == row["inputs"] for row in rows), rows
    assert sum(row["loaded"] for row in rows) > 10, "behind the manifest's checks"
    for row in rows:
        assert [row["silently wrong"], row["crashes"], row["over 1 GB"], row["touched"]] == [0, 0, 0, 0], row


def test_the_trial_of_files_sees_what_is_not_checked(monkeypatch):
    """Without the manifest changes go unseen; an import, an open file or another error does not."""
    files_trial = trial("files")
    monkeypatch.setattr(checkpoints, "_read_verified", lambda path: (checkpoints._tensors(path), meta_of(path)))

    def meta_of(path):
        if (path / "agent.safetensors").stat().st_size % 3 == 0:
            open(path / "trap", "w").close()
            raise IndexError
        return json.loads((path / "agent.json").read_text())

    rows = list(files_trial.run(200, 0)) if _originals_pass(files_trial, monkeypatch) else []
    for fault in ("silently wrong", "crashes", "touched"):
        assert sum(row[fault] for row in rows) > 0, fault


def _originals_pass(files_trial, monkeypatch):
    """Originals of sizes that the trap above leaves alone."""
    made = [m for m in files_trial.originals() if len(m["agent.safetensors"]) % 3]
    monkeypatch.setattr(files_trial, "originals", lambda: made)
    return len(made) > 1


def test_a_write_that_fails_or_ends_the_process_loses_nothing():
    rows = list(trial("writes").run(150, 0))
    assert sum(row["tried"] for row in rows if row["way"] != "real") > 130
    assert {row["way"] for row in rows} >= {"error", "short", "killed", "torn"}
    assert not [row for row in rows if row["lost"]], rows


def test_the_trial_of_writes_sees_what_is_lost(monkeypatch):
    """Where the old one goes before the new one has its name, there is a moment with neither."""

    def careless(temporary, target, old):
        files.remove(target)
        os.rename(temporary, target)

    monkeypatch.setattr(checkpoints, "_give_name", careless)
    writes = trial("writes")
    monkeypatch.setattr(writes, "SAVES", {"the best": writes.SAVES["the best"]})
    monkeypatch.setattr(writes, "full_disk", lambda: [])
    lost = {row["way"]: row["lost"] for row in writes.run(120, 0)}
    assert all(lost[way] > 0 for way in ("error", "killed")), lost


def test_the_last_three_stay_whatever_a_killed_writer_left(run):
    for step in range(1, 6):
        for left in (f".{step:012d}.tmp", ".000000000099.tmp", ".best.old"):
            (run.path / "checkpoints" / left).mkdir(exist_ok=True)
            (run.path / "checkpoints" / left / "agent.json").write_text("{")
        run.save(step, *state(step))
        assert [number_of(p) for p in run.checkpoints()] == list(range(1, step + 1))[-KEPT:]
    assert not list((run.path / "checkpoints").glob(".*.tmp"))


def test_a_file_of_tensors_that_is_too_large_is_not_begun(saved, monkeypatch):
    monkeypatch.setitem(checkpoints.LIMITS, "agent.safetensors", 1000)
    monkeypatch.setattr(tensorfile, "from_file", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UsageError, match="at most 1,000 are read"):
        read_checkpoint(saved)


@pytest.mark.parametrize("large", [1, 100, 2**20])
def test_a_file_of_tensors_is_one_that_safetensors_writes(large, monkeypatch, tmp_path):
    """Whatever is written from where it lies."""
    from safetensors.numpy import load, save

    monkeypatch.setattr(tensorfile, "LARGE", large)
    rng = np.random.default_rng(0)
    kinds = ("bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")
    arrays = {
        f"{kind}.{shape}": rng.integers(0, 2, shape).astype(kind) for kind in kinds for shape in ((), 0, 3, (5, 7))
    }
    arrays |= {
        "a part": np.arange(60.0).reshape(6, 10)[2:5],
        "columns": np.arange(60).reshape(6, 10).T,
        "big": arrays["f4.3"].astype(">f4"),
    }
    pieces = tensorfile.to_pieces(arrays)
    assert (len(pieces) > 10) == (large < 2**20)
    data = b"".join(pieces)
    (tmp_path / "file").write_bytes(data)
    with files.opened(tmp_path / "file", 10**6) as (descriptor, size):
        ours = tensorfile.from_file(descriptor, size)
    for read in (ours, load(data), load(save({name: np.asarray(x, order="C") for name, x in arrays.items()}))):
        assert set(read) == set(arrays)
        for name, array in arrays.items():
            assert read[name].shape == array.shape
            assert np.array_equal(read[name], array), name
