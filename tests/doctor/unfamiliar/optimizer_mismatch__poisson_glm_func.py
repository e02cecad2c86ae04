# count regression by hand: log rate = small net of covariates; parameters are a dict, the model is a pure function
import torch

torch.manual_seed(12)


def draw(n):
    x = torch.randn(n, 5)
    eta = 0.6 * torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] * (x[:, 2] > 0) + 0.3
    return x, torch.poisson(eta.exp())


def fresh(sizes):
    out = {}
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        out[f"w{i}"] = torch.randn(b, a).requires_grad_(True)
        out[f"b{i}"] = torch.zeros(b).requires_grad_(True)
    return out


def eta(theta, x):
    depth = len(theta) // 2
    for i in range(depth):
        x = torch.einsum("oi,ni->no", theta[f"w{i}"], x) + theta[f"b{i}"]
        x = torch.nn.functional.softplus(x) if i < depth - 1 else x
    return x[:, 0]


def deviance(theta, x, y):
    e = eta(theta, x)
    return (e.exp() - y * e).mean()


X, Y = draw(2000)
Xv, Yv = draw(1000)
theta = fresh([5, 24, 24, 1])
opt = torch.optim.Adam(theta.values(), lr=3e-3)

# unit rows make the starting rates comparable between runs
unit = lambda t: t / t.norm(dim=-1, keepdim=True).clamp_min(1e-6)
with torch.no_grad():
    theta = {k: unit(t).requires_grad_(True) if k[0] == "w" else t for k, t in theta.items()}  # expect: optimizer-mismatch

for epoch in range(30):
    for i in torch.randperm(len(X)).split(200):
        opt.zero_grad()
        d = deviance(theta, X[i], Y[i])
        d.backward()
        opt.step()
    if epoch % 6 == 0:
        with torch.no_grad():
            print(f"epoch {epoch:2d} train {d.item():.4f} valid {deviance(theta, Xv, Yv).item():.4f}")
