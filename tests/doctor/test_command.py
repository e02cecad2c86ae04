"""`covary doctor` as a command: whatever it is given, a report or one clear message, and the right exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from clinic import HERE, examine
from sizes import now_and_then

from covary.doctor import command

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
TRAINS = """
    import sys, torch
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    def update():
        x = torch.randn(8, 2)
        loss = (net(x).squeeze(1) - x.sum(1)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""
CUT = TRAINS.replace("net(x).squeeze(1)", "net(x).squeeze(1).detach().requires_grad_()")


def doctor(*words: str, cwd: Path, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "covary.doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=120, **more)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "train.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_a_script_is_run_as_python_would_run_it(write, tmp_path):
    write("VALUE = 3", "sub/beside.py")
    show = """
        import json, sys, os, beside, __main__
        same = __main__.__dict__ is globals()
        print(json.dumps([sys.argv, sys.path[0], __name__, __file__, beside.VALUE, os.getcwd(), same]))
    """
    path = write(show, "sub/show.py")
    plain = subprocess.run(
        [sys.executable, "sub/show.py", "--updates", "3", "-x"], capture_output=True, text=True, cwd=tmp_path
    )
    watched = doctor("sub/show.py", "--updates", "3", "-x", cwd=tmp_path)
    assert json.loads(watched.stdout.splitlines()[0]) == json.loads(plain.stdout)
    assert path.name in plain.stdout


def test_a_module_is_run_by_its_name(write, tmp_path):
    write("", "package/__init__.py")
    write("from package import other\nimport sys\nprint(__package__, sys.argv[1:], other.x)", "package/train.py")
    write("x = 5", "package/other.py")
    told = doctor("-m", "package.train", "--lr", "3", cwd=tmp_path)
    assert told.stdout.startswith("package ['--lr', '3'] 5\n")
    assert told.returncode == 0


def test_json_alone_stands_on_stdout(write, tmp_path):
    write(TRAINS + "    print('noise')\n    import os; os.system('echo more noise')\n    for _ in range(7): update()\n")
    told = doctor("--json", "train.py", cwd=tmp_path)
    said = json.loads(told.stdout)
    assert set(said) == {"script", "healthy", "findings", "watched"}
    assert said["script"] == "train.py"
    assert said["healthy"] is True
    assert said["watched"].keys() == {"updates", "backwards", "optimizers", "parameters", "seconds"}
    assert (said["watched"]["updates"], said["watched"]["backwards"]) == (7, 7)
    assert (said["watched"]["optimizers"], said["watched"]["parameters"]) == (1, 2)
    assert "noise" in told.stderr
    assert "more noise" in told.stderr


def test_a_finding_has_all_its_fields(write, tmp_path):
    path = write(CUT + "    for _ in range(7): update()\n")
    told = doctor("--json", "train.py", cwd=tmp_path)
    first = json.loads(told.stdout)["findings"][0]
    assert told.returncode == 1
    assert first.keys() == {
        *("code", "severity", "title", "file", "line", "function", "source", "parameters", "evidence"),
        *("explanation", "fix", "certain"),
    }
    assert (first["code"], first["severity"], first["function"]) == ("graph-cut", "error", "update")
    assert (first["file"], first["line"]) == (str(path), 8)
    assert first["source"] == path.read_text().splitlines()[7].strip()
    assert first["parameters"] == ["net.weight", "net.bias"]
    assert first["certain"] is True


def test_the_report_names_the_line_and_shows_it(write, tmp_path):
    write(CUT + "    for _ in range(7): update()\n")
    told = doctor("train.py", cwd=tmp_path)
    assert told.returncode == 1
    assert "train.py:8 in update" in told.stdout
    assert ">    8 |" in told.stdout
    assert "net.weight, net.bias" in told.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.py"], "There is no file missing.py."),
        (["trian.py"], "Did you mean train.py?"),
        (["."], "is a folder"),
        (["broken.py"], "broken.py is not Python: line 1"),
        (["bytes.py"], "bytes.py is not Python: line 1: (unicode error)"),
        (["--updates", "many", "train.py"], "--updates is a whole number, not 'many'"),
        (["--updates", "0", "train.py"], "--updates must be above 0"),
        (["--seconds", "nan", "train.py"], "--seconds must be above 0"),
        (["--seconds", "inf", "train.py"], "below 1e9"),
        (["--updates"], "--updates needs a value"),
        (["--bogus", "train.py"], "There is no option --bogus"),
        ([], "Which script?"),
        (["--explain", "graph-cutt"], "Did you mean graph-cut?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run_gets_one_message(write, tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    write("")
    write("def (", "broken.py")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff\xfe'")
    assert command.run(words) == 2
    out, err = capfd.readouterr()
    assert message in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    if "--explain" not in words:
        assert command.run(["--json", *words]) == 2
        said = json.loads(capfd.readouterr().out)
        assert message in said["error"]
        assert said["healthy"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [(["trian.py"], "Did you mean train.py?"), (["-m", "no.such"], "There is no module no.such")],
    ids=" ".join,
)
def test_a_process_says_so_too(write, tmp_path, words, message):
    write("")
    told = doctor(*words, cwd=tmp_path)
    assert told.returncode == 2
    assert message in told.stderr
    assert told.stdout == ""
    assert len(told.stderr.strip().splitlines()) == 1


def test_a_script_that_raises(write, tmp_path):
    write(TRAINS + "    for i in range(5): update()\n    raise KeyError('lost')\n")
    told = doctor("--json", "train.py", cwd=tmp_path)
    assert told.returncode == 2
    assert "KeyError" in json.loads(told.stdout)["error"]
    assert "covary" not in told.stderr.replace("covary doctor", "")  # the traceback is the script's own
    write(CUT + "    for i in range(5): update()\n    raise KeyError('lost')\n")
    told = doctor("--json", "train.py", cwd=tmp_path)
    assert told.returncode == 1
    assert json.loads(told.stdout)["findings"][0]["line"] == 8


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(7)",
        pytest.param("sys.exit('that was all')", marks=pytest.mark.slow),
        pytest.param("sys.exit()", marks=pytest.mark.slow),
        pytest.param("pass", marks=pytest.mark.slow),
    ],
)
def test_the_scripts_own_exit_code_does_not_count(write, tmp_path, end):
    write(TRAINS + f"    for i in range(5): update()\n    {end}\n")
    told = doctor("train.py", cwd=tmp_path)
    assert told.returncode == 0
    assert ("that was all" in told.stderr) == ("that was all" in end)


def test_a_script_that_never_trains(write, tmp_path):
    write("print('hello')")
    told = doctor("train.py", cwd=tmp_path)
    assert told.returncode == 0
    assert "Nothing was optimized" in told.stdout
    assert "Healthy" not in told.stdout


@pytest.mark.parametrize(
    "words", [("--updates", "20"), pytest.param(("--seconds", "6"), marks=pytest.mark.slow)], ids=" ".join
)
def test_a_limit_stops_it_cleanly(write, tmp_path, words):
    forever = """
        import atexit
        atexit.register(print, "at exit")
        try:
            while True:
                try:
                    update()
                except Exception:
                    print("swallowed")
        finally:
            print("finally")
    """
    write(textwrap.dedent(TRAINS) + textwrap.dedent(forever))
    told = doctor("--json", *words, "train.py", cwd=tmp_path)
    assert told.returncode == 0
    assert "finally" in told.stderr
    assert "at exit" in told.stderr
    assert "swallowed" not in told.stderr
    if words[0] == "--updates":
        assert json.loads(told.stdout)["watched"]["updates"] == 20


def test_ctrl_c_reports(write, tmp_path):
    write(CUT + "    print('begun', flush=True)\n    while True: update()\n")
    command = [sys.executable, "-m", "covary.doctor", "train.py"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "begun\n"
    # the line is named as soon as the window closes, long before anyone stops the script
    assert "graph-cut at" in process.stderr.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "train.py:8" in out
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_script_that_moves_away_and_prints_a_lot(write, tmp_path):
    write(CUT + "    import os\n    os.chdir('/')\n    for i in range(50): update(); print('x' * 10_000)\n")
    told = doctor("--json", "train.py", cwd=tmp_path)
    first = json.loads(told.stdout)["findings"][0]
    assert first["line"] == 8
    assert Path(first["file"]) == tmp_path / "train.py"
    assert len(told.stderr) >= 500_000


@pytest.mark.slow
def test_threads_are_said_not_to_be_seen(write, tmp_path):
    write(
        TRAINS
        + "    import threading\n    t = threading.Thread(target=lambda: [update() for _ in range(5)])\n"
        + "    t.start(); t.join()\n    for _ in range(5): update()\n"
    )
    said = json.loads(doctor("--json", "train.py", cwd=tmp_path).stdout)
    assert said["healthy"] is True
    assert any("thread" in what for what in said["unseen"])


@pytest.mark.slow
def test_processes_and_loaders_are_left_alone(write, tmp_path):
    text = (
        TRAINS
        + """
    from torch.utils.data import DataLoader, TensorDataset
    if __name__ == "__main__":
        import multiprocessing
        data = TensorDataset(torch.randn(64, 2), torch.randn(64))
        for x, y in DataLoader(data, batch_size=8, num_workers=1, multiprocessing_context="fork"):
            loss = (net(x).squeeze(1) - y).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(abs, [-1, 2]))
    """
    )
    write(text)
    told = doctor("--json", "train.py", cwd=tmp_path)
    said = json.loads(told.stdout)
    assert said["healthy"] is True, said
    assert said["watched"]["updates"] == 8
    assert "[1, 2]" in told.stderr


@pytest.mark.slow
def test_compiled_regions_are_said_not_to_be_seen(write, tmp_path):
    write(
        TRAINS.replace("net(x)", "compiled(x)").replace(
            "optimizer = ", "compiled = torch.compile(net, backend='eager')\n    optimizer = "
        )
        + "    for _ in range(5): update()\n"
    )
    told = doctor("--json", "train.py", cwd=tmp_path)
    said = json.loads(told.stdout)
    assert told.returncode == 0, told.stderr
    assert any("torch.compile" in what for what in said["unseen"])


STATE = """
import gc, hashlib, torch
tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor) and one.requires_grad and one.is_leaf]
states = sorted(hashlib.sha256(one.detach().numpy().tobytes()).hexdigest() for one in tensors)
print("weights", len(states), hashlib.sha256("".join(states).encode()).hexdigest())
"""


@pytest.mark.parametrize(
    "name",
    now_and_then(
        [
            "healthy/cleanrl_like_ppo.py",
            "healthy/td_actor_critic_online.py",
            "healthy/vae_rsample_bars.py",
            "healthy/lbfgs_closure_gp.py",
            "faulty/graph_cut__original_question.py",
            "faulty/graph_cut__actor_critic_item_list.py",
        ],
        ["healthy/td_actor_critic_online.py"],
    ),
)
def test_watching_changes_no_bit(tmp_path, name):
    (tmp_path / "script.py").write_text((HERE / name).read_text() + STATE)
    command = [sys.executable, "script.py"]
    plain = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path)
    watched = doctor("script.py", cwd=tmp_path)

    def weights(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("weights ")]

    assert len(weights(plain.stdout)) == 1, plain.stderr
    assert weights(watched.stdout) == weights(plain.stdout)
    if "cleanrl" not in name:  # which prints its steps per second
        assert watched.stdout.startswith(plain.stdout)


def test_explain_prints_the_page(tmp_path):
    told = doctor("--explain", "graph-cut", cwd=tmp_path)
    assert told.returncode == 0
    assert "detach" in told.stdout
    listed = doctor("--explain", cwd=tmp_path).stdout.split()
    assert "graph-cut" in listed
    from covary.doctor.rules import all_rules

    assert set(listed) == {rule.CODE for rule in all_rules()}


PLUMBING = """
    import dataclasses, io, pickle, sys, numpy as np, torch

    @dataclasses.dataclass
    class Config:
        lr: float = 0.1

    torch.manual_seed(0)
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=dataclasses.fields(Config)[0].type("0.1"))
    for i in range(700):
        x = torch.randn(32, 4)
        out = net(x)
        error = (out - x[:, :1]).abs()
        cap = error.mean().item()
        e = np.asarray(x[:, 1].tolist(), dtype=np.float32)
        weight = np.where(e > cap, cap, e * e)
        weight = torch.from_numpy(weight / weight.sum())
        loss = (weight[:, None] * error ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if i in (5, 650):
            r = net(x).detach().numpy()
            n = torch.tensor(5).item()
            print(np.percentile(r, 5), np.percentile(r.tolist(), 5), np.percentile([cap, cap], 50), pow(n, 3, 7))
            print(np.sum(r, where=r > 0), np.divide(1, r, where=r != 0, out=np.zeros_like(r)).sum())
            print(np.select([e > 0], [cap]).dtype, np.result_type(cap, np.float32), weight.dtype)
            file = io.BytesIO()
            torch.save({"model": net.state_dict(), "best": [loss.item()]}, file)
            file.seek(0)
            print(torch.load(file)["best"], len(pickle.dumps({"best": cap})), __builtins__.len([1]))
    print([one.hex() for one in net.weight.detach().view(-1).tolist()])
"""


@pytest.mark.slow
def test_ordinary_plumbing_does_the_same_under_watch(write, tmp_path):
    """Numbers that left PyTorch, in NumPy's promotions, in files and in Python's own functions."""
    path = write(PLUMBING)
    plain = subprocess.run([sys.executable, path], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path)
    watched = doctor(str(path), cwd=tmp_path)
    assert len(plain.stdout.splitlines()) == 9, plain.stderr
    assert watched.stdout.startswith(plain.stdout), watched.stderr


@pytest.mark.parametrize("limit", [pytest.param(("--seconds", "4"), marks=pytest.mark.slow), ("--updates", "20")])
def test_a_limit_leaves_finally_its_time(write, tmp_path, limit):
    script = """
        import time
        try:
            while True:
                update()
        finally:
            for _ in range(3):
                update()
            time.sleep(1.2)
            print("SAVED")
    """
    told = doctor(*limit, str(write(textwrap.dedent(TRAINS) + textwrap.dedent(script))), cwd=tmp_path)
    assert "SAVED" in told.stdout
    assert told.returncode == 0


@pytest.mark.slow
def test_a_limit_stops_what_swallows_it(write, tmp_path):
    script = """
        while True:
            try:
                update()
            except BaseException:
                print("swallowed")
                if sys.argv[1:] == ["once"]:
                    sys.argv.clear()
                    continue
                raise
    """
    path = write(textwrap.dedent(TRAINS) + textwrap.dedent(script))
    told = doctor("--updates", "10", str(path), "once", cwd=tmp_path)
    assert told.stdout.count("swallowed") == 2
    assert told.returncode == 0


def test_the_report_comes_whatever_becomes_of_stdout_and_the_folder(write, tmp_path):
    script = """
        import os, tempfile
        for _ in range(5):
            update()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        sys.stdout.close()
    """
    told = doctor(str(write(textwrap.dedent(CUT) + textwrap.dedent(script))), cwd=tmp_path)
    assert told.returncode == 1, told.stderr
    assert "graph-cut" in told.stdout
    assert "Traceback" not in told.stderr


def test_an_exception_that_cannot_be_printed(write, tmp_path):
    script = """
        class Bad(Exception):
            def __str__(self):
                raise ValueError
        raise Bad
    """
    told = doctor(str(write(script)), cwd=tmp_path)
    assert told.returncode == 2
    assert "covary/doctor" not in told.stderr.replace("covary doctor:", "")
    assert "Bad" in told.stderr


LIBRARY = """
    import sys
    from stable_baselines3 import A2C, PPO, SAC, TD3
    kind = {"a2c": A2C, "ppo": PPO, "sac": SAC, "td3": TD3}[NAME]
    more = {"a2c": {}, "ppo": dict(n_steps=128)}.get(NAME, dict(learning_starts=50))
    kind("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **more).learn(300)
"""


@pytest.mark.slow
def test_stable_baselines3_is_healthy(write):
    pytest.importorskip("stable_baselines3")
    paths = [
        write(f"NAME = {name!r}\n" + textwrap.dedent(LIBRARY), f"{name}.py") for name in ("a2c", "ppo", "sac", "td3")
    ]
    for path, record in examine(paths).items():
        assert record["code"] == 0, (path.name, record)
        assert record["said"]["watched"]["updates"] > 20
