"""Deterministic actor with a Q critic on a discrete pick-an-arm task with context."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

rng = np.random.default_rng(5)
torch.manual_seed(5)

N_CTX, N_ARMS = 6, 4
W = rng.normal(size=(N_CTX, N_ARMS)).astype(np.float32)


def pull(ctx, arm):
    return float(np.tanh(ctx @ W[:, arm]) + 0.1 * rng.normal())


class Buffer:
    def __init__(self, size):
        self.ctx = np.zeros((size, N_CTX), dtype=np.float32)
        self.arm = np.zeros(size, dtype=np.int64)
        self.rew = np.zeros((size, 1), dtype=np.float32)
        self.n, self.size = 0, size

    def add(self, ctx, arm, rew):
        i = self.n % self.size
        self.ctx[i], self.arm[i], self.rew[i] = ctx, arm, rew
        self.n += 1

    def sample(self, k):
        idx = rng.integers(0, min(self.n, self.size), size=k)
        return torch.from_numpy(self.ctx[idx]), torch.from_numpy(self.arm[idx]), torch.from_numpy(self.rew[idx])


actor = nn.Sequential(nn.Linear(N_CTX, 48), nn.ReLU(), nn.Linear(48, N_ARMS))
critic = nn.Sequential(nn.Linear(N_CTX + N_ARMS, 48), nn.ReLU(), nn.Linear(48, 1))
actor_opt = torch.optim.Adam(actor.parameters(), lr=2e-3)
critic_opt = torch.optim.Adam(critic.parameters(), lr=2e-3)
buffer = Buffer(2000)

rewards = []
for t in range(800):
    ctx = rng.normal(size=N_CTX).astype(np.float32)
    if rng.random() < 0.2:
        arm = int(rng.integers(N_ARMS))
    else:
        with torch.no_grad():
            arm = actor(torch.from_numpy(ctx)).argmax().item()
    rew = pull(ctx, arm)
    rewards.append(rew)
    buffer.add(ctx, arm, rew)
    if t < 64:
        continue

    c, a, r = buffer.sample(64)
    q = critic(torch.cat([c, F.one_hot(a, N_ARMS).float()], dim=1))
    critic_loss = F.mse_loss(q, r)
    critic_opt.zero_grad()
    critic_loss.backward()
    critic_opt.step()

    choice = F.one_hot(actor(c).argmax(dim=1), N_ARMS).float()  # expect: graph-cut
    actor_loss = -critic(torch.cat([c, choice], dim=1)).mean()
    actor_opt.zero_grad()
    actor_loss.backward()
    actor_opt.step()

    if t % 200 == 199:
        print(t + 1, "mean reward %.3f" % np.mean(rewards[-200:]), "critic loss %.4f" % critic_loss.item())
