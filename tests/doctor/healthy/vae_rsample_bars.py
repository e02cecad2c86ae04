"""Variational autoencoder on 8x8 binary 'bars' with the reparametrisation trick."""
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence


def bars(n):
    rows = (torch.rand(n, 8, 1) < 0.2).float()
    cols = (torch.rand(n, 1, 8) < 0.2).float()
    clean = torch.maximum(rows.expand(n, 8, 8), cols.expand(n, 8, 8))
    flip = torch.rand(n, 8, 8) < 0.02
    return torch.where(flip, 1 - clean, clean).flatten(1)


class VAE(nn.Module):
    def __init__(self, latent=12, hidden=96):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 64))

    def posterior(self, x):
        loc, raw = self.encoder(x).chunk(2, dim=-1)
        return Independent(Normal(loc, nn.functional.softplus(raw) + 1e-3), 1)

    def likelihood(self, z):
        return Independent(Bernoulli(logits=self.decoder(z)), 1)

    def elbo(self, x, beta):
        q = self.posterior(x)
        z = q.rsample()
        prior = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
        rec = self.likelihood(z).log_prob(x)
        kl = kl_divergence(q, prior)
        return (rec - beta * kl).mean(), rec.mean().item(), kl.mean().item()


def main():
    torch.manual_seed(17)
    vae = VAE()
    opt = torch.optim.Adam(vae.parameters(), lr=3e-3)
    for step in range(1, 451):
        beta = min(1.0, step / 200)          # KL annealing
        elbo, rec, kl = vae.elbo(bars(64), beta)
        opt.zero_grad()
        (-elbo).backward()
        opt.step()
        if step % 90 == 0:
            with torch.no_grad():
                fantasy = vae.likelihood(torch.randn(100, 12)).sample()
            print(f"step {step} elbo {elbo.item():.2f} rec {rec:.2f} kl {kl:.2f} ink {fantasy.mean().item():.3f}")


main()
