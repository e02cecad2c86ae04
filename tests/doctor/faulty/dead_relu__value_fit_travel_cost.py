import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

np.random.seed(3)
torch.manual_seed(3)


class Delivery:
    """A courier on a 10x10 map; every street costs something between 0.5 and 2."""

    def __init__(self, size=10):
        self.size = size
        self.cost = np.random.uniform(0.5, 2.0, (size, size))

    def episode(self):
        x, y = np.random.randint(0, self.size, 2)
        out = []
        while (x, y) != (0, 0):
            out.append(((x, y), -self.cost[x, y]))
            if y == 0 or (x > 0 and np.random.rand() < 0.5):
                x -= 1
            else:
                y -= 1
        return out


class ValueNet(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.fc1 = nn.Linear(2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 1)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = F.relu(self.fc3(x))  # expect: dead-relu
        return x.squeeze(-1)


def monte_carlo(env, n):
    xs, gs = [], []
    for _ in range(n):
        g = 0.0
        for pos, r in reversed(env.episode()):
            g = r + g
            xs.append(pos)
            gs.append(g)
    return np.array(xs, dtype=np.float32) / env.size, np.array(gs, dtype=np.float32)


env = Delivery()
net = ValueNet()
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
test_x, test_g = map(torch.from_numpy, monte_carlo(env, 200))

for it in range(400):
    x, g = monte_carlo(env, 12)
    v = net(torch.from_numpy(x))
    loss = F.mse_loss(v, torch.from_numpy(g))
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 80 == 0:
        with torch.no_grad():
            err = (net(test_x) - test_g).abs().mean()
        print("it", it, "loss", round(loss.item(), 3), "test abs error", round(err.item(), 3))
print("value of the far corner:", net(torch.tensor([[0.9, 0.9]])).item())
