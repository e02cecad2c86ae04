"""The fast path of an agent: what the general path computes, by kernels, in the modules' own memory."""

from __future__ import annotations

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.advantages import Estimates
from covary.fast.dense import INPUTS, LARGE, OUTPUTS
from covary.fast.running import VALID
from covary.fast.steps import act
from covary.fast.tables import Unknown, check_entropy, normalizer_of, numpy_of, read, steps_of
from covary.traces import ObGD
from covary.types import Rollout

Floats = NDArray[np.float32]


LARGEST = 256 * 256
"""Weights of a layer without a BLAS: 512 x 512 in minibatches of 2048 took 1.4 times as long as in PyTorch."""
WORTH = 128  # transitions of a pass, below which handing one network's to another thread takes longer than doing it


class FastPath:
    """Acts and learns for a learner, whose modules stay what they are.

    Args:
        learner: of `ppo`, `a2c`, `trpo`, `actor_critic` or `stream_ac`, its networks on the CPU in float32.

    Raises:
        Unknown: something that the kernels do not do.
    """

    def __init__(self, learner: Any) -> None:
        config, optimizer, policy = learner.config, learner.optimizer, learner.policy
        streams, traces = isinstance(optimizer, ObGD), getattr(learner, "traces", None)
        bonus = getattr(config, "entropy_coef", 0.0)
        if streams and bonus:
            check_entropy(policy.head)
        elif traces is not None and bonus:
            raise Unknown("an entropy bonus beside eligibility traces")
        tables = read(policy, learner.critic, optimizer, entropy=bonus > 0 and not streams)
        weights = tables.layers[:, INPUTS] * tables.layers[:, OUTPUTS]
        if not learner.online and (weights[tables.layers[:, LARGE] == 0] > LARGEST).any():
            raise Unknown("layers so large that PyTorch's products are faster")
        vector = numpy_of(optimizer.vector)
        self.learner, self.optimizer = learner, optimizer
        self.policy = (vector, tables.layers, tables.plan, tables.dims, tables.box, tables.given)
        self.minibatch = min(getattr(config, "minibatch", sys.maxsize), learner.horizon * config.n_envs)
        columns = max(self.minibatch, config.n_envs) if traces is None else 1  # a trace is one environment's
        self.work = np.zeros((tables.rows, columns), np.float32)
        self.slope = np.zeros_like(self.work)
        self.width, self.choices = max(len(tables.dims), 1), not len(tables.dims)
        self.density = (np.zeros((7, self.width)), np.zeros((self.width + 2, self.width)))
        self.direction = np.zeros(tables.slopes)
        self.gradient, sizes = np.zeros_like(vector), np.array(optimizer.segments, np.int64)  # made last
        if streams:
            self.descent: tuple[Any, ...] = (self.gradient, sizes, optimizer.settings)
        else:
            moments = (numpy_of(optimizer.first), numpy_of(optimizer.second))
            optimizer.settings[0] = config.max_grad_norm
            self.descent = (self.gradient, *moments, sizes, np.array(optimizer.rates), optimizer.settings)
        self.normalizer, self.clip = normalizer_of(policy.normalizer, int(tables.layers[0, INPUTS]))
        if learner.online:  # what is not needed is not compiled
            from covary.fast.stepwise import REFUSED

            if streams:
                from covary.fast.streaming import learn
            elif traces is None:
                from covary.fast.online import learn
            else:
                from covary.fast.traces import learn
            self._learn, self._refused = learn, REFUSED
        else:
            from covary.fast.rollouts import log_probs, policy_epoch, value_epoch

            self._policy_epoch, self._value_epoch, self._log_probs = policy_epoch, value_epoch, log_probs
            self.ratios = float(getattr(config, "clip", math.inf))  # how far they may go from 1
            self.order, self.rows = np.arange(self.minibatch), np.zeros(self.minibatch, np.int64)
            self.other_work, self.other_slope = np.zeros_like(self.work), np.zeros_like(self.work)  # the critic's
            enough = learner.horizon * config.n_envs >= WORTH
            # which asks torch for its threads, or its BLAS would take every core
            self.beside = ThreadPoolExecutor(1, initializer=torch.get_num_threads) if enough and _cores() > 1 else None
        if not learner.online and not hasattr(config, "minibatch"):  # a rollout is learned from once, and short
            from covary.fast.batches import estimates
            from covary.fast.running import show

            self._estimates, self._show = estimates, show
        scale, scaled = learner.reward_scale, getattr(config, "scale_rewards", True)
        options = np.array([config.gamma, bonus, scaled])
        ours = (*self.policy, *self.descent, optimizer.taken)
        self.rewards = (np.array([config.gamma, getattr(config, "lam", 0.0), scaled]), scale.running, scale.carry)
        self.before = (*ours, *self.normalizer, self.clip)  # the arguments of `learn`, but those of a step
        self.after: tuple[Any, ...] = (scale.running, scale.carry, options)
        self.after += (self.work, self.slope, *self.density, self.direction)
        if traces is not None:
            self.after += (numpy_of(traces.vectors), np.array(traces.lams), np.zeros(config.n_envs + 1))

    # ---- acting

    def act(self, obs: Floats, noise: Floats) -> tuple[Floats, Floats]:
        """(N, O) raw observations, (N, D) noise -> latents and actions, (N, D), the actions inside their bounds; of
        choices (N,) each."""
        latents, actions = np.empty((len(obs), self.width), np.float32), np.empty((len(obs), self.width), np.float32)
        noise, most = noise.reshape(len(obs), self.width), self.work.shape[1]
        for start in range(0, len(obs), most):
            rows = slice(start, start + most)
            ours = (obs[rows], noise[rows], latents[rows], actions[rows])
            act(*self.policy, *self.normalizer[3:], self.clip, *ours, self.work, *self.density)
        return (latents[:, 0], actions[:, 0]) if self.choices else (latents, actions)

    # ---- learning

    def learn(self, obs: Floats, latents: Floats, steps: Floats, next_obs: Floats, sums: NDArray[np.float64]) -> int:
        """One update of `actor_critic`; steps: (5, N), see `covary.fast.online.learn` also for what it says: 0 (false),
        and nothing learned, where an observation or a reward is not finite; 1 where it has learned; 2 where a number of
        its own was not finite and the learner leaves such a step out.

        Raises:
            NonFinite: a number of its own is not finite, and the learner stops at such a step.
        """
        rows = latents.reshape(len(obs), self.width)
        said: int = self._learn(*self.before, obs, rows, steps, next_obs, *self.after, sums)
        if said == self._refused:
            self.learner.refused_step(obs, latents, steps, next_obs)
        return said

    def log_probs(self, x: Tensor, latent: Tensor) -> Tensor:
        """log pi(latent | x) up to the geometry's Jacobian, which depends on the latent alone. x: (B, O), latent (B, D)
        or (B,). -> (B,)"""
        out = np.empty(len(x), np.float32)
        both = x.contiguous().numpy(), _columns(latent)
        self._log_probs(*self.policy, *both, self.work, out, *self.density, self.direction)
        return torch.from_numpy(out)

    def epoch(self, batch: Any, order: Tensor) -> Tensor:
        """A pass of `ppo` over its batch in this order, policy and critic on a core each where there are two.

        Returns sums over its minibatches, (5,) float64: actor and critic loss, their gradients' norms and how many
        there were. One that is not finite says that a minibatch met a number that is not; a network with such a
        gradient was not moved by it.
        """
        return torch.tensor(self._pass(batch, order.numpy()), dtype=torch.float64)

    def estimate(self, rollout: Rollout) -> Estimates | None:
        """What `covary.advantages.estimate` makes of a rollout, for `a2c`; None where a number is not finite, and then
        nothing has changed.
        """
        c, scale = self.learner.config, self.learner.reward_scale
        before = scale.running.copy(), scale.carry.copy()
        steps = steps_of(rollout)
        size, n = steps.shape[1], rollout.reward.shape[1]
        obs, next_obs = (part.numpy().reshape(size, -1) for part in (rollout.obs, rollout.next_obs))
        latents = _columns(rollout.latent.flatten(0, 1))
        x, made = np.empty_like(obs), np.empty((4, size), np.float32)
        ours = (*self.policy, *self.normalizer[3:], self.clip, obs, next_obs, latents, steps, n, *self.rewards, x, made)
        self._estimates(*ours, self.rows, self.work, *self.density, self.direction)
        if not steps[VALID].all():
            happened = steps[VALID] > 0
            x, latents, made = x[happened], latents[happened], np.ascontiguousarray(made[:, happened])
        numbers = (self.policy[0], x, latents, made)
        if not math.isfinite(sum(float(np.add.reduce(part, None, np.float64)) for part in numbers)):
            scale.running[:], scale.carry[:] = before
            return None
        log_prob, advantage, target, value = torch.from_numpy(made)
        if c.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        return Estimates(torch.from_numpy(x), torch.from_numpy(latents), log_prob, advantage, target, value)

    def observe(self, rollout: Rollout) -> None:
        """Shows the normaliser the observations of the steps that happened, of which there is one at least."""
        if self.clip < math.inf:
            steps = steps_of(rollout)
            obs = rollout.obs.numpy().reshape(steps.shape[1], -1)
            self._show(obs, steps, 1, -1.0, *self.rewards[1:], *self.normalizer)

    def whole(self, batch: Any) -> tuple[float, float, float, float]:
        """The step of `a2c`: a pass of one minibatch, the whole batch, whose ratios are 1 since the policy is still the
        one that acted, and the slope of a ratio of 1 is that of log pi. Actor and critic loss, and their gradients'
        norms.

        Raises:
            FloatingPointError: one of these is not finite; nothing was changed.
        """
        before = self.optimizer.copy()
        _, critic, *norms, _ = self._pass(batch, self.order[: len(batch.target)])
        actor = float(torch.dot(batch.log_prob, batch.advantage)) / -len(batch.target)
        if not math.isfinite(actor + critic + sum(norms)):
            self.optimizer.back_to(before)
            raise FloatingPointError(f"losses {actor} and {critic}, norms of gradients {norms}")
        return actor, critic, norms[0], norms[1]

    def fit(self, batch: Any, order: Tensor) -> tuple[float, float, int]:
        """The critic's pass of `trpo` over its batch in this order: sums of losses and gradients' norms over its
        minibatches, and how many there were."""
        taken, its = self.optimizer.taken, np.zeros(3)
        both = batch.x.contiguous().numpy(), batch.target.contiguous().numpy()
        shape = (float(taken[0]), order.numpy(), self.minibatch)
        self._value_epoch(*(*self.policy[:3], *self.descent, *shape, *both), *(self.other_work, self.other_slope, its))
        taken += its[2]
        return float(its[0]), float(its[1]), int(its[2])

    def _pass(self, batch: Any, order: NDArray[np.int64]) -> tuple[float, ...]:
        c, taken = self.learner.config, self.optimizer.taken
        x, latent = batch.x.contiguous().numpy(), _columns(batch.latent)
        log_prob, advantage, target = (
            part.contiguous().numpy() for part in (batch.log_prob, batch.advantage, batch.target)
        )
        shape = (float(taken[0]), order, self.minibatch)
        mine, its = np.zeros(3), np.zeros(3)
        critic: tuple[Any, ...] = (*self.policy[:3], *self.descent, *shape, x, target)
        critic += (self.other_work, self.other_slope, its)
        pending = self.beside.submit(self._value_epoch, *critic) if self.beside is not None else None
        self._policy_epoch(
            *(*self.policy, *self.descent, *shape, x, latent, log_prob, advantage, self.ratios, c.entropy_coef),
            *(self.work, self.slope, mine, *self.density, self.direction),
        )
        if pending is None:
            self._value_epoch(*critic)
        else:
            pending.result()
        taken += mine[2]
        return float(mine[0]), float(its[0]), float(mine[1]), float(its[1]), float(mine[2])


def _cores() -> int:
    """How many cores the kernels may use: one where the user has said so to torch."""
    if torch.get_num_threads() == 1:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _columns(latent: Tensor) -> Floats:
    """(B, D) or, of choices, (B,) -> (B, D) float32."""
    array: Floats = latent.reshape(len(latent), -1).float().contiguous().numpy()
    return array
