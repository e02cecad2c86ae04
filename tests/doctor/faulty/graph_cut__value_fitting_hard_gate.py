"""Fit the discounted value of a piecewise task with a few experts and a gate that picks one of them."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(5)


class Experts(nn.Module):
    def __init__(self, n_experts=4):
        super().__init__()
        self.n = n_experts
        self.gate = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, n_experts))
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1)) for _ in range(n_experts))

    def _scores(self, x):
        return self.gate(x)

    def _weights(self, x):
        scores = F.log_softmax(self._scores(x), dim=-1)
        return F.one_hot(scores.argmax(dim=-1), self.n).float()  # expect: graph-cut

    def _outputs(self, x):
        return torch.cat([e(x) for e in self.experts], dim=-1)

    def forward(self, x):
        return (self._weights(x) * self._outputs(x)).sum(dim=-1)


def rollout_return(x, horizon=20, gamma=0.9):
    g, disc = torch.zeros(len(x)), 1.0
    for _ in range(horizon):
        side = torch.sign(x[:, 0])
        g += disc * (side * x[:, 1] + 0.3 * x[:, 2])
        x = 0.9 * x + 0.05 * torch.randn_like(x)
        disc *= gamma
    return g


def main():
    net = Experts()
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for it in range(400):
        x = torch.randn(128, 3)
        with torch.no_grad():
            ret = rollout_return(x)
        loss = F.mse_loss(net(x), ret)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if it % 100 == 0:
            print(it, loss.item())


main()
