# TD3 for a 1-d double integrator. Twin critics share the first layer to save time.
import copy
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

rng = np.random.default_rng(5)
torch.manual_seed(5)


class DoubleIntegrator:
    def reset(self):
        self.x = rng.uniform(-1, 1, size=2).astype(np.float32)
        return self.x.copy()

    def step(self, u):
        pos, vel = self.x
        vel = np.clip(vel + 0.1 * u, -2, 2)
        pos = np.clip(pos + 0.1 * vel, -2, 2)
        self.x = np.array([pos, vel], dtype=np.float32)
        return self.x.copy(), -(pos ** 2 + 0.1 * vel ** 2 + 0.01 * u ** 2)


class TwinQ(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.inp = nn.Linear(3, width)
        self.heads = [nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(2)]  # expect: optimizer-mismatch

    def forward(self, s, a):
        h = F.relu(self.inp(torch.cat((s, a), 1)))
        return [head(h) for head in self.heads]


class TD3:
    def __init__(self):
        self.pi = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.q = TwinQ()
        self.pi_targ = copy.deepcopy(self.pi)
        self.q_targ = copy.deepcopy(self.q)
        self.pi_optim = torch.optim.Adam(self.pi.parameters(), lr=5e-4)
        self.q_optim = torch.optim.Adam(self.q.parameters(), lr=1e-3)
        self.calls = 0

    def train(self, s, a, r, s2):
        self.calls += 1
        with torch.no_grad():
            eps = (0.2 * torch.randn_like(a)).clamp(-0.5, 0.5)
            a2 = (self.pi_targ(s2) + eps).clamp(-1, 1)
            y = r + 0.95 * torch.min(*self.q_targ(s2, a2))
        loss = sum(F.mse_loss(q, y) for q in self.q(s, a))
        self.q_optim.zero_grad(set_to_none=True)
        loss.backward()
        self.q_optim.step()
        if self.calls % 2 == 0:
            pl = -self.q(s, self.pi(s))[0].mean()
            self.pi_optim.zero_grad(set_to_none=True)
            pl.backward()
            self.pi_optim.step()
            self.polyak(self.pi, self.pi_targ)
            self.polyak(self.q, self.q_targ)
        return loss.item()

    @staticmethod
    @torch.no_grad()
    def polyak(src, dst, tau=0.01):
        for p, q in zip(src.parameters(), dst.parameters()):
            q.copy_(tau * p + (1 - tau) * q)


env, agent, buf = DoubleIntegrator(), TD3(), []
obs = env.reset()
for step in range(1500):
    with torch.no_grad():
        u = agent.pi(torch.from_numpy(obs)).numpy()
    u = np.clip(u + rng.normal(0, 0.3, 1), -1, 1).astype(np.float32)
    nobs, rew = env.step(u[0])
    buf.append((obs, u, np.float32([rew]), nobs))
    obs = env.reset() if step % 60 == 59 else nobs
    if len(buf) >= 200:
        idx = rng.integers(0, len(buf), 64)
        batch = [torch.from_numpy(np.stack([buf[i][k] for i in idx]).astype(np.float32)) for k in range(4)]
        l = agent.train(*batch)
        if step % 300 == 0:
            print(step, "critic loss", round(l, 4))
