import torch

# learn a potential whose gradient is the force on a probe near two charges, plus a uniform background field

torch.manual_seed(0)


def weights(*shape):
    return (torch.randn(*shape) / shape[0] ** 0.5).requires_grad_(True)


P = {"A": weights(2, 32), "a": torch.zeros(32, requires_grad=True),
     "B": weights(32, 32), "b": torch.zeros(32, requires_grad=True),
     "c": weights(32, 1), "E0": torch.zeros(2, requires_grad=True)}


def phi(x):
    h = torch.tanh(x @ P["A"] + P["a"])
    h = torch.tanh(h @ P["B"] + P["b"])
    return (h @ P["c"]).squeeze(-1)


def force(x, train=True):
    x = x.detach().clone().requires_grad_(True)
    g, = torch.autograd.grad(phi(x).sum(), x, create_graph=train)
    return P["E0"] - g


@torch.no_grad()
def lab(x):
    out = torch.tensor([0.3, -0.2]).expand_as(x).clone()
    for s, at in ((1.0, (0.8, 0.0)), (-1.0, (-0.8, 0.0))):
        d = x - torch.tensor(at)
        out += s * d / (d.square().sum(-1, keepdim=True) + 0.3) ** 1.5
    return out


opt = torch.optim.Adam(P.values(), lr=5e-3)
for k in range(400):
    x = 3 * torch.rand(128, 2) - 1.5
    chi2 = (force(x) - lab(x)).square().sum(-1).mean()
    opt.zero_grad()
    chi2.backward()
    opt.step()
    if k % 80 == 0:
        test = 3 * torch.rand(256, 2) - 1.5
        err = (force(test, train=False).detach() - lab(test)).norm(dim=-1).mean().item()
        print(k, f"chi2 {chi2.item():.4f} held-out {err:.4f}")
print("background", P["E0"].tolist())
