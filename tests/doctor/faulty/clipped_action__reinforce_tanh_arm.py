"""Reinforce without baseline: two-joint arm has to reach a point. All arms of a batch in parallel."""
import math
import torch
from torch import nn
from torch.distributions import Normal, Independent

torch.manual_seed(30)
B, T = 64, 10


def fk(q):
    return torch.stack([torch.cos(q[:, 0]) + torch.cos(q.sum(1)), torch.sin(q[:, 0]) + torch.sin(q.sum(1))], 1)


def sample_goal(n):
    ang, rad = torch.rand(n) * math.pi, 0.5 + torch.rand(n)
    return torch.stack([rad * ang.cos(), rad * ang.sin()], 1)


policy = nn.Sequential(nn.Linear(6, 64), nn.ELU(), nn.Linear(64, 2))
log_std = nn.Parameter(torch.full((2,), -0.5))
opt = torch.optim.Adam(list(policy.parameters()) + [log_std], lr=4e-3)

for it in range(200):
    q, goal = torch.rand(B, 2), sample_goal(B)
    logps, rewards = [], []
    for t in range(T):
        x = torch.cat([q.cos(), q.sin(), goal - fk(q)], 1)
        pi = Independent(Normal(policy(x), log_std.clamp(-2.5, 0.5).exp()), 1)
        with torch.no_grad():
            dq = torch.tanh(pi.sample())
        logps.append(pi.log_prob(dq))  # expect: clipped-action
        q = q + 0.4 * dq
        rewards.append(-(fk(q) - goal).norm(dim=1))
    rewards = torch.stack(rewards)
    to_go = rewards.flip(0).cumsum(0).flip(0)
    # standardise over the batch, per time step
    w = (to_go - to_go.mean(1, keepdim=True)) / (to_go.std(1, keepdim=True) + 1e-6)
    loss = -(torch.stack(logps) * w).sum(0).mean()
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    if it % 40 == 0:
        print(f"{it:4d} final distance {-rewards[-1].mean():.3f}")
