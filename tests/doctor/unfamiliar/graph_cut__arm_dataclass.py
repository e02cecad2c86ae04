"""Learn inverse kinematics of a planar two-link arm by pushing the tip error back through the forward kinematics."""
from dataclasses import dataclass, field

import torch
import torch.nn as nn


@dataclass
class Arm:
    l1: float = 0.7
    l2: float = 0.5
    home: tuple = (0.3, 0.6)
    trace: list = field(default_factory=list)

    def elbow(self, a):
        return self.l1 * torch.cos(a[0]), self.l1 * torch.sin(a[0])

    def hand(self, a):
        ex, ey = self.elbow(a)
        return ex + self.l2 * torch.cos(a[0] + a[1]), ey + self.l2 * torch.sin(a[0] + a[1])

    def tips(self, q):
        pts = [self.hand(a) for a in q]
        return torch.tensor([[x, y] for x, y in pts])  # expect: graph-cut

    def remember(self, e):
        self.trace.append(e.item())


@dataclass
class Bench:
    arm: Arm
    n: int = 24

    def goals(self):
        r = 0.4 + 0.7 * torch.rand(self.n, 1)
        phi = 1.5 * torch.rand(self.n, 1)
        return torch.cat([r * phi.cos(), r * phi.sin()], 1)


torch.manual_seed(7)
arm = Arm()
bench = Bench(arm)
brain = nn.Sequential(nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 2))
log_s = nn.Parameter(torch.zeros(2))          # one noise level per axis, learned along
o = torch.optim.Adam([{"params": brain.parameters()}, {"params": [log_s], "lr": 1e-2}], lr=3e-3)

for k in range(200):
    g = bench.goals()
    q = brain(g) + torch.tensor(arm.home)
    e = arm.tips(q) - g
    nll = (0.5 * e.square() * torch.exp(-2 * log_s) + log_s).sum(1).mean()
    o.zero_grad()
    nll.backward()
    o.step()
    arm.remember(e.detach().norm(dim=1).mean())
    if k % 50 == 0:
        print(f"{k:4d}  tip error {arm.trace[-1]:.3f} m   sigma {log_s.exp().tolist()}")

print("final tip error", sum(arm.trace[-20:]) / 20)
