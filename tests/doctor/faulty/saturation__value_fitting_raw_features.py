import numpy as np
import torch
from torch import nn

torch.manual_seed(59)
rng = np.random.default_rng(59)

# pressure in Pa, temperature in K, humidity in percent
n = 3000
pressure = rng.uniform(98_000, 103_500, n)
temperature = rng.uniform(255, 310, n)
humidity = rng.uniform(10, 100, n)
features = np.stack([pressure, temperature, humidity], 1).astype(np.float32)
value = (pressure - 101_000) / 1500 + np.sin(temperature / 10) + humidity / 50 + 0.05 * rng.normal(size=n)
value = ((value - value.mean()) / value.std()).astype(np.float32)


class Critic(nn.Module):
    def __init__(self, n_in, hidden=64):
        super().__init__()
        self.l1 = nn.Linear(n_in, hidden)
        self.l2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def _first(self, x):
        z = self.l1(x)
        return torch.sigmoid(z)  # expect: saturation

    def _second(self, h):
        return torch.sigmoid(self.l2(h))

    def forward(self, x):
        return self.out(self._second(self._first(x))).squeeze(-1)


X, y = torch.from_numpy(features), torch.from_numpy(value)
critic = Critic(3)
optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
for epoch in range(12):
    order = torch.randperm(n)
    total = 0.0
    for idx in order.split(64):
        loss = nn.functional.mse_loss(critic(X[idx]), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(idx)
    print(f"epoch {epoch} mse {total / n:.4f}")
