# Fit V(s) of a double integrator under a PD controller, through a small discrete code.
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(0)
rng = np.random.default_rng(0)


def mc_value(x0, v0, gamma=0.97, steps=60):
    x, v = x0.copy(), v0.copy()
    total, g = np.zeros_like(x), 1.0
    for _ in range(steps):
        u = -1.2 * x - 0.8 * v
        total += g * -(x ** 2 + 0.1 * u ** 2)
        x, v = x + 0.1 * v, v + 0.1 * u
        g *= gamma
    return total


class CodeEncoder(nn.Module):
    def __init__(self, dim_in, dim_code, levels=8):
        super().__init__()
        self.levels = levels
        self.body = nn.Sequential(nn.Linear(dim_in, 48), nn.ELU(), nn.Linear(48, dim_code))

    def forward(self, s):
        z = torch.sigmoid(self.body(s)) * (self.levels - 1)
        z = torch.round(z)  # expect: graph-cut
        return z / (self.levels - 1)


class ValueHead(nn.Module):
    def __init__(self, dim_code):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim_code, 64), nn.Linear(64, 64)])
        self.out = nn.Linear(64, 1)

    def forward(self, z):
        for layer in self.layers:
            z = F.relu(layer(z))
        return self.out(z).squeeze(-1)


X = rng.uniform(-1, 1, (2048, 2)).astype(np.float32)
y = mc_value(X[:, 0], X[:, 1]).astype(np.float32)
y = (y - y.mean()) / y.std()
X, y = torch.from_numpy(X), torch.from_numpy(y)

encoder, head = CodeEncoder(2, 6), ValueHead(6)
optimizer = torch.optim.AdamW(
    [{"params": encoder.parameters(), "lr": 2e-3, "weight_decay": 0.0},
     {"params": head.parameters(), "lr": 1e-3}],
    weight_decay=1e-4,
)
for epoch in range(15):
    perm = torch.randperm(len(X))
    running = 0.0
    for idx in perm.split(128):
        pred = head(encoder(X[idx]))
        loss = F.smooth_l1_loss(pred, y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item() * len(idx)
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: {running / len(X):.4f}")
