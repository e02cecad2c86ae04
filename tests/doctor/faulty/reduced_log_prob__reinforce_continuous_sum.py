import math

import torch
import torch.nn as nn


def gaussian_log_prob(x, mean, log_std):
    return -0.5 * ((x - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


class GaussianActor(nn.Module):
    def __init__(self, obs_dim=3, act_dim=2):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(obs_dim, 32), nn.Tanh(), nn.Linear(32, act_dim))
        self.log_std = nn.Parameter(torch.zeros(act_dim))

    def act(self, obs):
        with torch.no_grad():
            mean = self.mean(obs)
            return mean + self.log_std.exp() * torch.randn_like(mean)

    def log_prob(self, obs, act):
        lp = gaussian_log_prob(act, self.mean(obs), self.log_std.clamp(-1.5, 0.5))
        return lp.sum()  # expect: reduced-log-prob


W = torch.tensor([[1.0, -0.5], [0.2, 0.8], [0.0, 0.4]])


def reward_fn(obs, act):
    # the best action is a linear function of the observation
    return -((act - obs @ W) ** 2).sum(dim=-1)


torch.manual_seed(4)
actor = GaussianActor()
optimizer = torch.optim.SGD(actor.parameters(), lr=1e-4, momentum=0.9)
baseline = 0.0
for iteration in range(400):
    obs = torch.randn(64, 3)
    act = actor.act(obs)
    rew = reward_fn(obs, act)
    adv = rew - baseline
    baseline = 0.9 * baseline + 0.1 * rew.mean().item()

    logp = actor.log_prob(obs, act)
    loss = -(logp * adv).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if iteration % 80 == 0:
        print(f"{iteration:4d}  reward {rew.mean().item():.3f}  std {actor.log_std.exp().mean().item():.3f}")
