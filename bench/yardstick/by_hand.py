"""The training loops that a person writes by hand, in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MultivariateNormal, Normal

from yardstick.stopwatch import Stopwatch
from yardstick.workloads import ACTOR_LR, CLIP, CRITIC_LR, GAMMA, LAM, LR, MAX_NORM, Workload


def train(w: Workload, watch: Stopwatch) -> None:
    torch.manual_seed(0)
    (online if w.online else ppo)(w, watch)


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def independent(loc: Tensor, std: Tensor) -> Distribution:
    return Independent(Normal(loc, std.expand_as(loc)), 1)


def joint(loc: Tensor, std: Tensor) -> Distribution:
    return MultivariateNormal(loc, scale_tril=torch.diag(std))


class Actor(nn.Module):
    """(*B, O) -> a Categorical, or a Gaussian whose deviation does not depend on the observation."""

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], space: Any, gaussian: Callable[[Tensor, Tensor], Distribution]
    ) -> None:
        super().__init__()
        self.discrete, self.gaussian = isinstance(space, gymnasium.spaces.Discrete), gaussian
        outputs = int(space.n) if self.discrete else int(np.prod(space.shape))
        self.body = mlp(inputs, hidden, outputs)
        self.log_std = None if self.discrete else nn.Parameter(torch.zeros(outputs))

    def forward(self, obs: Tensor) -> Distribution:
        out = self.body(obs)
        return Categorical(logits=out) if self.log_std is None else self.gaussian(out, self.log_std.exp())


def floats(x: Any) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float32)


def online(w: Workload, watch: Stopwatch) -> None:
    """The one-step actor-critic of Sutton & Barto 2018, sec. 13.5, as it is first written.

    Two Adams, each as torch makes it; a backward pass for each loss; torch's distributions, which check their
    arguments: MultivariateNormal for a Box, Categorical for choices.
    """
    env = watch.make()
    inputs, space = int(np.prod(env.observation_space.shape or ())), env.action_space
    actor, critic = Actor(inputs, w.hidden, space, joint), mlp(inputs, w.hidden, 1)
    actor_adam = torch.optim.Adam(actor.parameters(), lr=ACTOR_LR)
    critic_adam = torch.optim.Adam(critic.parameters(), lr=CRITIC_LR)
    obs = floats(env.reset(seed=0)[0])
    while True:
        density = actor(obs)
        action = density.sample()
        log_prob = density.log_prob(action)
        executed = action.item() if actor.discrete else np.clip(action.numpy(), space.low, space.high)
        raw, reward, terminated, truncated, _ = env.step(executed)
        if watch.stopped:
            return
        next_obs = floats(raw)
        value = critic(obs).squeeze(-1)
        with torch.no_grad():
            next_value = critic(next_obs).squeeze(-1)
        delta = reward + GAMMA * (1 - terminated) * next_value - value
        actor_adam.zero_grad()
        (-delta.detach() * log_prob).backward()
        critic_adam.zero_grad()
        delta.square().backward()
        actor_adam.step()
        critic_adam.step()
        obs = floats(env.reset()[0]) if terminated or truncated else next_obs


def ppo(w: Workload, watch: Stopwatch) -> None:
    """PPO with the tricks CleanRL keeps; a truncated episode bootstraps from its last observation."""
    envs = SyncVectorEnv([watch.make] * w.n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    space: Any = envs.single_action_space
    inputs = int(np.prod(envs.single_observation_space.shape or ()))
    actor, critic = Actor(inputs, w.hidden, space, independent), mlp(inputs, w.hidden, 1)
    orthogonal(actor.body, 0.01)
    orthogonal(critic, 1.0)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LR, eps=1e-5)
    seen, _ = envs.reset(seed=0)
    obs = floats(np.array(seen))
    while True:
        steps = []
        for _ in range(w.horizon):
            with torch.no_grad():
                density = actor(obs)
                action = density.sample()
                log_prob, value = density.log_prob(action), critic(obs).squeeze(-1)
            executed = action.numpy() if actor.discrete else np.clip(action.numpy(), space.low, space.high)
            raw, reward, terminated, truncated, info = envs.step(executed)
            if watch.stopped:
                return
            next_obs = last = floats(np.array(raw))
            ended = terminated | truncated
            if ended.any():
                last = next_obs.clone()
                last[torch.as_tensor(ended)] = floats(np.stack(list(info["final_obs"][ended])))
            discount, on = floats(~terminated) * GAMMA, floats(~ended)
            steps.append((obs, action, log_prob, value, floats(reward), discount, on, last))
            obs = next_obs
        columns = [torch.stack(column) for column in zip(*steps, strict=True)]
        x, action, old_log_prob, value, rewards, discount, on, last = columns
        with torch.no_grad():
            delta = rewards + discount * critic(last).squeeze(-1) - value
        advantage, carry = torch.zeros_like(delta), torch.zeros(w.n_envs)
        for t in reversed(range(w.horizon)):  # GAE
            advantage[t] = carry = delta[t] + discount[t] * LAM * on[t] * carry
        batch = [part.flatten(0, 1) for part in (x, action, old_log_prob, advantage, advantage + value)]
        for _ in range(w.epochs):
            for k in torch.randperm(w.n_envs * w.horizon).split(w.minibatch):
                x, action, old_log_prob, advantage, target = (part[k] for part in batch)
                ratio = (actor(x).log_prob(action) - old_log_prob).exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                actor_loss = -torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
                critic_loss = 0.5 * (critic(x).squeeze(-1) - target).square().mean()
                optimizer.zero_grad()
                (actor_loss + 0.5 * critic_loss).backward()
                nn.utils.clip_grad_norm_(parameters, MAX_NORM)
                optimizer.step()


def orthogonal(net: nn.Sequential, gain: float) -> None:
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else 2**0.5)
        nn.init.zeros_(layer.bias)
