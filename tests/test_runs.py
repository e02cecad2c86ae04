"""A run's folder: whole checkpoints or none, what is broken is said to be, and whatever stops a run, it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds

import covary
from covary import UsageError
from covary.cli import run as cli
from covary.runs import KEPT, Run, find_checkpoint, read_checkpoint, write_checkpoint

WORLDS = Path(worlds.__file__)
TINY = {"n_envs": 2, "horizon": 10, "minibatch": 10, "epochs": 2, "quiet": True}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """200 steps on Line, recorded as a file's class, checkpoints after every 20."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    torch.set_num_threads(1)
    covary.train(f"{WORLDS}:Line", steps=200, out=out, save_every=20, eval_every=40, eval_episodes=2, **TINY)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def steps_of(run):
    return [line["step"] for line in Run.open(run).lines()]


def bits(place):
    return {name: array.tobytes() for name, array in read_checkpoint(find_checkpoint(place))[0].items()}


# ----------------------------------------------------------------------------------------------- what is there


def test_the_folder(finished):
    assert sorted(p.name for p in finished.iterdir()) == [
        "checkpoints",
        "config.json",
        "curve.png",
        "metrics.jsonl",
        "timing.jsonl",
    ]
    config = json.loads((finished / "config.json").read_text())
    assert config["covary"] == covary.__version__
    assert config["versions"]["torch"].startswith("2.")
    assert config["seed"] == 0
    assert config["env"]["path"] == str(WORLDS)
    assert not list(finished.rglob(".*")), "nothing temporary is left"
    clock = {"time", "seconds", "steps_per_second"}
    for line in Run.open(finished).lines():
        assert not clock & set(line), "metrics hold only what seed and settings decide"
    assert all(clock <= set(line) for line in Run.open(finished).lines("timing"))
    assert (finished / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_last_three_checkpoints_are_kept_and_the_best(finished):
    names = sorted(p.name for p in (finished / "checkpoints").iterdir())
    assert [int(n) for n in names[:-1]] == [160, 180, 200]
    assert names[-1] == "best"
    assert find_checkpoint(finished).name == names[-2]
    assert covary.load(finished).steps == 200
    assert covary.load(finished / "checkpoints" / names[0]).steps == 160
    scores = {line["step"]: line["eval_return"] for line in Run.open(finished).lines() if "eval_return" in line}
    assert len(scores) == 5
    assert scores[covary.load(finished / "checkpoints" / "best").steps] == max(scores.values())


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    run = Run.create(tmp_path / "r", {"algo": "ppo", "env": {}, "format": 1})
    for step in (9, 10**6, 10**13, 5 * 10**12, 10**13 + 1):
        run.save(step, {"x": np.zeros(1)}, {})
    assert len(run.checkpoints()) == KEPT
    assert int(run.checkpoints()[-1].name) == 10**13 + 1


@pytest.mark.parametrize("best", [False, True])
def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch, best):
    """The disk is full in the middle of a write: what was there stays, and nothing half is left."""
    run = Run.create(tmp_path / "r", {"algo": "ppo", "env": {}, "format": 1})
    place = run.save(5, {"x": np.full(3, 5.0)}, {"n": 5}, best=best)
    from covary.runs import files

    def full(path, data):
        path.write_bytes(data[: len(data) // 2])
        if path.name != "agent.safetensors":  # the first that is written
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(UsageError, match="No space left"):
        run.save(5 if best else 6, {"x": np.zeros(3)}, {"n": 6}, best=best)
    arrays, meta = read_checkpoint(place)
    assert arrays["x"].tolist() == [5, 5, 5]
    assert meta["n"] == 5
    assert [p.name for p in (tmp_path / "r" / "checkpoints").iterdir()] == [place.name]


@pytest.mark.parametrize("left", [".best.tmp", ".best.old", ".000000000007.tmp"])
def test_what_a_killed_writer_left_does_not_stop_the_next(tmp_path, left):
    run = Run.create(tmp_path / "r", {"algo": "ppo", "env": {}, "format": 1})
    run.save(1, {"x": np.zeros(1)}, {}, best=True)
    (run.path / "checkpoints" / left).mkdir()
    (run.path / "checkpoints" / left / "agent.json").write_text("{")
    for n in (2, 3):
        place = run.save(n, {"x": np.full(1, n)}, {}, best=True)
        assert read_checkpoint(place)[0]["x"] == n
    run.save(7, {"x": np.zeros(1)}, {})
    assert [int(p.name) for p in run.checkpoints()] == [7]


def test_an_agent_is_saved_anywhere_and_is_the_same(finished, tmp_path):
    agent = covary.load(finished)
    place = agent.save(tmp_path / "deep" / "er" / "agent")
    again = covary.load(place)
    obs = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    assert np.array_equal(agent.act(obs), again.act(obs))
    assert again.steps == 200
    assert np.array_equal(again.learner.optimizer.second, agent.learner.optimizer.second)
    agent.save(place)
    assert sorted(p.name for p in place.parent.iterdir()) == ["agent"]


# -------------------------------------------------------------------------------------------------- broken


def spoil(file, how):
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {
                "empty": b"",
                "cut short": data[: len(data) // 2],
                "by a byte": data[:-1],
                "noise": os.urandom(200),
                "zeros": bytes(200),
                "a list": b"[1, 2]",
                "nan": data.replace(b'"format": 2', b'"format": NaN'),
                "another version": data.replace(b'"format": 2', b'"format": 99'),
                "deep": b"[" * 100_000,
            }[how]
        )


TENSORS = ["missing", "empty", "cut short", "by a byte", "noise", "zeros"]
TEXT = ["empty", "cut short", "noise", "zeros", "a list", "nan", "another version", "deep"]


@pytest.mark.parametrize(
    ("name", "how"),
    [("agent.safetensors", how) for how in TENSORS]
    + [("agent.json", how) for how in ["missing", *TEXT]]
    + [("manifest.json", how) for how in ["missing", *TEXT] if how != "another version"],
)
def test_a_broken_checkpoint_is_passed_over_and_said_to_be(copy, name, how, capsys):
    newest = find_checkpoint(copy)
    spoil(newest / name, how)
    with pytest.raises(UsageError) as caught:
        covary.load(newest)
    assert str(newest / name) in str(caught.value)
    for go_on in (lambda: covary.load(copy), lambda: cli(["eval", str(copy), "--json", "--episodes", "1"])):
        found = go_on()
        out, err = capsys.readouterr()
        assert getattr(found, "steps", 180) == 180, "the next older one"
        assert [str(newest) in line and name in line for line in err.splitlines() if "passed over" in line] == [True]
        assert "Traceback" not in err
        assert "passed over" not in out
    assert cli(["train", "--resume", str(copy), "--steps", "240"]) == 0
    assert "step 180" in capsys.readouterr().out
    assert covary.load(copy).steps == 240


def test_where_none_is_whole_that_is_said(copy, capsys):
    for place in Run.open(copy).checkpoints():
        spoil(place / "agent.safetensors", "by a byte")
    with pytest.raises(UsageError, match=r"none of 3(.|\n)*agent\.safetensors"):
        covary.load(copy)
    assert cli(["eval", str(copy), "--json"]) == 2
    assert cli(["train", "--resume", str(copy), "--steps", "240"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err


def test_a_newer_version_s_checkpoint_is_not_passed_over(copy, capsys):
    """It is good, and whatever this version wrote after it would take its place."""
    spoil(find_checkpoint(copy) / "manifest.json", "another version")
    with pytest.raises(UsageError, match="99"):
        covary.load(copy)
    assert cli(["train", "--resume", str(copy), "--steps", "240"]) == 2
    assert "format 99" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["missing", *TEXT])
def test_a_broken_config_is_said_to_be(copy, how, capsys):
    spoil(copy / "config.json", how)
    with pytest.raises(UsageError, match=r"config\.json"):
        covary.train(resume=copy, quiet=True)
    assert cli(["train", "--resume", str(copy)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert covary.load(find_checkpoint(copy / "checkpoints" / "best")).steps > 0


def corrupted(data):
    """`data` with one entry, at any depth, missing or something else."""
    for key in data:
        for value in (..., None, "x", [], {}, -1, 2.5, 1e300, "9" * 30, True):
            changed = {k: v for k, v in data.items() if k != key}
            if value is not ...:
                changed[key] = value
            yield f"{key}={value!r}", changed
        if isinstance(data[key], dict):
            for label, inner in corrupted(data[key]):
                yield f"{key}.{label}", data | {key: inner}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value", "ignore:.*Box.*")
def test_every_entry_of_a_checkpoint_can_be_wrong(copy):
    """Nothing but a UsageError ever comes of it."""
    place = find_checkpoint(copy)
    arrays, good = read_checkpoint(place)
    refused = 0
    for label, changed in corrupted(good):
        write_checkpoint(place, arrays, changed)
        try:
            agent = covary.load(place)
            agent.act(np.zeros(agent.observation_space.shape))
        except UsageError:
            refused += 1
        except Exception as error:
            raise AssertionError(label) from error
    assert refused > 100


def test_every_entry_of_a_config_can_be_wrong(copy):
    good = json.loads((copy / "config.json").read_text())
    refused = 0
    for label, changed in corrupted(good):
        (copy / "config.json").write_text(json.dumps(changed))
        try:
            covary.train(resume=copy, quiet=True, steps=200)  # it is finished: its settings are all that is used
        except UsageError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{label} gives {type(error).__name__}: {error}")
    assert refused > 100


def test_every_tensor_of_a_checkpoint_can_be_missing_or_of_another_shape(copy):
    place = find_checkpoint(copy)
    arrays, meta = read_checkpoint(place)
    own = {k: v for k, v in arrays.items() if not k.startswith(("envs.", "generators.", "report.", "rollout."))}
    assert len(own) > 10
    for name, array in own.items():
        rest = {k: v for k, v in arrays.items() if k != name}
        for changed in (rest, rest | {name: np.zeros((3, 5, 7), array.dtype)}):
            write_checkpoint(place, changed, meta)
            with pytest.raises(UsageError, match=f"{name.split('.')[-1]}|networks that it describes"):
                covary.load(place)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere", "must exist"),
        (".", r"config\.json"),
        ("run/checkpoints", r"config\.json"),
        ("run/curve.png", "curve"),
    ],
)
def test_what_is_no_run(copy, place, says, monkeypatch):
    monkeypatch.chdir(copy.parent)
    with pytest.raises(UsageError, match=says):
        covary.load(place)
    with pytest.raises(UsageError, match=r"config\.json"):
        covary.train(resume=place)


def test_a_run_without_a_checkpoint_says_how_to_go_on(copy):
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UsageError, match=r"no checkpoint(.|\n)*--resume"):
        covary.load(copy)


def test_a_run_that_exists_is_not_written_over(copy):
    before = (copy / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="--resume"):
        covary.train(worlds.Line, out=copy, steps=10, **TINY)
    (copy / "config.json").unlink()
    with pytest.raises(UsageError, match="something else"):
        covary.train(worlds.Line, out=copy, steps=10, **TINY)
    with pytest.raises(UsageError, match="folder"):
        covary.train(worlds.Line, out=copy / "curve.png", steps=10, **TINY)
    with pytest.raises(UsageError, match="writable"):
        covary.train(worlds.Line, out=copy / "curve.png" / "deeper", steps=10, **TINY)
    assert (copy / "metrics.jsonl").read_bytes() == before
    (copy.parent / "empty").mkdir()
    assert covary.train(worlds.Line, out=copy.parent / "empty", steps=10, **TINY).steps == 10


# --------------------------------------------------------------------------------------------------- lines


def test_a_torn_last_line_is_passed_over_and_cut_away(copy, capsys):
    run, whole = Run.open(copy), steps_of(copy)
    for torn in (b'{"step": 200, "ret', b'{"step": 180}\x00\x00\x00', b"\xff\xfe\xff", b"7\n"):
        with open(copy / "metrics.jsonl", "ab") as file:
            file.write(torn)
        assert steps_of(copy)[: len(whole)] == whole
        assert cli(["plot", str(copy), "-o", str(copy / "again.png")]) == 0
        run.cut_back(200, 200)
        assert steps_of(copy) == whole
    run.cut_back(100, 100)
    assert steps_of(copy) == [step for step in whole if step <= 100]
    assert len(list(run.lines("timing"))) == len(steps_of(copy))


def test_a_number_that_is_not_finite_is_seen_and_still_json(copy):
    Run.open(copy).append("metrics", {"step": 300, "loss": float("nan"), "inner": {"x": float("inf")}})
    last = (copy / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last, parse_constant=lambda c: pytest.fail(c))["loss"] == "nan"


# -------------------------------------------------------------------------------------------------- going on


def test_a_finished_run_says_so(copy, capsys):
    before = bits(copy)
    assert cli(["train", "--resume", str(copy)]) == 0
    out, err = capsys.readouterr()
    assert "finished" in out + err
    assert "200" in out + err
    assert bits(copy) == before
    assert covary.train(resume=copy, quiet=True).steps == 200


def test_more_steps_extend_it(copy, capsys):
    assert cli(["train", "--resume", str(copy), "--steps", "290"]) == 0
    assert covary.load(copy).steps == 290
    assert json.loads((copy / "config.json").read_text())["steps"] == 290
    steps = steps_of(copy)
    assert steps == sorted(set(steps))
    assert steps[-1] == 290
    assert [line["episodes"] for line in Run.open(copy).lines()][-1] == 290 // 5 // 2 * 2 - 2 * 0
    assert cli(["train", "--resume", str(copy)]) == 0
    assert "finished" in capsys.readouterr().out


def test_going_on_from_an_older_checkpoint_ends_in_the_same_bits(finished, copy):
    """Back to the checkpoint at 160 of 200: the lines after it are logged again."""
    for place in sorted((copy / "checkpoints").iterdir())[1:3]:
        shutil.rmtree(place)
    assert covary.load(copy).steps == 160
    torch.manual_seed(77)
    covary.train(resume=copy, quiet=True)
    assert bits(copy) == bits(finished)
    assert (copy / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_without_a_checkpoint_it_starts_again_from_its_config(finished, copy):
    shutil.rmtree(copy / "checkpoints")
    with open(copy / "metrics.jsonl", "a") as file:
        file.write('{"step": 7')
    covary.train(resume=copy, quiet=True)
    assert bits(copy) == bits(finished)
    assert (copy / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def start(out, *options):
    """A real process, in a group of its own, that trains on an environment that takes its time."""
    command = [sys.executable, "-m", "covary", "train", f"{WORLDS}:Slow", "--out", str(out), "--steps", "100000"]
    command += [
        "--n-envs",
        "2",
        "--horizon",
        "10",
        "--minibatch",
        "10",
        "--epochs",
        "1",
        "--save-every",
        "20",
        *options,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list((out / "checkpoints").glob("[0-9]*"))) < 2:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("group", [pytest.param(False, marks=pytest.mark.slow), True], ids=["", "and its workers"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, code, group):
    """Also where it reaches the worker processes, as Ctrl-C in a terminal does."""
    out = tmp_path / "run"
    process = start(out, "--vectorization", "async" if group else "sync")
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"covary train --resume {out}" in text
    assert "Traceback" not in text
    stopped = covary.load(out).steps
    assert f"{stopped:,}" in text
    covary.train(resume=out, steps=stopped + 40, quiet=True)
    assert covary.load(out).steps == stopped + 40


def test_after_kill_9(tmp_path):
    out = tmp_path / "run"
    process = start(out)
    process.kill()
    process.communicate(timeout=60)
    stopped = covary.load(out).steps
    covary.train(resume=out, steps=stopped + 1000, quiet=True)
    assert covary.load(out).steps == stopped + 1000
    steps = steps_of(out)
    assert steps == sorted(set(steps))
    assert steps[-1] == stopped + 1000


@pytest.mark.parametrize("world", ["RaisesLate", "NanLate"])
def test_a_fault_in_the_middle_saves_first(world, tmp_path, capsys):
    """The environment goes wrong in step 1500; what was learned until 1,480 and every line are on the disk."""
    out = tmp_path / "run"
    options = ["--n-envs", "1", "--horizon", "20", "--epochs", "1", "--save-every", "100000", "--steps", "4000"]
    assert cli(["train", f"{WORLDS}:{world}", "--out", str(out), *options]) == 2
    text, err = capsys.readouterr()
    assert "environment 0" in err
    assert "step 1500" in err
    assert ("ZeroDivisionError" in err and "worlds.py:" in err) if world == "RaisesLate" else "nan" in err
    assert "Traceback" not in err
    assert f"covary train --resume {out}" in text
    assert covary.load(out).steps == 1480
    assert steps_of(out) == [1000, 1480]  # the second of an interval that was not over
    covary.train(resume=out, steps=1520, quiet=True)
    assert covary.load(out).steps == 1520
    assert Run.open(out).lines().__next__()["step"] == 1000


# ------------------------------------------------------------------------------------ what may be run again


@pytest.fixture
def recorded(tmp_path):
    """A run of a file's class, and the file."""
    file = Path(shutil.copy(WORLDS, tmp_path / "mine.py"))
    covary.train(f"{file}:Line", steps=40, out=tmp_path / "run", **TINY)
    return tmp_path / "run", file


def test_code_that_has_changed_is_not_run(recorded, capsys):
    run, file = recorded
    assert cli(["eval", str(run), "--episodes", "2"]) == 0
    assert "SHA-256" in capsys.readouterr().err
    trap = file.parent / "trap"
    file.write_text(file.read_text() + f"\nimport pathlib; pathlib.Path({str(trap)!r}).touch()\n")
    for command in (["eval", str(run)], ["train", "--resume", str(run), "--steps", "80"]):
        assert cli(command) == 2
        out, err = capsys.readouterr()
        assert "--env" in err
        assert "changed" in err
        assert out == ""
    assert not trap.exists()
    assert cli(["eval", str(run), "--episodes", "2", "--env", f"{file}:Line"]) == 0
    assert cli(["train", "--resume", str(run), "--steps", "80", "--env", f"{file}:Line"]) == 0
    assert covary.load(run).steps == 80


def test_code_in_the_run_folder_is_not_run(recorded, capsys):
    run, file = recorded
    inside = run / "mine.py"
    trap = run / "trap"
    inside.write_text(f"open({str(trap)!r}, 'w')\n")
    config = json.loads((run / "config.json").read_text())
    import hashlib

    digest = hashlib.sha256(inside.read_bytes()).hexdigest()
    link = file.parent / "link.py"
    link.symlink_to(inside)
    for path in (str(inside), str(link), str(run.parent / "x" / ".." / "run" / "mine.py")):
        config["env"] = {"file": path, "class": "Line", "path": path, "sha256": digest}
        (run / "config.json").write_text(json.dumps(config))
        assert cli(["eval", str(run)]) == 2
        assert cli(["train", "--resume", str(run), "--steps", "80"]) == 2
        assert "--env" in capsys.readouterr().err
    assert not trap.exists()


@pytest.mark.parametrize("env", [worlds.Line, lambda: worlds.Line(), worlds.Line()], ids=["class", "lambda", "object"])
def test_an_object_of_python_is_asked_for(env, tmp_path, capsys):
    covary.train(env, steps=40, out=tmp_path / "run", **TINY | ({"n_envs": 1} if isinstance(env, worlds.Line) else {}))
    assert cli(["eval", str(tmp_path / "run")]) == 2
    assert "--env" in capsys.readouterr().err
    assert cli(["eval", str(tmp_path / "run"), "--env", f"{WORLDS}:Line", "--episodes", "2"]) == 0
    assert covary.train(env, resume=tmp_path / "run", steps=60, quiet=True).steps == 60


def test_loading_imports_nothing_that_a_file_names(recorded, tmp_path):
    """Neither the environment's code, which is gone, nor a module that stands where an algorithm's name does."""
    _, file = recorded
    file.unlink()
    (tmp_path / "evil.py").write_text("open('trap', 'w')\nConfig = Learner = dict\n")
    (tmp_path / "evil").mkdir()
    check = (
        "import covary, sys, pathlib; covary.load('run');"
        "assert not [m for m in sys.modules if m.startswith('covary_env_') or m == 'worlds'];"
        "place = sorted(pathlib.Path('run/checkpoints').iterdir())[-1];"
        "from covary.runs import read_checkpoint, write_checkpoint; arrays, meta = read_checkpoint(place)\n"
        "for change in ({'algo': 'evil'}, {'algo': '../evil'}, {'algo': 'ppo.evil'}, {'activation': 'evil.x'}):\n"
        "    inner = {'policy': meta['policy'] | change} if 'activation' in change else change\n"
        "    write_checkpoint(place, arrays, meta | inner)\n"
        "    try:\n        covary.load('run')\n    except covary.UsageError: pass\n    else: raise SystemExit(3)\n"
        "assert 'evil' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "trap").exists()


def test_an_environment_with_other_spaces_is_refused(copy, capsys):
    for command in (["eval", str(copy)], ["train", "--resume", str(copy), "--steps", "240"]):
        assert cli([*command, "--env", f"{WORLDS}:Plane"]) == 2
        err = capsys.readouterr().err
        assert "observation space" in err
        assert "(3,)" in err
    agent = covary.load(copy)
    with pytest.raises(UsageError, match="action space"):
        covary.evaluate(agent, worlds.Crate)
