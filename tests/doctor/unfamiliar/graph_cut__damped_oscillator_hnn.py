import math

import torch

# phase-space model: dq/dt = dH/dp, dp/dt = -dH/dq - c p, with H a small net and c a positive scalar

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def true_field(x, c=0.15):
    q, p = x.unbind(-1)
    return torch.stack([p, -torch.sin(q) - c * p], -1)


def leapfrogish(f, x, h, n):
    for _ in range(n):
        k = f(x)
        x = x + h * f(x + 0.5 * h * k)
        yield x


def glorot(n, m):
    return (torch.randn(n, m) * math.sqrt(2 / (n + m))).requires_grad_(True)


A, a = glorot(40, 2), torch.zeros(40, requires_grad=True)
B, b = glorot(40, 40), torch.zeros(40, requires_grad=True)
w = glorot(1, 40)
log_c = torch.tensor(-1.0, requires_grad=True)


def H(x):
    h = torch.tanh(x @ A.T + a)
    h = torch.tanh(h @ B.T + b)
    return (h @ w.T).squeeze(-1)


def learned_field(x):
    x = x.detach().requires_grad_(True)
    (g,) = torch.autograd.grad(H(x).sum(), x)  # expect: graph-cut
    dHdq, dHdp = g.unbind(-1)
    return torch.stack([dHdp, -dHdq - torch.exp(log_c) * x[..., 1]], -1)


x0 = 1.5 * torch.randn(16, 2)
with torch.no_grad():
    X = torch.cat(list(leapfrogish(true_field, x0, 0.05, 60)))
    V = true_field(X) + 0.01 * torch.randn_like(X)

opt = torch.optim.Adam([A, a, B, b, w, log_c], lr=4e-3)
for it in range(400):
    i = torch.randint(len(X), (128,))
    chi2 = (learned_field(X[i]) - V[i]).pow(2).sum(-1).mean()
    opt.zero_grad()
    chi2.backward()
    opt.step()
    if it % 100 == 0:
        print(it, float(chi2.detach()), "c =", math.exp(log_c.item()))

print("residual", (learned_field(X) - V).detach().pow(2).mean().item())
