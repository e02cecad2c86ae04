import torch
import torch.nn.functional as F

# A cart on a rail (position, velocity), three thrust levels; 128 carts in parallel, everything in plain tensors.
g = torch.Generator().manual_seed(11)
n, horizon, gam, lam = 128, 20, 0.97, 0.9


def init():
    rn = lambda *s: torch.randn(*s, generator=g)
    th = {
        "W": rn(32, 2) * 0.7, "c": torch.zeros(32),
        "P": rn(3, 32) * 0.05, "p0": torch.zeros(3),
        "V": rn(1, 32) * 0.05, "v0": torch.zeros(1),
    }
    return {k: t.requires_grad_(True) for k, t in th.items()}


def f(th, s):
    h = torch.tanh(F.linear(s, th["W"], th["c"]))
    return F.log_softmax(F.linear(h, th["P"], th["p0"]), -1), F.linear(h, th["V"], th["v0"])[:, 0]


def world(s, a):
    x, dx = s[:, 0], s[:, 1]
    dx = dx + 0.2 * (a - 1).float() - 0.05 * dx
    x = x + 0.2 * dx
    return torch.stack([x, dx], 1), -(x.abs() + 0.1 * dx.square()).clamp(max=4.0)


def collect(th):
    s = torch.randn(n, 2, generator=g)
    B = {k: [] for k in ("s", "a", "r", "v")}
    with torch.no_grad():
        for _ in range(horizon):
            ell, v = f(th, s)
            a = torch.multinomial(ell.exp(), 1, generator=g)[:, 0]
            s2, r = world(s, a)
            for k, x in zip(("s", "a", "r", "v"), (s, a, r, v)):
                B[k].append(x)
            s = s2
        tail = f(th, s)[1]
    B = {k: torch.stack(x) for k, x in B.items()}
    nxt = torch.cat([B["v"][1:], tail[None]])
    delta, acc, A = B["r"] + gam * nxt - B["v"], torch.zeros(n), []
    for d in delta.flip(0):
        acc = d + gam * lam * acc
        A.insert(0, acc)
    B["A"] = torch.stack(A)
    B["G"] = B["A"] + B["v"]
    return {k: x.flatten(0, 1) for k, x in B.items()}


theta = init()
opt = torch.optim.Adam(list(theta.values()), lr=3e-3)
for epoch in range(120):
    B = collect(theta)
    ell, v = f(theta, B["s"])
    lp = ell.gather(1, B["a"][:, None])[:, 0]
    A = (B["A"] - B["A"].mean()) / (B["A"].std() + 1e-6)
    J_pi = -(lp * A).mean()
    J_v = 0.5 * (B["G"] - B["v"]).square().mean()  # expect: stored-value
    ent = -(ell.exp() * ell).sum(1).mean()
    opt.zero_grad()
    (J_pi + J_v - 3e-3 * ent).backward()
    opt.step()
    if epoch % 30 == 0:
        print(epoch, "reward/step %.3f" % B["r"].mean().item(), "J_v %.3f" % J_v.item(), "v bar %.3f" % v.mean().item())
