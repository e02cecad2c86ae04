import math

import torch
import torch.nn as nn

torch.manual_seed(19)
n, T, lim, gam = 64, 16, 1.0, 0.96


class Brain(nn.Module):
    def __init__(s, h=32):
        super().__init__()
        s.pi = nn.Sequential(nn.Linear(4, h), nn.Tanh(), nn.Linear(h, 2))
        s.v = nn.Sequential(nn.Linear(4, h), nn.Tanh(), nn.Linear(h, 1))
        s.log_sd = nn.Parameter(torch.full((2,), -0.5))

    def logp(s, x, raw):
        z = (raw - s.pi(x)) * torch.exp(-s.log_sd)
        return (-0.5 * z ** 2 - s.log_sd - 0.5 * math.log(2 * math.pi)).sum(-1)


def rover(x, u):
    vel = 0.8 * x[:, 2:] + 0.4 * u
    pos = x[:, :2] + 0.4 * vel
    return torch.cat([pos, vel], 1), -pos.norm(dim=1) - 0.02 * u.square().sum(1)


@torch.no_grad()
def record(b):
    x, rows = torch.cat([1.5 * torch.randn(n, 2), torch.zeros(n, 2)], 1), []
    for _ in range(T):
        raw = b.pi(x) + b.log_sd.exp() * torch.randn(n, 2)
        x2, r = rover(x, raw.clamp(-lim, lim))          # the motors saturate, the density does not
        rows.append(dict(x=x, raw=raw, lp=b.logp(x, raw), r=r, v=b.v(x)[:, 0]))
        x = x2
    D = {k: torch.stack([row[k] for row in rows]) for k in rows[0]}
    G, acc = [], b.v(x)[:, 0]
    for r in D["r"].flip(0):
        acc = r + gam * acc
        G.insert(0, acc)
    D["G"] = torch.stack(G)
    D["A"] = D["G"] - D["v"]
    return {k: t.flatten(0, 1) for k, t in D.items()}


b = Brain()
o = torch.optim.Adam(b.parameters(), lr=3e-3)
for it in range(36):
    D = record(b)
    for _ in range(2):
        for i in torch.randperm(n * T).split(256):
            m = {k: t[i] for k, t in D.items()}
            A = (m["A"] - m["A"].mean()) / (m["A"].std() + 1e-8)
            ratio = (b.logp(m["x"], m["raw"]) - m["lp"]).exp()
            surr = torch.min(ratio * A, ratio.clamp(0.8, 1.2) * A).mean()
            v_err = (b.v(m["x"])[:, 0] - m["G"]).square().mean()
            o.zero_grad()
            (0.5 * v_err - surr).backward()
            nn.utils.clip_grad_norm_(b.parameters(), 0.5)
            o.step()
    if it % 7 == 0:
        print(f"iter {it} reward/step {D['r'].mean().item():.3f} v_err {v_err.item():.3f} sd {b.log_sd.exp().tolist()}")
