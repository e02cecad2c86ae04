import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(17)
np.random.seed(17)

# yearly load curve: hour of day, day of year, temperature -> consumption
hours = np.random.uniform(0, 24, 2000)
days = np.random.uniform(0, 365, 2000)
temp = 12 - 10 * np.cos(2 * np.pi * days / 365) + np.random.randn(2000)
load = 3 + np.sin(2 * np.pi * (hours - 9) / 24) ** 2 + 0.06 * np.abs(temp - 18) + 0.05 * np.random.randn(2000)
X = np.stack([hours / 12 - 1, days / 182.5 - 1, (temp - 12) / 8], axis=1)
X = torch.tensor(X, dtype=torch.float32)
y = torch.tensor((load - load.mean()) / load.std(), dtype=torch.float32).unsqueeze(1)
train, test = slice(0, 1600), slice(1600, 2000)


class DeepNet(nn.Module):
    def __init__(self, n_in, width, depth):
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.hidden = [nn.Linear(width, width) for _ in range(depth)]  # expect: optimizer-mismatch
        self.drop = nn.Dropout(0.05)
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        x = F.relu(self.inp(x))
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.out(self.drop(x))


model = DeepNet(3, 32, 3)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=15, gamma=0.5)
loss_fn = nn.MSELoss()

for epoch in range(30):
    model.train()
    perm = torch.randperm(1600)
    for i in range(0, 1600, 64):
        idx = perm[i:i + 64]
        loss = loss_fn(model(X[train][idx]), y[train][idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    if (epoch + 1) % 10 == 0:
        model.eval()
        with torch.no_grad():
            val = loss_fn(model(X[test]), y[test]).item()
        print("epoch {}: train {:.4f} test {:.4f}".format(epoch + 1, loss.item(), val))
