"""Cloning through a discrete bottleneck: straight-through bits, vector quantisation and a custom gradient scale."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class SignSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.abs() <= 1.5).to(g.dtype)


class ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, k):
        ctx.k = k
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return ctx.k * g, None


class Codebook(nn.Module):
    def __init__(self, k, d):
        super().__init__()
        self.e = nn.Embedding(k, d)
        nn.init.normal_(self.e.weight, std=0.5)

    def forward(self, z):
        idx = torch.cdist(z.detach(), self.e.weight.detach()).argmin(1)
        q = self.e(idx)
        commit = F.mse_loss(z, q.detach())
        embed = F.mse_loss(q, z.detach())
        return z + (q - z).detach(), embed + 0.25 * commit, idx


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(5, 48), nn.ReLU(), nn.Linear(48, 16))
        self.book = Codebook(24, 8)
        self.dec = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 3))

    def forward(self, x):
        z = ScaleGrad.apply(self.enc(x), 0.5)
        bits = SignSTE.apply(z[:, :8])
        quant, vq_loss, idx = self.book(z[:, 8:])
        return self.dec(torch.cat([bits, quant], 1)), vq_loss, idx


def teacher(x):
    return (x[:, 0] > x[:, 1]).long() + ((x[:, 2] + x[:, 3]) > 0).long()


torch.manual_seed(17)
net = Student()
opt = torch.optim.Adam(net.parameters(), lr=2e-3)
test_x = torch.randn(1000, 5)
for it in range(700):
    x = torch.randn(128, 5)
    y = teacher(x)
    logits, vq, idx = net(x)
    onehot = F.one_hot(y, 3).float()
    smooth = onehot * 0.95 + 0.05 / 3
    ce = -(smooth * F.log_softmax(logits, 1)).sum(1).mean()
    loss = ce + 0.2 * vq
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 140 == 0 or it == 699:
        with torch.no_grad():
            acc = (net(test_x)[0].argmax(1) == teacher(test_x)).float().mean()
        print(f"{it} ce {ce.item():.3f} acc {acc.item():.3f} codes {idx.unique().numel()}")
