"""Clone a PD controller: one shared trunk, one torque head per joint of a six-joint manipulator."""
import argparse

import torch
from torch import nn

ap = argparse.ArgumentParser()
ap.add_argument("--joints", type=int, default=6)
ap.add_argument("--batches", type=int, default=400)
ap.add_argument("--lr", type=float, default=2e-3)
cfg = ap.parse_args()
torch.manual_seed(40)

kp, kd = torch.linspace(8, 2, cfg.joints), torch.linspace(1.0, 0.3, cfg.joints)


def expert(q, dq, ref):
    return (kp * (ref - q) - kd * dq).clamp(-5, 5)


def demos(batch=128):
    while True:
        q, ref = torch.randn(2, batch, cfg.joints).unbind(0)
        dq = 0.5 * torch.randn(batch, cfg.joints)
        yield torch.cat([q, dq, ref], -1), expert(q, dq, ref)


class Controller(nn.Module):
    def __init__(self, J, width=64):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3 * J, width), nn.LayerNorm(width), nn.ELU())
        self.torque = [nn.Linear(width, 1) for _ in range(J)]  # expect: optimizer-mismatch
        self.gain = nn.Parameter(torch.ones(J))

    def forward(self, x):
        z = self.trunk(x)
        return self.gain * torch.cat([head(z) for head in self.torque], -1)


pilot = Controller(cfg.joints)
adam = torch.optim.Adam(pilot.parameters(), lr=cfg.lr)
running = None
for i, (x, tau) in zip(range(cfg.batches), demos()):
    err = pilot(x) - tau
    L = torch.where(err.abs() < 1, 0.5 * err * err, err.abs() - 0.5).sum(-1).mean()
    adam.zero_grad()
    L.backward()
    adam.step()
    running = L.item() if running is None else 0.95 * running + 0.05 * L.item()
    if i % 100 == 0:
        print(f"[{i}] torque loss {running:.3f}  gains {pilot.gain.data.mean():.3f}")
print("per joint RMS:", (pilot(x) - tau).detach().square().mean(0).sqrt().tolist())
