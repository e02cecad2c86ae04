"""Entropy-regularised control of a swimmer in a vortex, with a random-feature novelty bonus."""
import copy
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(28)
N, gamma, temp = 32, 0.95, 0.05
mlp = lambda i, o, h=48: nn.Sequential(nn.Linear(i, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, o))

pi, q1, q2 = mlp(2, 4), mlp(4, 1), mlp(4, 1)
t1, t2 = (copy.deepcopy(q).requires_grad_(False) for q in (q1, q2))
riddle = mlp(2, 8).requires_grad_(False)          # fixed random features
guess = mlp(2, 8)
o_pi = torch.optim.Adam(pi.parameters(), lr=1e-3)
o_q = torch.optim.Adam([*q1.parameters(), *q2.parameters()], lr=2e-3)
o_g = torch.optim.Adam(guess.parameters(), lr=1e-3)


def stroke(x):
    m, ls = pi(x).chunk(2, -1)
    d = torch.distributions.Normal(m, ls.clamp(-3, 1).exp())
    z = d.rsample()
    correction = 2 * (math.log(2) - z - F.softplus(-2 * z))
    return torch.tanh(z), (d.log_prob(z) - correction).sum(-1)


def vortex(x, u):
    swirl = torch.stack([-x[:, 1], x[:, 0]], 1) / (1 + x.square().sum(1, keepdim=True))
    x2 = (x + 0.25 * u + 0.1 * swirl).clamp(-3, 3)
    return x2, -(x2 - torch.tensor([1.0, 0.5])).norm(dim=1)


Q = lambda q, x, u: q(torch.cat([x, u], -1)).squeeze(-1)
x, bag = 2 * torch.randn(N, 2), []
for k in range(280):
    with torch.no_grad():
        u, _ = stroke(x)
        x2, r = vortex(x, u)
    bag.append((x, u, r, x2))
    x = torch.where(torch.rand(N, 1) < 0.05, 2 * torch.randn(N, 2), x2)

    X, U, R, X2 = (torch.cat(c) for c in zip(*(bag[i] for i in torch.randint(len(bag), (4,)).tolist())))
    novelty = (guess(X2) - riddle(X2)).square().mean(-1)
    o_g.zero_grad()
    novelty.mean().backward()
    o_g.step()

    with torch.no_grad():
        U2, lp2 = stroke(X2)
        y = R + 0.1 * novelty + gamma * (torch.min(Q(t1, X2, U2), Q(t2, X2, U2)) - temp * lp2)
    loss_q = F.mse_loss(Q(q1, X, U), y) + F.mse_loss(Q(q2, X, U), y)
    o_q.zero_grad()
    loss_q.backward()
    o_q.step()

    V, lp = stroke(X)
    loss_pi = (temp * lp - torch.min(Q(q1, X, V), Q(q2, X, V))).mean()
    o_pi.zero_grad()
    loss_pi.backward()
    o_pi.step()

    with torch.no_grad():
        for a, b in ((q1, t1), (q2, t2)):
            for p, tp in zip(a.parameters(), b.parameters()):
                tp.mul_(0.98).add_(p, alpha=0.02)
    if k % 70 == 0:
        print(f"{k:4d} reward {r.mean().item():.3f} loss_q {loss_q.item():.3f} entropy {-lp.mean().item():.3f}")
