import copy
import random

import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(12)
random.seed(12)
np.random.seed(12)


class Spring:
    """1-d mass on a spring, never terminates."""
    def reset(self):
        self.s = np.random.uniform(-1, 1, 2).astype(np.float32)
        return self.s

    def step(self, a):
        x, v = self.s
        v = v + 0.1 * (float(a) - x - 0.1 * v)
        self.s = np.array([x + 0.1 * v, v], np.float32)
        return self.s, -(x * x + 0.1 * v * v + 0.01 * float(a) ** 2)


class Agent:
    def __init__(self, lr_actor=1e-3, lr_critic=2e-3):
        self.actor = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.critic = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))
        self.target_actor = copy.deepcopy(self.actor)
        self.target_critic = copy.deepcopy(self.critic)
        self.actor_optimizer = torch.optim.Adam(self.target_actor.parameters(), lr=lr_actor)  # expect: optimizer-mismatch
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=lr_critic)
        self.memory = []
        self.gamma, self.tau = 0.95, 0.02

    def choose_action(self, s):
        with torch.no_grad():
            a = self.actor(torch.from_numpy(s)).item()
        return float(np.clip(a + np.random.normal(0, 0.2), -1, 1))

    def remember(self, *args):
        self.memory.append(args)
        if len(self.memory) > 4000:
            self.memory.pop(0)

    def sample(self, n):
        s, a, r, s2 = zip(*random.sample(self.memory, n))
        col = lambda x: torch.tensor(x, dtype=torch.float32).unsqueeze(1)
        return torch.tensor(np.array(s)), col(a), col(r), torch.tensor(np.array(s2))

    def update_critic(self, s, a, r, s2):
        with torch.no_grad():
            y = r + self.gamma * self.target_critic(torch.cat([s2, self.target_actor(s2)], 1))
        loss = nn.MSELoss()(self.critic(torch.cat([s, a], 1)), y)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return loss.item()

    def update_actor(self, s):
        loss = -self.critic(torch.cat([s, self.actor(s)], 1)).mean()
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        return loss.item()

    def soft_update(self):
        for net, tgt in ((self.actor, self.target_actor), (self.critic, self.target_critic)):
            for p, tp in zip(net.parameters(), tgt.parameters()):
                tp.data.copy_(self.tau * p.data + (1 - self.tau) * tp.data)

    def learn(self):
        s, a, r, s2 = self.sample(64)
        out = self.update_critic(s, a, r, s2), self.update_actor(s)
        self.soft_update()
        return out


env, agent = Spring(), Agent()
for ep in range(12):
    s, total = env.reset(), 0.0
    for _ in range(60):
        a = agent.choose_action(s)
        s2, r = env.step(a)
        agent.remember(s, a, r, s2)
        s, total = s2, total + r
        if len(agent.memory) > 100:
            losses = agent.learn()
    if ep >= 2:
        print(ep, round(total, 3), losses)
