"""The loop, and everything around it that must happen whatever happens in it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covary import fast, plots
from covary.agent import Agent
from covary.device import DeviceIterations, advice, tensors_behind
from covary.envs.adapter import Adapter, Episode, episode_seed
from covary.envs.sources import Source
from covary.errors import UsageError
from covary.evaluation import evaluate
from covary.iterations import Iterations, Losses
from covary.nets import threads_of_torch
from covary.policies import mean_entropy
from covary.profile import Profile
from covary.progress import Progress
from covary.runs import Run
from covary.settings import Settings
from covary.watchdog import Seen, Watchdog

LOG_EVERY = 1000  # transitions between two lines of metrics, at the least
_SELECTION = 2**40  # the best checkpoint is chosen on episodes that no seed of `covary eval` comes near


def run_training(
    agent: Agent,
    source: Source,
    venv: Any,
    settings: Settings,
    run: Run,
    progress: Progress,
    threads: int = 1,
    started: list[int] | None = None,
) -> Agent:
    """The loop, with everything around it that must happen whatever happens in it."""
    profile = Profile(settings.run.profile)
    seed = settings.run.seed
    adapter = Adapter(venv, lambda i, k: episode_seed(seed, i, k), settings.config.gamma)
    if started is not None and len(started) == adapter.n:
        adapter.started[:] = started
    profile.watch(adapter)
    if adapter.self_resetting:
        progress.say(
            "this vector environment resets itself: it is seeded once, its episodes cannot be had again singly"
        )
    if (tensors := tensors_behind(adapter)) is not None and (hint := advice(agent, tensors)):
        progress.say(hint)
    stop, first = _Stop(), agent.steps
    try:
        with stop.watched(), threads_of_torch(threads):
            try:
                _loop(agent, adapter, source, settings, run, progress, stop, profile, threads)
            except KeyboardInterrupt:
                if stop.signal is None:
                    raise  # the second Ctrl-C; the first, during an evaluation, ends like any other stop
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
        fast.detach(agent)  # whoever gets the agent finds nothing in it that he did not know
        agent.learner.lap = None
    _save(agent, adapter, run)
    if profile.on:
        run.write("profile", profile.record(agent.steps - first))
        progress.say(profile.table(agent.steps - first))
    if stop.signal is not None:
        progress.say(f"stopped and saved at step {agent.steps:,}; go on with: covary train --resume {run.path}")
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + stop.signal)
    _draw(run)
    progress.say(f"done: {run.path}")
    return agent


def _loop(
    agent: Agent,
    adapter: Adapter,
    source: Source,
    settings: Settings,
    run: Run,
    progress: Progress,
    stop: _Stop,
    profile: Profile,
    threads: int,
) -> None:
    total, options = settings.run.steps, settings.run
    save_every = options.save_every or max(total // 10, 1)
    watchdog = Watchdog(agent, settings, threads, progress.say, lambda line: run.append("warnings", line))
    watchdog.start()
    report = _Report(run, progress, adapter, watchdog)
    next_save, next_eval = _next(agent.steps, save_every), _next(agent.steps, options.eval_every)
    best = max((line["eval_return"] for line in run.lines() if "eval_return" in line), default=-np.inf)
    tensors = tensors_behind(adapter)
    kind = Iterations if tensors is None or agent.learner.online else DeviceIterations
    iterate: Any = kind(agent, adapter, total, stop, profile)
    obs = adapter.reset()
    profile.lap("start-up")
    while agent.steps < total and stop.signal is None:
        obs, losses, updates = iterate(obs, min(total, next_save, next_eval, report.step + LOG_EVERY))
        report.add(losses, updates, adapter.episodes)
        evaluated = {}
        if agent.steps >= next_eval:
            next_eval = _next(agent.steps, options.eval_every)
            score = float(
                evaluate(
                    agent,
                    source,
                    options.eval_episodes,
                    seed=_SELECTION + options.seed,
                    stopped=lambda: stop.signal is not None,
                ).returns.mean()
            )
            evaluated = {"eval_return": score}
            if score > best:
                best = score
                run.save(agent.steps, *_state(agent, adapter), best=True)
        if agent.steps - report.step >= LOG_EVERY or agent.steps >= total or evaluated:
            report.write(agent, obs, evaluated)
        if agent.steps >= next_save:
            next_save = _next(agent.steps, save_every)
            _save(agent, adapter, run)
        profile.lap("logging")
    if stop.signal is not None and agent.steps > report.step:
        report.write(agent, obs, {})  # what ended since the last line is not lost


def _next(step: int, every: int) -> float:
    """The first multiple of `every` after `step`, so that a stop in between does not move it; never, where it is 0."""
    return (step // every + 1) * every if every else math.inf


def _draw(run: Run) -> None:
    """The run's curve, by another process unless Matplotlib is here anyway: it would be the largest thing in memory."""
    out = run.path / "curve.png"
    command = [sys.executable, "-P", "-m", "covary", "plot", str(run.path), "-o", str(out)]
    if "matplotlib" in sys.modules or subprocess.run(command, capture_output=True, check=False).returncode:
        plots.curve([run.path], out)


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

    def __init__(self, run: Run, progress: Progress, adapter: Adapter, watchdog: Watchdog) -> None:
        self.run, self.progress, self.adapter, self.watchdog = run, progress, adapter, watchdog
        self.looked = time.perf_counter()
        self.step, self.count, self.episodes = progress.start, 0, 0
        self.sums: Losses = {}
        self.finished: list[Episode] = []
        self.began = time.perf_counter()
        for line in run.lines():
            self.episodes = int(line.get("episodes", 0))

    def add(self, losses: Losses, updates: int, episodes: list[Episode]) -> None:
        """losses: summed over this many updates."""
        self.count += updates
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.finished += episodes
        episodes.clear()

    def write(self, agent: Agent, obs: Any, extra: dict[str, float]) -> None:
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
        self.watchdog.look(record, self._seen(obs))
        self.step, self.count, self.sums, self.finished = agent.steps, 0, {}, []
        if bad := [name for name, value in record.items() if isinstance(value, float) and not np.isfinite(value)]:
            raise _diverged(bad, agent.steps)

    def _seen(self, obs: Any) -> Seen:
        a, now = self.adapter, time.perf_counter()
        limits = sum(getattr(env, "limits", 0) for env in a.envs or ())
        actions = np.concatenate([*a.recent]) if a.recent else np.zeros(0)
        seen = Seen(actions, np.asarray(obs), self.finished, a.seconds, now - self.looked, limits)
        self.looked, a.seconds = now, 0.0
        return seen


@torch.no_grad()
def _spread(agent: Agent, obs: Any) -> dict[str, float]:
    """Entropy of the policy at the present observations and, for Gaussian ones, the latent's standard deviation."""
    density = agent.policy(torch.as_tensor(obs, device=agent.device))
    generator = torch.Generator(agent.device).manual_seed(agent.steps)
    spread = {"entropy": float(mean_entropy(density, generator))}
    if hasattr(density, "scale"):
        spread["latent_std"] = float(density.scale.mean())
    return spread


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
