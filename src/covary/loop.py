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

from covary import fast, plots, snapshot
from covary.agent import Agent
from covary.device import DeviceIterations, advice, tensors_behind
from covary.envs.adapter import Adapter, Episode, episode_seed
from covary.envs.faults import NonFiniteStep
from covary.envs.sources import Source
from covary.errors import UsageError
from covary.evaluation import evaluate
from covary.guard import NonFinite
from covary.iterations import Iterations
from covary.nets import threads_of_torch
from covary.profile import Profile
from covary.progress import Progress
from covary.report import Report, diverged
from covary.runs import Run, newest_checkpoint, not_finite
from covary.settings import Settings
from covary.watchdog import Seen, Watchdog

ROLLBACKS = 5  # at half the learning rate each time
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
    taken: tuple[Any, dict[str, Any]] | None = None,
) -> Agent:
    """The loop, with everything around it that must happen whatever happens in it.

    taken: what a checkpoint holds, to go on from.
    """
    profile = Profile(settings.run.profile)
    seed = settings.run.seed
    adapter = Adapter(venv, lambda i, k: episode_seed(seed, i, k), settings.config.gamma)
    adapter.restart_workers, adapter.say = settings.run.restart_workers, progress.say
    profile.watch(adapter)
    if adapter.self_resetting:
        progress.say(
            "this vector environment resets itself: it is seeded once, its episodes cannot be had again singly"
        )
    if (tensors := tensors_behind(adapter)) is not None and (hint := advice(agent, tensors)):
        progress.say(hint)
    stop, first = _Stop(), agent.steps
    loop = _Loop(agent, adapter, source, settings, run, progress, stop, profile, threads)
    try:
        with stop.watched(), threads_of_torch(threads):
            try:
                loop.begin(taken)
                loop.go()
            except KeyboardInterrupt:
                # The first, during an evaluation, ends like any other stop; a second one may come at any moment.
                if stop.signal is None or not loop.begun or not loop.iterate.settled:
                    raise
            loop.close()
    except BaseException as error:
        loop.rescue()
        if stop.signal is not None and isinstance(error, UsageError):  # the signal reached worker processes as well
            raise SystemExit(128 + stop.signal) from error
        raise
    finally:
        progress.close()
        fast.detach(agent)  # whoever gets the agent finds nothing in it that he did not know
        agent.learner.lap = None
    if profile.on:
        run.write("profile", profile.record(agent.steps - first))
        progress.say(profile.table(agent.steps - first))
    if stop.signal is not None:
        progress.say(f"stopped and saved at step {agent.steps:,}; go on with: covary train --resume {run.named}")
        if stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + stop.signal)
    draw(run)
    progress.say(f"done: {run.named}")
    return agent


class _Loop:
    """Iterations, and what is due between two of them."""

    def __init__(
        self,
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
        self.agent, self.adapter, self.source, self.options = agent, adapter, source, settings.run
        self.run, self.progress, self.stop, self.profile = run, progress, stop, profile
        self.save_every = self.options.save_every or max(self.options.steps // 10, 1)
        self.begun = False
        self.whole: int | None = None  # steps before the last rollout, where that is shorter than the others
        self.told_of_skipped = False
        agent.learner.on_nonfinite = "skip" if self.options.on_nonfinite == "skip" else "stop"
        adapter.forgiving = self.options.on_nonfinite == "skip"
        self._start_over()
        self.watchdog = Watchdog(agent, settings, threads, progress.say, lambda line: run.append("warnings", line))
        self.looked = time.perf_counter()

    def _start_over(self) -> None:
        """Everything that a checkpoint fills."""
        agent, adapter, profile = self.agent, self.adapter, self.profile
        adapter.episodes.clear()
        adapter.left_out.clear()
        by_step = agent.learner.online or agent.learner.judges_actions or agent.correlated
        kind = Iterations if tensors_behind(adapter) is None or by_step else DeviceIterations
        self.iterate: Any = kind(agent, adapter, self.options.steps, self.stop, profile)
        self.iterate.before_last = self.before_last
        self.report = Report(self.run, self.progress, self._look)
        self.best = self.run.best_score()
        self.next_eval = _next(agent.steps, self.options.eval_every)
        self.next_save = _next(agent.steps, self.save_every)

    def begin(self, snapshot_taken: tuple[Any, dict[str, Any]] | None) -> None:
        """Starts the episodes, or goes on with those of a checkpoint."""
        agent, adapter = self.agent, self.adapter
        if agent.learner.memory is not None:
            self.progress.say(agent.learner.memory.open())
        if snapshot_taken is not None and "run" in snapshot_taken[1]:
            snapshot.put_back(*snapshot_taken, agent, adapter, self.iterate, self.report, self.progress.say)
            self.next_eval = _next(self.report.step, self.options.eval_every)
        else:
            if snapshot_taken is not None:  # of the first format, which did not say where the environments stood
                started = snapshot_taken[1].get("episodes_started", ())
                if len(started) == adapter.n:
                    adapter.started[:] = started
                self.progress.say("this checkpoint is of an earlier version: its episodes start anew")
            self.iterate.obs = adapter.reset()
            snapshot.take(
                agent, adapter, self.iterate, self.report
            )  # what cannot be kept is told before the first step
        self.begun = True
        self.watchdog.said |= {str(line.get("rule")) for line in self.run.lines("warnings")}
        self.watchdog.start()
        self.profile.lap("start-up")

    def go(self) -> None:
        """Until the run is over or stopped."""
        agent, total = self.agent, self.options.steps
        while True:
            self._between()
            if agent.steps >= total or self.stop.signal is not None:
                return
            until = min(total, self.next_save, self.next_eval, self.report.step + LOG_EVERY)
            try:
                self.iterate(until, self.report.sums)
            except (NonFinite, NonFiniteStep) as error:
                self._keep(error)
                if self.options.on_nonfinite != "rollback" or not self._roll_back(error):
                    raise
            finally:
                self._gather()

    def _gather(self) -> None:
        self.report.add(self.adapter.episodes)

    def _between(self) -> None:
        """What is due: an evaluation, a line of metrics, a checkpoint."""
        agent, report = self.agent, self.report
        self._tell_of_skipped()
        evaluated = {}
        if agent.steps >= self.next_eval:
            evaluated = {"eval_return": self._evaluate()}
            self.next_eval = _next(agent.steps, self.options.eval_every)
        if agent.steps - report.step >= LOG_EVERY or evaluated:
            report.write(agent, self.iterate.obs, evaluated)
        # The last checkpoint is `close`'s: one that says that the run is over must not stand before its last line does.
        if agent.steps >= self.next_save and agent.steps < self.options.steps:
            self.next_save = _next(agent.steps, self.save_every)
            self.save()
        self.profile.lap("logging")

    # ---- numbers that are not finite

    def _keep(self, error: NonFinite | NonFiniteStep) -> None:
        """Leaves what was met where somebody can look at it: nonfinite/STEP.json, and the numbers in STEP.npz."""
        place = self.run.path / "nonfinite"
        try:
            place.mkdir(exist_ok=True)
            np.savez(place / f"{self.agent.steps}.npz", **error.batch)
            self.run.write(
                f"nonfinite/{self.agent.steps}", {"step": self.agent.steps, **error.where, "told": str(error)}
            )
        except (OSError, UsageError) as other:
            self.progress.say(f"what was met at step {self.agent.steps:,} could not be kept: {other}")

    def _tell_of_skipped(self) -> None:
        """Says, and keeps, the first thing that was left out."""
        learner, adapter = self.agent.learner, self.adapter
        errors = [*adapter.left_out, *([learner.nonfinite] if learner.nonfinite is not None else [])]
        learner.skipped += len(adapter.left_out)
        adapter.left_out.clear()
        learner.nonfinite = None
        if errors and not self.told_of_skipped:
            self.told_of_skipped = True
            self._keep(errors[0])
            self.progress.say(f"left out, and counted as `skipped` from now on: {errors[0]}")

    def _roll_back(self, error: Exception) -> bool:
        """Goes on from the last checkpoint at half the learning rate; False where that was tried often enough."""
        agent, adapter, run = self.agent, self.adapter, self.run
        first = next(iter(agent.learner.optimizers.values()))
        if first.scale <= 0.5**ROLLBACKS or not run.checkpoints():
            return False
        rates = {name: each.scale / 2 for name, each in agent.learner.optimizers.items()}
        place, arrays, meta = newest_checkpoint(run.path, self.progress.say)
        if "run" not in meta:  # of an earlier version
            return False
        agent.restore(arrays, meta)
        run.cut_back(int(meta["run"]["report"]["step"]), agent.steps)
        self._start_over()
        snapshot.put_back(arrays, meta, agent, adapter, self.iterate, self.report, self.progress.say)
        for name, rate in rates.items():
            agent.learner.optimizers[name].scale = rate
        self.progress.say(
            f"{error}\nback to {place.name}, and on at {next(iter(rates.values())):g} times the learning rate"
        )
        return True

    def _look(self, record: dict[str, Any], obs: Any, finished: list[Episode]) -> None:
        """Shows the watchdog a line of metrics and what went by since the one before."""
        adapter, now = self.adapter, time.perf_counter()
        limits = sum(getattr(env, "limits", 0) for env in adapter.envs or ())
        actions = adapter.history.latest()
        self.watchdog.look(
            record,
            Seen(
                actions,
                np.asarray(obs.cpu() if hasattr(obs, "cpu") else obs),
                finished,
                adapter.seconds,
                now - self.looked,
                limits,
            ),
        )
        self.looked, adapter.seconds = now, 0.0

    def _evaluate(self) -> float:
        options, stop = self.options, self.stop
        seed = _SELECTION + options.seed
        with snapshot.generators_kept_on_error():  # it will be begun again
            found = evaluate(
                self.agent, self.source, options.eval_episodes, seed=seed, stopped=lambda: stop.signal is not None
            )
        score = float(found.returns.mean())
        if score > self.best:
            self.best = score
            arrays, meta = self.agent.state()
            self.run.save(self.agent.steps, arrays, meta | {"eval_return": score}, best=True)
        return score

    def save(self) -> None:
        """A checkpoint. Raises UsageError where it holds what is not finite, or cannot be written."""
        self._gather()
        arrays, meta = snapshot.take(self.agent, self.adapter, self.iterate, self.report)
        if bad := [name for name, x in arrays.items() if not_finite(x) is not None]:
            raise diverged(bad, self.agent.steps)  # what is on the disk stays good
        meta["run"]["whole"] = self.whole
        self.run.save(self.agent.steps, arrays, meta)

    def before_last(self) -> None:
        """A run that is extended goes on from before its last, shorter rollout was learned from."""
        self.save()
        self.whole = self.agent.steps

    def close(self) -> None:
        """The last line and the last checkpoint."""
        self.report.close(self.agent, self.iterate.obs)
        self.save()

    def rescue(self) -> None:
        """Saves what there is, whatever happened."""
        agent, say = self.agent, self.progress.say
        self.progress.close()
        if not self.begun or not (self.adapter.steps or agent.steps):  # nothing was done yet
            return
        if not self.iterate.settled:
            what = f"covary train --resume {self.run.named}" if self.run.checkpoints() else "there is none yet"
            say(f"stopped in the middle of an update; from the last checkpoint: {what}")
            return
        try:
            self.close()
            say(f"saved at step {agent.steps:,}; go on with: covary train --resume {self.run.named}")
        except Exception as other:  # what went wrong first is what the user shall see
            say(f"step {agent.steps:,} is not saved. {other}")


def _next(step: int, every: int) -> float:
    """The first multiple of `every` after `step`, so that a stop in between does not move it; never, where it is 0."""
    return (step // every + 1) * every if every else math.inf


def draw(run: Run) -> None:
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
