# first-price auction against uniform rivals; score-function ascent on expected surplus, functional parameters
import torch
import torch.nn.functional as F

gen = torch.Generator().manual_seed(3)
grid = torch.linspace(0, 1, 21)

theta = [torch.randn(24, 1, generator=gen), torch.randn(24, generator=gen),
         0.05 * torch.randn(21, 24, generator=gen), torch.zeros(21)]
theta = [t.requires_grad_(True) for t in theta]
opt = torch.optim.Adam(theta, lr=1e-2, maximize=True)


def ell(theta, v):
    W, w, U, u = theta
    return F.log_softmax(F.linear(torch.tanh(F.linear(4 * v[:, None], W, w)), U, u), dim=-1)


def surplus(v, bid, rivals=2):
    best = torch.rand(len(v), rivals, generator=gen).amax(1)
    return torch.where(bid > best, v - bid, torch.zeros_like(v))


baseline = 0.0
for t in range(600):
    v = torch.rand(256, generator=gen)
    L = ell(theta, v)
    k = torch.multinomial(L.detach().exp(), 1, generator=gen)
    s = surplus(v, grid[k[:, 0]])
    H = -(L.exp() * L).sum(-1).mean()
    J = (L.gather(1, k)[:, 0] * (s - baseline)).mean() + 2e-3 * H
    opt.zero_grad()
    J.backward()
    opt.step()
    baseline = 0.9 * baseline + 0.1 * s.mean().item()
    if t % 100 == 0:
        print(f"{t:4d} surplus {baseline:.4f} entropy {H.item():.3f}")

with torch.no_grad():
    for x in (0.3, 0.6, 0.9):
        p = ell(theta, torch.tensor([x])).exp()[0]
        print(f"value {x}: mean bid {torch.dot(p, grid).item():.3f} (theory {2 * x / 3:.3f})")
