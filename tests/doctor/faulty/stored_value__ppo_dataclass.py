"""PPO (clip) for a discrete grid world, dataclass config and buffer."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn, Tensor
from torch.distributions import Categorical


@dataclass
class PPOConfig:
    size: int = 4
    steps: int = 256
    iterations: int = 12
    epochs: int = 3
    minibatch: int = 64
    gamma: float = 0.97
    lam: float = 0.95
    clip: float = 0.2
    lr: float = 3e-3


@dataclass
class Buffer:
    obs: list = field(default_factory=list)
    actions: list = field(default_factory=list)
    logp: list = field(default_factory=list)
    values: list = field(default_factory=list)
    rewards: list = field(default_factory=list)
    dones: list = field(default_factory=list)


class Grid:
    MOVES = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])

    def __init__(self, size, seed):
        self.size, self.rng = size, np.random.default_rng(seed)

    def reset(self):
        self.p = self.rng.integers(0, self.size - 1, 2)
        return self._obs()

    def _obs(self):
        o = np.zeros((self.size, self.size), dtype=np.float32)
        o[tuple(self.p)] = 1.0
        return o.ravel()

    def step(self, a):
        self.p = np.clip(self.p + self.MOVES[a], 0, self.size - 1)
        done = bool((self.p == self.size - 1).all())
        return self._obs(), (1.0 if done else -0.05), done


def mlp(i, o):
    return nn.Sequential(nn.Linear(i, 64), nn.Tanh(), nn.Linear(64, o))

class PPO:
    def __init__(self, cfg: PPOConfig):
        self.cfg, self.env = cfg, Grid(cfg.size, 5)
        n = cfg.size ** 2
        self.actor, self.critic = mlp(n, 4), mlp(n, 1)
        self.opt = torch.optim.Adam([*self.actor.parameters(), *self.critic.parameters()], lr=cfg.lr)
        self.obs = self.env.reset()

    @torch.no_grad()
    def collect(self) -> tuple[dict[str, Tensor], float]:
        b = Buffer()
        for _ in range(self.cfg.steps):
            o = torch.from_numpy(self.obs)
            dist = Categorical(logits=self.actor(o))
            a = dist.sample()
            nxt, r, d = self.env.step(a.item())
            b.obs.append(o); b.actions.append(a); b.logp.append(dist.log_prob(a))
            b.values.append(self.critic(o).squeeze(-1)); b.rewards.append(r); b.dones.append(float(d))
            self.obs = self.env.reset() if d else nxt
        values = torch.stack(b.values + [self.critic(torch.from_numpy(self.obs)).squeeze(-1)])
        adv, run = torch.zeros(self.cfg.steps), 0.0
        for t in reversed(range(self.cfg.steps)):
            nd = 1.0 - b.dones[t]
            delta = b.rewards[t] + self.cfg.gamma * nd * values[t + 1] - values[t]
            run = delta + self.cfg.gamma * self.cfg.lam * nd * run
            adv[t] = run
        data = dict(obs=torch.stack(b.obs), act=torch.stack(b.actions), logp=torch.stack(b.logp),
                    adv=adv, ret=adv + values[:-1])
        return data, float(np.mean(b.rewards))

    def update(self, data):
        old_logp = data["logp"].clone()
        for _ in range(self.cfg.epochs):
            for mb in torch.randperm(self.cfg.steps).split(self.cfg.minibatch):
                adv = data["adv"][mb]
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                ratio = torch.exp(data["logp"][mb] - old_logp[mb])  # expect: stored-value
                surr = torch.min(ratio * adv, ratio.clamp(1 - self.cfg.clip, 1 + self.cfg.clip) * adv)
                entropy = Categorical(logits=self.actor(data["obs"][mb])).entropy().mean()
                v_loss = (self.critic(data["obs"][mb]).squeeze(-1) - data["ret"][mb]).pow(2).mean()
                loss = -surr.mean() + 0.5 * v_loss - 0.01 * entropy
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()


if __name__ == "__main__":
    torch.manual_seed(5)
    algo = PPO(PPOConfig())
    for it in range(algo.cfg.iterations):
        data, r = algo.collect()
        algo.update(data)
        if it % 3 == 0:
            print(f"iter {it} mean reward {r:.3f}")
