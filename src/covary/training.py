"""Training: from what the user said to an agent, an environment and a run folder, which `loop` then brings together."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import covary
from covary import description, runs, typed
from covary.agent import Agent, CriticConfig, load
from covary.algorithms import find
from covary.choices import choose, environments
from covary.envs.sources import Source, rebuild, resolve
from covary.envs.spaces import check_spaces, from_json
from covary.envs.vectors import build
from covary.errors import UsageError
from covary.fast import cache
from covary.heads import PolicyConfig
from covary.loop import draw, run_training
from covary.progress import Progress
from covary.runs import FORMAT, Run, newest_checkpoint, read_checkpoint
from covary.settings import RunOptions, Settings, settle


def train(
    env: Any = None,
    algo: str = "ppo",
    steps: int | None = None,
    seed: int = 0,
    preset: str = "auto",
    *,
    torso: nn.Module | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Agent:
    """Trains an agent and leaves a run folder behind.

    Args:
        env: a Gymnasium id, "module:Class", "path/to/file.py:Class", an environment, a vector environment, one of
            tensors (`covary.envs.tensors`), or a callable that makes one environment.
        algo: "ppo", "a2c", "trpo", "actor_critic", "stream_ac", "sac", "td3", "ddpg" or "mpo".
        steps: transitions over all environments (default 100,000).
        seed: decides every random number of the run.
        preset: "auto" for the settings kept for a known environment, "none" for plain defaults.
        torso: any module (B, O) -> (B, F) in place of the policy's hidden layers; policy and critic each get a
            copy.
        resume: a run folder to go on with, under the settings it was started with; `steps` may extend it.
        quiet: print nothing.
        options: everything else, as on the command line: fields of the algorithm's Config (`gamma=0.9`), of the run
            (`out="runs/a"`, `eval_every=10_000`), `policy={"covariance": "full"}`, `critic={"hidden": (64,)}`; the
            policy's also by their plain names (`covariance="full"`). Of a PolicyConfig in place of a dict only what
            differs from PolicyConfig() counts: preset and algorithm decide the rest.

    Raises:
        UsageError: anything the user can put right; what was learned before it is saved.
    """
    if resume is not None:
        device = options.pop("device", None)
        if options:
            raise UsageError(
                "A run goes on with the settings it was started with.",
                given=", ".join(options),
                fix="leave them out, or start a new run with init_from",
            )
        return _resume(Path(resume), env, steps, torso, quiet, device)
    if env is None:
        raise UsageError("Training needs an environment.", fix='covary.train("CartPole-v1")')
    if options.get("fast", True):
        cache.compile_ahead(algo)
    here = Path.cwd()  # before an environment is made, which may go elsewhere
    source = resolve(env)
    given = {"algo": algo, "seed": seed, "preset": preset, **({} if steps is None else {"steps": steps}), **options}
    if source.single:
        given.setdefault("n_envs", 1)
    settings = settle(_preset_name(source), given)
    if settings.run.eval_every and (source.single or source.vector is not None):
        raise UsageError(
            "Evaluations during training need environments of their own.",
            given=f"eval_every={settings.run.eval_every} with one object",
            fix="hand in an id, a class or a callable that makes environments; or evaluate after training",
        )
    venv, processes = environments(source, settings.config.n_envs, settings.run, device=_device(settings, torso))
    if venv.num_envs != settings.config.n_envs:  # one that was handed in has its own number
        settings = replace(settings, config=replace(settings.config, n_envs=venv.num_envs))
    try:
        agent = make_agent(venv, settings, torso)
        if settings.run.init_from is not None:
            agent.start_from(load(settings.run.init_from, torso=torso))
        if agent.learner.memory is not None:  # before anything of the run is on the disk
            agent.learner.memory.check_room()
        place = settings.run.out or f"runs/{source.name}-{algo}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        chosen = choose(agent, settings.run.fast)._replace(processes=processes)
        record = _record(source, settings, torso is not None) | {"chosen": chosen._asdict()}
        run = Run.create(_free(here / place, named=settings.run.out is not None), record)
        if run.path.is_relative_to(here):
            run.named = run.path.relative_to(here)
        progress = Progress(settings.run.steps, quiet=quiet)
        if settings.preset:
            pairs = ", ".join(f"{k} {_plain(v)}" for k, v in settings.preset.items())
            why = covary.presets.source(_preset_name(source), algo)
            progress.say(f"preset for {source.name}: {pairs} ({why}); --preset none turns it off")
        progress.say(f"{algo} on {source.name} for {settings.run.steps:,} steps, seed {seed} -> {run.named}")
        progress.say(chosen.line())
        with run.locked():
            return run_training(agent, source, venv, settings, run, progress, chosen.threads)
    finally:
        if not source.single and source.vector is None:
            venv.close()


def untrained(env: Any, algo: str = "ppo", *, torso: nn.Module | None = None, **options: Any) -> Agent:
    """The agent that `train` with the same arguments starts from."""
    source = resolve(env)
    settings = settle(_preset_name(source), {"algo": algo, **options})
    venv = build(source, 1)
    try:
        agent = make_agent(venv, settings, torso)
        if settings.run.init_from is not None:
            agent.start_from(load(settings.run.init_from, torso=torso))
        return agent
    finally:
        if not source.single and source.vector is None:
            venv.close()


def make_agent(venv: Any, settings: Settings, torso: nn.Module | None = None) -> Agent:
    """The untrained agent of these settings."""
    device = _device(settings, torso)
    if (tensors := getattr(venv, "tensors", None)) is not None:
        if settings.run.device not in ("auto", tensors.device.type):
            raise UsageError(
                "An agent learns on the device its environment lives on.",
                given=f"{type(tensors).__name__} on {tensors.device} and --device {device}",
                fix=f"--device {tensors.device.type}, or leave it out",
            )
        device = str(tensors.device)
    return Agent(
        settings.run.algo,
        venv.single_observation_space,
        venv.single_action_space,
        config=settings.config,
        policy=settings.policy,
        critic=settings.critic,
        torso=torso,
        seed=settings.run.seed,
        device=device,
    )


def _device(settings: Settings, torso: nn.Module | None) -> str:
    """cpu or cuda. Raises UsageError where a GPU was asked for and there is none."""
    device = settings.run.device
    if device == "auto":
        return "cuda" if torso is not None and torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda needs a GPU that torch can use.", given="none found", fix="--device cpu")
    return device


def _resume(path: Path, env: Any, steps: int | None, torso: nn.Module | None, quiet: bool, device: str | None) -> Agent:
    """Goes on with a run from its newest checkpoint, or from its config where there is none yet."""
    run = Run.open(path)
    path = run.path  # an environment may change the working directory
    settings = _settings_of(run)
    if settings.run.fast:
        cache.compile_ahead(settings.run.algo)
    if steps is not None and steps != settings.run.steps:
        settings = replace(settings, run=replace(settings.run, steps=steps))
    if device is not None:
        settings = replace(settings, run=replace(settings.run, device=device))  # type: ignore[arg-type]
    say = Progress(0, quiet=quiet, live=False).say
    checkpoint = None
    if run.checkpoints():
        checkpoint, arrays, meta = newest_checkpoint(path, say)
        mine = (settings.run.algo, settings.run.seed, bool(run.config.get("custom_torso")))
        described = description.Described(*mine, settings.config, settings.policy, settings.critic)
        said = description.read(meta, CriticConfig, checkpoint)
        description.check_same(said, described, checkpoint)
        if meta["steps"] >= settings.run.steps:
            say(f"{run.named} is finished: {meta['steps']:,} of {settings.run.steps:,} steps. --steps N extends it")
            if not (run.path / "curve.png").exists():  # it was killed before that
                draw(run)
            return load(checkpoint, torso=torso)
        arrays, meta = _whole(path, arrays, meta)
    if run.config.get("custom_torso") and torso is None:
        raise UsageError(
            "This run has a torso of its user's own.", given=path, fix="covary.train(resume=path, torso=MyTorso())"
        )
    source = resolve(env) if env is not None else rebuild(run.config["env"], path, say)
    before = run.config.get("chosen")
    venv, processes = environments(source, settings.config.n_envs, settings.run, before, _device(settings, torso))
    try:
        agent = make_agent(venv, settings, torso)
        if checkpoint is not None:
            try:
                trained = (from_json(meta["observation_space"]), from_json(meta["action_space"]))
            except KeyError as error:
                raise UsageError("agent.json must describe an agent.", given=f"{checkpoint}: no {error}") from error
            check_spaces(*trained, venv)
            agent.restore(arrays, meta)
        elif settings.run.init_from is not None:
            agent.start_from(load(settings.run.init_from, torso=torso))
        taken = (arrays, meta) if checkpoint is not None else None
        chosen = choose(agent, settings.run.fast, before)._replace(processes=processes)
        with run.locked():
            run.config |= {"steps": settings.run.steps, "chosen": chosen._asdict()}
            run.write_config()
            run.cut_back(_logged(meta) if checkpoint is not None else 0, agent.steps)
            progress = Progress(settings.run.steps, agent.steps, quiet=quiet)
            progress.say(f"going on with {run.named} at step {agent.steps:,}")
            progress.say(chosen.line())
            return run_training(agent, source, venv, settings, run, progress, chosen.threads, taken)
    finally:
        if not source.single and source.vector is None:
            venv.close()


def _whole(path: Path, arrays: runs.Arrays, meta: dict[str, Any]) -> tuple[runs.Arrays, dict[str, Any]]:
    """A run that ended on a rollout shorter than the others goes on from before that was learned from, if it can."""
    state = meta.get("run")
    whole = state.get("whole") if isinstance(state, dict) else None
    if isinstance(whole, int):
        with contextlib.suppress(UsageError):
            return read_checkpoint(path / "checkpoints" / f"{whole:012d}")
    return arrays, meta


def _logged(meta: dict[str, Any]) -> int:
    """The step of the last line of metrics that a checkpoint knows of; what came after will be logged again."""
    try:
        return int(meta["run"]["report"]["step"] if "run" in meta else meta["steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("agent.json must say what was logged.", given=f"{type(error).__name__}: {error}") from error


def _preset_name(source: Source) -> str:
    return str(source.recipe.get("id") or source.name)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _free(path: Path, *, named: bool) -> Path:
    """A folder that was not named gets a number where another run of the same second has it."""
    free, n = path, 2
    while not named and free.exists():
        free, n = path.with_name(f"{path.name}-{n}"), n + 1
    return free


def _record(source: Source, settings: Settings, custom_torso: bool) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "gymnasium")}
    return {
        "format": FORMAT,
        "covary": covary.__version__,
        "versions": {"python": platform.python_version(), **versions},
        "env": source.recipe,
        **asdict(settings.run),
        "config": asdict(settings.config),
        "policy": asdict(settings.policy),
        "critic": asdict(settings.critic),
        "preset_values": settings.preset,
        "custom_torso": custom_torso,
    }


LATER = frozenset(("fast", "profile", "restart_workers", "on_nonfinite"))  # options that the first runs did not have


def _settings_of(run: Run) -> Settings:
    """Raises UsageError where config.json lacks something or holds what no run can have."""
    c, file = run.config, run.path / "config.json"
    for name in (*RunOptions.__dataclass_fields__, "config", "policy", "critic"):
        if name not in c and name not in LATER:
            raise UsageError("config.json must hold all settings of a run.", given=f"{file}: no {name}")
    options = {name: c[name] for name in RunOptions.__dataclass_fields__ if name in c}
    return Settings(
        made := typed.from_json(RunOptions, options, str(file)),
        typed.from_json(find(made.algo).Config, c["config"], f"{file}: config"),
        typed.from_json(PolicyConfig, c["policy"], f"{file}: policy"),
        typed.from_json(CriticConfig, c["critic"], f"{file}: critic"),
        {},
    )
