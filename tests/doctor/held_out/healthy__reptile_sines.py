# Reptile: inner SGD on one task, then the slow weights move toward the result
import copy
import math
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
random.seed(0)


class Task:
    def __init__(self):
        self.amp, self.phase = random.uniform(0.5, 2.0), random.uniform(0, math.pi)

    def draw(self, n):
        x = torch.rand(n, 1) * 8 - 4
        return x, self.amp * torch.sin(x + self.phase)


slow = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))


def adapt(start, task, steps, lr=0.02, data=None):
    fast = copy.deepcopy(start)
    inner = torch.optim.SGD(fast.parameters(), lr=lr)
    for _ in range(steps):
        x, y = data or task.draw(16)
        err = F.mse_loss(fast(x), y)
        inner.zero_grad()
        err.backward()
        inner.step()
    return fast, err.item()


def score(net):
    res = []
    for _ in range(8):
        task = Task()
        few = task.draw(10)
        fast, _ = adapt(net, task, 16, lr=0.03, data=few)
        x, y = task.draw(100)
        with torch.no_grad():
            res.append(F.mse_loss(fast(x), y).item())
    return sum(res) / len(res)


STEPS = 160
for it in range(STEPS):
    fast, last = adapt(slow, Task(), 14, lr=0.03)
    rate = 0.5 * (1 - it / STEPS) + 0.02
    with torch.no_grad():
        for ps, pf in zip(slow.parameters(), fast.parameters()):
            ps.add_(rate * (pf - ps))
    if it % 40 == 0:
        print(it, "inner", round(last, 4), "few-shot error", round(score(slow), 4))
print("final few-shot error", score(slow))
