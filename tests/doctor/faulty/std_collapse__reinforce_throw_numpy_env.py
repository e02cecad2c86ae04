import numpy as np
import torch
import torch.nn as nn

np.random.seed(6)
torch.manual_seed(6)


# throw a ball with a certain force so that it lands at the target
def new_targets(n):
    return np.random.uniform(1.0, 3.0, (n, 1)).astype(np.float32)


def landing_reward(force, target):
    return -np.abs(force - target)[:, 0] * 4.0


class ThrowPolicy(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.Tanh())
        self.mean = nn.Linear(32, 1)
        self.spread = nn.Linear(32, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.mean(h), torch.exp(self.spread(h))  # expect: std-collapse


pol = ThrowPolicy()
opt = torch.optim.Adam(pol.parameters(), lr=0.02)
running = None
for it in range(700):
    tgt = new_targets(64)
    mean, std = pol(torch.from_numpy(tgt))
    dist = torch.distributions.Normal(mean, std)
    force = dist.sample()
    rew = landing_reward(force.numpy(), tgt)
    running = rew.mean() if running is None else 0.9 * running + 0.1 * rew.mean()
    adv = torch.from_numpy(rew - running).float()
    # unit scale advantages
    adv = adv / (adv.std() + 1e-8)
    loss = -(dist.log_prob(force).squeeze(1) * adv).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 100 == 0:
        print(it, "reward", round(float(rew.mean()), 3), "std", std.mean().item())
