"""TD(0) evaluation of a fixed policy on a chain with step costs (values are sums of costs, so below zero)."""
import random
from types import SimpleNamespace

import torch
import torch.nn as nn

random.seed(61)
torch.manual_seed(61)

parts = SimpleNamespace(
    embed=nn.Embedding(20, 16),
    body=nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Linear(32, 1),
        nn.ReLU(),  # expect: dead-relu
    ),
)
optimizer = torch.optim.Adam([*parts.embed.parameters(), *parts.body.parameters()], lr=2e-3)


def value(s):
    return parts.body(parts.embed(s)).squeeze(-1)


def chain_step(s):
    s2 = s + (1 if random.random() < 0.7 else -1)
    s2 = max(s2, 0)
    return s2, -1.0, s2 == 19


def batch_of_transitions(n):
    rows = []
    for _ in range(n):
        s = random.randrange(19)
        rows.append((s, *chain_step(s)))
    s, s2, r, d = zip(*rows)
    return torch.tensor(s), torch.tensor(s2), torch.tensor(r), torch.tensor(d).float()


for it in range(600):
    s, s2, r, d = batch_of_transitions(32)
    with torch.no_grad():
        target = r + 0.9 * (1 - d) * value(s2)
    loss = nn.functional.mse_loss(value(s), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if it % 100 == 0:
        print(it, round(loss.item(), 4))
print([round(v, 2) for v in value(torch.arange(20)).tolist()])
