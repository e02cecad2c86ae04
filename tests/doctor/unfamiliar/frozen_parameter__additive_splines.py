"""Additive model y = m + sum_j f_j(x_j), each f_j a bump-basis expansion. House prices, simulated."""
import torch
from torch import nn


class Additive(nn.Module):
    def __init__(self, d, k=12):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))
        self.c = nn.ParameterList([nn.Parameter(0.01 * torch.randn(k)) for _ in range(d)])
        self.slope = nn.Parameter(torch.zeros(d))
        self.register_buffer("knots", torch.linspace(-2.5, 2.5, k))

    def basis(self, x):
        return torch.exp(-2.0 * (x[:, None] - self.knots) ** 2)

    def curve(self, j, x):
        return self.basis(x) @ self.c[j] + self.slope[j] * x

    def forward(self, x):
        return self.level + sum(self.curve(j, x[:, j]) for j in range(x.shape[1]))


def simulate(n, rng):
    x = torch.randn(n, 3, generator=rng)
    y = 5 + torch.sin(2.5 * x[:, 0]) + 0.8 * (x[:, 1] > 0.4) - 0.5 * x[:, 2]
    return x, y + 0.15 * torch.randn(n, generator=rng)


def sweep(model, opt, x, y, rng, rounds):
    for _ in range(rounds):
        i = torch.randint(len(x), (256,), generator=rng)
        u = y[i] - model(x[i])
        pen = sum(torch.diff(c, n=2).square().sum() for c in model.c)
        q = u.square().mean() + 1e-4 * pen
        opt.zero_grad()
        q.backward()
        opt.step()
    return q.item()


rng = torch.Generator().manual_seed(77)
torch.manual_seed(77)
x, y = simulate(3000, rng)
m = Additive(3)
opt = torch.optim.Adam(m.parameters(), lr=5e-2)

# stage one: location and straight lines
for c in m.c:
    c.requires_grad = False  # expect: frozen-parameter
print("stage one ", sweep(m, opt, x, y, rng, 200))

# stage two: the wiggles as well
for group in opt.param_groups:
    group["lr"] = 1e-2
for r in range(5):
    print("stage two ", sweep(m, opt, x, y, rng, 120))

with torch.no_grad():
    grid = torch.linspace(-2, 2, 9)
    for j in range(3):
        print(f"f_{j}:", [round(v, 2) for v in m.curve(j, grid).tolist()])
