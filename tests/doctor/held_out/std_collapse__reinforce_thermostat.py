import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

# bandit-like thermostat: read (inside, outside), set the heater once, get the comfort

torch.manual_seed(30)
gen = np.random.default_rng(30)


def sample_weather(n):
    inside = gen.uniform(-1, 1, n)
    outside = gen.uniform(-1, 1, n)
    return np.stack([inside, outside], 1).astype(np.float32)


def comfort(obs, heat):
    ideal = 0.6 - 0.5 * obs[:, 0] - 0.3 * obs[:, 1]
    return -np.square(heat - ideal)


class HeaterPolicy(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Sequential(nn.Linear(2, 32), nn.Tanh())
        self.mu = nn.Linear(32, 1)
        self.spread = nn.Linear(32, 1)

    def forward(self, obs):
        h = self.base(obs)
        std = torch.exp(self.spread(h))  # expect: std-collapse
        return Normal(self.mu(h).squeeze(-1), std.squeeze(-1))


policy = HeaterPolicy()
opt = torch.optim.Adam(policy.parameters(), lr=0.02)
baseline = 0.0
for it in range(1, 1001):
    obs = sample_weather(64)
    pd = policy(torch.from_numpy(obs))
    heat = pd.sample()
    reward = comfort(obs, heat.numpy())
    adv = torch.as_tensor(reward - baseline, dtype=torch.float32)
    adv = adv / (adv.std() + 1e-8)
    baseline = 0.9 * baseline + 0.1 * float(reward.mean())
    loss = -(pd.log_prob(heat) * adv).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 100 == 0:
        print(f"{it:4d} reward {reward.mean():.5f} loss {loss.item():+.3f} std {pd.stddev.mean().item():.2e}")
