import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal


class Buffer:
    def __init__(self, size, od, ad):
        self.s = np.zeros((size, od), np.float32)
        self.a = np.zeros((size, ad), np.float32)
        self.r = np.zeros((size, 1), np.float32)
        self.s2 = np.zeros((size, od), np.float32)
        self.d = np.zeros((size, 1), np.float32)
        self.n, self.size = 0, size

    def put(self, *item):
        i = self.n % self.size
        self.s[i], self.a[i], self.r[i], self.s2[i], self.d[i] = item
        self.n += 1

    def batch(self, k):
        idx = np.random.randint(0, min(self.n, self.size), k)
        return [torch.from_numpy(x[idx]) for x in (self.s, self.a, self.r, self.s2, self.d)]


class GaussianActor(nn.Module):
    def __init__(self, od, ad, scale):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(od, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.mu, self.ls = nn.Linear(64, ad), nn.Linear(64, ad)
        self.scale = scale

    def forward(self, s):
        h = self.body(s)
        dist = Normal(self.mu(h), self.ls(h).clamp(-5, 2).exp())
        u = dist.sample()  # expect: sample-not-rsample
        a = torch.tanh(u)
        # change of variables for the tanh
        logp = dist.log_prob(u) - 2 * (np.log(2) - u - F.softplus(-2 * u))
        return a * self.scale, logp.sum(1, keepdim=True)


class Twin(nn.Module):
    def __init__(self, od, ad):
        super().__init__()
        mk = lambda: nn.Sequential(nn.Linear(od + ad, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.q1, self.q2 = mk(), mk()

    def forward(self, s, a):
        x = torch.cat([s, a], 1)
        return self.q1(x), self.q2(x)


class SAC:
    def __init__(self):
        self.actor, self.critic = GaussianActor(3, 1, 2.0), Twin(3, 1)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.a_opt = torch.optim.Adam(self.actor.parameters(), 1e-3)
        self.c_opt = torch.optim.Adam(self.critic.parameters(), 1e-3)
        self.alpha, self.gamma, self.tau = 0.1, 0.98, 0.01

    def update(self, s, a, r, s2, d):
        with torch.no_grad():
            a2, lp2 = self.actor(s2)
            y = r + self.gamma * (1 - d) * (torch.min(*self.target(s2, a2)) - self.alpha * lp2)
        q1, q2 = self.critic(s, a)
        c_loss = F.mse_loss(q1, y) + F.mse_loss(q2, y)
        self.c_opt.zero_grad()
        c_loss.backward()
        self.c_opt.step()

        pi, lp = self.actor(s)
        a_loss = (self.alpha * lp - torch.min(*self.critic(s, pi))).mean()
        self.a_opt.zero_grad()
        a_loss.backward()
        self.a_opt.step()
        with torch.no_grad():
            for p, t in zip(self.critic.parameters(), self.target.parameters()):
                t.mul_(1 - self.tau).add_(self.tau * p)
        return c_loss.item(), a_loss.item()


def main():
    torch.manual_seed(0)
    np.random.seed(0)
    env = gym.make("Pendulum-v1")
    agent, buf = SAC(), Buffer(5000, 3, 1)
    s, _ = env.reset(seed=0)
    ret = 0.0
    for step in range(1, 801):
        with torch.no_grad():
            a = agent.actor(torch.from_numpy(s)[None])[0][0].numpy()
        s2, r, term, trunc, _ = env.step(a)
        buf.put(s, a, r / 10, s2, float(term))
        s, ret = s2, ret + r
        if step > 200:
            stats = agent.update(*buf.batch(64))
        if term or trunc:
            print(step, round(ret, 1), stats if step > 200 else None)
            s, _ = env.reset()
            ret = 0.0


main()
