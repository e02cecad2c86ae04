import random
from collections import deque
from itertools import chain

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

# DQN on MountainCar-like shaping is boring, so: DDPG with twin critics on MountainCarContinuous
random.seed(25); torch.manual_seed(25); np.random.seed(25)


def make_q():
    return nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))


class Agent:
    def __init__(self, tau: float = 0.01):
        self.tau = tau
        self.actor = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.critics = nn.ModuleList([make_q(), make_q()])
        self.actor_target = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.actor_target.load_state_dict(self.actor.state_dict())
        self.critics_target = nn.ModuleList(list(self.critics))  # expect: target-network
        self.opt_actor = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
        self.opt_critic = torch.optim.Adam(chain(*(c.parameters() for c in self.critics)), lr=1e-3)

    @torch.no_grad()
    def target(self, r, s2, term, gamma=0.98):
        a2 = self.actor_target(s2)
        a2 = (a2 + (0.2 * torch.randn_like(a2)).clamp(-0.5, 0.5)).clamp(-1, 1)
        x = torch.cat([s2, a2], 1)
        return r + gamma * (1 - term) * torch.min(*[q(x) for q in self.critics_target])

    @torch.no_grad()
    def soft_update(self):
        for net, tgt in ((self.actor, self.actor_target), (self.critics, self.critics_target)):
            for p, t in zip(net.parameters(), tgt.parameters()):
                t.copy_(self.tau * p + (1 - self.tau) * t)

    def learn(self, batch, delayed: bool):
        s, a, r, s2, term = batch
        y = self.target(r, s2, term)
        x = torch.cat([s, a], 1)
        q_loss = sum(F.mse_loss(q(x), y) for q in self.critics)
        self.opt_critic.zero_grad()
        q_loss.backward()
        self.opt_critic.step()
        if delayed:
            a_loss = -self.critics[0](torch.cat([s, self.actor(s)], 1)).mean()
            self.opt_actor.zero_grad()
            a_loss.backward()
            self.opt_actor.step()
            self.soft_update()
        return q_loss.item()


def to_batch(rows):
    s, a, r, s2, term = zip(*rows)
    col = lambda v: torch.tensor(v, dtype=torch.float32).unsqueeze(1)
    return torch.stack(s), torch.stack(a), col(r), torch.stack(s2), col(term)


env = gym.make("MountainCarContinuous-v0")
scale = torch.tensor([1.0, 15.0])
agent, memory = Agent(), deque(maxlen=5000)
s = torch.as_tensor(env.reset(seed=25)[0]) * scale
for step in range(700):
    with torch.no_grad():
        a = (agent.actor(s) + 0.3 * torch.randn(1)).clamp(-1, 1)
    o, r, terminated, truncated, _ = env.step(a.numpy())
    s2 = torch.as_tensor(o) * scale
    memory.append((s, a, r + 50 * float(o[1]) ** 2, s2, float(terminated)))
    s = torch.as_tensor(env.reset()[0]) * scale if terminated or truncated else s2
    if len(memory) >= 100:
        loss = agent.learn(to_batch(random.sample(memory, 64)), delayed=step % 2 == 0)
        if step % 150 == 0:
            print(step, "critic loss", round(loss, 5))
