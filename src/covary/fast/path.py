"""The fast path of an agent: what the general path computes, by kernels, in the modules' own memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covary.fast.steps import act
from covary.fast.tables import Unknown, check_entropy, numpy_of, read
from covary.nets import RunningNorm
from covary.optim import ObGD

Floats = NDArray[np.float32]


LARGEST = 256 * 256  # weights of a layer; 512 x 512 in minibatches of 2048 took 1.4 times as long as in PyTorch


class FastPath:
    """Acts and learns for a learner, whose modules stay what they are.

    Args:
        learner: of `ppo`, `actor_critic` or `stream_ac`, its networks on the CPU in float32.

    Raises:
        Unknown: something that the kernels do not do.
    """

    def __init__(self, learner: Any) -> None:
        config, optimizer, policy = learner.config, learner.optimizer, learner.policy
        streams, traces = isinstance(optimizer, ObGD), getattr(learner, "traces", None)
        if streams and config.entropy_coef:
            check_entropy(policy.head)
        elif traces is not None and config.entropy_coef:
            raise Unknown("an entropy bonus beside eligibility traces")
        tables = read(policy, learner.critic, optimizer, entropy=config.entropy_coef > 0 and not streams)
        if not learner.online and (tables.layers[:, 2] * tables.layers[:, 3]).max() > LARGEST:
            raise Unknown("layers so large that PyTorch's products are faster")
        vector = numpy_of(optimizer.vector)
        self.learner, self.optimizer = learner, optimizer
        self.policy = (vector, tables.layers, tables.plan, tables.dims, tables.box, tables.given)
        self.minibatch = min(getattr(config, "minibatch", config.n_envs), learner.horizon * config.n_envs)
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
        self.normalizer, self.clip = _normalizer(policy.normalizer, int(tables.layers[0, 2]))
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
            self.other_work, self.other_slope = np.zeros_like(self.work), np.zeros_like(self.work)  # the critic's
            self.beside = ThreadPoolExecutor(1) if _cores() > 1 else None
        scale, scaled = learner.reward_scale, getattr(config, "scale_rewards", True)
        options = np.array([config.gamma, config.entropy_coef, scaled])
        ours = (*self.policy, *self.descent, optimizer.taken)
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
        c, taken = self.learner.config, self.optimizer.taken
        x, latent = batch.x.contiguous().numpy(), _columns(batch.latent)
        log_prob, advantage, target = (
            part.contiguous().numpy() for part in (batch.log_prob, batch.advantage, batch.target)
        )
        shape = (float(taken[0]), order.numpy(), self.minibatch)
        mine, its = np.zeros(3), np.zeros(3)
        critic: tuple[Any, ...] = (*self.policy[:3], *self.descent, *shape, x, target)
        critic += (self.other_work, self.other_slope, its)
        pending = self.beside.submit(self._value_epoch, *critic) if self.beside is not None else None
        self._policy_epoch(
            *(*self.policy, *self.descent, *shape, x, latent, log_prob, advantage, c.clip, c.entropy_coef),
            *(self.work, self.slope, mine, *self.density, self.direction),
        )
        if pending is None:
            self._value_epoch(*critic)
        else:
            pending.result()
        taken += mine[2]
        return torch.tensor([mine[0], its[0], mine[1], its[1], mine[2]], dtype=torch.float64)


def _cores() -> int:
    """How many cores the kernels may use: one where the user has said so to torch."""
    if torch.get_num_threads() == 1:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _columns(latent: Tensor) -> Floats:
    """(B, D) or, of choices, (B,) -> (B, D) float32."""
    array: Floats = latent.reshape(len(latent), -1).float().contiguous().numpy()
    return array


def _normalizer(module: Any, features: int) -> tuple[tuple[NDArray[Any], ...], float]:
    """count, mean64, m2, mean, inv_std; and where standardised observations are clipped, infinite for not at all."""
    if isinstance(module, RunningNorm):
        kept = (module.count.view(1), module.mean64, module.m2, module.mean, module.inv_std)
        return tuple(numpy_of(x) for x in kept), module.CLIP
    nothing = (np.zeros(1), np.zeros(features), np.zeros(features))
    return (*nothing, np.zeros(features, np.float32), np.ones(features, np.float32)), np.inf
