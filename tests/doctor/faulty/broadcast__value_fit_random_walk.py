#!/usr/bin/env python
"""Monte-Carlo value prediction for the boring random walk (19 states)."""
import argparse
import random
import torch

p = argparse.ArgumentParser()
p.add_argument("--episodes", type=int, default=400)
p.add_argument("--epochs", type=int, default=15)
p.add_argument("--lr", type=float, default=5e-3)
args = p.parse_args()

random.seed(4)
torch.manual_seed(4)
N = 19


def episode():
    s, visited = N // 2, []
    while 0 <= s < N:
        visited.append(s)
        s += random.choice((-1, 1))
    g = 1.0 if s >= N else -1.0
    return [(v, g) for v in visited]


def features(s):
    # radial bumps
    centers = torch.linspace(0, N - 1, 8)
    return torch.exp(-0.5 * ((s.unsqueeze(-1) - centers) / 2.0) ** 2)


data = [x for _ in range(args.episodes) for x in episode()]
states = torch.tensor([d[0] for d in data], dtype=torch.float32)
returns = torch.tensor([d[1] for d in data])
print(len(data), "samples")
states, returns = states[:8000], returns[:8000]

v = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
opt = torch.optim.Adam(v.parameters(), lr=args.lr)
X = features(states)
for epoch in range(args.epochs):
    perm = torch.randperm(len(X))
    tot = 0.0
    for i in range(0, len(X), 128):
        j = perm[i:i + 128]
        opt.zero_grad()
        err = v(X[j]) - returns[j]  # expect: broadcast
        loss = err.square().mean()
        loss.backward()
        opt.step()
        tot += loss.item()
    if epoch % 5 == 4:
        print(epoch, tot)

with torch.no_grad():
    pred = v(features(torch.arange(N, dtype=torch.float32))).squeeze(1)
truth = torch.linspace(-1, 1, N + 2)[1:-1]
print("rmse vs truth", (pred - truth).pow(2).mean().sqrt().item())
