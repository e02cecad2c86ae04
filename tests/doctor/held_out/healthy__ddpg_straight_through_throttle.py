# DDPG where the actuator has only eleven positions; straight-through rounding
from copy import deepcopy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(77)
rng = np.random.default_rng(77)


def quantise(u, levels=5):
    hard = torch.round(u * levels) / levels
    return u + (hard - u).detach()


class Throttle(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, s):
        return quantise(torch.tanh(self.f(s * torch.tensor([1.0, 15.0]))))


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, s, a):
        return self.f(torch.cat([s * torch.tensor([1.0, 15.0]), a], dim=1)).squeeze(1)


def soft_update(online, slow, tau=0.01):
    with torch.no_grad():
        for p, q in zip(online.parameters(), slow.parameters()):
            q.copy_(tau * p + (1 - tau) * q)


throttle, judge = Throttle(), Judge()
throttle_slow, judge_slow = deepcopy(throttle), deepcopy(judge)
opt_t = torch.optim.Adam(throttle.parameters(), lr=5e-4)
opt_j = torch.optim.Adam(judge.parameters(), lr=1e-3)

env = gym.make("MountainCarContinuous-v0", max_episode_steps=150)
S, A, R, S2, TERM = [], [], [], [], []
s, _ = env.reset(seed=77)
noise, total = 0.0, 0.0
for step in range(1050):
    with torch.no_grad():
        a = throttle(torch.as_tensor(s)[None])[0].numpy()
    noise = 0.9 * noise + 0.3 * rng.standard_normal()
    a = np.round(np.clip(a + noise, -1, 1) * 5).astype(np.float32) / 5
    s2, r, terminated, truncated, _ = env.step(a)
    r = float(r) + 30 * abs(float(s2[1]))
    for box, item in zip((S, A, R, S2, TERM), (s, a, r, s2, float(terminated))):
        box.append(item)
    s, total = s2, total + r
    if terminated or truncated:
        print("step", step + 1, "return %.2f" % total)
        s, _ = env.reset()
        noise, total = 0.0, 0.0
    if step < 150:
        continue

    k = rng.integers(0, len(S), 64)
    bs, ba, br, bs2, bt = (torch.as_tensor(np.array([c[i] for i in k]), dtype=torch.float32) for c in (S, A, R, S2, TERM))
    with torch.no_grad():
        y = br + 0.97 * (1 - bt) * judge_slow(bs2, throttle_slow(bs2))
    j_loss = (judge(bs, ba) - y).pow(2).mean()
    opt_j.zero_grad()
    j_loss.backward()
    opt_j.step()

    judge.requires_grad_(False)
    t_loss = -judge(bs, throttle(bs)).mean()
    opt_t.zero_grad()
    t_loss.backward()
    opt_t.step()
    judge.requires_grad_(True)

    soft_update(throttle, throttle_slow)
    soft_update(judge, judge_slow)
