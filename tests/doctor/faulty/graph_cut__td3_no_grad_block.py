import copy
from collections import deque
import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
random.seed(0)
np.random.seed(0)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s):
        return 2.0 * torch.tanh(self.net(s))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.q1 = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
        self.q2 = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s, a):
        sa = torch.cat([s, a], 1)
        return self.q1(sa), self.q2(sa)


actor, critic = Actor(), Critic()
actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
actor_opt = torch.optim.Adam(actor.parameters(), lr=1e-3)
critic_opt = torch.optim.Adam(critic.parameters(), lr=1e-3)
memory = deque(maxlen=10000)


def train_step(step, batch_size=64, gamma=0.98, tau=0.01):
    batch = random.sample(memory, batch_size)
    s, a, r, s2, term = (torch.tensor(np.array(x), dtype=torch.float32) for x in zip(*batch))
    r, term = r.unsqueeze(1), term.unsqueeze(1)

    with torch.no_grad():
        noise = (torch.randn_like(a) * 0.2).clamp(-0.5, 0.5)
        a2 = (actor_t(s2) + noise).clamp(-2, 2)
        y = r + gamma * (1 - term) * torch.min(*critic_t(s2, a2))
    q1, q2 = critic(s, a)
    critic_loss = F.mse_loss(q1, y) + F.mse_loss(q2, y)
    critic_opt.zero_grad()
    critic_loss.backward()
    critic_opt.step()

    if step % 2 == 0:
        with torch.no_grad():  # expect: graph-cut
            pi = actor(s)
        actor_loss = -critic(s, pi)[0].mean()
        actor_opt.zero_grad()
        actor_loss.backward()
        actor_opt.step()
        with torch.no_grad():
            for net, tgt in ((actor, actor_t), (critic, critic_t)):
                for p, pt in zip(net.parameters(), tgt.parameters()):
                    pt.mul_(1 - tau).add_(tau * p)


env = gym.make("Pendulum-v1")
obs, _ = env.reset(seed=0)
total = 0.0
for step in range(600):
    with torch.no_grad():
        act = actor(torch.as_tensor(obs).unsqueeze(0))[0].numpy()
    act = np.clip(act + 0.3 * np.random.randn(1), -2, 2).astype(np.float32)
    nxt, reward, terminated, truncated, _ = env.step(act)
    memory.append((obs, act, reward / 8.0, nxt, float(terminated)))
    total += reward
    obs = nxt
    if terminated or truncated:
        print(f"step {step + 1} return {total:.0f}")
        obs, _ = env.reset()
        total = 0.0
    if step > 200:
        train_step(step)
