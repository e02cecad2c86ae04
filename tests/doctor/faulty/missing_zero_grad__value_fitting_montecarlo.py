import math
import torch
from torch import nn, optim

torch.manual_seed(17)


def simulate(n, horizon=30, gamma=0.95):
    """Noisy decay towards zero with a cosine reward; Monte-Carlo returns of the start states."""
    x = torch.empty(n, 2).uniform_(-math.pi, math.pi)
    start, g = x.clone(), torch.zeros(n)
    for k in range(horizon):
        g += gamma ** k * torch.cos(x).sum(1)
        x = 0.95 * x + 0.05 * torch.randn_like(x)
    return start, g.unsqueeze(1)


class ValueNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 1)

    def forward(self, x):
        return self.l3(torch.tanh(self.l2(torch.tanh(self.l1(x)))))


net = ValueNet()
optimizer = optim.SGD(net.parameters(), lr=1e-4)
criterion = nn.MSELoss()
history = []
for it in range(400):
    states, returns = simulate(64)
    prediction = net(states)
    loss = criterion(prediction, returns)
    loss.backward()
    optimizer.step()  # expect: missing-zero-grad
    history.append(loss.item())
    if it % 50 == 0:
        print(f"{it:4d}  loss {sum(history[-50:]) / len(history[-50:]):.3f}")

with torch.no_grad():
    s, g = simulate(512)
    print("test", criterion(net(s), g).item())
