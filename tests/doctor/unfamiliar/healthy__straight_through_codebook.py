"""Sprites to tiles: a discrete bottleneck with hard one-hot codes and soft gradients."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def sprites(n, rng):
    kind = torch.randint(6, (n,), generator=rng)
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 6), indexing="ij")
    bank = torch.stack([xx, yy, xx * yy, xx ** 2 - yy, torch.sin(3 * xx), torch.cos(3 * yy)]).flatten(1)
    return bank[kind] + 0.1 * torch.randn(n, 36, generator=rng)


class Tiles(nn.Module):
    def __init__(self, k=12):
        super().__init__()
        self.eye = nn.Sequential(nn.Linear(36, 48), nn.Tanh(), nn.Linear(48, k))
        self.palette = nn.Parameter(0.1 * torch.randn(k, 36))

    def code(self, x):
        soft = F.softmax(self.eye(x), -1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        return hard + soft - soft.detach(), soft

    def forward(self, x):
        c, soft = self.code(x)
        usage = soft.mean(0)
        return c @ self.palette, (usage * usage.clamp_min(1e-8).log()).sum()


def run(seed=13, steps=400):
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = Tiles()
    opt = torch.optim.Adam(net.parameters(), lr=4e-3)
    for t in range(steps):
        x = sprites(128, rng)
        y, neg_h = net(x)
        loss = (y - x).square().mean() + 0.02 * neg_h
        opt.zero_grad()
        loss.backward()
        opt.step()
        if t % 80 == 0:
            with torch.no_grad():
                used = net.code(x)[0].round().sum(0).gt(0).sum()
            print(f"{t:4d} loss {loss.item():.4f} tiles in use {int(used)}")


run()
