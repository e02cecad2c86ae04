import copy
from collections import deque
from dataclasses import dataclass
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(1)
torch.manual_seed(1)
rng = np.random.default_rng(1)


def net(i, o, last=None):
    layers = [nn.Linear(i, 48), nn.ReLU(), nn.Linear(48, o)]
    return nn.Sequential(*layers, last) if last is not None else nn.Sequential(*layers)


@dataclass
class Nets:
    actor: nn.Module
    q1: nn.Module
    q2: nn.Module


def build():
    return Nets(net(3, 1, nn.Tanh()), net(4, 1), net(4, 1))


def freeze_copy(nets):
    frozen = copy.deepcopy(nets)
    for m in (frozen.actor, frozen.q1, frozen.q2):
        m.requires_grad_(False)
    return frozen


class TD3:
    def __init__(self):
        nets = build()
        self.pi_opt = torch.optim.Adam(nets.actor.parameters(), lr=1e-3)
        self.q_opt = torch.optim.Adam([*nets.q1.parameters(), *nets.q2.parameters()], lr=1e-3)
        self.target = freeze_copy(nets)
        self.online = Nets(copy.deepcopy(nets.actor), nets.q1, nets.q2)  # expect: optimizer-mismatch
        self.it = 0

    def act(self, s, noise=0.1):
        with torch.no_grad():
            a = self.online.actor(s)
        return (a + noise * torch.randn_like(a)).clamp(-1, 1)

    def _smoothed(self, s2):
        a = self.target.actor(s2)
        return (a + (0.2 * torch.randn_like(a)).clamp(-0.5, 0.5)).clamp(-1, 1)

    @torch.no_grad()
    def _y(self, r, s2):
        sa = torch.cat([s2, self._smoothed(s2)], 1)
        return r + 0.97 * torch.min(self.target.q1(sa), self.target.q2(sa))

    def learn(self, s, a, r, s2):
        self.it += 1
        y, sa = self._y(r, s2), torch.cat([s, a], 1)
        q_loss = F.mse_loss(self.online.q1(sa), y) + F.mse_loss(self.online.q2(sa), y)
        self.q_opt.zero_grad()
        q_loss.backward()
        self.q_opt.step()
        if self.it % 2 == 0:
            pi_loss = -self.online.q1(torch.cat([s, self.online.actor(s)], 1)).mean()
            self.pi_opt.zero_grad()
            pi_loss.backward()
            self.pi_opt.step()
            self._polyak()
        return q_loss.item()

    def _polyak(self, tau=0.01):
        for name in ("actor", "q1", "q2"):
            for p, tp in zip(getattr(self.online, name).parameters(), getattr(self.target, name).parameters()):
                tp.lerp_(p.data, tau)


agent, memory = TD3(), deque(maxlen=2000)
s = rng.normal(size=3).astype(np.float32)
for t in range(600):
    a = agent.act(torch.from_numpy(s)).numpy()
    s2 = (0.9 * s + 0.3 * a + 0.05 * rng.normal(size=3)).astype(np.float32)
    r = -float(s2 @ s2) - 0.05 * float(a[0]) ** 2
    memory.append((s, a, np.array([r], np.float32), s2))
    s = s2 if t % 40 else rng.normal(size=3).astype(np.float32)
    if len(memory) >= 64:
        batch = [torch.from_numpy(np.stack(c)) for c in zip(*random.sample(memory, 48))]
        loss = agent.learn(*batch)
        if t % 150 == 0:
            print(t, loss)
