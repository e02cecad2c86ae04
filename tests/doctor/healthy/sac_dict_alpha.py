import copy
import math

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(131)
np.random.seed(131)


def net(i, o):
    return nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, o))


class Agent:
    def __init__(self):
        self.m = {"actor": net(3, 2), "q": nn.ModuleList([net(4, 1), net(4, 1)])}
        self.m["q_bar"] = copy.deepcopy(self.m["q"])
        self.log_alpha = nn.Parameter(torch.tensor(-1.5))
        self.actor_opt = torch.optim.Adam(self.m["actor"].parameters(), lr=1e-3)
        self.q_opt = torch.optim.Adam(self.m["q"].parameters(), lr=1e-3)
        self.alpha_opt = torch.optim.Adam([self.log_alpha], lr=1e-3)

    def _heads(self, s):
        mu, raw = self.m["actor"](s).chunk(2, -1)
        return mu, -4.0 + 2.5 * (torch.tanh(raw) + 1)

    def _reparameterise(self, s):
        mu, log_std = self._heads(s)
        eps = torch.randn_like(mu)
        u = mu + log_std.exp() * eps
        logp = -0.5 * eps.pow(2) - log_std - 0.5 * math.log(2 * math.pi)
        return u, logp

    def pi(self, s):
        u, logp = self._reparameterise(s)
        a = torch.tanh(u)
        return 2.0 * a, logp - torch.log(2.0 * (1 - a.pow(2)) + 1e-6)

    def q_min(self, which, s, a):
        x = torch.cat([s, a], -1)
        return torch.min(*[q(x) for q in self.m[which]])

    def learn(self, s, a, r, s2):
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            a2, lp2 = self.pi(s2)
            y = r + 0.98 * (self.q_min("q_bar", s2, a2) - alpha * lp2)
        x = torch.cat([s, a], -1)
        q_loss = sum(F.mse_loss(q(x), y) for q in self.m["q"])
        self.q_opt.zero_grad()
        q_loss.backward()
        self.q_opt.step()

        for p in self.m["q"].parameters():
            p.requires_grad = False
        act, lp = self.pi(s)
        pi_loss = (alpha * lp - self.q_min("q", s, act)).mean()
        self.actor_opt.zero_grad()
        pi_loss.backward()
        self.actor_opt.step()
        for p in self.m["q"].parameters():
            p.requires_grad = True

        alpha_loss = -(self.log_alpha * (lp - 1.0).detach()).mean()
        self.alpha_opt.zero_grad()
        alpha_loss.backward()
        self.alpha_opt.step()
        for p, t in zip(self.m["q"].parameters(), self.m["q_bar"].parameters()):
            t.data.copy_(0.01 * p.data + 0.99 * t.data)
        return q_loss.item(), pi_loss.item(), alpha.item()


env, agent = gym.make("Pendulum-v1"), Agent()
S, A, R, S2 = np.zeros((500, 3), np.float32), np.zeros((500, 1), np.float32), np.zeros((500, 1), np.float32), np.zeros((500, 3), np.float32)
s, _ = env.reset(seed=131)
for t in range(480):
    with torch.no_grad():
        a = agent.pi(torch.from_numpy(s))[0].numpy()
    s2, r, terminated, truncated, _ = env.step(a)
    S[t], A[t], R[t], S2[t] = s, a, r / 8, s2
    s = env.reset()[0] if truncated else s2
    if t > 100:
        i = np.random.randint(0, t + 1, 64)
        out = agent.learn(*(torch.from_numpy(b[i]) for b in (S, A, R, S2)))
        if t % 100 == 0:
            print(t, out)
