import copy
import random
from collections import deque

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(22)
np.random.seed(22)
torch.manual_seed(22)


class Cooler:
    """keep a server room at 22 degrees"""

    def reset(self):
        self.temp, self.load = np.random.uniform(18, 30), np.random.uniform(0, 1)
        return self.obs()

    def obs(self):
        return np.array([(self.temp - 22) / 5, self.load - 0.5], dtype=np.float32)

    def step(self, a):
        self.temp += 0.8 * self.load - 0.8 * (a + 1) / 2
        self.load = float(np.clip(self.load + 0.05 * np.random.randn(), 0, 1))
        self.temp = float(np.clip(self.temp, 10, 40))
        return self.obs(), -abs(self.temp - 22) / 5


def net(n_in, n_out, *tail):
    return nn.Sequential(nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, n_out), *tail)


class Agent:
    def __init__(self):
        self.actor = net(2, 1, nn.Tanh())
        self.critic = net(3, 1)
        self.actor_target = copy.deepcopy(self.actor)
        self.critic_target = copy.deepcopy(self.critic)  # expect: target-network
        self.actor_opt = torch.optim.Adam(self.actor.parameters(), lr=5e-4)
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), lr=1e-3)
        self.gamma, self.tau = 0.95, 0.01

    def update(self, batch):
        s, a, r, s2 = (torch.from_numpy(np.array(x, dtype=np.float32)) for x in zip(*batch))
        with torch.no_grad():
            q2 = self.critic_target(torch.cat([s2, self.actor_target(s2)], 1))
            y = r.unsqueeze(1) + self.gamma * q2
        critic_loss = F.mse_loss(self.critic(torch.cat([s, a], 1)), y)
        self.critic_opt.zero_grad()
        critic_loss.backward()
        self.critic_opt.step()

        actor_loss = -self.critic(torch.cat([s, self.actor(s)], 1)).mean()
        self.actor_opt.zero_grad()
        actor_loss.backward()
        self.actor_opt.step()

        # soft update
        with torch.no_grad():
            for p, tp in zip(self.actor.parameters(), self.actor_target.parameters()):
                tp.copy_(self.tau * p + (1 - self.tau) * tp)
        return critic_loss.item(), actor_loss.item()


env, agent = Cooler(), Agent()
replay = deque(maxlen=5000)
s = env.reset()
rewards = []
for t in range(600):
    with torch.no_grad():
        a = agent.actor(torch.from_numpy(s)).numpy()
    a = np.clip(a + 0.2 * np.random.randn(1), -1, 1).astype(np.float32)
    s2, r = env.step(float(a[0]))
    replay.append((s, a, r, s2))
    rewards.append(r)
    s = s2 if (t + 1) % 60 else env.reset()
    if len(replay) >= 100:
        cl, al = agent.update(random.sample(replay, 64))
        if t % 100 == 0:
            print(f"t {t} critic {cl:.4f} actor {al:.4f} reward {np.mean(rewards[-100:]):.3f}")
