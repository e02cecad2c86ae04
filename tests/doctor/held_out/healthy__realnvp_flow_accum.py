import math
import torch
from torch import nn

torch.manual_seed(2)


class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.flip = flip
        self.st = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 2))
        self.st[2].weight.data.zero_()
        self.st[2].bias.data.zero_()

    def forward(self, x):
        a, b = x.split(1, 1)
        if self.flip:
            a, b = b, a
        s, t = self.st(a).split(1, 1)
        s = 1.5 * torch.tanh(s)
        b = b * s.exp() + t
        y = torch.cat((b, a) if self.flip else (a, b), 1)
        return y, s.squeeze(1)

    def invert(self, y):
        a, b = y.split(1, 1)
        if self.flip:
            a, b = b, a
        s, t = self.st(a).split(1, 1)
        b = (b - t) * (-1.5 * torch.tanh(s)).exp()
        return torch.cat((b, a) if self.flip else (a, b), 1)


def moons(n):
    u = torch.rand(n) * math.pi
    up = torch.rand(n) < 0.5
    x = torch.where(up, u.cos(), 1 - u.cos()) - 0.5
    y = torch.where(up, u.sin(), 0.5 - u.sin()) - 0.25
    return torch.stack([x, y], 1) * 1.5 + 0.08 * torch.randn(n, 2)


flow = nn.ModuleList([Coupling(i % 2 == 1) for i in range(6)])
opt = torch.optim.Adam(flow.parameters(), lr=4e-3)
ACC = 2
for micro in range(2 * 240):
    x, logdet = moons(128), 0.0
    for c in flow:
        x, ld = c(x)
        logdet = logdet + ld
    logp = -0.5 * x.square().sum(1) - math.log(2 * math.pi) + logdet
    (-logp.mean() / ACC).backward()
    if (micro + 1) % ACC == 0:
        nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        opt.step()
        opt.zero_grad()
    if micro % 80 == 0:
        print(micro, "log-likelihood", logp.mean().item())
with torch.no_grad():
    z = torch.randn(5, 2)
    for c in reversed(flow):
        z = c.invert(z)
print(z)
