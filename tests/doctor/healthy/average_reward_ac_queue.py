"""
Average-reward actor-critic (differential TD) for admission control of a queue.
The queue runs for ever: there are no episodes.
"""
import numpy as np
import torch
from torch import nn


class Queue:
    """One server. Customers offer 0.25, 0.5, 1 or 2; every waiting customer costs 0.12 per tick."""

    prices = np.array([0.25, 0.5, 1.0, 2.0])

    def __init__(self, seed, capacity=10, service=0.5):
        self.rng = np.random.RandomState(seed)
        self.capacity, self.service = capacity, service
        self.length = 0
        self.kind = self.rng.randint(4)

    def observe(self):
        x = np.zeros(6, dtype=np.float32)
        x[self.kind] = 1.0
        x[4] = self.length / self.capacity
        x[5] = float(self.length == self.capacity)
        return x

    def step(self, accept):
        reward = 0.0
        if accept and self.length < self.capacity:
            self.length += 1
            reward += self.prices[self.kind]
        if self.length and self.rng.rand() < self.service:
            self.length -= 1
        reward -= 0.12 * self.length
        self.kind = self.rng.randint(4)
        return self.observe(), reward


def mlp(n_out):
    return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, n_out))


torch.manual_seed(11)
np.random.seed(11)
queues = [Queue(seed) for seed in range(16)]
pi, v = mlp(2), mlp(1)
opt_pi = torch.optim.SGD(pi.parameters(), lr=0.5)
opt_v = torch.optim.SGD(v.parameters(), lr=0.1)
r_bar, eta = 0.0, 0.02
history = []

obs = np.stack([q.observe() for q in queues])
for t in range(700):
    x = torch.from_numpy(obs)
    logits = pi(x)
    logp_all = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    with torch.no_grad():
        cdf = logp_all.exp().cumsum(1)
        u = torch.from_numpy(np.random.rand(len(queues), 1)).float()
        a = (u > cdf[:, :1]).long()                      # inverse transform, two actions

    results = [q.step(int(ai)) for q, ai in zip(queues, a)]
    obs = np.stack([o for o, _ in results])
    rewards = torch.tensor([r for _, r in results], dtype=torch.float32).view(-1, 1)
    history.append(rewards.mean().item())

    value = v(x)
    with torch.no_grad():
        target = rewards - r_bar + v(torch.from_numpy(obs))
    delta = target - value
    r_bar += eta * delta.mean().item()

    loss_v = 0.5 * (delta ** 2).mean()
    opt_v.zero_grad()
    loss_v.backward()
    opt_v.step()

    logp = logp_all.gather(1, a)
    loss_pi = -(delta.detach() * logp).mean()
    opt_pi.zero_grad()
    loss_pi.backward()
    opt_pi.step()

    if (t + 1) % 100 == 0:
        print(f"t={t + 1} average reward {np.mean(history[-100:]):.3f} (estimate {r_bar:.3f}), loss_v {loss_v.item():.3f}")
