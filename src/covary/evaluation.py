"""How good a policy is: episodes with fixed seeds, whoever runs them and however often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covary.agent import Agent
from covary.envs.adapter import Adapter
from covary.envs.sources import resolve
from covary.envs.spaces import check_spaces
from covary.envs.vectors import build
from covary.errors import UsageError, check_sizes
from covary.nets import threads_of_torch


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns (E,) and lengths (E,) of E episodes; of each info key asked for, every step's value."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    info: dict[str, NDArray[np.float64]]

    def summary(self) -> dict[str, float | int]:
        """What `covary eval --json` prints."""
        return {
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "episodes": len(self.returns),
            "length_mean": float(self.lengths.mean()),
        }


def evaluate(
    agent: Agent,
    env: Any,
    episodes: int = 100,
    *,
    seed: int = 0,
    deterministic: bool = True,
    info: tuple[str, ...] = (),
    n_envs: int = 8,
    max_steps: int = 100_000,
    stopped: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Runs the agent for `episodes` episodes, the e-th of which always has the same seed.

    Args:
        env: whatever `covary.train` takes.
        deterministic: act by the density's median; else by samples.
        info: numeric keys of the environment's info to collect at every step.
        n_envs: environments stepped together; each has its share of the episodes, so that short ones count no more.
        max_steps: the longest an episode may last.
        stopped: asked after every step; evaluation ends with KeyboardInterrupt once it is true.

    Raises:
        UsageError: an environment with other spaces than the agent's, an episode that does not end, an info key that
            never came.
    """
    check_sizes("episodes", (episodes,))
    if seed < 0:
        raise UsageError("seed must be a whole number, 0 or above.", given=seed)
    source = resolve(env)
    venv = build(source, min(n_envs, episodes) if not source.single else 1, seed=evaluation_seed(seed, 0))
    try:
        with threads_of_torch():
            return _run(agent, venv, episodes, seed, deterministic, info, max_steps, stopped)
    finally:
        if not source.single and source.vector is None:
            venv.close()


def evaluation_seed(seed: int, episode: int) -> int:
    """The seed of the e-th evaluation episode, apart from all that training uses."""
    return int(np.random.SeedSequence((seed, 0xE7A1, episode)).generate_state(1)[0])


def walk(agent: Agent, env: Any, *, seed: int = 0, max_steps: int = 100_000) -> NDArray[np.float32]:
    """(T, O) the observations, encoded, of the first episode that `evaluate` runs, acting deterministically; of one
    that does not end, the first `max_steps`.

    Raises:
        UsageError: an environment with other spaces than the agent's.
    """
    source = resolve(env)
    venv = build(source, 1, seed=evaluation_seed(seed, 0))
    try:
        check_spaces(agent.observation_space, agent.action_space, venv)
        adapter = Adapter(venv, lambda _, episode: evaluation_seed(seed, episode))
        seen = [adapter.reset()[0]]
        while True:
            with torch.no_grad():
                density = agent.policy(torch.from_numpy(seen[-1][None]).to(agent.device))
            step = adapter.step(density.deterministic_action.cpu().numpy())
            if adapter.episodes or len(seen) >= max_steps:
                return np.stack(seen)
            seen.append(step.obs[0])
    finally:
        if not source.single and source.vector is None:
            venv.close()


def _run(
    agent: Agent,
    venv: Any,
    episodes: int,
    seed: int,
    deterministic: bool,
    info: tuple[str, ...],
    max_steps: int,
    stopped: Callable[[], bool],
) -> Evaluation:
    check_spaces(agent.observation_space, agent.action_space, venv)
    n = venv.num_envs

    adapter = Adapter(venv, lambda env, episode: evaluation_seed(seed, env + n * episode), wanted=info)
    quota = np.array([len(range(i, episodes, n)) for i in range(n)])
    done = np.zeros(n, np.int64)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    seen: dict[str, list[NDArray[np.float64]]] = {key: [] for key in info}
    generator = agent.learner.generator
    before = generator.get_state()  # evaluating must not change how training goes on
    generator.manual_seed(seed)
    try:
        obs = adapter.reset()
        while (done < quota).any():
            if stopped():
                raise KeyboardInterrupt
            if deterministic:
                with torch.no_grad():
                    density = agent.policy(torch.from_numpy(obs).to(agent.device))
                    action = density.deterministic_action.cpu().numpy()
            else:
                _, action = agent.sample(obs)
            step = adapter.step(action)
            _gather(seen, step.info, (done < quota) & (step.valid > 0))
            for episode in adapter.episodes:
                i = episode.env
                if done[i] < quota[i]:
                    returns[i + n * done[i]], lengths[i + n * done[i]] = episode.ret, episode.length
                    done[i] += 1
            adapter.episodes.clear()
            if adapter.longest > max_steps:
                raise UsageError(
                    f"An episode must end within max_steps={max_steps:,} steps to be evaluated.",
                    given="one that did not",
                    cause="an environment without a time limit",
                    fix="gymnasium.wrappers.TimeLimit, or max_episode_steps where it is registered",
                )
            obs = step.obs
    finally:
        generator.set_state(before)
    for key in info:
        if not seen[key]:
            raise UsageError("info must name a numeric key of the environment's info.", given=repr(key))
    return Evaluation(returns, lengths, {k: np.concatenate(v) if v else np.zeros(0) for k, v in seen.items()})


def _gather(seen: dict[str, list[NDArray[np.float64]]], info: dict[str, Any], counts: NDArray[np.bool_]) -> None:
    """Takes each key's numbers from the environments that count and reported one; at an episode's end in a vector that
    resets itself at once, they stand in final_info."""
    for key, parts in seen.items():
        for place in (info, info.get("final_info", {})):
            if key in place:
                reported = place.get(f"_{key}", np.ones(len(counts), bool))
                parts.append(np.asarray(place[key], np.float64)[counts & reported])
