# An actor that was cloned from demonstrations is kept fixed until the new critic is usable, then both are fine-tuned.
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(0)
rng = np.random.default_rng(0)


class Intercept:
    """Batch of 1-D pursuits. s = (gap, speed). Caught within 0.1: episode over with +1. A tick costs 0.05."""

    def __init__(self, n):
        self.n = n
        self.s = np.zeros((n, 2), dtype=np.float32)
        self.age = np.zeros(n, dtype=int)
        self.restart(np.ones(n, dtype=bool))

    def restart(self, m):
        self.s[m, 0] = rng.uniform(-1.5, 1.5, m.sum())
        self.s[m, 1] = 0.0
        self.age[m] = 0

    def step(self, a):
        self.s[:, 1] = 0.6 * self.s[:, 1] + 0.3 * np.clip(a, -1, 1)
        self.s[:, 0] = np.clip(self.s[:, 0] + self.s[:, 1], -2, 2)
        self.age += 1
        caught = np.abs(self.s[:, 0]) < 0.1
        late = (self.age >= 25) & ~caught
        reward = np.where(caught, 1.0, -0.05).astype(np.float32)
        s_next = self.s.copy()
        self.restart(caught | late)
        return s_next, reward, caught


actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
log_std = nn.Parameter(torch.tensor([-0.7]))
critic = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

# clone a clumsy controller
clone_opt = torch.optim.Adam(actor.parameters(), lr=1e-2)
for _ in range(60):
    s = torch.rand(64, 2) * torch.tensor([4.0, 1.0]) - torch.tensor([2.0, 0.5])
    demo = (-0.3 * s[:, :1]).clamp(-1, 1)
    clone_loss = nn.functional.mse_loss(actor(s), demo)
    clone_opt.zero_grad()
    clone_loss.backward()
    clone_opt.step()
print("clone loss", clone_loss.item())

actor_params = list(actor.parameters()) + [log_std]
for p in actor_params:
    p.requires_grad_(False)
optimizer = torch.optim.Adam([
    {"params": actor_params, "lr": 2e-3},
    {"params": critic.parameters(), "lr": 5e-3},
])

WARMUP, TOTAL, GAMMA = 150, 900, 0.95
env = Intercept(64)
rewards = []
for it in range(TOTAL):
    if it == WARMUP:
        for p in actor_params:
            p.requires_grad_(True)
    s = torch.from_numpy(env.s.copy())
    mean, std = actor(s), log_std.clamp(-2, 0.5).exp()
    with torch.no_grad():
        a = mean + std * torch.randn_like(mean)
    s2, r, caught = env.step(a.numpy()[:, 0])
    rewards.append(r.mean())

    v = critic(s).squeeze(-1)
    with torch.no_grad():
        v2 = critic(torch.from_numpy(s2)).squeeze(-1)
        target = torch.from_numpy(r) + GAMMA * v2 * torch.from_numpy(~caught)
    loss = (target - v).pow(2).mean()
    if it >= WARMUP:
        advantage = (target - v).detach()
        log_prob = (-0.5 * ((a - mean) / std) ** 2 - torch.log(std) - 0.5 * np.log(2 * np.pi)).squeeze(-1)
        loss = loss - (log_prob * advantage).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if it % 150 == 149:
        print(f"{it + 1:4d} reward {np.mean(rewards[-100:]):+.4f} loss {loss.item():+.4f} std {std.item():.3f}")
