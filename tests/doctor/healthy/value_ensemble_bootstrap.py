"""Ensemble of value functions with bootstrap masks; TD(0) from a fixed data set of a noisy walk on a circle, hard target copies."""
import copy
import torch
from torch import nn

torch.manual_seed(11)
GAMMA, K = 0.9, 5


class Ensemble(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.members = nn.ModuleList(nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1)) for _ in range(k))
        self.prior = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, k)).requires_grad_(False)

    def forward(self, x):
        return torch.cat([m(x) for m in self.members], 1) + 0.2 * self.prior(x)


def phase(th):
    return torch.stack([th.cos(), th.sin()], 1)


th = torch.rand(3000) * 6.2832
th2 = th + 0.3 + 0.2 * torch.randn(3000)
x, x2 = phase(th), phase(th2)
rew = th2.cos() + 0.1 * torch.randn(3000)
mask = (torch.rand(3000, K) < 0.7).float()

net = Ensemble(K)
lagged = copy.deepcopy(net)
opt = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=2e-3)
for epoch in range(20):
    for idx in torch.randperm(3000).split(75):
        with torch.no_grad():
            y = rew[idx, None] + GAMMA * lagged(x2[idx])
        sq = (net(x[idx]) - y) ** 2 * mask[idx]
        loss = sq.sum() / mask[idx].sum()
        for p in net.parameters():
            p.grad = None
        loss.backward()
        opt.step()
    lagged.load_state_dict(net.state_dict())
    if epoch % 5 == 4:
        with torch.no_grad():
            out = net(x)
        print(f"epoch {epoch + 1} td {loss.item():.4f} spread {out.std(1).mean().item():.4f}")
