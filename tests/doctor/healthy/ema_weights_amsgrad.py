"""Regression with an exponential moving average of the weights; the average is what gets evaluated."""
from copy import deepcopy

import numpy as np
import torch


class EMA:
    def __init__(self, model, decay):
        self.shadow = deepcopy(model)
        self.shadow.requires_grad_(False)
        self.shadow.eval()
        self.decay, self.num_updates = decay, 0

    @torch.no_grad()
    def update(self, model):
        self.num_updates += 1
        d = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for s, p in zip(self.shadow.parameters(), model.parameters()):
            s.mul_(d).add_(p, alpha=1 - d)
        for s, b in zip(self.shadow.buffers(), model.buffers()):
            s.copy_(b)


def friedman(n, rng, noise):
    x = rng.random((n, 10)).astype(np.float32)
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = y + noise * rng.standard_normal(n)
    return torch.from_numpy(x), torch.from_numpy(((y - 14.0) / 5.0).astype(np.float32)).unsqueeze(1)


def build_net():
    return torch.nn.Sequential(
        torch.nn.Linear(10, 64),
        torch.nn.BatchNorm1d(64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
    )


rng = np.random.default_rng(21)
torch.manual_seed(21)
x_train, y_train = friedman(1500, rng, noise=1.0)
x_test, y_test = friedman(500, rng, noise=0.0)
net = build_net()
ema = EMA(net, decay=0.99)
opt = torch.optim.Adam(net.parameters(), lr=1e-2, amsgrad=True)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1e-2, total_steps=700)
mse = torch.nn.MSELoss()

for step in range(700):
    idx = torch.from_numpy(rng.integers(0, len(x_train), 32))
    loss = mse(net(x_train[idx]), y_train[idx])
    opt.zero_grad()
    loss.backward()
    opt.step()
    sched.step()
    ema.update(net)
    if (step + 1) % 100 == 0:
        snapshot = deepcopy(net).eval()
        with torch.no_grad():
            raw = mse(snapshot(x_test), y_test).item()
            averaged = mse(ema.shadow(x_test), y_test).item()
        print(f"step {step + 1:4d} train {loss.item():.4f} test {raw:.4f} test (EMA) {averaged:.4f}")
