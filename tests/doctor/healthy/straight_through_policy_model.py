"""Differentiable planning: discrete thrusters through a straight-through estimator and a learned dynamics model."""
import torch
from torch import nn, optim

gen = torch.Generator().manual_seed(13)
torch.manual_seed(13)


def true_dynamics(s, u):
    pos, vel = s[:, :1], s[:, 1:]
    vel = 0.9 * vel + 0.2 * u
    return torch.cat([pos + 0.3 * vel, vel], 1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(3, 48), nn.Softplus(), nn.Linear(48, 2))

    def forward(self, s, u):
        return s + self.f(torch.cat([s, u], 1))


class Thruster(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1), nn.Tanh())

    def forward(self, s):
        soft = self.f(s)
        hard = soft.sign()
        return soft + (hard - soft).detach()


model, thruster = Model(), Thruster()
opt_m = optim.Adam(model.parameters(), lr=3e-3)
for k in range(400):
    s = torch.randn(128, 2, generator=gen)
    u = torch.rand(128, 1, generator=gen) * 2 - 1
    loss = nn.functional.mse_loss(model(s, u), true_dynamics(s, u))
    opt_m.zero_grad()
    loss.backward()
    opt_m.step()
print("model error", loss.item())

model.requires_grad_(False)
opt_t = optim.Adam(thruster.parameters(), lr=2e-3)
for k in range(200):
    s = torch.randn(64, 2, generator=gen)
    cost = 0.0
    for _ in range(8):
        s = model(s, thruster(s))
        cost = cost + s[:, 0].pow(2).mean() + 0.1 * s[:, 1].pow(2).mean()
    opt_t.zero_grad()
    cost.backward()
    nn.utils.clip_grad_norm_(thruster.parameters(), 1.0)
    opt_t.step()
    if k % 50 == 49:
        with torch.no_grad():
            e = torch.randn(256, 2, generator=gen)
            for _ in range(8):
                e = true_dynamics(e, thruster(e))
        print(k + 1, "planned cost", round(cost.item(), 3), "real final |pos|", round(e[:, 0].abs().mean().item(), 3))
