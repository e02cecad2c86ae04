# DDPG for a water tank: keep the pressure at the bottom at a set point, by a valve
import copy
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(0), np.random.seed(0), torch.manual_seed(0)


class Tank:
    def reset(self):
        self.level = np.random.uniform(0.5, 3.5)
        self.want = np.random.uniform(1.0, 3.0)
        self.t = 0
        return self.sensors()

    def sensors(self):
        # two pressures in pascal and the inflow in litres per minute
        return np.array([101325 + 9810 * self.level, 101325 + 9810 * self.want, 60.0], dtype=np.float32)

    def step(self, valve):
        self.level += 0.1 * (0.6 - (0.6 + 0.5 * valve) * np.sqrt(max(self.level, 0.0) / 2.0))
        self.level = float(np.clip(self.level, 0.0, 4.0))
        self.t += 1
        return self.sensors(), -abs(self.level - self.want), self.t >= 60


class Actor(nn.Module):
    def __init__(self, n_in=3, n_hidden=48):
        super().__init__()
        self.fc1 = nn.Linear(n_in, n_hidden)
        self.fc2 = nn.Linear(n_hidden, n_hidden)
        self.fc3 = nn.Linear(n_hidden, 1)

    def forward(self, s):
        h = F.relu(self.fc1(s))
        h = F.relu(self.fc2(h))
        return torch.tanh(self.fc3(h))  # expect: saturation


class Critic(nn.Module):
    def __init__(self, n_in=3, n_hidden=48):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_in)
        self.fc1 = nn.Linear(n_in + 1, n_hidden)
        self.fc2 = nn.Linear(n_hidden, n_hidden)
        self.fc3 = nn.Linear(n_hidden, 1)

    def forward(self, s, a):
        h = F.relu(self.fc1(torch.cat([self.norm(s), a], 1)))
        return self.fc3(F.relu(self.fc2(h)))


actor, critic = Actor(), Critic()
actor_slow, critic_slow = copy.deepcopy(actor), copy.deepcopy(critic)
opt_a = torch.optim.Adam(actor.parameters(), lr=1e-4)
opt_c = torch.optim.Adam(critic.parameters(), lr=1e-3)
replay = []
env = Tank()

for episode in range(14):
    s, stop, total = env.reset(), False, 0.0
    while not stop:
        with torch.no_grad():
            a = actor(torch.from_numpy(s).unsqueeze(0)).item()
        a = float(np.clip(a + random.gauss(0, 0.4), -1, 1))
        s2, r, stop = env.step(a)
        replay.append((s, [a], [r], s2))
        s = s2
        total += r
        if len(replay) < 128:
            continue
        S, A, R, S2 = (torch.tensor(np.array(c), dtype=torch.float32) for c in zip(*random.sample(replay, 64)))
        # the time limit is no terminal state, always bootstrap
        with torch.no_grad():
            y = R + 0.95 * critic_slow(S2, actor_slow(S2))
        c_loss = F.mse_loss(critic(S, A), y)
        opt_c.zero_grad()
        c_loss.backward()
        opt_c.step()
        a_loss = -critic(S, actor(S)).mean()
        opt_a.zero_grad()
        a_loss.backward()
        opt_a.step()
        with torch.no_grad():
            for net, slow in ((actor, actor_slow), (critic, critic_slow)):
                for p, q in zip(net.parameters(), slow.parameters()):
                    q.lerp_(p, 0.02)
                for b, c in zip(net.buffers(), slow.buffers()):
                    c.copy_(b)
    if episode > 2:
        print(f"episode {episode:2d} return {total:8.2f} critic {c_loss.item():.4f} actor {a_loss.item():.3f} mean action {actor(S).mean().item():+.3f}")
