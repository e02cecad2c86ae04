"""One iteration after another: steps of the environments, then what the algorithm learns from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary import guard
from covary.agent import Agent
from covary.envs.adapter import LAM, Adapter
from covary.errors import UsageError
from covary.profile import Profile
from covary.types import Rollout

Floats: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = dict[str, NDArray[Any]]
Losses: TypeAlias = dict[str, tuple[Any, int]]  # scalars by name: their sum, and over how many updates


class Stop(Protocol):
    signal: int | None


class Iterations:
    """Runs iterations of an agent on the environments behind an adapter.

    A rollout is collected into memory that is used again for the next one.

    Attributes:
        obs: (N, O) where the next step starts.
        before_last: called before a last rollout that is shorter than the others is learned from.
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
        self.obs: Floats = np.zeros((n, o), np.float32)
        self.before_last: Callable[[], None] = lambda: None
        # the rollout: what was seen, where it led, and the tables of its steps
        self.seen, self.led = np.empty((2, t, n, o), np.float32)
        self.tables = np.empty((t, *adapter.usual.shape), np.float32)
        self.latents: NDArray[Any] = np.empty(0)
        self.noise: NDArray[Any] = np.empty(0)  # of all its steps
        self.t = 0  # those that are collected
        self._settled = adapter.steps  # steps of the adapter that are in the rollout or learned from

    def __call__(self, until: float, sums: Losses) -> None:
        """As many iterations as reach this number of steps, or fewer where there is something to tell.

        Adds each update's losses to `sums`.
        """
        if self.online:
            self._online(until, sums)
            return
        agent, left_out = self.agent, self.adapter.left_out
        while self.stop.signal is None and agent.steps < until and agent.learner.nonfinite is None and not left_out:
            self._rollout(sums)

    def _rollout(self, sums: Losses) -> None:
        agent, n, whole = self.agent, self.adapter.n, self.agent.learner.horizon
        horizon, ahead = min(whole, -(-(self.total - agent.steps) // n)), agent.ahead
        if not len(self.noise):
            self.noise = agent.next_noise(n)[None] if agent.learner.online else agent.noise_in_time(whole, n)
        draw = agent.sample if agent.fast is None else agent.fast.act
        try:
            while self.t < horizon and self.stop.signal is None:
                t = self.t
                latent, action = draw(self.obs, agent.learner.explored(self.noise[t]))
                self.profile.lap("inference")
                step = self.adapter.step(action)
                if len(self.latents) < whole:
                    self.latents = np.empty((whole, *latent.shape), latent.dtype)
                self.seen[t], self.latents[t], self.tables[t], self.led[t] = self.obs, latent, step.table, step.next_obs
                self.obs = step.obs
                self.t, self._settled = t + 1, self.adapter.steps
                self.profile.lap("adapter")
        except UsageError:
            self._blame()
            raise
        finally:
            if agent.learner.online and not self.t:  # what was drawn for a step that has not happened is still to come
                agent.ahead, self.noise = ahead, self.noise[:0]
        if self.t < horizon:
            return
        if horizon < whole:
            self.before_last()

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array[:horizon]).to(agent.device)

        reward, discount, lam, valid, _ = tensor(self.tables).unbind(1)
        rollout = Rollout(tensor(self.seen), tensor(self.latents), reward, discount, lam, valid, tensor(self.led))
        self._settled = -1
        losses = agent.learner.update(rollout, agent.steps / self.total)
        agent.steps += int(rollout.valid.sum())
        self.t, self.noise, self._settled = 0, self.noise[:0], self.adapter.steps
        add(losses, sums)
        self.profile.lap("update")

    def _online(self, until: float, sums: Losses) -> None:
        """A step and an update, again and again."""
        agent, adapter, stop, profile = self.agent, self.adapter, self.stop, self.profile
        fast, n, ahead = agent.fast, adapter.n, agent.ahead
        assert fast is not None
        names = ("actor_loss", "critic_loss")
        total = np.array([*(float(sums[name][0]) if name in sums else 0.0 for name in names), 0.0])
        adapter.trusting = not adapter.forgiving  # the kernel looks at every number before it learns from it
        try:
            while agent.steps < until and stop.signal is None:
                ahead, obs = agent.ahead, self.obs
                latent, action = fast.act(obs, agent.next_noise(n))
                profile.lap("inference")
                step = adapter.step(action)
                profile.lap("adapter")
                if not fast.learn(obs, latent, step.table, step.next_obs, total):
                    adapter.refuse(step)
                agent.steps += n if adapter.always and not adapter.forgiving else int(step.valid.sum())
                self.obs, self._settled = step.obs, adapter.steps
                profile.lap("update")
        except BaseException as error:
            if self.settled:  # the step has not happened: its noise is still to be used
                agent.ahead = ahead
            if isinstance(error, UsageError):
                self._blame()
            raise
        finally:
            if updates := int(total[2]):
                before = {name: count for name, (_, count) in sums.items()}
                for name, x in zip(names, total, strict=False):
                    sums[name] = float(x), before.get(name, 0) + updates

    def _blame(self) -> None:
        """Names who gave actions that are not finite, where the latest are such."""
        if not np.isfinite(self.adapter.action).all():
            guard.check_policy(self.agent.policy, torch.from_numpy(self.obs).to(self.agent.device))

    # ---- what a checkpoint keeps

    @property
    def settled(self) -> bool:
        """Whether every step of the environments is in the rollout or learned from, and no update is half done."""
        return self._settled == self.adapter.steps

    def state(self) -> Arrays:
        """The rollout that is being collected."""
        if not len(self.noise):
            return {}
        parts = {"seen": self.seen, "led": self.led, "tables": self.tables, "latents": self.latents}
        return {f"rollout.{name}": part[: self.t] for name, part in parts.items() if self.t} | {
            "rollout.noise": self.noise
        }

    def load_state(self, arrays: Arrays, fresh: NDArray[np.bool_]) -> None:
        """Takes it back; the episodes of `fresh` environments (N,) could not be gone on with, and are cut there.

        Raises:
            KeyError, ValueError: arrays that are of another run.
        """
        self._settled = self.adapter.steps
        parts = {f"rollout.{name}" for name in ("seen", "led", "tables", "latents")} & set(arrays)
        if not parts and "rollout.noise" not in arrays:
            return
        noise, whole = np.array(arrays["rollout.noise"]), self.agent.learner.horizon
        like = self.agent.policy.head.noise((1, self.adapter.n), torch.Generator()).numpy()
        if noise.shape != (whole, *like.shape[1:]) or noise.dtype != like.dtype:
            raise ValueError(f"noise {noise.dtype} {noise.shape}")
        t = len(arrays["rollout.tables"]) if parts else 0
        if not t <= whole:
            raise ValueError(f"{t} steps of {whole}")
        self.noise, self.t = noise, t
        if not t:
            return
        latents = arrays["rollout.latents"]
        if latents.shape[1:] != (self.adapter.n, *self.adapter.action_shape) or latents.dtype.kind not in "fi":
            raise ValueError(f"latents {latents.dtype} {latents.shape}")
        self.latents = np.empty((whole, *latents.shape[1:]), latents.dtype)
        for name, part in (("seen", self.seen), ("led", self.led), ("tables", self.tables), ("latents", self.latents)):
            given = arrays[f"rollout.{name}"]
            if given.shape != part[:t].shape or given.dtype != part.dtype:
                raise ValueError(f"{name} {given.dtype} {given.shape}")
            part[:t] = given
        self.tables[t - 1, LAM, fresh] = 0.0


def add(losses: Mapping[str, Any], sums: Losses) -> None:
    """Adds each of the losses to its sum."""
    for name, value in losses.items():
        total, count = sums.get(name, (None, 0))
        sums[name] = (value if total is None else total + value, count + 1)
