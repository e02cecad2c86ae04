"""energy-based model of a two-blob density, persistent Langevin chains"""
import torch
import torch.nn as nn

torch.manual_seed(0)
energy = nn.Sequential(nn.Linear(2, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))
opt = torch.optim.Adam(energy.parameters(), lr=1e-3, betas=(0.5, 0.999))


def data(n):
    c = torch.tensor([[1.0, 1.0], [-1.0, -0.5]])
    return c[torch.randint(2, (n,))] + 0.3 * torch.randn(n, 2)


def langevin(x, steps=8, eps=0.05):
    # moves x, not the weights
    energy.requires_grad_(False)
    x = x.detach().clone()
    for _ in range(steps):
        x.requires_grad_(True)
        g, = torch.autograd.grad(energy(x).sum() + 0.05 * x.square().sum(), x)
        x = (x - eps * g.clamp(-3, 3) + (2 * eps) ** 0.5 * torch.randn_like(x)).detach()
    energy.requires_grad_(True)
    return x


chains = torch.randn(128, 2)
for it in range(260):
    restart = torch.rand(128) < 0.05
    chains[restart] = torch.randn(int(restart.sum()), 2)
    chains = langevin(chains)
    e_pos, e_neg = energy(data(128)), energy(chains)
    loss = e_pos.mean() - e_neg.mean() + 0.05 * (e_pos.square() + e_neg.square()).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 50 == 0 or it == 259:
        with torch.no_grad():
            probe = energy(torch.tensor([[1.0, 1.0], [-1.0, -0.5], [1.0, -1.5], [-2.0, 2.0]])).flatten()
        print(it, "gap", (e_pos.mean() - e_neg.mean()).item(), "probe", [round(v, 2) for v in probe.tolist()])
