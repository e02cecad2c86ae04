"""What is chosen for a run by looking at the machine and the agent, and is then kept: a resumed run repeats it."""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from covary import algorithms, fast
from covary.agent import Agent
from covary.envs.sources import Source
from covary.envs.vectors import Guarded, InProcess, build, cores
from covary.fast import cache
from covary.nets import threads_of_torch
from covary.settings import RunOptions


class Chosen(NamedTuple):
    """As config.json keeps it."""

    path: str  # "fast" or "general"
    why: str  # not the fast one; empty where it is
    threads: int  # of torch, while the run goes on
    processes: int = 1  # that step environments, this one included

    def line(self) -> str:
        """For the log."""
        path = f"fast path ({_kernels()})" if self.path == "fast" else f"general path ({self.why})"
        spread = f", environments in {self.processes} processes" if self.processes > 1 else ""
        return f"{path}, {self.threads} thread{'s' * (self.threads != 1)}{spread}"


def _kernels() -> str:
    kept = cache.folder() is not None
    return "kernels" if kept else "kernels, compiled for this run alone: no cache folder can be written"


def choose(agent: Agent, wanted: bool, before: Any = None) -> Chosen:
    """Puts the agent on the fast path where that is wanted and possible, and chooses torch's threads.

    Args:
        before: what config.json kept of an earlier choice, to be repeated.
    """
    kept: dict[str, Any] = before if isinstance(before, dict) else {}
    threads = kept.get("threads")
    if not wanted:
        why = "fast is off"
    elif kept.get("path") == "general" and not str(kept.get("why")).startswith("on "):  # another device may do it now
        why = str(kept.get("why"))
    elif agent.device.type != "cpu":
        why = f"on {agent.device.type}"
    else:
        why = fast.attach(agent) or ""
    path = "general" if why else "fast"
    if not (isinstance(threads, int) and 0 < threads <= 1024) or "OMP_NUM_THREADS" in os.environ:
        threads = _threads(agent, path)
    return Chosen(path, why, threads)


WORTH = 150e-6  # seconds that a step of all environments must save before others are asked to help


def environments(
    source: Source, n_envs: int, options: RunOptions, before: Any = None, device: str = "cpu"
) -> tuple[Any, int]:
    """The environments of a run, and how many processes step them.

    Where that is left open, an environment of its own is timed for a tenth of a second; none that training will use is
    stepped, and the bits do not depend on the outcome.

    Args:
        before: what config.json kept of an earlier choice, to be repeated.
        device: where the agent is, for environments that can live there as well.
    """
    kept: dict[str, Any] = before if isinstance(before, dict) else {}
    if options.vectorization == "auto" and algorithms.find(options.algo).Learner.online:
        device = "cpu"  # tensors that are fetched at every step are slower than no tensors
    venv = build(source, n_envs, options.vectorization, seed=options.seed, device=device)
    if options.vectorization != "auto" or type(venv) is not InProcess or n_envs == 1:
        return venv, len(getattr(venv, "processes", [])) + 1
    processes = kept.get("processes")
    if not (isinstance(processes, int) and 0 < processes <= 1024):
        # A process that is spawned imports the script again, which not every script is written for.
        forks = multiprocessing.get_context().get_start_method() == "fork"
        processes = min(cores(), n_envs) if forks else 1
        if processes > 1 and _step_seconds(source) * n_envs * (1 - 1 / processes) < WORTH:
            processes = 1
    if processes == 1 or cores() == 1 or multiprocessing.current_process().daemon:  # whom Python lets have no children
        return venv, 1
    venv.close()
    return build(source, n_envs, "async", processes), processes


def _step_seconds(source: Source) -> float:
    """What a step takes, the median of some; 0 where it raises, which training will say better."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (some environments draw from it)
    try:
        with torch.random.fork_rng(devices=[]), threads_of_torch(1):
            return _median_step(Guarded(source.make(), 0))
    except Exception:
        return 0.0
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _median_step(env: Any) -> float:
    took: list[float] = []
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        began = time.perf_counter()
        while len(took) < 200 and time.perf_counter() - began < 0.1:
            action, before = env.action_space.sample(), time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            took.append(time.perf_counter() - before)
            if terminated or truncated:
                env.reset()
    finally:
        env.close()
    return statistics.median(took)


SMALL = 1e8  # floating-point operations of a gradient, below which no second thread is worth its waiting
ENOUGH = 1.5  # times faster, or more threads are not worth the cores they take


def _threads(agent: Agent, path: str) -> int:
    """How many threads a gradient of this agent is computed fastest with: 1, or all that torch would take.

    The number that the user set is kept. Nothing is stepped and nothing learned.
    """
    most = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or most == 1:
        return most
    if path == "fast" or agent.device.type != "cpu" or multiprocessing.parent_process() is not None:
        return 1  # a forked process has no other threads, and would wait for them for ever
    if agent.learner.judges_actions:
        return 1
    networks = (agent.policy.torso, agent.learner.critic)
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    batch = min(getattr(agent.config, "minibatch", agent.config.n_envs), agent.learner.horizon * agent.config.n_envs)
    if 6 * batch * sum(p.numel() for p in parameters) < SMALL:
        return 1  # without a trial, whose outcome may differ from run to run, and with it the last bits
    x = torch.zeros(batch, agent.encode.size)

    def seconds() -> float:
        """The fastest of a few, so that another process does not decide."""
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            loss = sum(network(x).sum() for network in networks)
            if parameters:
                torch.autograd.grad(loss, parameters, allow_unused=True)
            best = min(best, time.perf_counter() - began)
        return best

    try:
        with torch.random.fork_rng(devices=[]):
            torch.set_num_threads(1)
            one = seconds()
            torch.set_num_threads(most)
            return most if seconds() * ENOUGH < one else 1
    finally:
        torch.set_num_threads(most)
