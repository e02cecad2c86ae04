import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(7)
np.random.seed(2)

# a piecewise function: left and right of a slanted line the rule is different
X = np.random.uniform(-1, 1, size=(1500, 2)).astype(np.float32)
side = X[:, 0] + 0.5 * X[:, 1] > 0.1
y = np.where(side, 2.0 * X[:, 0] - 1.0, -1.5 * X[:, 1] + 0.5).astype(np.float32)[:, None]
y += 0.05 * np.random.randn(*y.shape).astype(np.float32)
X_train, y_train = torch.from_numpy(X[:1200]), torch.from_numpy(y[:1200])
X_test, y_test = torch.from_numpy(X[1200:]), torch.from_numpy(y[1200:])


class TwoExperts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
        self.left = nn.Linear(2, 1)
        self.right = nn.Linear(2, 1)

    def forward(self, x):
        p = torch.sigmoid(self.gate(x))
        g = (p > 0.5).float()  # expect: graph-cut
        return g * self.right(x) + (1 - g) * self.left(x)


net = TwoExperts()
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
criterion = nn.MSELoss()

for epoch in range(50):
    perm = torch.randperm(len(X_train))
    for i in range(0, len(perm), 100):
        rows = perm[i:i + 100]
        pred = net(X_train[rows])
        loss = criterion(pred, y_train[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
    if (epoch + 1) % 10 == 0:
        with torch.no_grad():
            right = (torch.sigmoid(net.gate(X_test)) > 0.5).float().mean()
            test = criterion(net(X_test), y_test)
        print("epoch %d  train %.4f  test %.4f  right share %.2f" % (epoch + 1, loss.item(), test.item(), right.item()))
