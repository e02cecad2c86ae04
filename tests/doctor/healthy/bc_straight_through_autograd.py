"""Behaviour cloning with a quantised latent; custom autograd function passes the gradient straight through."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class RoundST(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, levels):
        return torch.round(x * levels) / levels

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class QuantPolicy(nn.Module):
    def __init__(self, d, n_act, z=5):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, z))
        self.gate = nn.Linear(d, z)
        self.dec = nn.Sequential(nn.Linear(z, 32), nn.ReLU(), nn.Linear(32, n_act))

    def forward(self, x):
        z = RoundST.apply(torch.tanh(self.enc(x)), 6)
        soft = torch.sigmoid(self.gate(x))
        hard = (soft > 0.5).float()
        return self.dec(z * (hard - soft.detach() + soft))


def expert(s):
    return (s[:, 0] > 0).long() + (s[:, 1] + s[:, 2] > 0.3).long()


def epochs(n, x, y, size):
    for e in range(n):
        for idx in torch.randperm(len(x)).split(size):
            yield e, x[idx], y[idx]


torch.manual_seed(8)
x = torch.randn(1000, 4)
y = expert(x)
policy = QuantPolicy(4, 3)
opt = torch.optim.AdamW(policy.parameters(), lr=3e-3, weight_decay=1e-3)
seen = -1
for e, bx, by in epochs(15, x, y, 50):
    loss = F.cross_entropy(policy(bx), by, label_smoothing=0.02)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if e != seen and e % 5 == 0:
        seen = e
        with torch.inference_mode():
            print(e, "accuracy", (policy(x).argmax(1) == y).float().mean().item())
