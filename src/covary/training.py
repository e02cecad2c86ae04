"""Training: a plain loop around an adapter and a learner, and the folder that keeps what happened."""

from __future__ import annotations

import importlib.metadata
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import covary
from covary import plots
from covary.agent import Agent, CriticConfig, load
from covary.algorithms import find
from covary.envs.adapter import Adapter, Episode, episode_seed
from covary.envs.build import Source, build, rebuild, resolve
from covary.errors import UsageError
from covary.evaluation import check_spaces, evaluate
from covary.nets import one_thread
from covary.policies import PolicyConfig, mean_entropy
from covary.progress import Progress
from covary.runs import FORMAT, Run, find_checkpoint, read_checkpoint
from covary.settings import RunOptions, Settings, settle
from covary.types import Rollout

LOG_EVERY = 1000  # transitions between two lines of metrics, at the least


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
        env: a Gymnasium id, "module:Class", "path/to/file.py:Class", an environment, a vector environment, or a
            callable that makes one environment.
        algo: "ppo" or "actor_critic".
        steps: transitions over all environments (default 100,000).
        seed: decides every random number of the run.
        preset: "auto" for the settings kept for a known environment, "none" for plain defaults.
        torso: any module (B, O) -> (B, F) in place of the policy's hidden layers; policy and critic each get a
            copy.
        resume: a run folder to go on with, under the settings it was started with; `steps` may extend it.
        quiet: print nothing.
        options: everything else, as on the command line: fields of the algorithm's Config (`gamma=0.9`), of the run
            (`out="runs/a"`, `eval_every=10_000`), `policy={"covariance": "full"}`, `critic={"hidden": (64,)}`; the
            policy's also by their plain names (`covariance="full"`).

    Raises:
        UsageError: anything the user can put right; what was learned before it is saved.
    """
    if resume is not None:
        return _resume(Path(resume), env, steps, torso, quiet)
    if env is None:
        raise UsageError("Training needs an environment.", fix='covary.train("CartPole-v1")')
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
    venv = build(source, settings.config.n_envs, settings.run.vectorization)
    if venv.num_envs != settings.config.n_envs:  # one that was handed in has its own number
        settings = replace(settings, config=replace(settings.config, n_envs=venv.num_envs))
    try:
        agent = make_agent(venv, settings, torso)
        if settings.run.init_from is not None:
            agent.start_from(load(settings.run.init_from, torso=torso))
        place = settings.run.out or f"runs/{source.name}-{algo}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        run = Run.create(_free(Path(place), named=settings.run.out is not None), _record(source, settings))
        progress = Progress(settings.run.steps, quiet=quiet)
        if settings.preset:
            pairs = ", ".join(f"{k} {_plain(v)}" for k, v in settings.preset.items())
            why = covary.presets.source(_preset_name(source), algo)
            progress.say(f"preset for {source.name}: {pairs} ({why}); --preset none turns it off")
        progress.say(f"{algo} on {source.name} for {settings.run.steps:,} steps, seed {seed} -> {run.path}")
        return _go(agent, source, venv, settings, run, progress)
    finally:
        if not source.single and source.vector is None:
            venv.close()


def untrained(env: Any, algo: str = "ppo", *, torso: nn.Module | None = None, **options: Any) -> Agent:
    """The agent that `train` with the same arguments starts from."""
    source = resolve(env)
    settings = settle(_preset_name(source), {"algo": algo, **options})
    venv = build(source, 1)
    try:
        return make_agent(venv, settings, torso)
    finally:
        if not source.single and source.vector is None:
            venv.close()


def make_agent(venv: Any, settings: Settings, torso: nn.Module | None = None) -> Agent:
    """The untrained agent of these settings."""
    device = settings.run.device
    if device == "auto":
        device = "cuda" if torso is not None and torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda needs a GPU that torch can use.", given="none found", fix="--device cpu")
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


def _resume(path: Path, env: Any, steps: int | None, torso: nn.Module | None, quiet: bool) -> Agent:
    """Goes on with a run from its newest checkpoint, or from its config where there is none yet."""
    run = Run.open(path)
    settings = _settings_of(run)
    if steps is not None and steps != settings.run.steps:
        settings = replace(settings, run=replace(settings.run, steps=steps))
    progress = Progress(settings.run.steps, quiet=quiet)
    checkpoint = find_checkpoint(path) if run.checkpoints() else None
    if checkpoint is not None:
        arrays, meta = read_checkpoint(checkpoint)
        if meta["steps"] >= settings.run.steps:
            progress.close()
            progress.say(f"{path} is finished: {meta['steps']:,} of {settings.run.steps:,} steps. --steps N extends it")
            return load(checkpoint, torso=torso)
    source = resolve(env) if env is not None else rebuild(run.config["env"], path, progress.say)
    venv = build(source, settings.config.n_envs, settings.run.vectorization)
    try:
        agent = make_agent(venv, settings, torso)
        started = None
        if checkpoint is not None:
            check_spaces(load(checkpoint, torso=torso), venv)
            agent.restore(arrays, meta)
            started = meta.get("episodes_started")
        elif settings.run.init_from is not None:
            agent.start_from(load(settings.run.init_from, torso=torso))
        run.config["steps"] = settings.run.steps
        run.write_config()
        run.cut_back(agent.steps)
        progress.start = agent.steps
        progress.say(f"going on with {path} at step {agent.steps:,}")
        return _go(agent, source, venv, settings, run, progress, started)
    finally:
        if not source.single and source.vector is None:
            venv.close()


# -------------------------------------------------------------------------------------------------- the loop


def _go(
    agent: Agent,
    source: Source,
    venv: Any,
    settings: Settings,
    run: Run,
    progress: Progress,
    started: list[int] | None = None,
) -> Agent:
    """The loop, with everything around it that must happen whatever happens in it."""
    seed = settings.run.seed
    adapter = Adapter(venv, lambda i, k: episode_seed(seed, i, k), settings.config.gamma)
    if started is not None and len(started) == adapter.n:
        adapter.started[:] = started
    if adapter.self_resetting:
        progress.say(
            "this vector environment resets itself: it is seeded once, its episodes cannot be had again singly"
        )
    stop = _Stop()
    try:
        with stop.watched(), one_thread():
            _loop(agent, adapter, source, settings, run, progress, stop)
    except BaseException as error:
        if agent.steps > 0 or run.checkpoints():
            progress.close()
            try:
                _save(agent, adapter, run)
                progress.say(f"saved at step {agent.steps:,}; go on with: covary train --resume {run.path}")
            except UsageError as other:
                progress.say(f"step {agent.steps:,} is not saved. {other}")
        if stop.signal is not None and isinstance(error, UsageError):  # the signal reached worker processes as well
            raise SystemExit(128 + stop.signal) from error
        raise
    finally:
        progress.close()
    _save(agent, adapter, run)
    if stop.signal is not None:
        progress.say(f"stopped and saved at step {agent.steps:,}; go on with: covary train --resume {run.path}")
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + stop.signal)
    plots.curve([run.path], run.path / "curve.png")
    progress.say(f"done: {run.path}")
    return agent


def _loop(
    agent: Agent, adapter: Adapter, source: Source, settings: Settings, run: Run, progress: Progress, stop: _Stop
) -> None:
    total, options = settings.run.steps, settings.run
    save_every = options.save_every or max(total // 10, 1)
    report = _Report(run, progress)
    next_save, next_eval = agent.steps + save_every, agent.steps + options.eval_every
    best = max((line["eval_return"] for line in run.lines() if "eval_return" in line), default=-np.inf)
    obs = adapter.reset()
    while agent.steps < total and stop.signal is None:
        horizon = min(agent.learner.horizon, -(-(total - agent.steps) // adapter.n))
        rollout, obs = collect(agent, adapter, obs, horizon, stop)
        if rollout is None:
            break
        losses = agent.learner.update(rollout, agent.steps / total)
        agent.steps += int(rollout.valid.sum())
        report.add(losses, adapter.episodes)
        evaluated = {}
        if options.eval_every and agent.steps >= next_eval:
            next_eval += options.eval_every
            score = float(evaluate(agent, source, options.eval_episodes, seed=options.seed).returns.mean())
            evaluated = {"eval_return": score}
            if score > best:
                best = score
                run.save(agent.steps, *_state(agent, adapter), best=True)
        if agent.steps - report.step >= LOG_EVERY or agent.steps >= total or evaluated:
            report.write(agent, obs, evaluated)
        if agent.steps >= next_save:
            next_save += save_every
            _save(agent, adapter, run)


def collect(
    agent: Agent, adapter: Adapter, obs: NDArray[np.float32], horizon: int, stop: _Stop | None = None
) -> tuple[Rollout | None, NDArray[np.float32]]:
    """Runs the policy for `horizon` steps of all environments; and the observations to go on from. None if stopped."""
    steps, latents, seen = [], [], []
    for _ in range(horizon):
        if stop is not None and stop.signal is not None:
            return None, obs
        latent, action = agent.sample(obs)
        step = adapter.step(action)
        seen.append(obs)
        latents.append(latent)
        steps.append(step)
        obs = step.obs

    def stacked(parts: list[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(parts)).to(agent.device)

    return Rollout(
        stacked(seen),
        torch.stack(latents),
        stacked([s.reward for s in steps]),
        stacked([s.discount for s in steps]),
        stacked([s.lam for s in steps]),
        stacked([s.valid for s in steps]),
        stacked([s.next_obs for s in steps]),
    ), obs


class _Stop:
    """Ctrl-C and SIGTERM, noticed between two steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

        def notice(number: int, frame: Any) -> None:
            if self.signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt  # the second Ctrl-C does not wait for a slow environment
            self.signal = number

        try:
            for s in before:
                signal.signal(s, notice)
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


class _Report:
    """Gathers what an interval brought and writes it as one line."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.step, self.count, self.episodes = progress.start, 0, 0
        self.sums: dict[str, Tensor] = {}
        self.finished: list[Episode] = []
        self.began = time.perf_counter()
        for line in run.lines():
            self.episodes = int(line.get("episodes", 0))

    def add(self, losses: dict[str, Tensor], episodes: list[Episode]) -> None:
        if losses:
            self.count += 1
            for name, value in losses.items():
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.finished += episodes
        episodes.clear()

    def write(self, agent: Agent, obs: NDArray[np.float32], extra: dict[str, float]) -> None:
        self.episodes += len(self.finished)
        record: dict[str, Any] = {"step": agent.steps, "episodes": self.episodes}
        record["return"] = float(np.mean([e.ret for e in self.finished])) if self.finished else None
        record["length"] = float(np.mean([e.length for e in self.finished])) if self.finished else None
        record |= {name: float(total) / self.count for name, total in self.sums.items()}
        record |= _spread(agent, obs) | extra
        self.run.append("metrics", record)
        rate = self.progress.update(agent.steps, record)
        seconds = time.perf_counter() - self.began
        self.run.append(
            "timing", {"step": agent.steps, "seconds": seconds, "time": time.time(), "steps_per_second": rate}
        )
        self.step, self.count, self.sums, self.finished = agent.steps, 0, {}, []
        if bad := [name for name, value in record.items() if isinstance(value, float) and not np.isfinite(value)]:
            raise _diverged(bad, agent.steps)


@torch.no_grad()
def _spread(agent: Agent, obs: NDArray[np.float32]) -> dict[str, float]:
    """Entropy of the policy at the present observations and, for Gaussian ones, the latent's standard deviation."""
    density = agent.policy(torch.from_numpy(obs).to(agent.device))
    generator = torch.Generator(agent.device).manual_seed(agent.steps)
    spread = {"entropy": float(mean_entropy(density, generator))}
    if hasattr(density, "scale"):
        spread["std"] = float(density.scale.mean())
    return spread


# ------------------------------------------------------------------------------------------------ the folder


def _state(agent: Agent, adapter: Adapter) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays, meta = agent.state()
    return arrays, meta | {"episodes_started": adapter.started.tolist()}


def _save(agent: Agent, adapter: Adapter, run: Run) -> None:
    arrays, meta = _state(agent, adapter)
    if bad := [name for name, x in arrays.items() if not np.isfinite(x).all()]:
        raise _diverged(bad, agent.steps)  # what is on the disk stays good
    run.save(agent.steps, arrays, meta)


def _diverged(names: list[str], step: int) -> UsageError:
    return UsageError(
        "Training must stay finite.",
        given=f"{', '.join(names[:3])} at step {step:,}",
        cause="a learning rate that is too high, or rewards of a very large scale",
        fix="a learning rate ten times lower; the checkpoints before this step are good",
    )


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


def _record(source: Source, settings: Settings) -> dict[str, Any]:
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
    }


def _settings_of(run: Run) -> Settings:
    """Raises UsageError where config.json lacks something or holds what no run can have."""
    c = run.config
    try:
        names = RunOptions.__dataclass_fields__
        return Settings(
            RunOptions(**{name: c[name] for name in names}),
            find(c["algo"]).Config(**c["config"]),
            PolicyConfig(**c["policy"]),
            CriticConfig(**c["critic"]),
            {},
        )
    except UsageError:
        raise
    except (KeyError, TypeError) as error:
        raise UsageError(
            "config.json must hold all settings of a run.", given=f"{run.path / 'config.json'}: {error}"
        ) from error
