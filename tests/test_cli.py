"""The commands as a new user types them: what they print and where, their exit codes, and every kind of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import worlds

import covary
from covary import UsageError
from covary.algorithms.ppo import Config
from covary.cli import run
from covary.policies import make_policy
from covary.runs import Run
from covary.settings import settle

WORLDS = Path(worlds.__file__)
FAST = ["--n-envs", "2", "--horizon", "10", "--epochs", "1"]


@pytest.fixture
def shell(here, capfd):
    """Runs a command, one line or words, in an empty folder: its exit code, stdout and stderr."""

    def call(*words):
        capfd.readouterr()
        try:
            code = run(words[0].split() if len(words) == 1 else [str(word) for word in words])
        except SystemExit as stop:  # argparse and tyro leave so
            code = stop.code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A run on Line, trained for a moment."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("cli") / "line"
    covary.train(
        f"{WORLDS}:Line", steps=60, out=out, quiet=True, n_envs=2, horizon=10, epochs=1, eval_every=20, eval_episodes=2
    )
    return out


def settings(out):
    return Run.open(Path(out)).config


# ------------------------------------------------------------------------------------------ as they are typed


def test_the_commands_of_the_readme(shell, here):
    """Only the number of steps is smaller."""
    code, out, _ = shell(
        "train covary/Heliostat-v0 --algo ppo --steps 600 --seed 0 --out runs/h --policy.covariance full "
        "--policy.periodic 0"
    )
    assert code == 0
    assert "runs/h" in out
    config = settings("runs/h")
    assert (config["policy"]["covariance"], config["policy"]["periodic"], config["seed"]) == ("full", [0], 0)
    assert config["env"] == {"id": "covary/Heliostat-v0"}

    code, out, _ = shell("eval runs/h --episodes 10 --json")
    assert code == 0
    assert list(json.loads(out)) == ["return_mean", "return_std", "episodes", "length_mean"]
    assert json.loads(out)["episodes"] == 10
    assert json.loads(out)["length_mean"] == 64
    assert out.count("\n") == 1

    done = int(covary.load("runs/h").steps)
    assert shell("train", "--resume", "runs/h", "--steps", done + 100)[0] == 0
    assert covary.load("runs/h").steps >= done + 100
    assert shell("train", "--resume", "runs/h")[0] == 0

    assert shell("train covary/Heliostat-v0 --steps 200 --out runs/i --init-from runs/h")[0] == 0
    code, out, _ = shell("plot runs/h runs/i -o curves.png")
    assert code == 0
    assert (here / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_ones_own_file_and_the_default_folder(shell, here):
    (here / "my_env.py").write_text(WORLDS.read_text())
    code, out, _ = shell("train my_env.py:Line --algo actor_critic --steps 30")
    assert code == 0
    (folder,) = (here / "runs").iterdir()
    assert folder.name.startswith("Line-actor_critic-0-")
    assert f"runs/{folder.name}" in out
    assert covary.load(folder).steps == 30
    assert shell("eval", f"runs/{folder.name}", "--episodes", 3)[0] == 0
    assert shell("train my_env.py:Line --algo actor_critic --steps 30")[0] == 0
    assert len(list((here / "runs").iterdir())) == 2
    assert shell("check-env", "my_env.py:Line")[0] == 0


def test_a_module_in_this_folder(shell, here, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (here / "own_world.py").write_text(WORLDS.read_text())
    assert shell("train", "own_world:Line", "--steps", 20, "--out", "r", *FAST)[0] == 0
    assert shell("eval", "r", "--episodes", 2)[0] == 0


def test_as_a_process_from_another_folder(tmp_path, line):
    """`python -m covary` and the installed command are the same; JSON is alone on stdout."""
    script = Path(sys.executable).with_name("covary")
    for command in ([sys.executable, "-m", "covary"], [str(script)]):
        done = subprocess.run(
            [*command, "eval", str(line), "--episodes", "3", "--json"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["episodes"] == 3
        assert "SHA-256" in done.stderr


def test_every_option_reaches_the_run(shell):
    words = (
        "--policy.covariance full --policy.state-dependent --policy.bounds mean --policy.init-std 0.1 "
        "--policy.mean-scale 2.5 "
        "--policy.hidden 16 8 --policy.activation relu --critic.hidden 8 --critic.activation elu --gamma 0.5 "
        "--n-envs 3 --horizon 5 --vectorization sync --save-every 15 --eval-every 30 --eval-episodes 2 --device cpu "
        "--seed 4 --no-anneal --target-kl 0.1"
    )
    assert shell("train", f"{WORLDS}:Plane", "--steps", 60, "--out", "r", *words.split())[0] == 0
    c = settings("r")
    assert c["policy"] == {
        "covariance": "full",
        "rank": None,
        "state_dependent": True,
        "bounds": "mean",
        "periodic": [],
        "init_std": 0.1,
        "covariance_matrix": None,
        "hidden": [16, 8],
        "activation": "relu",
        "layer_norm": False,
        "init": "orthogonal",
        "normalize_obs": True,
        "mean_scale": 2.5,
    }
    assert c["critic"] == {"hidden": [8], "activation": "elu", "layer_norm": False, "init": "orthogonal"}
    wanted = {"gamma": 0.5, "n_envs": 3, "horizon": 5, "anneal": False, "target_kl": 0.1}
    assert wanted.items() <= c["config"].items()
    assert (c["seed"], c["save_every"], c["eval_every"], c["eval_episodes"]) == (4, 15, 30, 2)


@pytest.mark.parametrize(
    "words",
    [
        "--policy.periodic 0 1",
        "--policy.bounds clip squash",
        "--policy.init_std 0.1 0.2",
        "--policy.init-std 0.1 0.2",
        "--policy.covariance fixed --policy.covariance_matrix 0.01 0.01",
        "--policy.covariance fixed --policy.covariance-matrix 0.5 0.1 0.1 0.5",
        "--policy.state_dependent",
        "--policy.covariance lowrank",
        "--policy.covariance lowrank --policy.rank 1",
        "--policy.bounds beta",
        "--policy.bounds beta squash",
        "--n_envs 2",
        "--policy.hidden 8",
        "--steps=20",
    ],
)
def test_other_spellings(shell, words):
    steps = [] if "--steps" in words else ["--steps", 20]
    sizes = FAST if "n_envs" not in words else FAST[2:]
    code, _, err = shell("train", f"{WORLDS}:Plane", *steps, "--out", "r", *sizes, *words.split())
    assert code == 0, err
    assert covary.load("r").steps == 20


@pytest.mark.parametrize("algo", ["ppo", "actor_critic"])
@pytest.mark.parametrize("env", ["Dials", "Switches"])
def test_several_choices_from_the_command_line(shell, env, algo):
    sizes = FAST if algo == "ppo" else []
    code, _, err = shell("train", f"{WORLDS}:{env}", "--algo", algo, "--steps", 40, "--out", "r", *sizes)
    assert code == 0, err
    assert settings("r")["chosen"]["why"] == "several choices at once"
    for words in ([], ["--stochastic"]):
        code, out, err = shell("eval", "r", "--episodes", 3, "--json", *words)
        assert code == 0, err
        assert json.loads(out)["episodes"] == 3
    assert shell("train", "--resume", "r", "--steps", 80)[0] == 0
    assert covary.load("r").steps == 80


def test_options_before_the_environment(shell):
    assert shell("train", *FAST, "--out", "r", "--steps", 20, f"{WORLDS}:Line")[0] == 0
    assert settings("r")["config"]["n_envs"] == 2


# -------------------------------------------------------------------------------------------------- presets

GAMMA = Config().gamma  # the plain default; Heliostat's preset has 0
HELIOSTAT = ["train", "covary/Heliostat-v0", "--steps", 20, "--out", "r"]


def test_a_preset_is_announced_in_one_line(shell):
    code, out, _ = shell(*HELIOSTAT, *FAST)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "preset" in line]
    assert "gamma 0.0" in line
    assert "--preset none" in line
    c = settings("r")
    assert (c["config"]["gamma"], c["policy"]["periodic"]) == (0.0, [0])


@pytest.mark.parametrize("place", ["after", "before"])
def test_an_explicit_option_goes_before_a_preset_also_where_it_is_the_plain_default(shell, place):
    explicit = ["--gamma", GAMMA]
    words = [*HELIOSTAT, *FAST, *explicit] if place == "after" else ["train", *explicit, *HELIOSTAT[1:], *FAST]
    code, out, _ = shell(*words)
    assert code == 0
    assert settings("r")["config"]["gamma"] == GAMMA
    assert settings("r")["policy"]["periodic"] == [0]
    (line,) = [line for line in out.splitlines() if "preset" in line]
    assert "gamma 0.0," not in line
    assert "policy.periodic 0" in line


@pytest.mark.parametrize("words", [["--preset", "none"], ["--preset=none"], ["--preset", "none", "--gamma", "0.5"]])
@pytest.mark.parametrize("place", ["after", "before"])
def test_no_preset(shell, words, place):
    line = [*HELIOSTAT, *FAST, *words] if place == "after" else ["train", *words, *HELIOSTAT[1:], *FAST]
    code, out, _ = shell(*line)
    assert code == 0
    c = settings("r")
    assert c["config"]["gamma"] == (0.5 if "0.5" in words else GAMMA)
    assert c["policy"]["periodic"] == []
    assert "preset" not in out


def test_an_unknown_environment_has_no_preset(shell):
    code, out, _ = shell("train", f"{WORLDS}:Line", "--steps", 20, "--out", "r", *FAST)
    assert code == 0
    assert "preset" not in out


# ----------------------------------------------------------------------------------------- eval, plot, check-env


def test_json_is_alone_on_stdout_even_where_the_environment_prints(shell, line):
    code, out, err = shell("eval", line, "--episodes", 4, "--json", "--env", f"{WORLDS}:Chatty")
    assert code == 0
    assert set(json.loads(out)) == {"return_mean", "return_std", "episodes", "length_mean"}
    assert "chatter" in err


def test_eval_is_deterministic_and_stochastic_on_demand(shell, line):
    def ask(*words):
        code, out, _ = shell("eval", line, "--episodes", 6, "--json", *words)
        assert code == 0
        return json.loads(out)

    assert ask() == ask()
    assert ask("--stochastic") == ask("--stochastic")
    assert ask() != ask("--stochastic")
    assert ask() != ask("--seed", 1)
    agent = covary.load(line)
    assert ask() == covary.evaluate(agent, worlds.Line, 6).summary()
    assert ask("--stochastic") == covary.evaluate(agent, worlds.Line, 6, deterministic=False).summary()


def test_eval_of_a_checkpoint_and_of_the_best(shell, line):
    places = sorted((line / "checkpoints").iterdir())
    assert places[-1].name == "best"
    for words in ([places[0]], [places[-1]], [line, "--best"], [line / "checkpoints" / ".." / "checkpoints" / "best"]):
        code, out, err = shell("eval", *words, "--episodes", 2)
        assert code == 0, err
        assert "2 episodes of 5.0 steps" in out


def test_more_environments_or_fewer_give_the_same_episodes(line):
    agent = covary.load(line)
    by_number = [covary.evaluate(agent, worlds.Line, 7, n_envs=n).returns for n in (1, 3, 7, 8)]
    for returns in by_number[1:]:  # the network rounds differently for another batch size, and no more than that
        assert returns.tolist() == pytest.approx(by_number[0].tolist(), rel=1e-4)


def test_plot(shell, line, here):
    assert shell("plot", line, "-o", "a.pdf")[0] == 0
    assert (here / "a.pdf").read_bytes().startswith(b"%PDF")
    assert shell("plot", line)[0] == 0
    assert (here / "curves.png").exists()


def test_check_env(shell):
    code, out, _ = shell("check-env", f"{WORLDS}:Line")
    assert (code, out) == (0, "Line: keeps every rule\n")
    code, out, _ = shell("check-env", f"{WORLDS}:OldStep")
    assert code == 1
    assert "step returns" in out
    assert "fix:" in out
    assert "OldStep: 1 rule broken" in out
    assert shell("check-env", f"{WORLDS}:Nothing")[0] == 2
    assert shell("check-env", "CartPole-v1")[0] == 0
    assert shell("check-env", f"{WORLDS}:RaisesAtOnce")[0] == 2


def test_help_and_version(shell):
    assert shell("--help")[0] == 0
    assert shell()[0] == 2
    assert shell("--version")[1] == f"covary {covary.__version__}\n"
    for command in ("train", "eval", "plot", "check-env"):
        code, out, _ = shell(command, "--help")
        assert code == 0
        assert "covary " + command in out
    out = shell("train", "--help")[1]
    assert "--policy.covariance" in out
    assert "--horizon" in out
    for algo, option in (
        ("a2c", "--horizon"),
        ("actor_critic", "--actor-lr"),
        ("actor_critic", "--actor-lam"),
        ("stream_ac", "--critic-kappa"),
        ("trpo", "--cg-iterations"),
    ):
        assert option in shell("train", "CartPole-v1", "--algo", algo, "--help")[1]


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("bounds", ["beta", ("beta",), np.array(["beta"])], ids=str)
def test_a_beta_starts_no_wider_than_it_can_under_any_preset(algo, bounds):
    assert settle("Pendulum-v1", {"algo": algo}).policy.init_std == 0.35
    settings = settle("Pendulum-v1", {"algo": algo, "policy": {"bounds": bounds}})
    assert settings.policy.init_std is None
    assert "policy.init_std" not in settings.preset
    make_policy(3, gymnasium.spaces.Box(-2, 2, (1,)), settings.policy)


# ------------------------------------------------------------------------------------------------- bad input


def test_an_option_of_other_algorithms_is_said_to_be_theirs():
    with pytest.raises(UsageError, match=r"(?s)given: exploration.*an option of ddpg, ppo, sac, td3"):
        settle("", {"algo": "a2c", "exploration": "correlated"})
    with pytest.raises(UsageError, match=r"(?s)given: cg_iterations.*an option of trpo.*take that algorithm"):
        settle("", {"algo": "mpo", "cg_iterations": 3})
    with pytest.raises(UsageError, match=r"did you mean gamma\?"):
        settle("", {"gama": 0.9})


@pytest.mark.parametrize("algo", ["ppo", "sac", "td3"])
def test_a_correlation_time_of_white_noise_is_refused(algo):
    with pytest.raises(UsageError, match=r'(?s)correlated in time.*correlation_time 5 with exploration="white"'):
        settle("", {"algo": algo, "correlation_time": 5})
    assert settle("", {"algo": algo, "correlation_time": 5, "exploration": "correlated"}).config.correlation_time == 5


LINE = f"{WORLDS}:Line"
PLANE = f"{WORLDS}:Plane"
BAD = {  # command, and what its message says
    "no command": (["fly"], ["fly", "train"]),
    "near command": (["trian", "CartPole-v1"], ["covary train"]),
    "no environment": (["train"], ["ENV"]),
    "unknown environment": (["train", "CartPoll-v1"], ["CartPoll-v1", "CartPole-v1"]),
    "unknown algorithm": (["train", LINE, "--algo", "pppo"], ["pppo", "ppo", "actor_critic"]),
    "another's name": (["train", LINE, "--algo", "a3c"], ["a3c", "a2c"]),
    "lambda of a2c": (["train", LINE, "--algo", "a2c", "--lam", "1.5"], ["lam", "[0, 1]", "1.5"]),
    "gamma of trpo": (["train", LINE, "--algo", "trpo", "--gamma", "-1"], ["gamma", "[0, 1]", "-1"]),
    "radius of trpo": (["train", LINE, "--algo", "trpo", "--target-kl", "0"], ["target_kl", "positive"]),
    "unknown option": (["train", LINE, "--learning-rat", "1"], ["--learning-rat", "--learning-rate"]),
    "option of the other": (["train", LINE, "--algo", "actor_critic", "--horizon", "3"], ["--horizon"]),
    "no number": (["train", LINE, "--steps", "many"], ["steps", "many"]),
    "no file": (["train", "nofile.py:Env"], ["nofile.py", "exist"]),
    "no class": (["train", f"{WORLDS}:Lime"], ["Lime", "Line"]),
    "no module": (["train", "no.such:Env"], ["no.such"]),
    "file alone": (["train", str(WORLDS)], ["worlds.py:MyEnv"]),
    "not made": (["train", f"{WORLDS}:RaisesAtOnce"], ["no simulator found", "worlds.py:"]),
    "arguments": (["train", f"{WORLDS}:NeedsArguments"], ["size", "lambda"]),
    "not an environment": (["train", f"{WORLDS}:np"], ["must define np"]),
    "swapped bounds": (["train", f"{WORLDS}:Swapped"], ["low", "high", "worlds.py:"]),
    "equal bounds": (["train", f"{WORLDS}:Stuck"], ["low < high", "dimension 1"]),
    "squash an open one": (["train", f"{WORLDS}:Open", "--policy.bounds", "squash"], ["finite", "auto"]),
    "periodic beyond": (["train", PLANE, "--policy.periodic", "2"], ["periodic", "2"]),
    "periodic open": (["train", f"{WORLDS}:Open", "--policy.periodic", "0"], ["periodic", "inf"]),
    "periodic of choices": (["train", f"{WORLDS}:Choice", "--policy.periodic", "0"], ["periodic"]),
    "no steps": (["train", LINE, "--steps", "0"], ["steps", "0", "positive"]),
    "negative steps": (["train", LINE, "--steps", "-5"], ["steps", "-5", "positive"]),
    "no environments": (["train", LINE, "--n-envs", "0"], ["n_envs", "0"]),
    "no horizon": (["train", LINE, "--horizon", "-1"], ["horizon", "-1"]),
    "no minibatch": (["train", LINE, "--minibatch", "0"], ["minibatch", "0"]),
    "no width": (["train", LINE, "--policy.hidden", "0"], ["hidden", "0"]),
    "no critic": (["train", LINE, "--critic.hidden", "64", "-1"], ["critic.hidden", "-1"]),
    "no evaluation": (["train", LINE, "--eval-episodes", "0"], ["eval_episodes", "0"]),
    "negative seed": (["train", LINE, "--seed", "-1"], ["seed", "-1"]),
    "gamma": (["train", LINE, "--gamma", "1.5"], ["gamma", "1.5"]),
    "nan": (["train", LINE, "--gamma", "nan"], ["gamma", "nan"]),
    "huge": (["train", LINE, "--learning-rate", "1e300"], ["learning_rate", "1e+300"]),
    "negative rate": (["train", LINE, "--learning-rate", "-1"], ["learning_rate", "-1"]),
    "negative entropy": (["train", LINE, "--entropy-coef", "nan"], ["entropy_coef", "nan"]),
    "covariance": (["train", LINE, "--policy.covariance", "ful"], ["covariance", "ful"]),
    "a rank too high": (
        ["train", PLANE, "--policy.covariance", "lowrank", "--policy.rank", "2"],
        ["rank", "below", '"full"'],
    ),
    "no rank": (
        ["train", PLANE, "--policy.covariance", "lowrank", "--policy.rank", "0"],
        ["policy.rank", "positive", "0"],
    ),
    "a rank of nothing": (["train", PLANE, "--policy.rank", "1"], ["rank", "diagonal", "lowrank"]),
    "a Beta that is coupled": (
        ["train", PLANE, "--policy.bounds", "beta", "--policy.covariance", "full"],
        ["independent of all others", 'bounds="squash"'],
    ),
    "an open Beta": (["train", f"{WORLDS}:Open", "--policy.bounds", "beta"], ["finite", "auto"]),
    "a covariance of dials": (
        ["train", f"{WORLDS}:Dials", "--policy.covariance", "full"],
        ["policy.covariance", "choices have no such thing"],
    ),
    "spread": (["train", LINE, "--policy.init-std", "3"], ["init_std", "3.0", "share"]),
    "preset": (["train", LINE, "--preset", "atari"], ["preset", "atari"]),
    "no gpu": (["train", LINE, "--device", "cuda"], ["cuda", "cpu"]),
    "unwritable": (["train", LINE, "--out", "/proc/none/r", *FAST], ["/proc/none/r", "--out"]),
    "init from nothing": (["train", LINE, "--init-from", "nowhere", *FAST], ["nowhere", "exist"]),
    "resume nothing": (["train", "--resume", "nowhere"], ["nowhere", "config.json"]),
    "resume a name": (["train", "--resume"], ["--resume"]),
    "resume with others": (["train", "--resume", "RUN", "--gamma", "0.5"], ["--gamma"]),
    "resume backwards": (["train", "--resume", "RUN", "--steps", "0"], ["steps", "0"]),
    "eval nothing": (["eval", "nowhere"], ["nowhere", "exist"]),
    "eval no episodes": (["eval", "RUN", "--episodes", "0"], ["episodes", "0"]),
    "eval another": (["eval", "RUN", "--env", "CartPole-v1"], ["observation space"]),
    "eval itself": (["eval"], ["run"]),
    "eval a negative seed": (["eval", "RUN", "--seed", "-1"], ["seed", "-1"]),
    "plot nothing": (["plot", "nowhere"], ["nowhere", "config.json"]),
    "plot nowhere": (["plot", "RUN", "-o", "/proc/none/x.png"], ["/proc/none/x.png"]),
    "plot a kind": (["plot", "RUN", "-o", "x.docx"], ["x.docx"]),
    "check nothing": (["check-env", "Nothing-v0"], ["Nothing-v0"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_message_and_exit_code_2(name, shell, line, here):
    words, says = BAD[name]
    before = sorted(str(p) for p in line.rglob("*"))
    code, out, err = shell(*(line if word == "RUN" else word for word in words))
    assert code == 2, (out, err)
    message = err + out if words[0] == "train" and len(words) < 3 else err
    for said in says:
        assert said in message
    assert not list(here.iterdir()), "nothing is begun that cannot be gone on with"
    assert sorted(str(p) for p in line.rglob("*")) == before


@pytest.mark.parametrize("name", ["unknown environment", "no file", "periodic beyond", "equal bounds", "spread"])
def test_a_message_has_its_four_parts(name, shell):
    """The rule first, what was given, and what to do; no line is longer than a terminal is wide twice."""
    words, _ = BAD[name]
    first, *rest = shell(*words)[2].rstrip("\n").splitlines()
    assert first.startswith("covary: ")
    assert first.endswith(".")
    assert any(line.lstrip().startswith("given:") for line in rest)
    assert any(line.lstrip().startswith("fix:") for line in rest)


def test_a_folder_that_cannot_be_written(shell, here):
    """Below a file, where not even root can make a folder."""
    (here / "taken").write_text("")
    code, _, err = shell("train", LINE, "--out", "taken/r", *FAST)
    assert code == 2
    assert "must be writable" in err
    assert "taken/r" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_error(line):
    command = f"{sys.executable} -m covary eval {line} --episodes 2 | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
