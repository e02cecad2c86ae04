# DDPG on a double integrator (numpy env), replay buffer as preallocated arrays
import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(1)
rng = np.random.default_rng(1)


class DoubleIntegrator:
    def reset(self):
        self.s = rng.uniform(-1, 1, size=2).astype(np.float32)
        return self.s.copy()

    def step(self, u):
        x, v = self.s
        v = np.clip(v + 0.1 * u, -2, 2)
        x = x + 0.1 * v
        self.s = np.array([x, v], dtype=np.float32)
        out = abs(x) > 3
        return self.s.copy(), float(-(x * x + 0.1 * v * v) - (5.0 if out else 0.0)), out


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())

    def forward(self, s):
        return self.net(s)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s, a):
        return self.net(torch.cat([s, a], dim=1))


actor, critic = Actor(), Critic()
actor_target, critic_target = copy.deepcopy(actor), copy.deepcopy(critic)
actor_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
critic_opt = torch.optim.Adam(critic.parameters(), lr=1e-3)

CAP = 4000
S = np.zeros((CAP, 2), np.float32)
A = np.zeros((CAP, 1), np.float32)
R = np.zeros((CAP, 1), np.float32)
S2 = np.zeros((CAP, 2), np.float32)
D = np.zeros((CAP, 1), np.float32)
size = 0

env = DoubleIntegrator()
s = env.reset()
ep_t = 0
for t in range(700):
    with torch.no_grad():
        a = actor(torch.from_numpy(s).unsqueeze(0)).numpy()[0]
    a = np.clip(a + 0.2 * rng.standard_normal(1), -1, 1)
    s2, r, terminal = env.step(float(a[0]))
    S[size], A[size], R[size, 0], S2[size], D[size, 0] = s, a, r, s2, terminal
    size += 1
    ep_t += 1
    s = s2
    if terminal or ep_t == 60:
        s, ep_t = env.reset(), 0
    if size < 128:
        continue

    idx = rng.integers(0, size, 64)
    bs, ba, br, bs2, bd = (torch.from_numpy(x[idx]) for x in (S, A, R, S2, D))
    with torch.no_grad():
        y = br + 0.97 * (1 - bd) * critic_target(bs2, actor_target(bs2))

    actor_opt.zero_grad()
    critic_opt.zero_grad()
    critic_loss = F.mse_loss(critic(bs, ba), y)
    critic_loss.backward()
    actor_loss = -critic(bs, actor(bs)).mean()
    actor_loss.backward()  # expect: crossed-gradients
    critic_opt.step()
    actor_opt.step()

    for net, tgt in ((actor, actor_target), (critic, critic_target)):
        for p, tp in zip(net.parameters(), tgt.parameters()):
            tp.data.mul_(0.99).add_(0.01 * p.data)
    if t % 100 == 0:
        print(t, round(critic_loss.item(), 4), round(actor_loss.item(), 4))
