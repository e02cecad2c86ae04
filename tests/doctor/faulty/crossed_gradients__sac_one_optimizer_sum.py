"""Minimal SAC (fixed alpha, single Q) on a 1-step-noise LQR, everything in one Adam."""
import copy
import itertools
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal

torch.manual_seed(7)
random.seed(7)

alpha, gamma, tau = 0.05, 0.95, 0.02


def mlp(n_in, n_out, width=48):
    return nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_out))


class GaussianPolicy(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.net = mlp(obs_dim, 2 * act_dim)

    def forward(self, obs):
        mu, log_std = self.net(obs).chunk(2, dim=-1)
        dist = Normal(mu, log_std.clamp(-5, 1).exp())
        u = dist.rsample()
        a = torch.tanh(u)
        # change of variables, numerically stable form
        corr = 2 * (0.6931472 - u - F.softplus(-2 * u))
        logp = (dist.log_prob(u) - corr).sum(-1)
        return a, logp


pi = GaussianPolicy(2, 1)
q = mlp(3, 1)
q_targ = copy.deepcopy(q)
for p in q_targ.parameters():
    p.requires_grad_(False)
opt = torch.optim.Adam(itertools.chain(pi.parameters(), q.parameters()), lr=1e-3)

replay = []
M = torch.tensor([[1.0, 0.1], [-0.05, 0.95]])
x = torch.randn(2)
for step in range(550):
    with torch.no_grad():
        a, _ = pi(x.unsqueeze(0))
        a = a.squeeze(0)
        x2 = M @ x + torch.tensor([0.0, 0.3]) * a + 0.02 * torch.randn(2)
    r = -(x2.pow(2).sum() + 0.05 * a.pow(2).sum())
    replay.append((x, a, r, x2))
    x = x2 if step % 40 else torch.randn(2)

    if len(replay) < 100:
        continue
    s, act, rew, s2 = (torch.stack(z) for z in zip(*random.sample(replay, 64)))

    with torch.no_grad():
        a2, logp2 = pi(s2)
        backup = rew + gamma * (q_targ(torch.cat([s2, a2], -1)).squeeze(-1) - alpha * logp2)
    q_loss = F.mse_loss(q(torch.cat([s, act], -1)).squeeze(-1), backup)

    new_a, logp = pi(s)
    q_pi = q(torch.cat([s, new_a], -1)).squeeze(-1)
    pi_loss = (alpha * logp - q_pi).mean()

    opt.zero_grad()
    (q_loss + pi_loss).backward()  # expect: crossed-gradients
    opt.step()

    with torch.no_grad():
        for p, pt in zip(q.parameters(), q_targ.parameters()):
            pt.lerp_(p, tau)
    if step % 100 == 0:
        print(f"{step:4d} q_loss {q_loss.item():8.4f} pi_loss {pi_loss.item():8.4f} logp {logp.mean().item():.3f}")
