import copy
import random
from collections import deque

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0); random.seed(0); np.random.seed(0)


class Actor(nn.Module):
    def __init__(self, limit=2.0):
        super().__init__()
        self.limit = limit
        self.l1, self.l2 = nn.Linear(3, 64), nn.Linear(64, 1)

    def forward(self, s):
        return self.limit * torch.tanh(self.l2(F.relu(self.l1(s))))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(4, 64), nn.Linear(64, 64), nn.Linear(64, 1)

    def forward(self, s, a):
        x = F.relu(self.l1(torch.cat([s, a], 1)))
        return self.l3(F.relu(self.l2(x)))


actor, critic = Actor(), Critic()
actor_targ, critic_targ = copy.deepcopy(actor), copy.deepcopy(critic)
opt_a = torch.optim.Adam(actor.parameters(), lr=5e-4)
opt_c = torch.optim.Adam(critic.parameters(), lr=1e-3)
memory = deque(maxlen=10_000)
env = gym.make("Pendulum-v1")


def soft_update(src, dst, tau=0.01):
    for p, q in zip(src.parameters(), dst.parameters()):
        q.data.copy_(tau * p.data + (1 - tau) * q.data)


def learn(batch_size=64, gamma=0.98):
    s, a, r, s2, term = map(np.array, zip(*random.sample(memory, batch_size)))
    s, a, s2 = (torch.as_tensor(v, dtype=torch.float32) for v in (s, a, s2))
    r = torch.as_tensor(r, dtype=torch.float32).unsqueeze(1)
    term = torch.as_tensor(term, dtype=torch.float32).unsqueeze(1)
    with torch.no_grad():
        y = r + gamma * (1 - term) * critic_targ(s2, actor_targ(s2))

    actor_loss = -critic(s, actor(s)).mean()
    opt_a.zero_grad()
    actor_loss.backward()  # expect: crossed-gradients
    opt_a.step()

    critic_loss = F.mse_loss(critic(s, a), y)
    critic_loss.backward()
    opt_c.step()
    opt_c.zero_grad()

    soft_update(actor, actor_targ)
    soft_update(critic, critic_targ)
    return actor_loss.item(), critic_loss.item()


state, _ = env.reset(seed=0)
for step in range(500):
    with torch.no_grad():
        action = actor(torch.as_tensor(state).unsqueeze(0))[0].numpy()
    action = np.clip(action + np.random.normal(0, 0.3, 1), -2, 2).astype(np.float32)
    nxt, reward, terminated, truncated, _ = env.step(action)
    memory.append((state, action, 0.1 * reward, nxt, terminated))
    state = env.reset()[0] if terminated or truncated else nxt
    if step >= 100:
        la, lc = learn()
        if step % 100 == 0:
            print(f"{step} actor {la:.3f} critic {lc:.3f}")
