# Policy optimisation through a known differentiable model (SVG style): throw at a given distance
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(0)


class ThrowPolicy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 2))
        self.log_std = nn.Parameter(torch.full((2,), -0.5))

    def forward(self, dist_to_target):
        mean = self.body(dist_to_target)
        std = torch.exp(self.log_std)  # expect: std-collapse
        return Normal(mean, std)


def landing_point(action):
    angle, speed = action[:, 0], action[:, 1]
    return 1 + speed + 0.5 * angle + 0.1 * angle * speed


policy = ThrowPolicy()
optimizer = torch.optim.RMSprop([
    {"params": policy.body.parameters(), "lr": 2e-4},
    {"params": [policy.log_std], "lr": 3e-2},
], alpha=0.9)

for it in range(800):
    target = torch.empty(128, 1).uniform_(0.5, 1.5)
    dist = policy(target)
    action = dist.rsample()
    miss = landing_point(action) - target.squeeze(1)
    effort = 0.1 * (action[:, 0] - 0.3).pow(2)
    loss = (miss.pow(2) + effort).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if it % 150 == 0 or it == 799:
        with torch.no_grad():
            test = torch.linspace(0.5, 1.5, 11).unsqueeze(1)
            err = (landing_point(policy.body(test)) - test.squeeze(1)).abs().max()
        print(f"{it:4d} loss {loss.item():.6f} max miss {err.item():.4f} entropy {dist.entropy().sum(-1).mean().item():.3f}")
