import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(42)
np.random.seed(42)

# made-up data: three features, one target
n = 800
x = np.random.randn(n, 3).astype(np.float32)
y = (1.5 * x[:, 0] - x[:, 1] * x[:, 2] + 0.1 * np.random.randn(n)).astype(np.float32)
y = (y - y.mean()) / y.std()

train = TensorDataset(torch.from_numpy(x[:640]), torch.from_numpy(y[:640]))
x_test, y_test = torch.from_numpy(x[640:]), torch.from_numpy(y[640:])
loader = DataLoader(train, batch_size=32, shuffle=True)


class Net(nn.Module):
    def __init__(self, hidden=64):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(3, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 1)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


model = Net()
criterion = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(25):
    running = 0.0
    for xb, yb in loader:
        optimizer.zero_grad()
        pred = model(xb)
        loss = criterion(pred, yb)  # expect: broadcast
        loss.backward()
        optimizer.step()
        running += loss.item()
    if epoch % 5 == 0:
        with torch.no_grad():
            test_pred = model(x_test).squeeze(1)
            test_mse = ((test_pred - y_test) ** 2).mean().item()
        print(f"epoch {epoch} train {running / len(loader):.4f} test {test_mse:.4f}")
