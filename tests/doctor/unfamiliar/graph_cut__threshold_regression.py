# Threshold regression: the slope of investment on the interest rate differs between two credit regimes.
# The regime depends on a linear index of three macro indicators; index weights are estimated jointly.
import torch
import torch.nn.functional as F

torch.manual_seed(1994)
T = 800
z = torch.randn(T, 3)                              # spread, leverage, sentiment
r = 2 + torch.randn(T)
tight = z @ torch.tensor([1.0, -0.5, 0.8]) > 0.3
y = torch.where(tight, 4.0 - 1.6 * r, 1.0 - 0.2 * r) + 0.2 * torch.randn(T)

gamma = (0.1 * torch.randn(1, 3)).requires_grad_(True)
kappa = torch.zeros(1, requires_grad=True)
alpha = torch.zeros(2, requires_grad=True)
beta = torch.zeros(2, requires_grad=True)
pars = dict(gamma=gamma, kappa=kappa, alpha=alpha, beta=beta)
solver = torch.optim.RMSprop(list(pars.values()), lr=5e-3)


def fitted(z, r):
    lines = alpha + torch.einsum("t,k->tk", r, beta)
    index = F.linear(z, gamma, kappa).squeeze(1)
    regime = (index > 0).to(lines.dtype)  # expect: graph-cut
    return regime * lines[:, 0] + (1 - regime) * lines[:, 1]


def ssr(idx):
    u = y[idx] - fitted(z[idx], r[idx])
    return torch.dot(u, u) / len(idx)


for sweep in range(120):
    for idx in torch.randperm(T).split(200):
        solver.zero_grad()
        s = ssr(idx)
        s.backward()
        solver.step()
    if sweep % 30 == 29:
        with torch.no_grad():
            share = (F.linear(z, gamma, kappa) > 0).float().mean()
        print(f"sweep {sweep + 1}: s2={s.item():.3f} share tight={share.item():.2f}")

for name, p in pars.items():
    print(name, [round(v, 3) for v in p.detach().flatten().tolist()])
