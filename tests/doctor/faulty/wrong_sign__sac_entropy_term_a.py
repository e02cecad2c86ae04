import copy
import random
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

torch.manual_seed(37)
random.seed(37)
rng = np.random.default_rng(37)


def q_net():
    return nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 1))


nets = SimpleNamespace(pi=nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 2)), q=(q_net(), q_net()))
nets.q_targ = copy.deepcopy(nets.q)
pi_opt = torch.optim.Adam(nets.pi.parameters(), lr=1e-3)
q_opt = torch.optim.Adam([p for q in nets.q for p in q.parameters()], lr=1e-3)
ALPHA, GAMMA = 0.1, 0.95
replay = []


def pi(s):
    mu, log_std = nets.pi(s).chunk(2, -1)
    d = Normal(mu, log_std.clamp(-4, 1).exp())
    u = d.rsample()
    a = torch.tanh(u)
    return a, d.log_prob(u) - torch.log(1 - a.pow(2) + 1e-6)


def min_q(qs, s, a):
    x = torch.cat([s, a], 1)
    return torch.min(qs[0](x), qs[1](x))


def soft_value(qs, s, a, logp):
    return min_q(qs, s, a) - ALPHA * logp


def q_loss(s, a, r, s2):
    with torch.no_grad():
        a2, lp2 = pi(s2)
        y = r + GAMMA * soft_value(nets.q_targ, s2, a2, lp2)
    x = torch.cat([s, a], 1)
    return sum(F.mse_loss(q(x), y) for q in nets.q)


def pi_loss(s):
    a, logp = pi(s)
    return (-ALPHA * logp - min_q(nets.q, s, a)).mean()  # expect: wrong-sign


def env_step(s, a):
    s2 = s + 0.1 * np.array([s[1], 2 * a - 0.2 * s[1]]) + 0.01 * rng.normal(size=2)
    return np.clip(s2, -3, 3), -(s2[0] ** 2) - 0.05 * s2[1] ** 2


s = rng.uniform(-1, 1, 2)
for t in range(600):
    with torch.no_grad():
        a = pi(torch.tensor(s, dtype=torch.float32)[None])[0].item()
    s2, r = env_step(s, a)
    replay.append((s, [a], [r], s2))
    s = s2 if (t + 1) % 50 else rng.uniform(-1, 1, 2)
    if len(replay) < 100:
        continue
    batch = [torch.tensor(np.array(c), dtype=torch.float32) for c in zip(*random.sample(replay, 48))]
    lq = q_loss(*batch)
    q_opt.zero_grad()
    lq.backward()
    q_opt.step()
    lp = pi_loss(batch[0])
    pi_opt.zero_grad()
    lp.backward()
    pi_opt.step()
    with torch.no_grad():
        for q, qt in zip(nets.q, nets.q_targ):
            for p, pt in zip(q.parameters(), qt.parameters()):
                pt.copy_(0.99 * pt + 0.01 * p)
    if t % 150 == 0:
        print(t, lq.item(), lp.item())
