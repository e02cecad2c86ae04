"""REINFORCE for an LQR gain: no optimizer object, hand-written density and update."""
import math

import torch

torch.manual_seed(12)
A = torch.tensor([[1.0, 0.1], [0.0, 1.0]])
B = torch.tensor([[0.0], [0.1]])
K = torch.zeros(1, 2, requires_grad=True)
log_std = torch.tensor([-0.5], requires_grad=True)
params, lr = [K, log_std], 0.05


def log_density(a, mu, log_std):
    ls = log_std.clamp(-2.0, 0.5)
    return (-0.5 * ((a - mu) / ls.exp()) ** 2 - ls - 0.5 * math.log(2 * math.pi)).sum(-1)


def simulate(n=64, horizon=20):
    s = torch.randn(n, 2)
    S, U, R = [], [], []
    for _ in range(horizon):
        mu = -torch.einsum("ij,nj->ni", K, s)
        u = mu + log_std.clamp(-2.0, 0.5).exp() * torch.randn_like(mu)
        S.append(s); U.append(u)
        R.append(-(s.square().sum(-1) + 0.05 * u.square().sum(-1)))
        s = s @ A.T + u @ B.T
    return torch.stack(S), torch.stack(U), torch.stack(R)


for it in range(200):
    with torch.no_grad():
        S, U, R = simulate()
    G = R.flip(0).cumsum(0).flip(0)
    adv = (G - G.mean(1, keepdim=True)) / G.std(1, keepdim=True)
    mu = -torch.einsum("ij,tnj->tni", K, S)
    objective = (log_density(U, mu, log_std) * adv).mean()
    objective.backward()
    with torch.no_grad():
        for p in params:
            p += lr * p.grad          # ascent on the objective
            p.grad.zero_()
    if it % 50 == 49:
        print(it + 1, f"return {R.sum(0).mean().item():.2f}", K.detach().numpy().round(3), log_std.item())
