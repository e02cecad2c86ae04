import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(0)
gen = np.random.default_rng(0)
env = gym.make("MountainCarContinuous-v0", max_episode_steps=300)


class OU:
    def __init__(self, theta=0.1, sigma=0.45):
        self.theta, self.sigma, self.x = theta, sigma, 0.0

    def __call__(self):
        self.x += -self.theta * self.x + self.sigma * gen.standard_normal()
        return self.x


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mid", torch.tensor([-0.4, 0.0]))
        self.register_buffer("radius", torch.tensor([0.6, 0.04]))

    def forward(self, x):
        return (x - self.mid) / self.radius


class Mu(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(Scale(), nn.Linear(2, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 1))
        self.net[-1].weight.data.mul_(0.1)

    def forward(self, s):
        return torch.tanh(self.net(s))


class Q(nn.Module):
    def __init__(self):
        super().__init__()
        self.sc, self.l1, self.l2, self.l3 = Scale(), nn.Linear(3, 48), nn.Linear(48, 48), nn.Linear(48, 1)

    def forward(self, s, a):
        h = nn.functional.gelu(self.l1(torch.cat([self.sc(s), a], 1)))
        return self.l3(nn.functional.gelu(self.l2(h)))


mu, q = Mu(), Q()
lag = nn.ModuleDict({"mu": copy.deepcopy(mu), "q": copy.deepcopy(q)}).requires_grad_(False)
live = nn.ModuleDict({"mu": mu, "q": q})
opt = {"mu": torch.optim.Adam(mu.parameters(), 3e-4), "q": torch.optim.Adam(q.parameters(), 1e-3)}
bank = {"s": [], "a": [], "r": [], "s2": [], "crash": []}
noise = OU()
s, _ = env.reset(seed=0)
best, goals = -1.2, 0
for t in range(1500):
    a = np.clip(mu(torch.tensor(s)).detach().numpy() + noise(), -1, 1).astype(np.float32)
    s2, r, reached, timeout, _ = env.step(a)
    shaped = 0.05 * r + 10 * abs(s2[1])            # reward for speed, otherwise nothing happens for ages
    for key, val in zip(bank, (s, a, [shaped], s2, [float(reached)])):
        bank[key].append(val)
    best, goals = max(best, float(s2[0])), goals + reached
    s = s2
    if reached or timeout:
        s, _ = env.reset()
        noise.x = 0.0
    if t < 300 or t % 2:
        continue
    ix = gen.integers(0, len(bank["s"]), 64)
    S, A, R, S2, D = (torch.tensor(np.array([bank[k][i] for i in ix]), dtype=torch.float32) for k in bank)
    with torch.no_grad():
        goal = R + 0.97 * (1.0 - D) * lag["q"](S2, lag["mu"](S2))
    td = (q(S, A) - goal).pow(2).mean()
    opt["q"].zero_grad()
    td.backward()
    opt["q"].step()

    opt["mu"].zero_grad()
    act = mu(S)
    (-q(S, act).mean() + 1e-2 * act.square().mean()).backward()
    opt["mu"].step()
    with torch.no_grad():
        for w, wl in zip(live.parameters(), lag.parameters()):
            wl += 0.01 * (w - wl)
    if t % 300 == 0:
        print(t, "td", td.item(), "q", goal.mean().item(), "right-most", best, "goals", goals, "|a|", act.abs().mean().item())
