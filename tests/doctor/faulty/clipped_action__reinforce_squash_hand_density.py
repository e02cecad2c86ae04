import math

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(3)


def normal_logpdf(x, mu, log_std):
    z = (x - mu) * torch.exp(-log_std)
    return (-0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


class Policy(nn.Module):
    def __init__(self, obs_dim, act_dim):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(obs_dim, 64), nn.ReLU(), nn.Linear(64, act_dim))
        self.log_std = nn.Parameter(torch.zeros(act_dim))

    def forward(self, obs):
        return self.body(obs), self.log_std.clamp(-2.0, 1.0)

    def act(self, obs):
        mu, log_std = self(obs)
        raw = mu + log_std.exp() * torch.randn_like(mu)
        return torch.tanh(raw)


env = gym.make("MountainCarContinuous-v0", max_episode_steps=150)
policy = Policy(2, 1)
value = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))
opt = torch.optim.Adam([
    {"params": policy.parameters(), "lr": 2e-3},
    {"params": value.parameters(), "lr": 5e-3},
])
gamma = 0.98
scale = torch.tensor([1.0, 15.0])

for episode in range(32):
    obs, _ = env.reset(seed=episode)
    states, actions, rewards = [], [], []
    finished = False
    while not finished:
        o = torch.as_tensor(obs) * scale
        with torch.no_grad():
            a = policy.act(o)
        obs, r, terminated, truncated, _ = env.step(a.numpy())
        r += 100.0 * obs[1] ** 2          # shaping: speed is good
        states.append(o); actions.append(a); rewards.append(float(r))
        finished = terminated or truncated
    with torch.no_grad():
        tail = 0.0 if terminated else value(torch.as_tensor(obs) * scale).item()
    returns = []
    for r in reversed(rewards):
        tail = r + gamma * tail
        returns.append(tail)
    G = torch.tensor(returns[::-1], dtype=torch.float32)
    S, A = torch.stack(states), torch.stack(actions)
    V = value(S).squeeze(-1)
    adv = (G - V).detach()
    adv = adv / (adv.std() + 1e-6)
    mu, log_std = policy(S)
    logp = normal_logpdf(A, mu, log_std)  # expect: clipped-action
    loss = -(logp * adv).mean() + nn.functional.huber_loss(V, G)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if episode % 8 == 0:
        print(episode, f"return {np.sum(rewards):.2f} std {log_std.exp().item():.3f}")
