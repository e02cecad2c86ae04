import math
import torch
import torch.nn as nn

torch.manual_seed(0)


def real(n):
    k = torch.randint(8, (n,)) * (math.pi / 4)
    return torch.stack([k.cos(), k.sin()], 1) + 0.05 * torch.randn(n, 2)


G = nn.Sequential(nn.Linear(4, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 2))
D = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
og = torch.optim.Adam(G.parameters(), lr=7e-4, betas=(0.0, 0.9))
od = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.0, 0.9))
Gavg = torch.optim.swa_utils.AveragedModel(G, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))


def penalty(x, y):
    m = torch.rand(len(x), 1)
    z = (m * x + (1 - m) * y).requires_grad_(True)
    (g,) = torch.autograd.grad(D(z).sum(), z, create_graph=True)
    return ((g.square().sum(1) + 1e-12).sqrt() - 1).square().mean()


for it in range(260):
    for _ in range(3):
        x, fake = real(128), G(torch.randn(128, 4)).detach()
        critic = D(fake).mean() - D(x).mean()
        loss_d = critic + 1.0 * penalty(x, fake)
        od.zero_grad()
        loss_d.backward()
        od.step()
    loss_g = -D(G(torch.randn(128, 4))).mean()
    og.zero_grad()
    loss_g.backward()
    og.step()
    Gavg.update_parameters(G)
    if it % 40 == 0:
        with torch.no_grad():
            r = Gavg(torch.randn(500, 4)).norm(dim=1)
        print(it, "W estimate", -critic.item(), "radius", r.mean().item(), "+-", r.std().item())
