import math

import torch
import torch.nn as nn
from torch.distributions import MultivariateNormal

# Contextual bandit with a 2-dim action; reward is highest at a context-dependent rotation.
torch.manual_seed(21)


def reward_fn(ctx, act):
    c, s = math.cos(0.7), math.sin(0.7)
    rot = torch.tensor([[c, -s], [s, c]])
    return -((act - ctx @ rot.T) ** 2).sum(-1)


class GaussianPolicy(nn.Module):
    def __init__(self, ctx_dim=2, act_dim=2):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(ctx_dim, 32), nn.Tanh(), nn.Linear(32, act_dim))
        self.register_buffer("cov", 0.25 * torch.eye(act_dim))

    def forward(self, ctx):
        return MultivariateNormal(self.mean(ctx), covariance_matrix=self.cov)


policy = GaussianPolicy()
opt = torch.optim.Adam(policy.parameters(), lr=5e-3)
baseline = 0.0

for it in range(300):
    ctx = torch.rand(64, 2) * 2 - 1
    dist = policy(ctx)
    action = dist.rsample()  # expect: rsample-in-score
    with torch.no_grad():
        r = reward_fn(ctx, action)
    advantage = r - baseline
    baseline = 0.95 * baseline + 0.05 * r.mean().item()

    loss = -(dist.log_prob(action) * advantage).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 75 == 0:
        print(f"{it:4d}  mean reward {r.mean().item():.3f}")
