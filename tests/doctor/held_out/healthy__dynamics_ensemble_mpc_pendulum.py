"""Learn probabilistic dynamics models of the pendulum from random play, then plan with random shooting."""
import gymnasium as gym
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
env = gym.make("Pendulum-v1", max_episode_steps=100)
env.action_space.seed(0)


class Memory:
    def __init__(self, n):
        self.block, self.k = np.full((n, 10), np.nan, dtype=np.float32), 0

    def write(self, *parts):
        self.block[self.k] = np.concatenate([np.ravel(p) for p in parts])
        self.k += 1

    def tensors(self):
        return torch.from_numpy(self.block[: self.k]).split([3, 1, 3, 3], dim=1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 6))
        self.lo, self.hi = nn.Parameter(torch.full((3,), -6.0)), nn.Parameter(torch.full((3,), 0.5))

    def forward(self, s, a):
        m, lv = self.f(torch.cat([s, a / 2], -1)).chunk(2, -1)
        lv = self.hi - nn.functional.softplus(self.hi - lv)
        lv = self.lo + nn.functional.softplus(lv - self.lo)
        return m, lv

    def loss(self, s, a, d):
        m, lv = self(s, a)
        nll = ((d - m) ** 2 * (-lv).exp() + lv).mean()
        return nll + 0.01 * (self.hi - self.lo).mean(), (d - m).abs().mean()


mem = Memory(1500)
o, _ = env.reset(seed=0)
for t in range(1500):
    u = env.action_space.sample()
    o2, r, term, trunc, _ = env.step(u)
    mem.write(o, u, o2, o2 - o)
    o = env.reset()[0] if trunc else o2
S, U, S2, D = mem.tensors()
norm = torch.tensor([1.0, 1.0, 8.0])
spread = D.std(0)
models = [Model() for _ in range(3)]
opts = [torch.optim.Adam(m.parameters(), lr=2e-3, weight_decay=1e-5) for m in models]
for it in range(200):
    for m, opt in zip(models, opts):
        j = torch.randint(0, len(S), (128,))
        loss, err = m.loss(S[j] / norm, U[j], D[j] / spread)
        opt.zero_grad()
        loss.backward()
        opt.step()
    if it % 50 == 0 or it == 199:
        print(it, "nll", loss.item(), "abs error", err.item())


@torch.no_grad()
def plan(obs, horizon=12, n=100):
    u = (torch.rand(n, horizon, 1) * 4 - 2)
    s, cost = torch.from_numpy(obs).expand(n, 3), torch.zeros(n)
    for k in range(horizon):
        th = torch.atan2(s[:, 1], s[:, 0])
        cost += th ** 2 + 0.1 * s[:, 2] ** 2 + 0.001 * u[:, k, 0] ** 2
        s = s + models[k % 3](s / norm, u[:, k])[0] * spread
    return u[cost.argmin(), 0].numpy()


o, _ = env.reset(seed=5)
total = 0.0
for t in range(80):
    o, r, *_ = env.step(plan(o))
    total += r
print("planned return over 80 steps", total)
