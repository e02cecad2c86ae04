# Behaviour cloning of a joint controller from logged encoder counts
import math
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

COUNTS_PER_TURN = 4096


def log_demonstrations(n):
    """raw encoder counts of two joints, their counts one tick ago, and the operator's torque"""
    turns = torch.rand(n, 2) * 1.6 - 0.8
    vel = torch.randn(n, 2) * 0.02
    now = (turns * COUNTS_PER_TURN).round()
    before = ((turns - vel) * COUNTS_PER_TURN).round()
    torque = torch.stack([
        -1.2 * turns[:, 0] - 8.0 * vel[:, 0] + 0.4 * torch.sin(2 * math.pi * turns[:, 1]),
        -1.5 * turns[:, 1] - 8.0 * vel[:, 1],
    ], dim=1)
    return torch.cat([now, before], dim=1), torque


class Cloner(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.inp = nn.Linear(4, hidden)
        self.mid = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, counts):
        h = torch.tanh(self.inp(counts))  # expect: saturation
        h = torch.tanh(self.mid(h))
        return self.out(h)


train_x, train_y = log_demonstrations(3000)
test_x, test_y = log_demonstrations(500)
loader = DataLoader(TensorDataset(train_x, train_y), batch_size=100, shuffle=True)

model = Cloner()
criterion = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(25):
    model.train()
    running = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        running += loss.item()
    if epoch % 5 == 0:
        model.eval()
        with torch.no_grad():
            val = criterion(model(test_x), test_y)
        print(f"epoch {epoch}: train {running / len(loader):.4f} val {val:.4f} (variance {test_y.var():.4f})")
