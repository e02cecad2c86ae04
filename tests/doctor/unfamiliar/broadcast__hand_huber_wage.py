import torch
import torch.nn.functional as F

# robust wage equation: log wage ~ f(schooling, experience, tenure), Huber loss spelled out

torch.manual_seed(2)
n = 1500
X = torch.stack([torch.randint(8, 20, (n,)).float(), 30 * torch.rand(n), 10 * torch.rand(n)], 1)
Z = (X - X.mean(0)) / X.std(0)
w = 1.2 + 0.25 * Z[:, 0] + 0.4 * Z[:, 1] - 0.2 * Z[:, 1] ** 2 + 0.1 * torch.distributions.StudentT(3.0).sample((n,))
train, test = torch.arange(n) < 1200, torch.arange(n) >= 1200

theta = {
    "A": torch.randn(20, 3) * 0.5, "a": torch.zeros(20),
    "B": torch.randn(1, 20) * 0.2, "b": torch.zeros(1),
}
for t in theta.values():
    t.requires_grad_(True)


def f(theta, z):
    h = F.gelu(torch.einsum("ij,nj->ni", theta["A"], z) + theta["a"])
    return torch.einsum("ij,nj->ni", theta["B"], h) + theta["b"]


def huber(u, k=0.3):
    v = u.abs()
    return torch.where(v <= k, 0.5 * u ** 2, k * (v - 0.5 * k))


def objective(theta, z, w):
    u = w - f(theta, z)  # expect: broadcast
    return huber(u).mean()


def ridge(theta):
    return sum(theta[k].square().sum() for k in "AB")


opt = torch.optim.RMSprop(list(theta.values()), lr=2e-3)
pool = torch.nonzero(train).squeeze(1)
for epoch in range(60):
    for i in pool[torch.randperm(len(pool))].split(150):
        opt.zero_grad()
        loss = objective(theta, Z[i], w[i]) + 1e-5 * ridge(theta)
        loss.backward()
        opt.step()
    if epoch % 12 == 0:
        with torch.no_grad():
            fit = f(theta, Z[test])[:, 0]
            r2 = 1 - (w[test] - fit).var() / w[test].var()
        print(f"epoch {epoch:2d} huber {loss.item():.4f} out-of-sample R2 {r2.item():.3f}")
