"""One iteration after another: steps of the environments, then what the algorithm learns from them."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.agent import Agent
from covary.envs.adapter import Adapter
from covary.errors import UsageError
from covary.profile import Profile
from covary.types import Rollout

Floats: TypeAlias = NDArray[np.float32]
Losses: TypeAlias = dict[str, Any]  # scalars by name, summed over updates


class Stop(Protocol):
    signal: int | None


class Iterations:
    """Runs iterations of an agent on the environments behind an adapter.

    A rollout is collected into memory that is used again for the next one.
    """

    def __init__(self, agent: Agent, adapter: Adapter, total: int, stop: Stop, profile: Profile) -> None:
        self.agent, self.adapter, self.total, self.stop, self.profile = agent, adapter, total, stop, profile
        if profile.on:
            agent.learner.lap = profile.lap
        self.online = agent.fast is not None and agent.learner.online
        if adapter.n != agent.config.n_envs:  # what is kept for each environment has no place for others
            raise UsageError(
                "A run goes on with as many environments as it was started with.",
                given=f"{adapter.n}; started with {agent.config.n_envs}",
            )
        t, n, o = agent.learner.horizon, adapter.n, adapter.encode.size
        self.obs, self.next_obs = np.empty((2, t, n, o), np.float32)
        self.tables = np.empty((t, *adapter.usual.shape), np.float32)
        self.latents: NDArray[Any] = np.empty(0)

    def __call__(self, obs: Floats, until: float) -> tuple[Floats, Losses, int]:
        """One iteration; or as many as reach this number of steps, where each is short and runs on the fast path.

        Returns the observations to go on from, losses summed over the updates, and how many these were.
        """
        return self._online(obs, until) if self.online else self._rollout(obs)

    def _rollout(self, obs: Floats) -> tuple[Floats, Losses, int]:
        agent = self.agent
        horizon = min(agent.learner.horizon, -(-(self.total - agent.steps) // self.adapter.n))
        n = self.adapter.n
        noise = agent.next_noise(n)[None] if agent.learner.online else agent.noise(horizon, n)
        draw = agent.sample if agent.fast is None else agent.fast.act
        for t in range(horizon):
            if self.stop.signal is not None:
                return obs, {}, 0
            latent, action = draw(obs, noise[t])
            self.profile.lap("inference")
            step = self.adapter.step(action)
            if len(self.latents) < horizon:
                self.latents = np.empty((horizon, *latent.shape), latent.dtype)
            self.obs[t], self.latents[t], self.tables[t], self.next_obs[t] = obs, latent, step.table, step.next_obs
            obs = step.obs
            self.profile.lap("adapter")

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array[:horizon]).to(agent.device)

        reward, discount, lam, valid, _ = tensor(self.tables).unbind(1)
        rollout = Rollout(tensor(self.obs), tensor(self.latents), reward, discount, lam, valid, tensor(self.next_obs))
        losses = agent.learner.update(rollout, agent.steps / self.total)
        agent.steps += int(rollout.valid.sum())
        self.profile.lap("update")
        return obs, losses, int(bool(losses))

    def _online(self, obs: Floats, until: float) -> tuple[Floats, Losses, int]:
        """A step and an update, again and again."""
        agent, adapter, stop, profile = self.agent, self.adapter, self.stop, self.profile
        fast, n = agent.fast, adapter.n
        assert fast is not None
        sums = np.zeros(3)
        adapter.trusting = True  # the kernel looks at every number before it learns from it
        while agent.steps < until and stop.signal is None:
            latent, action = fast.act(obs, agent.next_noise(n))
            profile.lap("inference")
            step = adapter.step(action)
            profile.lap("adapter")
            if not fast.learn(obs, latent, step.table, step.next_obs, sums):
                adapter.complain(step)
            agent.steps += n if adapter.always else int(step.valid.sum())
            obs = step.obs
            profile.lap("update")
        actor_loss, critic_loss, updates = sums.tolist()
        return obs, {"actor_loss": actor_loss, "critic_loss": critic_loss} if updates else {}, int(updates)
