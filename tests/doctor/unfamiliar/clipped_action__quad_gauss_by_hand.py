# altitude hold for a batch of quadrotors; Gaussian policy and its density written out
import math
import torch
import torch.nn as nn

torch.manual_seed(33)
n, T, dt, lim = 128, 16, 0.1, 0.4
LOG2PI = math.log(2 * math.pi)


class Pi(nn.Module):
    def __init__(s):
        super().__init__()
        s.f = nn.Sequential(nn.Linear(2, 32), nn.Tanh())
        s.m = nn.Linear(32, 1)
        s.ls = nn.Parameter(torch.tensor([-0.3]))
        s.v = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(s, x):
        h = s.f(x)
        return s.m(h), s.ls.exp().expand(len(x), 1), s.v(x).squeeze(-1)


def log_gauss(u, m, sd):
    z = (u - m) / sd
    return (-0.5 * z * z - sd.log() - 0.5 * LOG2PI).sum(-1)


def fly(x, u):
    z, vz = x.unbind(1)
    vz = vz + dt * (5.0 * u.squeeze(1) - 0.3 * vz - 0.5)
    z = z + dt * vz
    return torch.stack([z, vz], 1), -(z.square() + 0.1 * vz.square() + 0.1 * u.square().sum(1)).clamp(max=9.0)


brain = Pi()
opt = torch.optim.Adam(brain.parameters(), lr=6e-3)

for it in range(130):
    x = torch.randn(n, 2)
    L, V, R = [], [], []
    for t in range(T):
        m, sd, v = brain(x)
        raw = (m + sd * torch.randn_like(sd)).detach()
        L.append(log_gauss(raw.clamp(-lim, lim), m, sd))  # expect: clipped-action
        V.append(v)
        x, r = fly(x, raw.clamp(-lim, lim))
        R.append(r)
    L, V, R = map(torch.stack, (L, V, R))
    with torch.no_grad():
        acc = brain(x)[2]
    G = torch.empty_like(R)
    for t in range(T - 1, -1, -1):
        acc = R[t] + 0.97 * acc
        G[t] = acc
    adv = (G - V).detach()
    adv = (adv - adv.mean()) / (adv.std() + 1e-6)
    loss = -(L * adv).mean() + 0.5 * (G - V).square().mean()
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([*brain.f.parameters(), *brain.m.parameters(), brain.ls], 1.0)
    opt.step()
    if it % 26 == 0:
        print(f"{it:3d} return {R.sum(0).mean().item():8.3f} sd {brain.ls.exp().item():.3f}")
