import numpy as np
import torch
import torch.nn as nn

np.random.seed(0)
torch.manual_seed(0)

# area in square feet, lot size, year built, rooms
n = 600
area = np.random.uniform(500, 4000, n)
lot = np.random.uniform(1000, 20000, n)
year = np.random.randint(1920, 2020, n)
rooms = np.random.randint(2, 9, n)
price = 0.12 * area + 0.004 * lot + 1.1 * (year - 1920) + 12 * rooms + np.random.normal(0, 10, n)

X = torch.tensor(np.stack([area, lot, year, rooms], axis=1), dtype=torch.float32)
y = torch.tensor(price / 100.0, dtype=torch.float32).unsqueeze(1)


class HouseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 32)
        self.fc2 = nn.Linear(32, 32)
        self.out = nn.Linear(32, 1)

    def forward(self, x):
        h = torch.sigmoid(self.fc1(x))  # expect: saturation
        h = torch.sigmoid(self.fc2(h))
        return self.out(h)


net = HouseNet()
opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
loss_fn = nn.MSELoss()
for epoch in range(40):
    order = np.random.permutation(n)
    losses = []
    for k in range(0, n, 50):
        idx = torch.from_numpy(order[k:k + 50])
        loss = loss_fn(net(X[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    if epoch % 10 == 0:
        print("Epoch", epoch, "loss", np.mean(losses))
