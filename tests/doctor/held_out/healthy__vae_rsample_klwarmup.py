import torch
import torch.nn as nn
from torch.distributions import Normal, Independent, Bernoulli, kl_divergence

torch.manual_seed(1)
S = 8


def bars(n):
    """images of 8x8 with one or two bars"""
    img = torch.zeros(n, S, S)
    i = torch.arange(n)
    img[i, torch.randint(S, (n,))] = 1.0
    on = torch.rand(n) < 0.5
    img[i[on], :, torch.randint(S, (int(on.sum()),))] = 1.0
    return img.flatten(1)


class VAE(nn.Module):
    def __init__(self, z=6):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(S * S, 96), nn.GELU(), nn.Linear(96, 2 * z))
        self.dec = nn.Sequential(nn.Linear(z, 96), nn.GELU(), nn.Linear(96, S * S))
        self.register_buffer("zero", torch.zeros(z))

    def posterior(self, x):
        mu, ls = self.enc(x * 2 - 1).chunk(2, 1)
        return Independent(Normal(mu, ls.clamp(-5, 2).exp()), 1)

    @property
    def prior(self):
        return Independent(Normal(self.zero, torch.ones_like(self.zero)), 1)

    def forward(self, x):
        q = self.posterior(x)
        z = q.rsample()
        rec = Independent(Bernoulli(logits=self.dec(z)), 1).log_prob(x)
        return rec, kl_divergence(q, self.prior)


m = VAE()
opt = torch.optim.Adam(m.parameters(), lr=2e-3)
for it in range(500):
    rec, kl = m(bars(128))
    beta = min(1.0, it / 250)
    elbo = rec - beta * kl
    opt.zero_grad()
    elbo.mean().neg().backward()
    opt.step()
    if it % 100 == 0 or it == 499:
        print(f"{it} rec {rec.mean().item():.2f} kl {kl.mean().item():.2f}")
