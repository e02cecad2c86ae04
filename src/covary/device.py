"""Iterations that stay on a device: for environments of tensors, and algorithms that learn from whole rollouts.

While a rollout is collected nothing is read back: the host hands over one operation after another and the device
follows at its own pace. Once an iteration the episodes that ended are fetched, and what `update` decides by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.agent import Agent
from covary.envs.adapter import Adapter, Episode
from covary.envs.faults import EnvironmentFault
from covary.envs.hosted import check_step
from covary.envs.tensors import TensorEnv
from covary.errors import UsageError
from covary.iterations import Arrays, Losses, Stop, add
from covary.policies import Policy
from covary.profile import Profile
from covary.returns import backward_sum
from covary.types import Rollout


def tensors_behind(adapter: Adapter) -> TensorEnv | None:
    """The environment of tensors that an adapter's steps are fetched from, if any."""
    env: TensorEnv | None = getattr(adapter.venv, "tensors", None)
    return env


def running_sum(x: Tensor, lam: Tensor, start: Tensor) -> Tensor:
    """y_t = x_t + lam_{t-1} y_{t-1}, where lam_{-1} y_{-1} is `start`: x summed since the episode began. x (T, *B),
    start (*B), lam (T, *B) or what broadcasts to it: 0 where the episode was cut. -> (T, *B)"""
    carried = torch.cat([start[None], torch.zeros_like(x[1:])])
    weight = torch.cat([torch.zeros_like(lam[:1]), lam[:-1]])
    return backward_sum((x + carried).flip(0), weight.flip(0)).flip(0)


class Collection:
    """T steps of N environments, in tensors that are used again for the next T.

    Attributes:
        obs, next_obs: (T, N, O)
        latent: (T, N, D) or (T, N)
        reward, terminated, truncated: (T, N)
    """

    def __init__(self, policy: Policy, env: TensorEnv, horizon: int, profile: Profile) -> None:
        self.policy, self.env, self.horizon, self.profile = policy, env, horizon, profile
        n, device = env.num_envs, env.device
        self.obs, self.next_obs = torch.empty(
            2, horizon, n, int(np.prod(env.single_observation_space.shape)), device=device
        ).unbind()
        self.latent = torch.empty(0, device=device)
        self.reward = torch.empty(horizon, n, device=device)
        self.terminated, self.truncated = torch.empty(2, horizon, n, dtype=torch.bool, device=device).unbind()
        space = env.single_action_space
        self.shape = (n, *(space.shape or ()))
        self.box: tuple[Tensor, Tensor] | None = None
        first = np.asarray(getattr(space, "start", 0))  # of choices
        self.first = torch.as_tensor(first, device=device) if first.any() else None
        if hasattr(space, "low"):
            low, high = (
                torch.as_tensor(bound, dtype=torch.float32, device=device) for bound in (space.low, space.high)
            )
            self.box = low, high

    def _decode(self, action: Tensor) -> Tensor:
        """(N, D) or (N,) as the policy gave it -> as the environment takes it."""
        if self.box is None:
            action = action.reshape(self.shape)
            return action if self.first is None else action + self.first
        return torch.clamp(action.reshape(self.shape), *self.box)

    @torch.no_grad()
    def step(self, t: int, obs: Tensor, noise: Tensor) -> Tensor:
        """One step, into row t. obs: (N, O) raw, noise: as the policy's head draws it. -> the next (N, O)"""
        density = self.policy(obs)
        latent = density.sample_latent(noise=noise)
        action = self._decode(density.to_action(latent))
        self.profile.lap("inference")
        step = self.env.step(action)
        self.profile.lap("environment")
        if t == 0:
            check_step(self.env, step)
            if len(self.latent) < self.horizon:
                self.latent = latent.new_empty(self.horizon, *latent.shape)
        self.obs[t] = obs
        self.latent[t] = latent
        self.reward[t] = step.reward
        self.terminated[t] = step.terminated
        self.truncated[t] = step.truncated
        self.next_obs[t] = step.next_obs.flatten(1)
        self.profile.lap("adapter")
        return step.obs.flatten(1)

    def rows(self, t: int) -> dict[str, Tensor]:
        """The first t rows of all that is collected, by name."""
        names = ("obs", "next_obs", "latent", "reward", "terminated", "truncated")
        return {name: getattr(self, name)[:t] for name in names}

    def fill(self, rows: dict[str, Tensor], t: int) -> None:
        """Takes them back."""
        if t and len(self.latent) < self.horizon:
            self.latent = rows["latent"].new_empty(self.horizon, *rows["latent"].shape[1:])
        for name, part in self.rows(t).items():
            if t:
                part.copy_(rows[name])

    def rollout(self, horizon: int, gamma: float) -> Rollout:
        """The first `horizon` rows, with the flags settled as the adapter settles them."""
        cut = self.terminated[:horizon] | self.truncated[:horizon]
        return Rollout(
            self.obs[:horizon],
            self.latent[:horizon],
            self.reward[:horizon],
            (~self.terminated[:horizon]).float() * gamma,
            (~cut).float(),
            torch.ones_like(self.reward[:horizon]),
            self.next_obs[:horizon],
        )


class DeviceIterations:
    """Runs iterations of an agent on an environment of tensors, on the device where both are.

    Each iteration's noise comes from a generator on the device that the agent's own generator seeds.

    Attributes: as those of `covary.iterations.Iterations`.
    """

    def __init__(self, agent: Agent, adapter: Adapter, total: int, stop: Stop, profile: Profile) -> None:
        env = tensors_behind(adapter)
        assert env is not None
        self.agent, self.total, self.stop, self.profile = agent, total, stop, profile
        self.env, self.episodes, self.gamma = env, adapter.episodes, float(adapter.gamma)
        self.collection = Collection(agent.policy, env, agent.learner.horizon, profile)
        self.generator = torch.Generator(env.device)
        self.totals = torch.zeros(2, env.num_envs, dtype=torch.float64, device=env.device)  # of episodes under way
        self.before_last: Callable[[], None] = lambda: None
        self.obs: Any = None  # (N, O) where the next step starts; an array before the first one
        self.noise = torch.empty(0)
        self.t = 0
        self.settled = True

    def __call__(self, until: float, sums: Losses) -> None:
        """One iteration. Adds its losses to `sums`."""
        agent, n, whole = self.agent, self.env.num_envs, self.agent.learner.horizon
        self.obs = torch.as_tensor(self.obs, device=self.env.device)
        horizon = min(whole, -(-(self.total - agent.steps) // n))
        if not len(self.noise):
            self.generator.manual_seed(int(torch.randint(2**62, (), generator=agent.learner.generator)))
            self.noise = agent.policy.head.noise((whole, n), self.generator)
        self.settled = False
        while self.t < horizon:
            if self.stop.signal is not None:
                self.settled = True
                return
            self.obs = self.collection.step(self.t, self.obs, self.noise[self.t])
            self.t += 1
        rollout = self.collection.rollout(horizon, self.gamma)
        self._check(rollout)
        if horizon < whole:
            self.settled = True
            self.before_last()
            self.settled = False
        self._note(rollout)
        self.profile.lap("adapter")
        losses = agent.learner.update(rollout, agent.steps / self.total)
        agent.steps += horizon * n
        self.t, self.noise, self.settled = 0, self.noise[:0], True
        add(losses, sums)
        self.profile.lap("update")

    # ---- what a checkpoint keeps

    def state(self) -> Arrays:
        """The rollout that is being collected, and what its episodes have come to."""
        parts = {"noise": self.noise, "totals": self.totals, **self.collection.rows(self.t)}
        return {f"rollout.{name}": part.cpu().numpy() for name, part in parts.items() if len(part)}

    def load_state(self, arrays: Arrays, fresh: NDArray[np.bool_]) -> None:
        """Takes it back; where the episodes could not be gone on with (N,), none of it.

        Raises:
            KeyError, ValueError, RuntimeError: arrays that are of another run.
        """
        if fresh.any():  # they are one environment: it goes on as a whole or not at all
            return
        kept = {name: torch.from_numpy(np.array(x)).to(self.env.device) for name, x in arrays.items()}
        self.totals.copy_(kept["rollout.totals"])
        if "rollout.noise" in kept:
            self.noise = kept["rollout.noise"]
            self.t = len(kept["rollout.obs"]) if "rollout.obs" in kept else 0
            self.collection.fill({name.removeprefix("rollout."): x for name, x in kept.items()}, self.t)

    def _note(self, rollout: Rollout) -> None:
        """Fetches the episodes that ended."""
        each = torch.stack([rollout.reward, rollout.valid], 1).double()  # (T, 2, N): summed, return and length
        goes_on = rollout.lam.unsqueeze(1).double()
        totals = running_sum(each, goes_on, self.totals)
        self.totals = totals[-1] * goes_on[-1]
        where = (rollout.lam == 0).nonzero()
        ended = totals[where[:, 0], :, where[:, 1]]
        stopped = self.collection.terminated[where[:, 0], where[:, 1]].double().unsqueeze(1)
        rows = torch.cat([where[:, 1:].double(), ended, stopped], 1).tolist()
        self.episodes += [Episode(int(env), -1, ret, int(length), bool(stop)) for env, ret, length, stop in rows]

    def _check(self, rollout: Rollout) -> None:
        """Raises UsageError unless all is finite; which number it is, is looked for only then."""
        if bool(torch.stack([rollout.reward.sum(), rollout.next_obs.sum()]).isfinite().all()):
            return
        for name, x in (("observation", rollout.next_obs), ("reward", rollout.reward)):
            bad = (~x.isfinite()).nonzero()
            if not len(bad):
                continue
            t, env = bad[0, :2].tolist()
            if not bool(rollout.latent[t, env].isfinite().all()):
                raise UsageError(
                    "A policy's actions must be finite.",
                    given=f"{rollout.latent[t, env].tolist()} as the latent of an action",
                    cause="a learning rate that is too high, or rewards of a very large scale",
                    fix="a learning rate ten times lower; the checkpoints before this step are good",
                )
            raise EnvironmentFault(
                f"An environment gives finite numbers as {name}.",
                given=f"{float(x[tuple(bad[0])])} in {name} of environment {env}, step {t} of a rollout",
                cause="a division by zero or an unstable simulation in the environment's own code",
                fix="end the episode before it diverges",
            )


def advice(agent: Agent, env: TensorEnv) -> str:
    """What to say of minibatches that are small for a GPU; empty where they are not."""
    size: Any = getattr(agent.config, "minibatch", None)
    if agent.learner.online or env.device.type == "cpu" or size is None or size >= 4096:
        return ""
    return f"minibatches of {size} are small for a GPU; --horizon 64 --minibatch 16384 gives it more to do at once"
