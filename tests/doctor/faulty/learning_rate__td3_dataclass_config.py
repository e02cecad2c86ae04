import copy
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    seed: int = 53
    steps: int = 600
    batch_size: int = 64
    gamma: float = 0.96
    tau: float = 0.01
    actor_lr: float = 3e-13  # expect: learning-rate
    critic_lr: float = 1e-3
    policy_delay: int = 2
    noise: float = 0.2


def mlp(i, o, *tail):
    return nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, o), *tail)


class Trainer:
    class Networks:
        def __init__(self):
            self.actor = mlp(2, 1, nn.Tanh())
            self.critics = [mlp(3, 1), mlp(3, 1)]

        def q(self, s, a):
            x = torch.cat([s, a], 1)
            return [c(x) for c in self.critics]

        def tensors(self):
            yield from self.actor.parameters()
            for c in self.critics:
                yield from c.parameters()

    def __init__(self, cfg):
        self.cfg = cfg
        self.net = Trainer.Networks()
        self.tgt = copy.deepcopy(self.net)
        self.optim = self._optimizers()
        self.replay, self.k = [], 0

    def _optimizers(self):
        critics = [p for c in self.net.critics for p in c.parameters()]
        return (torch.optim.Adam(self.net.actor.parameters(), lr=self.cfg.actor_lr),
                torch.optim.Adam(critics, lr=self.cfg.critic_lr))

    def _step(self, which, loss):
        self.optim[which].zero_grad()
        loss.backward()
        self.optim[which].step()

    def learn(self):
        cfg = self.cfg
        s, a, r, s2 = (torch.tensor(np.array(c), dtype=torch.float32) for c in zip(*random.sample(self.replay, cfg.batch_size)))
        with torch.no_grad():
            eps = (cfg.noise * torch.randn_like(a)).clamp(-0.4, 0.4)
            y = r + cfg.gamma * torch.min(*self.tgt.q(s2, (self.tgt.actor(s2) + eps).clamp(-1, 1)))
        loss = sum(F.mse_loss(q, y) for q in self.net.q(s, a))
        self._step(1, loss)
        self.k += 1
        if self.k % cfg.policy_delay == 0:
            self._step(0, -self.net.q(s, self.net.actor(s))[0].mean())
            with torch.no_grad():
                for p, t in zip(self.net.tensors(), self.tgt.tensors()):
                    t.mul_(1 - cfg.tau).add_(p, alpha=cfg.tau)
        return loss.item()


def main(cfg=Config()):
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    rng = np.random.default_rng(cfg.seed)
    tr = Trainer(cfg)
    s = rng.uniform(-1, 1, 2)
    for t in range(cfg.steps):
        with torch.no_grad():
            a = tr.net.actor(torch.tensor(s, dtype=torch.float32)).numpy()
        a = np.clip(a + cfg.noise * rng.normal(size=1), -1, 1)
        s2 = np.clip(s + 0.1 * np.array([s[1], a[0]]), -2, 2)
        r = -float(s2[0] ** 2 + 0.1 * s2[1] ** 2)
        tr.replay.append((s, a, [r], s2))
        s = s2 if (t + 1) % 40 else rng.uniform(-1, 1, 2)
        if t >= 100:
            loss = tr.learn()
            if t % 100 == 0:
                print(t, loss)


main()
