"""TD3 for a 1-D point mass (own environment), numpy replay memory."""
import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SEED = 4
torch.manual_seed(SEED)
rng = np.random.default_rng(SEED)


class PointMass:
    def reset(self):
        self.s = rng.uniform(-1, 1, 2)
        return self.s.astype(np.float32)

    def step(self, a):
        x, v = self.s
        v = 0.95 * v + 0.15 * float(np.clip(a, -1, 1))
        x = x + 0.15 * v
        self.s = np.array([x, v])
        out = abs(x) > 2.5
        return self.s.astype(np.float32), -(x * x + 0.1 * v * v) - (5.0 if out else 0.0), out


class Replay:
    def __init__(self, size):
        self.o = np.zeros((size, 2), np.float32); self.a = np.zeros((size, 1), np.float32)
        self.r = np.zeros(size, np.float32); self.o2 = np.zeros((size, 2), np.float32)
        self.d = np.zeros(size, np.float32); self.n = 0

    def put(self, *row):
        for arr, x in zip((self.o, self.a, self.r, self.o2, self.d), row):
            arr[self.n] = x
        self.n += 1

    def sample(self, k):
        i = rng.integers(0, self.n, k)
        return [torch.from_numpy(arr[i]) for arr in (self.o, self.a, self.r, self.o2, self.d)]


def net(i, o, last=None):
    layers = [nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, o)]
    return nn.Sequential(*layers, *([last] if last else []))


class TD3:
    def __init__(self):
        self.actor = net(2, 1, nn.Tanh())
        self.q1, self.q2 = net(3, 1), net(3, 1)
        self.actor_t, self.q1_t, self.q2_t = (copy.deepcopy(m) for m in (self.actor, self.q1, self.q2))
        self.actor_opt = torch.optim.Adam(self.actor_t.parameters(), lr=1e-3)  # expect: optimizer-mismatch
        self.critic_opt = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=1e-3)
        self.updates = 0

    @torch.no_grad()
    def act(self, o, noise=0.2):
        a = self.actor(torch.from_numpy(o)) + noise * torch.randn(1)
        return a.clamp(-1, 1).numpy()

    def learn(self, o, a, r, o2, d, gamma=0.97, tau=0.01):
        with torch.no_grad():
            eps = (0.2 * torch.randn_like(a)).clamp(-0.5, 0.5)
            a2 = (self.actor_t(o2) + eps).clamp(-1, 1)
            x2 = torch.cat([o2, a2], 1)
            y = r + gamma * (1 - d) * torch.min(self.q1_t(x2), self.q2_t(x2)).squeeze(1)
        x = torch.cat([o, a], 1)
        loss = F.mse_loss(self.q1(x).squeeze(1), y) + F.mse_loss(self.q2(x).squeeze(1), y)
        self.critic_opt.zero_grad(); loss.backward(); self.critic_opt.step()
        self.updates += 1
        if self.updates % 2 == 0:
            actor_loss = -self.q1(torch.cat([o, self.actor(o)], 1)).mean()
            self.actor_opt.zero_grad(); actor_loss.backward(); self.actor_opt.step()
            with torch.no_grad():
                for m, mt in ((self.actor, self.actor_t), (self.q1, self.q1_t), (self.q2, self.q2_t)):
                    for p, pt in zip(m.parameters(), mt.parameters()):
                        pt.mul_(1 - tau).add_(tau * p)
        return loss.item()


env, agent, mem = PointMass(), TD3(), Replay(2000)
o, t = env.reset(), 0
for step in range(700):
    a = agent.act(o)
    o2, r, d = env.step(a[0])
    mem.put(o, a, r, o2, float(d))
    t += 1
    o = o2
    if d or t == 60:
        o, t = env.reset(), 0
    if step > 100:
        l = agent.learn(*mem.sample(64))
        if step % 150 == 0:
            print(step, f"critic {l:.3f}")
