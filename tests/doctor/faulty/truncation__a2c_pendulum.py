import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
from torch.distributions import Normal

torch.manual_seed(47)

env = gym.make("Pendulum-v1", max_episode_steps=50)
actor = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
log_std = nn.Parameter(torch.zeros(1))
critic = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
actor_opt = torch.optim.Adam([*actor.parameters(), log_std], lr=5e-4)
critic_opt = torch.optim.Adam(critic.parameters(), lr=2e-3)
GAMMA, N = 0.97, 10


def dist(s):
    return Normal(actor(s), log_std.clamp(-1.5, 0.5).exp())


def gather(obs):
    rows = []
    for _ in range(N):
        s = torch.from_numpy(obs)
        with torch.no_grad():
            a = dist(s).sample()
        nxt, r, terminated, truncated, _ = env.step(a.clamp(-2, 2).numpy())
        done = terminated or truncated  # expect: truncation
        rows.append((s, a, torch.tensor([r / 8.0], dtype=torch.float32), torch.from_numpy(nxt), torch.tensor([float(done)])))
        obs = env.reset()[0] if done else nxt
    return obs, [torch.stack(c) for c in zip(*rows)]


def targets(r, s2, done):
    with torch.no_grad():
        return r + GAMMA * (1.0 - done) * critic(s2)


obs, _ = env.reset(seed=47)
for update in range(250):
    obs, (s, a, r, s2, done) = gather(obs)
    y = targets(r, s2, done)
    v = critic(s)
    adv = y - v.detach()
    critic_loss = (v - y).pow(2).mean()
    critic_opt.zero_grad()
    critic_loss.backward()
    critic_opt.step()
    d = dist(s)
    actor_loss = -(d.log_prob(a) * adv).mean() - 0.001 * d.entropy().mean()
    actor_opt.zero_grad()
    actor_loss.backward()
    actor_opt.step()
    if update % 50 == 0:
        print(update, critic_loss.item(), r.mean().item())
