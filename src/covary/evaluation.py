"""How good a policy is: episodes with fixed seeds, whoever runs them and however often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covary.agent import Agent
from covary.envs.adapter import Adapter
from covary.envs.sources import resolve
from covary.envs.vectors import build
from covary.errors import UsageError, check_sizes
from covary.nets import one_thread


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
) -> Evaluation:
    """Runs the agent for `episodes` episodes, the e-th of which always has the same seed.

    Args:
        env: whatever `covary.train` takes.
        deterministic: act by the density's median; else by samples.
        info: numeric keys of the environment's info to collect at every step.
        n_envs: environments stepped together; each has its share of the episodes, so that short ones count no more.

    Raises:
        UsageError: an environment with other spaces than the agent's.
    """
    check_sizes("episodes", (episodes,))
    if seed < 0:
        raise UsageError("seed must be a whole number, 0 or above.", given=seed)
    source = resolve(env)
    venv = build(source, min(n_envs, episodes) if not source.single else 1)
    try:
        with one_thread():
            return _run(agent, venv, episodes, seed, deterministic, info)
    finally:
        if not source.single and source.vector is None:
            venv.close()


def evaluation_seed(seed: int, episode: int) -> int:
    """The seed of the e-th evaluation episode, apart from all that training uses."""
    return int(np.random.SeedSequence((seed, 0xE7A1, episode)).generate_state(1)[0])


def _run(agent: Agent, venv: Any, episodes: int, seed: int, deterministic: bool, info: tuple[str, ...]) -> Evaluation:
    check_spaces(agent, venv)
    n = venv.num_envs

    adapter = Adapter(venv, lambda env, episode: evaluation_seed(seed, env + n * episode))
    quota = np.array([len(range(i, episodes, n)) for i in range(n)])
    done = np.zeros(n, np.int64)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    seen: dict[str, list[NDArray[np.float64]]] = {key: [] for key in info}
    generator_state = agent.learner.generator.get_state()  # evaluating must not change how training goes on
    agent.learner.generator.manual_seed(seed)
    obs = adapter.reset()
    while (done < quota).any():
        if deterministic:
            with torch.no_grad():
                density = agent.policy(torch.from_numpy(obs).to(agent.device))
                action = density.deterministic_action.cpu().numpy()
        else:
            _, action = agent.sample(obs)
        step = adapter.step(action)
        counts = (done < quota) & (step.valid > 0)
        for key in info:
            if key in step.info:
                seen[key].append(np.asarray(step.info[key], np.float64)[counts])
        for episode in adapter.episodes:
            i = episode.env
            if done[i] < quota[i]:
                returns[i + n * done[i]], lengths[i + n * done[i]] = episode.ret, episode.length
                done[i] += 1
        adapter.episodes.clear()
        obs = step.obs
    agent.learner.generator.set_state(generator_state)
    return Evaluation(returns, lengths, {k: np.concatenate(v) if v else np.zeros(0) for k, v in seen.items()})


def check_spaces(agent: Agent, venv: Any) -> None:
    """Raises UsageError unless the environment has the spaces the agent was made for."""
    for name, mine, its in (
        ("observation", agent.observation_space, venv.single_observation_space),
        ("action", agent.action_space, venv.single_action_space),
    ):
        if mine != its:
            raise UsageError(
                f"An agent runs in environments with the {name} space it was trained on.",
                given=f"{its}; trained on {mine}",
                cause="another environment, or another version of it",
            )
