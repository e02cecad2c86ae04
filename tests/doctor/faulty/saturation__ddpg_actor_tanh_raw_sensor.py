"""DDPG tank-level controller. Observation = raw sensor readings (millilitres, pascal)."""
import copy
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(3)
np.random.seed(3)
torch.manual_seed(3)


class Tank:
    def reset(self):
        self.level = np.random.uniform(20000.0, 80000.0)
        self.want = np.random.uniform(30000.0, 70000.0)
        return self.reading()

    def reading(self):
        return np.array([self.level, self.want, 9.81 * self.level / 10], dtype=np.float32)

    def step(self, valve):
        self.level += 4000.0 * valve - 0.02 * self.level
        err = (self.level - self.want) / 50000.0
        return self.reading(), -abs(err)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 64)
        self.fc2 = nn.Linear(64, 1)

    def forward(self, obs):
        h = F.relu(self.fc1(obs))
        return torch.tanh(self.fc2(h))  # expect: saturation


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.fc1 = nn.Linear(4, 64)
        self.fc2 = nn.Linear(64, 1)

    def forward(self, obs, act):
        x = torch.cat([self.norm(obs), act], dim=1)
        return self.fc2(F.relu(self.fc1(x)))


actor, critic = Actor(), Critic()
actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
opt_actor = torch.optim.Adam(actor.parameters(), lr=1e-4)
opt_critic = torch.optim.Adam(critic.parameters(), lr=1e-3)

env, data = Tank(), []
obs = env.reset()
for t in range(600):
    with torch.no_grad():
        a = actor(torch.from_numpy(obs).unsqueeze(0)).squeeze(0).numpy()
    a = np.clip(a + 0.3 * np.random.randn(1), -1, 1).astype(np.float32)
    obs2, r = env.step(float(a[0]))
    data.append((obs, a, np.float32(r), obs2))
    # new set point every 50 steps, the process itself never ends
    obs = env.reset() if t % 50 == 49 else obs2
    if len(data) < 80:
        continue

    s, u, rew, s2 = (torch.from_numpy(np.array(c)) for c in zip(*random.sample(data, 64)))
    with torch.no_grad():
        y = rew.unsqueeze(1) + 0.95 * critic_t(s2, actor_t(s2))
    loss_c = F.mse_loss(critic(s, u), y)
    opt_critic.zero_grad()
    loss_c.backward()
    opt_critic.step()

    loss_a = -critic(s, actor(s)).mean()
    opt_actor.zero_grad()
    loss_a.backward()
    opt_actor.step()

    for net, tgt in ((actor, actor_t), (critic, critic_t)):
        for p, tp in zip(net.parameters(), tgt.parameters()):
            tp.data.lerp_(p.data, 0.01)
    if t % 100 == 0:
        print(t, "critic", loss_c.item(), "actor", loss_a.item(), "valve", float(a[0]))
