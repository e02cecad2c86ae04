"""Classify two moons; evaluation is done with averaged weights (EMA)."""
import math

import torch
from torch import nn

torch.manual_seed(6)


def moons(n, noise=0.1):
    half = n // 2
    t = torch.rand(half) * math.pi
    a = torch.stack([torch.cos(t), torch.sin(t)], dim=1)
    b = torch.stack([1 - torch.cos(t), 0.5 - torch.sin(t)], dim=1)
    x = torch.cat([a, b]) + noise * torch.randn(2 * half, 2)
    y = torch.cat([torch.zeros(half), torch.ones(half)]).long()
    return x, y


class EMA:
    def __init__(self, model, decay=0.9):
        self.model, self.decay = model, decay
        self.shadow = [p.detach().clone() for p in model.parameters()]
        self.backup = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self):
        for s, p in zip(self.shadow, self.model.parameters()):
            s.mul_(self.decay).add_(p, alpha=1 - self.decay)

    @torch.no_grad()
    def evaluate(self, x, y):
        averaged = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
        for p, s in zip(averaged.parameters(), self.shadow):
            p.copy_(s)
        acc = (averaged(x).argmax(1) == y).float().mean().item()
        return acc

    def restore(self):
        for p, b in zip(self.model.parameters(), self.backup):
            p.data = b.clone()  # expect: weights-overwritten


model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
ema = EMA(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
criterion = nn.CrossEntropyLoss()
x_train, y_train = moons(800)
x_test, y_test = moons(300)

for epoch in range(25):
    perm = torch.randperm(len(x_train))
    total = 0.0
    for i in range(0, len(perm), 40):
        idx = perm[i:i + 40]
        loss = criterion(model(x_train[idx]), y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update()
        total += loss.item()
    acc = ema.evaluate(x_test, y_test)
    ema.restore()
    if epoch % 5 == 0:
        print(f"epoch {epoch:2d} loss {total / 20:.4f} ema accuracy {acc:.3f}")
