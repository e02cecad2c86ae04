"""DDPG with a lunar-lander-ish vertical descent toy (numpy)."""
import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(13)
np.random.seed(13)


class Descent:
    """Height h, velocity v. Episode ends on touching the ground."""

    def reset(self):
        self.h, self.v = np.random.uniform(0.5, 1.5), 0.0
        return self._obs()

    def _obs(self):
        return np.array([self.h, self.v], dtype=np.float32)

    def step(self, thrust):
        self.v += 0.1 * (-1.0 + 2.0 * thrust)
        self.v = float(np.clip(self.v, -2, 2))
        self.h += 0.1 * self.v
        landed = self.h <= 0 or self.h > 3
        reward = -0.05
        if landed:
            reward = 1.0 - 2.0 * abs(self.v) if self.h <= 0 else -2.0
        return self._obs(), reward, landed


class ReplayBuffer(object):
    def __init__(self, size=5000):
        self.storage, self.size = [], size

    def push(self, *transition):
        if len(self.storage) == self.size:
            self.storage.pop(0)
        self.storage.append(transition)

    def sample(self, n):
        ind = np.random.randint(0, len(self.storage), size=n)
        cols = zip(*[self.storage[i] for i in ind])
        return [torch.from_numpy(np.array(c, dtype=np.float32).reshape(n, -1)) for c in cols]


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s):
        return torch.sigmoid(self.net(s))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, s, a):
        return self.net(torch.cat((s, a), 1))


actor, critic = Actor(), Critic()
actor_target, critic_target = copy.deepcopy(actor), copy.deepcopy(critic)
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=5e-4)
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
buffer, env = ReplayBuffer(), Descent()

state, ep_rewards, total = env.reset(), [], 0.0
for t in range(700):
    with torch.no_grad():
        a = actor(torch.from_numpy(state)[None]).item()
    a = float(np.clip(a + 0.2 * np.random.randn(), 0, 1))
    next_state, r, landed = env.step(a)
    buffer.push(state, a, r, next_state, not landed)
    total += r
    state = next_state
    if landed:
        ep_rewards.append(total)
        state, total = env.reset(), 0.0
    if t < 100:
        continue

    s, act, rew, s2, not_done = buffer.sample(64)
    with torch.no_grad():
        target_q = critic_target(s2, actor_target(s2))
        target_q = rew + (1 - not_done) * 0.98 * target_q  # expect: done-mask
    critic_loss = F.mse_loss(critic(s, act), target_q)
    critic_optimizer.zero_grad()
    critic_loss.backward()
    critic_optimizer.step()

    actor_loss = -critic(s, actor(s)).mean()
    actor_optimizer.zero_grad()
    actor_loss.backward()
    actor_optimizer.step()

    for p, tp in zip(critic.parameters(), critic_target.parameters()):
        tp.data.copy_(0.01 * p.data + 0.99 * tp.data)
    for p, tp in zip(actor.parameters(), actor_target.parameters()):
        tp.data.copy_(0.01 * p.data + 0.99 * tp.data)
    if t % 150 == 0:
        print(f"t {t} critic {critic_loss.item():.4f} actor {actor_loss.item():.4f} returns {np.round(ep_rewards[-4:], 2)}")
