"""The command line: a thin face. `covary --help` imports nothing heavy."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

HELP = """usage: covary COMMAND [OPTIONS]

  train ENV          train an agent; --resume RUN goes on with one
  eval RUN           run a trained agent for some episodes
  plot RUN...        draw the curves of runs into one picture; --policy RUN what one of them has learned
  doctor SCRIPT      run any PyTorch script and name the line that keeps it from learning
  check-env ENV      every rule of the Gymnasium API that an environment breaks, with the fix

ENV is a Gymnasium id, path/to/file.py:Class or module:Class. `covary COMMAND --help` says more.

  covary train covary/Heliostat-v0 --steps 200000 --out runs/h --policy.covariance full
  covary train my_env.py:MyEnv --algo actor_critic
  covary eval runs/h --episodes 100 --json
  covary plot --policy runs/h -o policy.png
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 findings, 2 a mistake of the user's, 130 and 143 stopped by a signal."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """The same, returning the exit code."""
    commands = {"train": _train, "eval": _eval, "plot": _plot, "check-env": _check_env, "doctor": _doctor}
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from covary import __version__

        print(f"covary {__version__}")
        return 0
    from covary.errors import UsageError

    if argv[0] not in commands:
        import difflib

        near = difflib.get_close_matches(argv[0], commands, n=1)
        return _complain(
            UsageError(
                f"The command is one of {', '.join(commands)}.",
                given=argv[0],
                fix=f"covary {near[0]}" if near else "covary --help",
            )
        )
    try:
        return commands[argv[0]](argv[1:])
    except UsageError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _complain(error: Exception) -> int:
    print(f"covary: {error}", file=sys.stderr)
    return 2


def _doctor(argv: list[str]) -> int:
    from covary.doctor.command import run as examine

    return examine(argv)


# ------------------------------------------------------------------------------------------------------ train


def _peek(argv: Sequence[str], option: str, default: str | None = None) -> str | None:
    """The value of an option before the parser that depends on it exists."""
    names = {f"--{option}", f"--run.{option}"}
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else (argv[i + 1] if i + 1 < len(argv) else default)
    return default


def _train(argv: list[str]) -> int:
    if not {"--no-fast", "-h", "--help", "--resume"} & set(argv):
        from covary.fast import cache

        cache.compile_ahead(_peek(argv, "algo"))  # while this process imports torch
    import tyro

    from covary import algorithms
    from covary.agent import CriticConfig
    from covary.heads import PolicyConfig
    from covary.settings import RunOptions, settle
    from covary.training import train

    if any(word == "--resume" or word.startswith("--resume=") for word in argv):
        return _resume(argv)
    algo = _peek(argv, "algo", "ppo")
    module = algorithms.find(algo or "ppo")
    chosen = {"algo": algo, "preset": "none" if _peek(argv, "preset") == "none" else "auto"}
    flat = tyro.conf.OmitArgPrefixes
    command = dataclasses.make_dataclass(
        "train",
        [
            (
                "env",
                Annotated[
                    str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV", help="id, file.py:Class or module:Class")
                ],
            ),
            ("run", Annotated[RunOptions, flat]),
            ("config", Annotated[module.Config, flat]),
            ("policy", PolicyConfig),
            ("critic", CriticConfig),
        ],
    )

    def parse(env: str) -> tuple[Any, Any]:
        """What was asked for, and what would be without any option: plain defaults under this environment's preset,
        so that --help shows them and an explicit option goes before them."""
        defaults = settle(_bare(env), chosen)
        rooms = {room: getattr(defaults, room) for room in ("run", "config", "policy", "critic")}
        asked = tyro.cli(
            command,
            args=argv,
            default=command(**({"env": tyro.MISSING} | rooms)),
            prog="covary train",
            description="Train an agent on your environment. Options with a dot belong to the policy or the critic; "
            "`covary train --resume RUN [--steps N] [--env ENV]` goes on with a run.",
        )
        return asked, defaults

    env = argv[0] if argv and not argv[0].startswith("-") else ""
    asked, defaults = parse(env)
    if asked.env != env:  # options came first
        asked, defaults = parse(asked.env)
    train(asked.env, **_changed(asked, defaults))
    return 0


def _bare(env: str) -> str:
    return env.removeprefix("covary.envs:")


def _changed(asked: Any, defaults: Any) -> dict[str, Any]:
    """The options to hand on: all that differ from what would be without any."""
    options: dict[str, Any] = {"algo": asked.run.algo, "preset": asked.run.preset}
    for room in ("run", "config", "policy", "critic"):
        mine, usual = getattr(asked, room), getattr(defaults, room)
        for field in dataclasses.fields(mine):
            value = getattr(mine, field.name)
            if value != getattr(usual, field.name):
                options[f"{room}.{field.name}" if room in ("policy", "critic") else field.name] = value
    return options


def _resume(argv: list[str]) -> int:
    import argparse

    from covary.training import train

    parser = argparse.ArgumentParser(prog="covary train", description="go on with a run under its own settings")
    parser.add_argument("--resume", metavar="RUN", required=True)
    parser.add_argument("--steps", type=int, help="a new total")
    parser.add_argument("--env", help="the environment, where the run cannot build its own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="another device than before")
    parser.add_argument("positional_env", nargs="?", metavar="ENV", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    from covary.errors import check_sizes

    if args.steps is not None:
        check_sizes("steps", (args.steps,))
    train(
        args.env or args.positional_env,
        steps=args.steps,
        resume=args.resume,
        **({"device": args.device} if args.device else {}),
    )
    return 0


# ----------------------------------------------------------------------------------------------- the others


def _eval(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="covary eval", description="run a trained agent for some episodes")
    parser.add_argument("run", help="a run folder or a checkpoint")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default 0)")
    parser.add_argument("--stochastic", action="store_true", help="sample in place of the density's median or mode")
    parser.add_argument("--best", action="store_true", help="the best checkpoint by evaluation, not the newest")
    parser.add_argument("--env", help="the environment, where the run cannot build its own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true", help="one object on stdout and nothing else")
    args = parser.parse_args(argv)

    from covary.agent import load
    from covary.evaluation import evaluate
    from covary.runs import find_checkpoint

    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():  # environments print, too
        place = Path(args.run)
        if args.best:
            place = place / "checkpoints" / "best"
        checkpoint = find_checkpoint(place).resolve()
        agent = load(checkpoint, device=args.device)
        source = _source(args.env, _run_of(Path(args.run), checkpoint), checkpoint)
        result = evaluate(agent, source, args.episodes, seed=args.seed, deterministic=not args.stochastic)
        summary = result.summary()
    if args.json:
        print(json.dumps(summary))
    else:
        print(
            f"{source.name}, step {agent.steps:,}: return {summary['return_mean']:.2f} ± {summary['return_std']:.2f} "
            f"over {summary['episodes']} episodes of {summary['length_mean']:.1f} steps"
        )
    return 0


def _run_of(place: Path, checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it does in one."""
    folders = (place.resolve(), checkpoint.parent.parent)
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _source(env: str | None, folder: Path | None, checkpoint: Path) -> Any:
    """The environment that was named, or the one that the run recorded."""
    from covary.envs.sources import rebuild, resolve
    from covary.errors import UsageError
    from covary.runs import Run

    if env is not None:
        return resolve(env)
    if folder is None:
        raise UsageError("A checkpoint that stands alone records no environment.", given=checkpoint, fix="--env ENV")
    return rebuild(Run.open(folder).config["env"], folder, lambda text: print(text, file=sys.stderr))


def _plot(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        prog="covary plot",
        description="draw the curves of runs into one picture; or, with --policy, what one of them has learned: the "
        "density of its actions at some observations, its covariance, and how that came about",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders whose returns to draw")
    parser.add_argument("-o", "--out", metavar="FILE", help="default curves.png, or policy.png")
    one = parser.add_argument_group("one policy")
    one.add_argument("--policy", metavar="RUN", help="a run folder or a checkpoint whose policy to draw")
    one.add_argument(
        "--dims", type=int, nargs="+", metavar="I", help="one or two dimensions of the action (default 0 1)"
    )
    one.add_argument(
        "--at", type=int, metavar="N", help="observations, evenly spaced over an evaluation episode (default 3)"
    )
    one.add_argument("--env", help="the environment, where the run cannot build its own")
    args = parser.parse_args(argv)
    if args.policy is None:
        if not args.runs or any(x is not None for x in (args.dims, args.at, args.env)):
            parser.error("name runs to draw their returns, or --policy RUN, to which --dims, --at and --env belong")
        from covary.plots import curve

        print(curve(args.runs, args.out or "curves.png"))
        return 0
    if args.runs:
        parser.error(f"--policy draws one run; {' '.join(args.runs)}: draw returns without it")
    return _plot_policy(args.policy, args.out or "policy.png", args.dims, args.at, args.env)


def _plot_policy(place: str, out: str, dims: list[int] | None, at: int | None, env: str | None) -> int:
    from covary.policy_plots import draw
    from covary.portrait import of_checkpoint
    from covary.runs import Run, find_checkpoint

    checkpoint = find_checkpoint(Path(place)).resolve()
    folder = _run_of(Path(place), checkpoint)
    with contextlib.redirect_stdout(sys.stderr):  # environments print
        portrait = of_checkpoint(checkpoint, lambda: _source(env, folder, checkpoint), dims, at, named=env is not None)
    print(draw(portrait, Run.open(folder) if folder else None, out))
    return 0


def _check_env(argv: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="covary check-env", description="every rule of the Gymnasium API it breaks")
    parser.add_argument("env", metavar="ENV")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    from covary.envs.checks import check_env
    from covary.envs.sources import resolve

    source = resolve(args.env)
    env = source.make()
    broken = check_env(env, seed=args.seed)
    for number, finding in enumerate(broken, 1):
        print(f"{number}. {finding.rule}\n   given: {finding.given}")
        if finding.cause:
            print(f"   cause: {finding.cause}")
        print(f"   fix:   {finding.fix}")
    print(
        f"{source.name}: {len(broken)} rule{'s' * (len(broken) != 1)} broken"
        if broken
        else f"{source.name}: keeps every rule"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    main()
