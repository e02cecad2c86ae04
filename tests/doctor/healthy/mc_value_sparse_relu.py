# Value of a random walker by Monte Carlo returns, with a network whose hidden units are mostly silent.
import random

import numpy as np
import torch
import torch.nn as nn

random.seed(0)
np.random.seed(0)
torch.manual_seed(0)

GAMMA = 0.9
walls = [3.0, 7.0]


def run_episode():
    """Walk on [0, 10] until an end is reached; crossing a wall costs 0.2, the right end pays 1."""
    x, states, rewards = random.uniform(1, 9), [], []
    while 0 < x < 10:
        states.append(x)
        new = x + random.choice([-1, 1]) * random.uniform(0.3, 1.5)
        r = -0.2 * sum((x - w) * (new - w) < 0 for w in walls)
        if new >= 10:
            r += 1.0
        rewards.append(r)
        x = new
    return states, rewards


def returns_of(rewards):
    G = np.zeros(len(rewards))
    g = 0.0
    for i in range(len(rewards))[::-1]:
        g = rewards[i] + GAMMA * g
        G[i] = g
    return G


class SparseValue(nn.Module):
    def __init__(self, n=96):
        super().__init__()
        # each unit answers to its own neighbourhood only
        centres = torch.linspace(0, 10, n)
        self.register_buffer("centres", centres)
        self.width = nn.Parameter(torch.full((n,), 1.0))
        self.threshold = nn.Parameter(torch.full((n,), 0.6))
        self.out = nn.Linear(n, 1)

    def forward(self, x):
        bump = torch.exp(-((x.unsqueeze(-1) - self.centres) / self.width) ** 2)
        self.act = torch.relu(bump - self.threshold)
        return self.out(self.act).squeeze(-1)


net = SparseValue()
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
data_s, data_g = [], []
for it in range(1, 401):
    for _ in range(3):
        s, r = run_episode()
        data_s.extend(s)
        data_g.extend(returns_of(r).tolist())
    data_s, data_g = data_s[-4000:], data_g[-4000:]
    idx = np.random.randint(0, len(data_s), 64)
    x = torch.tensor([data_s[i] for i in idx])
    y = torch.tensor([data_g[i] for i in idx])
    loss = ((net(x) - y) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 80 == 0:
        on = (net.act > 0).float().mean().item()
        with torch.no_grad():
            curve = net(torch.tensor([1.0, 3.5, 5.0, 6.5, 9.0]))
        print(f"{it} mse {loss.item():.4f} active {on:.3f} V {np.round(curve.numpy(), 2)}")
