import copy
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

torch.manual_seed(9)
np.random.seed(9)


class SAC:
    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 2))

        def _gaussian(self, s):
            mu, log_std = self.body(s).chunk(2, dim=-1)
            return Normal(mu, log_std.clamp(-5, 1).exp())

        def _draw(self, s):
            dist = self._gaussian(s)
            u = dist.sample()  # expect: sample-not-rsample
            return u, dist.log_prob(u)

        def forward(self, s):
            u, logp = self._draw(s)
            a = torch.tanh(u)
            logp = logp - torch.log(1 - a.pow(2) + 1e-6)
            return 2.0 * a, logp

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.q1 = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
            self.q2 = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))

        def forward(self, s, a):
            x = torch.cat([s, a], -1)
            return self.q1(x), self.q2(x)

    @dataclass
    class Config:
        gamma: float = 0.98
        tau: float = 0.01
        alpha: float = 0.1
        lr: float = 1e-3

    def __init__(self):
        self.cfg = SAC.Config()
        self.actor, self.critic = SAC.Actor(), SAC.Critic()
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_opt = torch.optim.Adam(self.actor.parameters(), lr=self.cfg.lr)
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), lr=self.cfg.lr)

    def _backup(self, r, s2):
        with torch.no_grad():
            a2, logp2 = self.actor(s2)
            q = torch.min(*self.critic_target(s2, a2)) - self.cfg.alpha * logp2
            return r + self.cfg.gamma * q

    def learn(self, s, a, r, s2):
        y = self._backup(r, s2)
        q1, q2 = self.critic(s, a)
        critic_loss = F.mse_loss(q1, y) + F.mse_loss(q2, y)
        self.critic_opt.zero_grad()
        critic_loss.backward()
        self.critic_opt.step()

        pi, logp = self.actor(s)
        actor_loss = (self.cfg.alpha * logp - torch.min(*self.critic(s, pi))).mean()
        self.actor_opt.zero_grad()
        actor_loss.backward()
        self.actor_opt.step()

        for p, tp in zip(self.critic.parameters(), self.critic_target.parameters()):
            tp.data.mul_(1 - self.cfg.tau).add_(self.cfg.tau * p.data)
        return critic_loss.item(), actor_loss.item()


env = gym.make("Pendulum-v1")
agent = SAC()
buf = {k: np.zeros((1000, n), np.float32) for k, n in dict(s=3, a=1, r=1, s2=3).items()}
s, _ = env.reset(seed=9)
for t in range(500):
    with torch.no_grad():
        a = agent.actor(torch.as_tensor(s))[0].numpy()
    s2, r, terminated, truncated, _ = env.step(a)
    buf["s"][t], buf["a"][t], buf["r"][t], buf["s2"][t] = s, a, r / 8.0, s2
    s = s2 if not truncated else env.reset()[0]
    if t > 100:
        idx = np.random.randint(0, t + 1, 64)
        out = agent.learn(*(torch.from_numpy(buf[k][idx]) for k in ("s", "a", "r", "s2")))
        if t % 100 == 0:
            print(t, out)
