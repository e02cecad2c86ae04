import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from collections import namedtuple

torch.manual_seed(127)
rng = np.random.default_rng(127)
Batch = namedtuple("Batch", "s a r s2 nd")


class Pointmass:
    """Ends when the point leaves the unit disc of radius 2; otherwise goes on for ever."""

    def reset(self):
        self.x = rng.uniform(-1, 1, 2)
        return self.x.copy()

    def step(self, a):
        self.x = self.x + 0.1 * a + 0.02 * rng.normal(size=2)
        out = bool(np.linalg.norm(self.x) > 2)
        return self.x.copy(), -float(self.x @ self.x) - (5.0 if out else 0.0), out


class TD3:
    def __init__(self, delay=3):
        mk = lambda i, o, *t: nn.Sequential(nn.Linear(i, 48), nn.ReLU(), nn.Linear(48, o), *t)
        self.net = {"pi": mk(2, 2, nn.Tanh()), "q1": mk(4, 1), "q2": mk(4, 1)}
        self.avg = copy.deepcopy(self.net)
        for m in self.avg.values():
            m.requires_grad_(False)
        self.opt = {
            "pi": torch.optim.Adam(self.net["pi"].parameters(), lr=1e-3),
            "q": torch.optim.Adam([*self.net["q1"].parameters(), *self.net["q2"].parameters()], lr=1e-3),
        }
        self.delay, self.calls = delay, 0

    def act(self, s, sigma):
        with torch.no_grad():
            a = self.net["pi"](torch.tensor(s, dtype=torch.float32)).numpy()
        return np.clip(a + sigma * rng.normal(size=2), -1, 1)

    def _target_action(self, s2):
        a = self.avg["pi"](s2)
        return (a + (0.2 * torch.randn_like(a)).clamp(-0.5, 0.5)).clamp(-1, 1)

    def _target(self, b):
        x = torch.cat([b.s2, self._target_action(b.s2)], 1)
        return b.r + 0.95 * b.nd * torch.minimum(self.avg["q1"](x), self.avg["q2"](x))

    def _critic_step(self, b):
        y, x = self._target(b).detach(), torch.cat([b.s, b.a], 1)
        loss = F.mse_loss(self.net["q1"](x), y) + F.mse_loss(self.net["q2"](x), y)
        self.opt["q"].zero_grad()
        loss.backward()
        self.opt["q"].step()
        return loss.item()

    def _actor_step(self, b):
        loss = -self.net["q1"](torch.cat([b.s, self.net["pi"](b.s)], 1)).mean()
        self.opt["pi"].zero_grad()
        loss.backward()
        self.opt["pi"].step()

    @torch.no_grad()
    def _average(self, tau=0.02):
        for k, net in self.net.items():
            for p, q in zip(net.parameters(), self.avg[k].parameters()):
                q.lerp_(p, tau)

    def learn(self, b):
        self.calls += 1
        loss = self._critic_step(b)
        if self.calls % self.delay == 0:
            self._actor_step(b)
            self._average()
        return loss


env, agent, rows = Pointmass(), TD3(), []
s = env.reset()
for t in range(600):
    a = agent.act(s, 0.2) if t > 80 else rng.uniform(-1, 1, 2)
    s2, r, out = env.step(a)
    rows.append((s, a, [r], s2, [0.0 if out else 1.0]))
    s = env.reset() if out or t % 50 == 49 else s2
    if t > 80:
        pick = [rows[i] for i in rng.integers(0, len(rows), 64)]
        loss = agent.learn(Batch(*(torch.tensor(np.array(c), dtype=torch.float32) for c in zip(*pick))))
        if t % 120 == 0:
            print(t, loss)
